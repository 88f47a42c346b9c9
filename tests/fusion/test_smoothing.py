"""Spatially varying label smoothing, by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from nnunet_softlabel.fusion import RaterVotes, spatially_varying_label_smoothing

Maker = Callable[..., RaterVotes]
SIDE, CORNER = np.exp(-0.5), np.exp(-1)
AROUND = 4 * SIDE + 4 * CORNER


def test_a_single_voxel_gives_half_to_its_neighbours(votes_of: Maker) -> None:
    raters = votes_of([[[0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]])
    corner, side = CORNER / AROUND / 2, SIDE / AROUND / 2
    expected = np.pad([[corner, side, corner], [side, 0.5, side], [corner, side, corner]], 1)
    np.testing.assert_allclose(spatially_varying_label_smoothing(raters)[0], expected, atol=1e-6)


def test_a_wide_sigma_weighs_neighbours_alike(votes_of: Maker) -> None:
    raters = votes_of([[[0, 0, 0], [0, 1, 0], [0, 0, 0]]])
    soft = spatially_varying_label_smoothing(raters, sigma_voxels=1e3)[0]
    np.testing.assert_allclose(soft, [[1 / 16] * 3, [1 / 16, 0.5, 1 / 16], [1 / 16] * 3], atol=1e-5)


def test_deep_inside_and_far_outside_are_certain() -> None:
    votes = np.zeros((1, 1, 9, 9, 9), dtype=bool)
    votes[..., :5] = True
    soft = spatially_varying_label_smoothing(RaterVotes(votes, ("a",), (1.0,) * 3))[0]
    np.testing.assert_allclose(soft[..., :4], 1, atol=1e-6)
    assert not soft[..., 6:].any()
    # Halves mirror each other: what the inside loses at the outline, the outside gains.
    np.testing.assert_allclose(soft[..., 4] + soft[..., 5], 1, atol=1e-6)


def test_several_raters_are_the_mean_of_each(raters: RaterVotes) -> None:
    if raters.answered is None:
        single = [
            spatially_varying_label_smoothing(
                RaterVotes(votes[None], (name,), raters.spacing_mm, exclusive=raters.exclusive)
            )
            for votes, name in zip(raters.votes, raters.names, strict=True)
        ]
        np.testing.assert_allclose(
            spatially_varying_label_smoothing(raters), np.mean(single, axis=0), atol=1e-6
        )


def test_unanswered_neighbours_do_not_count(votes_of: Maker) -> None:
    # The right half is unanswered: the rest is marked all over, so it stays certain.
    answered = np.ones((1, 3, 6), dtype=bool)
    answered[..., 3:] = False
    raters = votes_of([[[1, 1, 1, 0, 0, 0]] * 3], answered=answered)
    np.testing.assert_allclose(
        spatially_varying_label_smoothing(raters)[0], [[1, 1, 1, 0, 0, 0]] * 3, atol=1e-6
    )


def test_sigma_must_be_positive(votes_of: Maker) -> None:
    with pytest.raises(ValueError, match="sigma_voxels must be positive"):
        spatially_varying_label_smoothing(votes_of([[[1, 0]]]), sigma_voxels=0.0)


@pytest.mark.parametrize("shape", [(7, 5, 6), (9, 8)])
@pytest.mark.parametrize("voxels", [1, 30, 65])
def test_slabs_give_what_the_whole_image_gives(monkeypatch, shape: tuple[int, ...], voxels: int) -> None:
    rng = np.random.default_rng(0)
    votes, answered = rng.random((2, 1, *shape)) < 0.4, rng.random((2, *shape)) < 0.7
    for known in (None, answered):
        raters = RaterVotes(votes, ("a", "b"), (1.0,) * len(shape), answered=known)
        whole = spatially_varying_label_smoothing(raters)
        with monkeypatch.context() as patch:
            patch.setattr("nnunet_softlabel.fusion.smoothing.VOXELS_OF_SLAB", voxels)
            np.testing.assert_array_equal(spatially_varying_label_smoothing(raters), whole)


def test_neighbours_are_voxels_whatever_their_spacing(votes_of: Maker) -> None:
    votes = np.zeros((1, 1, 5, 6, 7), dtype=bool)
    votes[0, 0, 2, 2:4, 3] = True
    alike = spatially_varying_label_smoothing(RaterVotes(votes, ("a",), (1.0, 1.0, 1.0)))
    assert np.count_nonzero(alike) == 3 * 4 * 3
    for spacing in ((3.0, 1.0, 0.5), (0.5, 3.0, 1.0), (1.0, 0.5, 3.0)):
        raters = RaterVotes(votes, ("a",), spacing)
        np.testing.assert_array_equal(spatially_varying_label_smoothing(raters), alike)


def test_sigma_is_that_of_the_gaussian(votes_of: Maker) -> None:
    raters = votes_of([[[0, 0, 0], [0, 1, 0], [0, 0, 0]]])
    soft = spatially_varying_label_smoothing(raters, sigma_voxels=2.0)[0]
    side, corner = np.exp(-1 / 8), np.exp(-2 / 8)
    around = 4 * side + 4 * corner
    np.testing.assert_allclose(soft[0], np.array([corner, side, corner]) / around / 2, rtol=1e-5)


def test_an_endless_sigma_is_refused(votes_of: Maker) -> None:
    for sigma in (np.inf, np.nan, -1.0):
        with pytest.raises(ValueError, match="sigma_voxels must be positive"):
            spatially_varying_label_smoothing(votes_of([[[1, 0]]]), sigma_voxels=sigma)


def test_a_voxel_without_an_answering_neighbour_is_all_its_own(votes_of: Maker) -> None:
    answered = np.zeros((1, 3, 6), dtype=bool)
    answered[0, 1, 1] = answered[0, 1, 3] = answered[0, 1, 4] = True
    raters = votes_of([[[0] * 6, [0, 1, 0, 1, 0, 0], [0] * 6]], answered=answered)
    # the voxels at columns 3 and 4 are each other's only neighbour
    soft = spatially_varying_label_smoothing(raters)[0]
    np.testing.assert_allclose(soft[1], [0, 1, 0, 0.5, 0.5, 0], atol=1e-6)


def test_the_box_that_is_smoothed_knows_which_neighbours_answered() -> None:
    rng = np.random.default_rng(1)
    votes, answered = np.zeros((1, 1, 12, 13), dtype=bool), rng.random((1, 12, 13)) < 0.5
    votes[0, 0, 5:7, 5:8] = True
    raters = RaterVotes(votes, ("a",), (1.0, 1.0), answered=answered)
    own = (votes[0, 0] & answered[0]).astype(float)
    expected = own.copy()
    for y, x in np.argwhere(answered[0]):
        near = [
            (j, i)
            for j in range(max(y - 1, 0), y + 2)
            for i in range(max(x - 1, 0), x + 2)
            if (j, i) != (y, x) and j < 12 and i < 13 and answered[0, j, i]
        ]
        weights = [SIDE if j == y or i == x else CORNER for j, i in near]
        inner = 0 < y < 11 and 0 < x < 12  # beyond the image, its edge is repeated
        if near and inner:
            around = np.average([own[place] for place in near], weights=weights)
            expected[y, x] = (own[y, x] + around) / 2
    found = spatially_varying_label_smoothing(raters)[0]
    np.testing.assert_allclose(found[1:-1, 1:-1], expected[1:-1, 1:-1], atol=1e-6)
