"""Anatomical priors: by hand, where they help, and where they must not harm."""

from __future__ import annotations

import json
from functools import reduce
from operator import add

import numpy as np
import pytest

from nnunet_softlabel import priors
from nnunet_softlabel.conversion.one_case.apply_priors import expected_volume_mm3
from nnunet_softlabel.fusion import RaterVotes, mean_vote
from nnunet_softlabel.priors.intensity import IntensityRule, apply_intensity_prior, log_likelihood_ratio
from nnunet_softlabel.priors.lesions import (
    FEWEST_VOXELS,
    LEAST_CONTRAST,
    LesionModel,
    LesionStatistics,
    check_contrast,
    lesion_statistics,
)
from nnunet_softlabel.priors.roi import apply_roi, roi_weights
from nnunet_softlabel.priors.tissue import TissueModel, estimate_tissue, tissue_of_values
from nnunet_softlabel.simulation.knee_phantom import KneeLesions, make_knee_phantom, phantom_raters

UNIT = TissueModel(median=0.0, spread=1.0)
UNIT_MODELS = {"tissue": UNIT, "lesions": LesionModel((2.0,), (1.0,))}


def line(*values: float) -> np.ndarray:
    return np.array([values], dtype=np.float32)


def with_prior(q: np.ndarray, image: np.ndarray, **options: object) -> np.ndarray:
    """The prior on one channel of one row, with unit tissue and lesions at 2 with spread 1."""
    exclusive = bool(options.pop("exclusive", True))
    rule, roi = IntensityRule(**options), np.ones(image.shape, dtype=np.uint8)  # type: ignore[arg-type]
    return apply_intensity_prior(q[None], image, roi, **UNIT_MODELS, rule=rule, exclusive=exclusive)[0]


def test_roi_is_untouched_inside_and_zero_outside() -> None:
    soft = np.full((2, 3, 4), 0.4, dtype=np.float32)
    roi = np.zeros((3, 4), dtype=np.uint8)
    roi[:, :2] = 1
    expected = np.where(roi, soft, 0)
    np.testing.assert_array_equal(apply_roi(soft, [roi], spacing_mm=(1.0, 1.0)), expected)


def test_margin_falls_as_a_cosine_in_mm() -> None:
    # Columns of 2 mm, margin 8 mm: distances 2, 4, 6, 8 mm outside: (1 + cos(pi d / 8)) / 2.
    roi = np.zeros((3, 6), dtype=np.uint8)
    roi[:, :2] = 1
    weights = roi_weights([roi], spacing_mm=(2.0, 2.0), margin_mm=8.0)[0]
    half = np.sqrt(0.5) / 2
    np.testing.assert_allclose(weights, [1, 1, 0.5 + half, 0.5, 0.5 - half, 0], atol=1e-6)


def test_the_largest_weight_counts_where_rois_overlap() -> None:
    left, right = np.array([[1, 1, 0, 0]]), np.array([[0, 1, 1, 0]])
    weights = roi_weights([left, right], spacing_mm=(1.0, 1.0), weights=[0.3, 0.8])
    np.testing.assert_allclose(weights, [[0.3, 0.8, 0.8, 0]])


def test_an_empty_roi_leaves_nothing() -> None:
    soft = np.ones((1, 3, 3), dtype=np.float32)
    assert not apply_roi(soft, [np.zeros((3, 3))], spacing_mm=(1.0, 1.0), margin_mm=5.0).any()


def test_expected_volume_by_hand() -> None:
    # 0.5 + 0.25 and 1.0 voxels of 2 * 3 mm^2.
    soft = np.array([[[0.5, 0.25]], [[0.0, 1.0]]], dtype=np.float32)
    assert expected_volume_mm3(soft, (2.0, 3.0)) == pytest.approx([4.5, 6.0])


def test_tissue_is_not_spoilt_by_lesions_marked_or_missed() -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(100, 10, (100, 100))
    soft = np.zeros((1, 100, 100), dtype=np.float32)
    image[:20] += 200
    soft[0, :10] = 0.4
    tissue = estimate_tissue(image, np.ones((100, 100)), soft)
    assert tissue.median == pytest.approx(100, abs=1)
    assert tissue.spread == pytest.approx(10, abs=1)


def test_tissue_outside_the_roi_does_not_count() -> None:
    image = np.random.default_rng(0).normal(0, 1, (40, 40))
    roi = np.zeros((40, 40))
    roi[:20] = 1
    soft = np.zeros((1, 40, 40), dtype=np.float32)
    assert estimate_tissue(image, roi, soft) == estimate_tissue(np.where(roi, image, 1e6), roi, soft)


def test_tissue_of_a_quantised_image_has_a_spread() -> None:
    image = np.zeros((10, 10))
    image[:3] = 1
    assert estimate_tissue(image, np.ones((10, 10)), np.zeros((1, 10, 10))).spread > 0


def test_lesion_statistics_add_up_over_cases() -> None:
    # 20 voxels at 3 and 20 at 5 in units of the tissue (median 10, spread 2): mean 4, spread 1.
    tissue, roi, soft = TissueModel(10.0, 2.0), np.ones((4, 5)), np.ones((1, 4, 5), dtype=np.float32)
    first = lesion_statistics(np.full((4, 5), 16.0), roi, soft, tissue)
    second = lesion_statistics(np.full((4, 5), 20.0), roi, soft, tissue)
    assert (first + second).model() == LesionModel((4.0,), (1.0,))


def test_lesion_statistics_take_agreed_voxels_of_the_roi_only() -> None:
    soft = np.array([[[1.0, 0.5, 1.0]]], dtype=np.float32)
    statistics = lesion_statistics(line(3, 50, 70), np.array([[1, 1, 0]]), soft, UNIT)
    assert statistics == LesionStatistics((1,), (3.0,), (9.0,))


def test_likelihood_ratio_by_hand() -> None:
    # Equal spreads: (x^2 - (x - 2)^2) / 2 = 2 x - 2.
    x = np.array([-1.0, 1.0, 3.0])
    np.testing.assert_allclose(log_likelihood_ratio(x, 2.0, 1.0), [-4, 0, 4])
    np.testing.assert_allclose(log_likelihood_ratio(x, -2.0, 1.0, direction="darker"), [0, -4, -8])


@pytest.mark.parametrize("spread", [0.5, 1.0, 3.0])
def test_brighter_never_counts_less(spread: float) -> None:
    x = np.linspace(-20, 20, 401)
    assert (np.diff(log_likelihood_ratio(x, 2.0, spread)) >= 0).all()
    assert (np.diff(log_likelihood_ratio(x, -2.0, spread, direction="darker")) <= 0).all()


def test_posterior_by_hand() -> None:
    # llr = 2 x - 2 is 1 at x = 1.5: odds 1/3 * e, and at strength 2 times e^2.
    q, image = line(0.25), line(1.5)
    expected = np.exp(1) / 3 / (1 + np.exp(1) / 3)
    assert with_prior(q, image) == pytest.approx(expected)
    assert with_prior(q, image, exclusive=False) == pytest.approx(expected)
    expected = np.exp(2) / 3 / (1 + np.exp(2) / 3)
    assert with_prior(q, image, strength=2.0) == pytest.approx(expected)


def test_no_strength_changes_nothing_inside_the_roi() -> None:
    q = line(0, 0.2, 0.7, 1)
    np.testing.assert_allclose(with_prior(q, line(-9, 9, -9, 9), strength=0.0), q, atol=1e-6)


def test_unmarked_never_becomes_certain_and_unanimous_never_vanishes() -> None:
    # logit(0.99) = 4.595; evidence is cut at 3: sigmoid(-1.595) = 0.169, sigmoid(1.595) = 0.831.
    q, image = line(0, 0, 1, 1), line(1e3, -1e3, 1e3, -1e3)
    changed = with_prior(q, image, raises_unmarked=True)
    np.testing.assert_allclose(changed, line(0.169, 0, 1, 0.831), atol=1e-3)
    np.testing.assert_allclose(with_prior(q, image), line(0, 0, 1, 0.831), atol=1e-3)


def test_asked_for_intensity_overrules_all_raters() -> None:
    assert (with_prior(line(0), line(1e3), most_evidence=8.0, raises_unmarked=True) > 0.9).all()


def test_outside_the_roi_is_zero() -> None:
    soft = np.full((1, 1, 2), 0.5, dtype=np.float32)
    roi = np.array([[True, False]])
    changed = apply_intensity_prior(soft, line(1, 1), roi, **UNIT_MODELS)
    np.testing.assert_allclose(changed[0], [[0.5, 0]])


def test_classes_compete_by_bayes_rule() -> None:
    # x = 2: llr of class one (mean 2) is 2, of class two (mean 1, spread 1): x - 0.5 = 1.5.
    soft = np.array([[[0.2]], [[0.3]]], dtype=np.float32)
    model = LesionModel((2.0, 1.0), (1.0, 1.0))
    weights = np.array([0.2 * np.exp(2), 0.3 * np.exp(1.5)])
    changed = apply_intensity_prior(soft, line(2), np.ones((1, 1)), tissue=UNIT, lesions=model)
    np.testing.assert_allclose(changed.ravel(), weights / (weights.sum() + 0.5), rtol=1e-5)


def test_each_region_has_bayes_rule_for_itself() -> None:
    soft = np.array([[[0.6]], [[0.3]]], dtype=np.float32)
    model = LesionModel((2.0, 1.0), (1.0, 1.0))  # at 2 the ratios are 2 and 1.5, as above
    changed = apply_intensity_prior(
        soft, line(2), np.ones((1, 1)), tissue=UNIT, lesions=model, exclusive=False
    )
    odds = np.array([0.6 / 0.4 * np.exp(2), 0.3 / 0.7 * np.exp(1.5)])
    np.testing.assert_allclose(changed.ravel(), odds / (1 + odds), rtol=1e-5)


@pytest.mark.parametrize("exclusive", [True, False])
def test_random_labels_stay_probabilities(exclusive: bool) -> None:
    rng = np.random.default_rng(0)
    soft = rng.dirichlet([0.2, 0.2, 0.2], (9, 9)).transpose(2, 0, 1)[:2].astype(np.float32)
    soft[:, :3], soft[0, 3:5], soft[1, 3:5] = 0, 1, 0
    model = LesionModel((2.0, 3.0), (1.0, 2.0))
    changed = apply_intensity_prior(
        soft, rng.normal(0, 4, (9, 9)), np.ones((9, 9)), tissue=UNIT, lesions=model, exclusive=exclusive
    )
    assert changed.dtype == np.float32
    assert changed.min() >= 0
    assert changed.max() <= 1
    if exclusive:
        assert changed.sum(axis=0).max() <= 1 + 1e-6


def knees_with_priors(contrast: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, mean vote, and mean vote with both priors of twelve knees whose raters miss most lesions."""
    knees = [make_knee_phantom(seed, lesions=KneeLesions(contrast=contrast, number=2)) for seed in range(12)]
    means, tissues = [], []
    for seed, knee in enumerate(knees):
        votes = phantom_raters(knee, "all", seed=seed)[:, None] == 1
        means.append(mean_vote(RaterVotes(votes, ("a", "b", "c"), knee.spacing_mm)))
    in_bone = [
        apply_roi(q, [k.bone_mask], spacing_mm=k.spacing_mm) for q, k in zip(means, knees, strict=True)
    ]
    pairs = list(zip(knees, in_bone, strict=True))
    tissues = [estimate_tissue(k.image, k.bone_mask, q) for k, q in pairs]
    lesions = reduce(
        add,
        (lesion_statistics(k.image, k.bone_mask, q, t) for (k, q), t in zip(pairs, tissues, strict=True)),
    ).model()
    after = [
        apply_intensity_prior(q, k.image, k.bone_mask, tissue=t, lesions=lesions)
        for (k, q), t in zip(pairs, tissues, strict=True)
    ]
    return np.stack([k.truth for k in knees]), np.concatenate(means), np.concatenate(after)


def dice(truth: np.ndarray, q: np.ndarray) -> float:
    return 2 * (truth * (q > 0.5)).sum() / (truth.sum() + (q > 0.5).sum())


def test_bright_lesions_that_most_raters_miss_are_recovered() -> None:
    truth, before, after = knees_with_priors(contrast=1.0)
    assert dice(truth, after) > dice(truth, before) + 0.1
    assert ((after - truth) ** 2).mean() < 0.8 * ((before - truth) ** 2).mean()


def test_lesions_as_dark_as_their_tissue_are_refused() -> None:
    with pytest.raises(ValueError, match="not brighter than their tissue: they lie"):
        knees_with_priors(contrast=0.0)


@pytest.mark.parametrize(("mean", "direction"), [(0.99, "brighter"), (-0.99, "darker"), (2.0, "darker")])
def test_lesions_less_than_a_spread_from_their_tissue_are_refused(mean: float, direction: str) -> None:
    with pytest.raises(ValueError, match=rf"not {direction} than .*: they lie {mean:.2f} of its spreads"):
        check_contrast(mean, direction)  # type: ignore[arg-type]
    check_contrast(LEAST_CONTRAST, "brighter")
    check_contrast(-LEAST_CONTRAST, "darker")


def test_dark_lesions_are_refused_as_brighter_and_recovered_as_darker() -> None:
    with pytest.raises(ValueError, match="not brighter than their tissue"):
        log_likelihood_ratio(line(0), -2.0, 1.0)
    roi = np.ones((1, 2))
    changed = apply_intensity_prior(
        line(0.3, 0.3)[None],
        line(-3, 0),
        roi,
        tissue=UNIT,
        lesions=LesionModel((-2.0,), (1.0,)),
        rule=IntensityRule(direction="darker"),
    )
    assert changed[0, 0, 0] > 0.5 > 0.3 > changed[0, 0, 1]


def test_the_package_hands_on_both_priors() -> None:
    assert {name for name in priors.__all__ if name.startswith("apply_")} == {
        "apply_roi",
        "apply_intensity_prior",
    }


@pytest.mark.parametrize(
    ("rois", "options", "message"),
    [
        ([], {}, "one ROI at least"),
        ([np.ones((2, 2))], {"weights": [1.0, 0.5]}, "one per ROI"),
        ([np.ones((2, 2))], {"weights": [1.5]}, r"must lie in \[0, 1\]"),
        ([np.ones((2, 2))], {"margin_mm": -1.0}, "margin_mm must not be negative"),
        ([np.ones((2, 2)), np.ones((3, 2))], {}, "the ROI has shape"),
        ([np.ones((3, 2))], {}, "the ROI has shape"),
    ],
)
def test_wrong_rois_are_refused(rois: list[np.ndarray], options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        apply_roi(np.ones((1, 2, 2), dtype=np.float32), rois, spacing_mm=(1.0, 1.0), **options)


def test_wrong_tissue_is_refused() -> None:
    soft = np.zeros((1, 9, 9), dtype=np.float32)
    with pytest.raises(ValueError, match="only 0 voxels of the ROI are normal tissue"):
        estimate_tissue(np.ones((9, 9)), np.ones((9, 9)), soft + 1)
    with pytest.raises(ValueError, match="no spread"):
        estimate_tissue(np.ones((9, 9)), np.ones((9, 9)), soft)
    with pytest.raises(ValueError, match="the image has shape"):
        estimate_tissue(np.ones((9, 8)), np.ones((9, 9)), soft)


def test_too_few_agreed_voxels_are_refused() -> None:
    few = LesionStatistics((3,), (9.0,), (27.0,))
    with pytest.raises(ValueError, match=r"raters agree on \[3\] voxels"):
        few.model()
    with pytest.raises(ValueError, match="cases differ in channels"):
        few + LesionStatistics((3, 3), (9.0, 9.0), (27.0, 27.0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"certainty": 0.4}, "certainty must lie in"),
        ({"strength": -1.0}, "strength must not be negative"),
        ({"most_evidence": 0.0}, "most_evidence positive"),
        ({"direction": "redder"}, "direction must be"),
    ],
)
def test_wrong_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        with_prior(line(0.5), line(1.0), **options)


def test_a_model_of_other_channels_is_refused() -> None:
    soft, roi = np.zeros((2, 1, 1), dtype=np.float32), np.ones((1, 1))
    with pytest.raises(ValueError, match="the lesion model has 1 channels, the soft label 2"):
        apply_intensity_prior(soft, line(1), roi, **UNIT_MODELS)


def test_a_certain_voxel_is_opened_by_weak_evidence_against_it_and_by_no_other() -> None:
    weak = with_prior(line(1.0), line(0.9))  # 2 x - 2 = -0.2
    assert 0.5 < weak[0, 0] < IntensityRule().certainty
    assert with_prior(line(1.0), line(1.1))[0, 0] == 1


def test_as_many_agreed_voxels_as_are_needed_make_a_model() -> None:
    n = FEWEST_VOXELS
    assert LesionStatistics((n,), (3.0 * n,), (10.0 * n,)).model().mean == (3.0,)
    with pytest.raises(ValueError, match=f"needs {n} of each"):
        LesionStatistics((n - 1,), (3.0 * n,), (10.0 * n,)).model()


def test_statistics_come_back_from_json() -> None:
    found = LesionStatistics((50, 60), (1.5, 2.5), (3.5, 4.5))
    assert LesionStatistics.from_json(json.loads(json.dumps(found.to_json()))) == found


@pytest.mark.parametrize(
    "options",
    [
        {"certainty": 0.5},
        {"certainty": 1.0},
        {"strength": np.inf},
        {"strength": np.nan},
        {"most_evidence": np.inf},
    ],
)
def test_limits_that_make_no_rule_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match="must"):
        with_prior(line(0.5), line(1.0), **options)


def test_tissue_is_cut_at_three_spreads_until_none_is_left() -> None:
    # -10, ..., 10 five times: median 0, MAD 5, spread 7.41, so that 22.2 is the limit
    values = np.tile(np.arange(-10.0, 11.0), 5)
    expected = TissueModel(0.0, 1.4826 * 5)
    assert tissue_of_values(values) == expected
    assert tissue_of_values(np.append(values, [23.0, -23.0, 900.0, -900.0])) == expected
    kept = tissue_of_values(np.append(values, [22.0, -22.0] * 2))
    assert kept.spread == pytest.approx(1.4826 * np.median(np.abs(np.append(values, [22.0] * 4))))
    assert tissue_of_values(np.append(values, [16.0, -16.0]), cut=2.0) == expected


def test_twenty_voxels_of_tissue_are_enough() -> None:
    values = np.arange(20.0)
    assert tissue_of_values(values).median == 9.5
    with pytest.raises(ValueError, match="only 19 voxels of the ROI are normal tissue; 20 are needed"):
        tissue_of_values(values[:19])


def test_what_counts_as_marked_may_be_set() -> None:
    soft = np.zeros((2, 1, 60), np.float32)
    soft[0, 0, :20], soft[1, 0, 20:40] = 0.2, 0.5
    image, roi = np.arange(60.0)[None], np.ones((1, 60))
    assert estimate_tissue(image, roi, soft).median == 49.5
    assert estimate_tissue(image, roi, soft, exclude_above=0.2).median == np.median(
        [*range(20), *range(40, 60)]
    )
    assert estimate_tissue(image, roi, soft, exclude_above=0.5).median == 29.5


def test_more_than_half_must_agree_or_what_is_asked_for() -> None:
    soft, image, roi = np.array([[[0.4, 0.5, 0.6, 1.0]]]), line(1, 2, 4, 8), np.ones((1, 4))
    assert lesion_statistics(image, roi, soft, UNIT) == LesionStatistics((2,), (12.0,), (80.0,))
    assert lesion_statistics(image, roi, soft, UNIT, agreed_above=0.4).total == (14.0,)


def test_lesions_without_a_spread_get_a_quarter_of_the_tissues() -> None:
    assert LesionStatistics((40,), (120.0,), (360.0,)).model() == LesionModel((3.0,), (0.25,))


@pytest.mark.parametrize("margin_mm", [np.inf, np.nan])
def test_a_margin_without_end_is_refused(margin_mm: float) -> None:
    with pytest.raises(ValueError, match="margin_mm"):
        roi_weights([np.ones((2, 2))], spacing_mm=(1.0, 1.0), margin_mm=margin_mm)


def test_wide_lesions_keep_the_ratio_of_the_turning_point_beyond_it() -> None:
    # spread 2: x^2 / 2 - (x - 2)^2 / 8 - log 2 is least at x = -2/3; spread 1/2: greatest at x = 8/3
    turn = np.array([-2 / 3, -5.0, 8 / 3, 5.0])
    wide = log_likelihood_ratio(turn[:2], 2.0, 2.0)
    np.testing.assert_allclose(wide, [2 / 9 - 8 / 9 - np.log(2)] * 2, rtol=1e-12)
    narrow = log_likelihood_ratio(turn[2:], 2.0, 0.5)
    np.testing.assert_allclose(narrow, [32 / 9 - 8 / 9 + np.log(2)] * 2, rtol=1e-12)
