"""Simulated raters make the errors they are asked for, no others, and as often."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from nnunet_softlabel.simulation.simulated_raters import (
    RATER_REGIMES,
    RaterSkill,
    simulate_raters,
    smooth_unit_field,
)

SPACING_MM = (2.0, 1.0)


@pytest.fixture
def many_lesions() -> np.ndarray:
    """400 lesions of 3 x 3 voxels on a lattice."""
    truth = np.zeros((200, 200), dtype=np.uint8)
    for row in range(3):
        for column in range(3):
            truth[4 + row :: 10, 4 + column :: 10] = 1
    return truth


@pytest.fixture
def ball() -> np.ndarray:
    """A ball of radius 30 mm on a grid of 1 mm."""
    offset = np.indices((81, 81, 81)) - 40
    return ((offset**2).sum(axis=0) <= 30**2).astype(np.uint8)


def found(truth: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    lesions, number = ndimage.label(truth)
    return ndimage.maximum(drawn != 0, lesions, np.arange(1, number + 1)) > 0


def test_a_perfect_rater_draws_the_truth(many_lesions: np.ndarray) -> None:
    drawn = simulate_raters(many_lesions, spacing_mm=SPACING_MM, raters=[RaterSkill()], seed=0)
    np.testing.assert_array_equal(drawn[0], many_lesions)
    assert drawn.dtype == many_lesions.dtype


def test_same_seed_same_maps(many_lesions: np.ndarray) -> None:
    options = {"spacing_mm": SPACING_MM, "raters": RATER_REGIMES["all"], "correlation": 0.5}
    first = simulate_raters(many_lesions, seed=3, **options)
    np.testing.assert_array_equal(simulate_raters(many_lesions, seed=3, **options), first)
    assert (simulate_raters(many_lesions, seed=4, **options) != first).any()


def test_sensitivity_is_the_share_of_lesions_found(many_lesions: np.ndarray) -> None:
    raters = [RaterSkill(sensitivity=s) for s in (0.2, 0.9)]
    drawn = simulate_raters(many_lesions, spacing_mm=SPACING_MM, raters=raters, seed=0)
    # 400 lesions: one standard error is at most 0.02.
    assert found(many_lesions, drawn[0]).mean() == pytest.approx(0.2, abs=0.06)
    assert found(many_lesions, drawn[1]).mean() == pytest.approx(0.9, abs=0.05)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 1.0])
def test_correlated_raters_miss_the_same_lesions(many_lesions: np.ndarray, correlation: float) -> None:
    raters = [RaterSkill(sensitivity=0.5)] * 2
    drawn = simulate_raters(
        many_lesions, spacing_mm=SPACING_MM, raters=raters, seed=1, correlation=correlation
    )
    both = found(many_lesions, drawn[0]) & found(many_lesions, drawn[1])
    # Both above the median of a bivariate normal of that correlation: 1/4 + arcsin(correlation) / (2 pi).
    expected = 0.25 + np.arcsin(correlation) / (2 * np.pi)
    assert both.mean() == pytest.approx(expected, abs=0.07)


def test_bias_moves_the_outline(ball: np.ndarray) -> None:
    raters = [RaterSkill(boundary_bias_mm=bias) for bias in (-3.0, 3.0)]
    drawn = simulate_raters(ball, spacing_mm=(1.0,) * 3, raters=raters, seed=0)
    radius = [np.cbrt(map_.sum() / (4 / 3 * np.pi)) for map_ in drawn]
    assert radius == pytest.approx([27.0, 33.0], abs=0.3)


def test_jitter_has_the_stated_spread(ball: np.ndarray) -> None:
    raters = [RaterSkill(boundary_jitter_mm=2.0, jitter_length_mm=8.0)]
    drawn = simulate_raters(ball, spacing_mm=(1.0,) * 3, raters=raters, seed=0)[0]
    # Radius along each of the six axes' directions and many more: the length of each ray inside the drawing.
    directions = np.random.default_rng(0).normal(size=(500, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    steps = np.arange(15, 40, 0.1)
    points = 40 + directions.T[:, :, None] * steps
    inside = ndimage.map_coordinates(drawn.astype(float), points, order=1) > 0.5
    radius = 15 + 0.1 * inside.sum(axis=1)
    assert radius.mean() == pytest.approx(30, abs=0.7)
    assert radius.std() == pytest.approx(2.0, abs=0.5)


def test_jitter_field_has_unit_variance_everywhere() -> None:
    noise = np.random.default_rng(0).standard_normal((3000, 12, 5))
    fields = np.stack([smooth_unit_field(n, (1.0, 3.0), 4.0) for n in noise])
    np.testing.assert_allclose(fields.std(axis=0), 1, atol=0.06)


def test_number_of_false_positives_is_poisson_with_the_stated_mean() -> None:
    empty = np.zeros((64, 64), dtype=np.uint8)
    raters = [RaterSkill(false_positives=n, false_positive_radius_mm=0.1) for n in (2.0, 1.0)]
    counts = np.array(
        [
            simulate_raters(empty, spacing_mm=(1.0, 1.0), raters=raters, seed=seed, correlation=0.5).sum(
                (1, 2)
            )
            for seed in range(800)
        ]
    )
    # One voxel each, rarely twice the same; standard errors 0.05 and 0.035.
    np.testing.assert_allclose(counts.mean(axis=0), [2, 1], atol=0.15)
    np.testing.assert_allclose(counts.var(axis=0), [2, 1], atol=0.35)
    # Common ones: a pool of 2, taken with 0.5 and 0.25 independently: covariance 2 * 0.5 * 0.25.
    assert np.cov(counts.T)[0, 1] == pytest.approx(0.25, abs=0.15)


def test_false_positives_lie_in_their_roi_and_never_on_the_truth(many_lesions: np.ndarray) -> None:
    roi = np.zeros(many_lesions.shape, dtype=bool)
    roi[:, :50] = True
    raters = [RaterSkill(sensitivity=0.0, false_positives=20, false_positive_radius_mm=3.0)]
    drawn = simulate_raters(
        many_lesions, spacing_mm=SPACING_MM, raters=raters, seed=0, false_positive_roi=roi
    )[0]
    assert drawn.any()
    assert not drawn[many_lesions != 0].any()
    # Centres within the first 50 columns, radii up to 1.3 * 3 mm of 1 mm columns.
    assert not drawn[:, 54:].any()


def test_false_positives_have_the_stated_size() -> None:
    empty = np.zeros((60, 60, 60), dtype=np.uint8)
    raters = [RaterSkill(false_positives=1.0, false_positive_radius_mm=6.0)]
    volumes = []
    for seed in range(60):
        labels, number = ndimage.label(
            simulate_raters(
                empty,
                spacing_mm=(1.0,) * 3,
                raters=raters,
                seed=seed,
                false_positive_roi=np.pad(np.ones((40,) * 3, bool), 10),
            )[0]
        )
        volumes += [(labels == 1).sum()] if number == 1 else []
    radius = np.cbrt(np.array(volumes) / (4 / 3 * np.pi))
    assert radius.min() > 0.7 * 6 - 0.5
    assert np.median(radius) == pytest.approx(6.0, abs=0.6)


def test_classes_keep_their_labels_and_their_shared_outline_jitters() -> None:
    truth = np.zeros((60, 60), dtype=np.int16)
    truth[10:50, 10:30], truth[10:50, 30:50] = 2, 5
    raters = [
        RaterSkill(),
        RaterSkill(boundary_jitter_mm=1.5),
        RaterSkill(sensitivity=0.0, false_positives=9),
    ]
    drawn = simulate_raters(truth, spacing_mm=(1.0, 1.0), raters=raters, seed=0)
    np.testing.assert_array_equal(drawn[0], truth)
    # Rows 15 to 45 only: there the outline between the classes is straight and far from the outer one.
    border = (drawn[1][15:45, 10:50] == 2).sum(axis=1) - 20
    assert 0.4 < border.std() < 2.5
    assert set(np.unique(drawn)) == {0, 2, 5}


def test_a_found_lesion_keeps_a_voxel_however_tightly_it_is_drawn(many_lesions: np.ndarray) -> None:
    raters = [RaterSkill(boundary_bias_mm=-9.0)]
    drawn = simulate_raters(many_lesions, spacing_mm=SPACING_MM, raters=raters, seed=0)[0]
    assert found(many_lesions, drawn).all()
    assert drawn.sum() == 400


def test_nothing_to_draw_stays_nothing() -> None:
    empty = np.zeros((5, 5), dtype=np.uint8)
    raters = [RaterSkill(boundary_jitter_mm=1.0)]
    assert not simulate_raters(empty, spacing_mm=(1.0, 1.0), raters=raters, seed=0).any()


@pytest.mark.parametrize(
    ("skill", "message"),
    [
        ({"sensitivity": 1.1}, "sensitivity must lie in"),
        ({"false_positives": -1}, "must not be negative"),
        ({"boundary_jitter_mm": -1}, "must not be negative"),
        ({"false_positive_radius_mm": 0}, "must be positive"),
        ({"jitter_length_mm": 0}, "must be positive"),
    ],
)
def test_impossible_skills_are_refused(skill: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RaterSkill(**skill)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"truth": np.zeros((4, 4))}, "integer labels"),
        ({"spacing_mm": (1.0,)}, "spacing_mm must hold 2"),
        ({"raters": []}, "at least one rater"),
        ({"correlation": 2.0}, "correlation must lie in"),
        ({"false_positive_roi": np.ones((3, 3), dtype=bool)}, "false_positive_roi has shape"),
    ],
)
def test_wrong_arguments_are_refused(change: dict, message: str) -> None:
    valid = {
        "truth": np.zeros((4, 4), dtype=np.uint8),
        "spacing_mm": (1.0, 1.0),
        "raters": [RaterSkill()],
        "seed": 0,
    }
    with pytest.raises(ValueError, match=message):
        simulate_raters(**(valid | change))
