"""The knee phantom is reproducible, varied, and looks like what it says."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from nnunet_softlabel.simulation.knee_phantom import (
    KneeLesions,
    KneePhantom,
    make_knee_phantom,
    phantom_raters,
)
from nnunet_softlabel.simulation.simulated_raters import RATER_REGIMES


@pytest.fixture(scope="module")
def knee() -> KneePhantom:
    return make_knee_phantom(0, lesions=KneeLesions(number=2))


def test_same_seed_same_knee() -> None:
    first, second = make_knee_phantom(5), make_knee_phantom(5)
    for name in ("image", "truth", "bone_mask", "distractors"):
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes()


def test_knees_differ_in_shape_and_place() -> None:
    bones = [make_knee_phantom(seed).bone_mask > 0 for seed in range(4)]
    volumes = {int(bone.sum()) for bone in bones}
    centres = np.array([ndimage.center_of_mass(bone) for bone in bones])
    assert len(volumes) == 4
    assert np.ptp(centres, axis=0).max() > 1


def test_types_and_shapes(knee: KneePhantom) -> None:
    assert knee.image.dtype == np.float32
    assert knee.truth.dtype == knee.bone_mask.dtype == np.uint8
    assert knee.distractors.dtype == np.bool_
    assert {array.shape for array in (knee.image, knee.truth, knee.bone_mask, knee.distractors)} == {
        (24, 64, 64)
    }
    assert knee.spacing_mm == (4.0, 2.0, 2.0)
    assert np.isfinite(knee.image).all()
    assert knee.image.min() >= 0


def test_marrow_is_dark_and_lesions_and_distractors_are_bright(knee: KneePhantom) -> None:
    lesion = knee.truth == 1
    marrow = (knee.bone_mask > 0) & ~ndimage.binary_dilation(lesion, iterations=3) & ~knee.distractors
    assert set(np.unique(knee.bone_mask)) == {0, 1, 2}
    assert np.median(knee.image[lesion]) > 2 * np.median(knee.image[marrow])
    assert np.median(knee.image[knee.distractors]) > np.median(knee.image[lesion])


def test_lesions_lie_in_bone_and_distractors_are_none(knee: KneePhantom) -> None:
    assert (knee.bone_mask[knee.truth == 1] > 0).all()
    assert not knee.truth[knee.distractors].any()


def test_lesions_fade_at_their_edge() -> None:
    sharp, fuzzy = (
        make_knee_phantom(1, noise=0.0, lesions=KneeLesions(number=1, edge_mm=edge)) for edge in (0.5, 8.0)
    )
    rim = sharp.truth & ~ndimage.binary_erosion(sharp.truth)
    np.testing.assert_array_equal(sharp.truth, fuzzy.truth)
    assert fuzzy.image[rim == 1].mean() < 0.9 * sharp.image[rim == 1].mean()


@pytest.mark.parametrize("n_lesions", [0, 1])
def test_number_of_lesions(n_lesions: int) -> None:
    # One irregular lesion may be cut by the bone's outline, but a single one stays one or nearly one piece.
    truth = make_knee_phantom(2, lesions=KneeLesions(number=n_lesions)).truth
    assert truth.any() == (n_lesions > 0)


def test_some_knees_are_healthy() -> None:
    has_lesion = [make_knee_phantom(seed, shape=(8, 24, 24)).truth.any() for seed in range(24)]
    assert 0 < sum(has_lesion) < 24


@pytest.mark.parametrize("fraction", [0.05, 0.01, 0.002])
def test_lesion_fraction_is_met(fraction: float) -> None:
    truth = make_knee_phantom(3, lesions=KneeLesions(fraction=fraction)).truth
    assert truth.mean() == pytest.approx(fraction, abs=1.01 / truth.size)


def test_contrast_and_noise_leave_the_truth_alone() -> None:
    plain = make_knee_phantom(4, lesions=KneeLesions(number=2))
    hidden = make_knee_phantom(4, noise=8.0, lesions=KneeLesions(number=2, contrast=0.0))
    np.testing.assert_array_equal(plain.truth, hidden.truth)


def test_lesion_without_contrast_cannot_be_seen() -> None:
    hidden = make_knee_phantom(4, lesions=KneeLesions(number=2, contrast=0.0))
    none = make_knee_phantom(4, lesions=KneeLesions(number=0))
    np.testing.assert_array_equal(hidden.image, none.image)


def test_two_dimensions() -> None:
    slice_ = make_knee_phantom(0, shape=(96, 80), lesions=KneeLesions(fraction=0.02))
    assert slice_.image.shape == slice_.truth.shape == (96, 80)
    assert slice_.spacing_mm == (128 / 96, 128 / 80)
    assert slice_.truth.mean() == pytest.approx(0.02, abs=1e-3)


def test_spacing_scales_lesions_not_anatomy() -> None:
    coarse = make_knee_phantom(6, lesions=KneeLesions(number=1))
    fine = make_knee_phantom(6, spacing_mm=(2.0, 1.0, 1.0), lesions=KneeLesions(number=1))
    np.testing.assert_array_equal(coarse.bone_mask, fine.bone_mask)
    assert fine.truth.sum() > 3 * coarse.truth.sum()


@pytest.mark.parametrize("regime", RATER_REGIMES)
def test_raters_of_a_regime_make_its_errors(regime: str) -> None:
    missed = added = 0
    for seed in range(10):
        knee = make_knee_phantom(seed, lesions=KneeLesions(number=2))
        drawn = phantom_raters(knee, regime, seed=seed)
        assert drawn.shape == (3, *knee.truth.shape)
        assert drawn.dtype == np.uint8
        assert (drawn != knee.truth).any() or regime in ("missed", "false_positives")
        lesions, number = ndimage.label(knee.truth, structure=np.ones((3, 3, 3)))
        for one in drawn:
            missed += number - len(np.unique(lesions[(one == 1) & (lesions > 0)]))
            marks, n_marks = ndimage.label(one, structure=np.ones((3, 3, 3)))
            added += n_marks - len(np.unique(marks[(marks > 0) & (knee.truth == 1)]))
    assert (missed > 10) == (regime in ("missed", "all"))
    assert (added > 20) == (regime in ("false_positives", "all"))


def test_unknown_regime_is_refused(knee: KneePhantom) -> None:
    with pytest.raises(ValueError, match="regime must be one of boundary, missed"):
        phantom_raters(knee, "tired", seed=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (4,)}, "shape must hold two or three"),
        ({"spacing_mm": (1.0, 1.0)}, "spacing_mm must hold 3"),
        ({"lesions": KneeLesions(number=-1)}, "number must not be negative"),
        ({"lesions": KneeLesions(radius_mm=(5.0, 4.0))}, "in order"),
        ({"lesions": KneeLesions(fraction=0.0)}, "must lie in"),
        ({"lesions": KneeLesions(fraction=0.1, number=0)}, "needs a lesion"),
        ({"lesions": KneeLesions(fraction=0.6)}, "more than bone"),
        ({"lesions": KneeLesions(edge_mm=0.0)}, "edge_mm must be positive"),
    ],
)
def test_wrong_arguments_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_knee_phantom(0, **options)
