"""Distances and shape-based averaging, on lines and discs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import ndimage

from nnunet_softlabel.fusion import RaterVotes, shape_based_average
from nnunet_softlabel.fusion.distance import distance_to_mm, signed_distance_mm

Maker = Callable[..., RaterVotes]


@pytest.mark.parametrize("shape", [(20, 30), (6, 20, 30), (1, 20, 30)])
def test_distance_equals_scipy(shape: tuple[int, ...]) -> None:
    mask = np.random.default_rng(0).random(shape) < 0.02
    spacing_mm = (2.5, 1.0, 0.7)[-len(shape) :]
    expected = ndimage.distance_transform_edt(~mask, sampling=spacing_mm)
    np.testing.assert_allclose(distance_to_mm(mask, spacing_mm), expected, atol=1e-5)


def test_signed_distance_by_hand() -> None:
    # Columns of 2 mm: the outline lies midway between columns 1 and 2.
    mask = np.array([[True, True, False, False]] * 2)
    np.testing.assert_allclose(signed_distance_mm(mask, (2.0, 2.0)), [[-3, -1, 1, 3]] * 2)


def test_distance_without_an_outline_is_infinite() -> None:
    empty = np.zeros((3, 4), dtype=bool)
    assert (signed_distance_mm(empty, (1.0, 1.0)) == np.inf).all()
    assert (signed_distance_mm(~empty, (1.0, 1.0)) == -np.inf).all()
    assert (distance_to_mm(empty, (1.0, 1.0)) == np.inf).all()


def disc(radius: float, size: int = 41) -> np.ndarray:
    offset = np.indices((size, size)) - size // 2
    return (offset**2).sum(axis=0) <= radius**2


def test_average_of_two_discs_is_the_disc_between() -> None:
    raters = RaterVotes(np.stack([disc(6), disc(12)])[:, None], ("a", "b"), (1.0, 1.0))
    soft = shape_based_average(raters, slope_mm=1e-3)[0]
    assert np.mean((soft > 0.5) != disc(9)) < 0.02
    assert soft.sum() == pytest.approx(disc(9).sum(), rel=0.06)


def test_slope_is_the_half_width_of_the_edge(votes_of: Maker) -> None:
    # One rater, columns of 1 mm, outline between columns 3 and 4: distances -0.5, 0.5, 1.5, 2.5 from column 3
    # on. With a slope of 2 mm: 1/2 - d / 4.
    raters = votes_of([[[1, 1, 1, 1, 0, 0, 0, 0]] * 2])
    expected = [1, 1, 0.5 + 1.5 / 4, 0.5 + 0.5 / 4, 0.5 - 0.5 / 4, 0.5 - 1.5 / 4, 0, 0]
    np.testing.assert_allclose(shape_based_average(raters, slope_mm=2.0)[0], [expected] * 2, atol=1e-6)


def test_spacing_counts() -> None:
    # Two raters whose outlines are 4 columns apart; columns of 2 mm, so the mean outline is 4 mm from either.
    votes = np.zeros((2, 1, 3, 40), dtype=bool)
    votes[0, ..., :10], votes[1, ..., :14] = True, True
    raters = RaterVotes(votes, ("a", "b"), (2.0, 2.0))
    # Column 11 has distances 3 and -5 mm, mean -1; column 12: 5 and -3, mean 1; slope 4: 1/2 +- 1/8.
    soft = shape_based_average(raters, slope_mm=4.0)
    np.testing.assert_allclose(soft[0, 1, 11:13], [0.625, 0.375], atol=1e-6)


def test_one_who_missed_does_not_outvote_two_by_more_than_the_cut() -> None:
    votes = np.stack([disc(8), disc(8), np.zeros_like(disc(8))])[:, None]
    raters = RaterVotes(votes, ("a", "b", "c"), (1.0, 1.0))
    # At the centre the two have -8 mm (to the nearest voxel outside at 9, less half), the third the cut.
    near = shape_based_average(raters, max_distance_mm=10.0)[0]
    far = shape_based_average(raters, max_distance_mm=100.0)[0]
    assert near[20, 20] == 1
    assert not far.any()


def test_three_classes_that_meet_share_one(votes_of: Maker) -> None:
    votes = np.zeros((1, 3, 12, 12), dtype=bool)
    votes[0, 0, :6, :6], votes[0, 1, :6, 6:], votes[0, 2, 6:] = True, True, True
    soft = shape_based_average(RaterVotes(votes, ("a",), (1.0, 1.0)), slope_mm=4.0)
    np.testing.assert_allclose(soft[:, 4:8, 4:8].sum(axis=0), 1, atol=1e-6)


def test_result_does_not_depend_on_far_background() -> None:
    votes = np.stack([disc(6), disc(9)])[:, None]
    wide = np.pad(votes, ((0, 0), (0, 0), (15, 5), (0, 20)))
    small = shape_based_average(RaterVotes(votes, ("a", "b"), (1.0, 1.0)))
    large = shape_based_average(RaterVotes(wide, ("a", "b"), (1.0, 1.0)))
    np.testing.assert_allclose(large[:, 15:-5, :-20], small, atol=1e-6)
    assert large.sum() == pytest.approx(small.sum())


@pytest.mark.parametrize("options", [{"slope_mm": 0.0}, {"slope_mm": 20.0}, {"max_distance_mm": np.inf}])
def test_impossible_widths_are_refused(votes_of: Maker, options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="slope_mm must be positive"):
        shape_based_average(votes_of([[[1, 0]]]), **options)


@pytest.mark.parametrize("spacing_mm", [(3.0, 0.5), (0.5, 3.0)])
@pytest.mark.parametrize("slope_mm", [0.3, 2.0, 7.0])
def test_the_box_that_is_computed_holds_all_that_is_not_zero(spacing_mm, slope_mm: float) -> None:
    votes = np.zeros((2, 1, 40, 60), dtype=bool)
    votes[0, 0, 18:22, 28:33], votes[1, 0, 19:24, 25:31] = True, True
    distances = [np.clip(signed_distance_mm(v[0], spacing_mm), -10, 10) for v in votes]
    expected = np.clip(0.5 - np.mean(distances, axis=0) / (2 * slope_mm), 0, 1)
    raters = RaterVotes(votes, ("a", "b"), spacing_mm)
    np.testing.assert_allclose(shape_based_average(raters, slope_mm=slope_mm)[0], expected, atol=1e-6)


def test_a_slope_of_1_mm_and_a_cut_at_10_mm_are_taken_unasked() -> None:
    votes = np.stack([disc(8), disc(8), np.zeros_like(disc(8))])[:, None]
    raters = RaterVotes(votes, ("a", "b", "c"), (1.0, 1.0))
    unasked = shape_based_average(raters)
    np.testing.assert_array_equal(unasked, shape_based_average(raters, slope_mm=1.0, max_distance_mm=10.0))
    for other in ({"slope_mm": 2.0}, {"max_distance_mm": 9.0}, {"max_distance_mm": 11.0}):
        assert (shape_based_average(raters, **other) != unasked).any()


def test_only_those_who_answered_are_averaged(votes_of: Maker) -> None:
    # b answered nowhere but in the last column: elsewhere the result is a's alone
    answered = np.zeros((2, 4, 8), dtype=bool)
    answered[0, :, :7] = answered[1, :, 7] = True
    marked = [[1, 1, 1, 0, 0, 0, 0, 1]] * 4
    both = votes_of([marked, [[0] * 8] * 4], answered=answered)
    alone = votes_of([marked], answered=answered[:1])
    found, expected = (shape_based_average(r, slope_mm=2.0)[0] for r in (both, alone))
    np.testing.assert_allclose(found[:, :7], expected[:, :7], atol=1e-6)
    assert not found[:, 7].any()
