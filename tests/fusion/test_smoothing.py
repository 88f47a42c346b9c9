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
