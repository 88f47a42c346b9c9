"""Laws that hold for every fusion of the registry."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nnunet_softlabel.fusion import FUSIONS, RaterVotes

# Shape-based averaging and smoothing blur outlines by design: they answer to nothing but the first four laws.
BLURRING = {"sba", "svls"}
every_fusion = pytest.mark.parametrize("name", FUSIONS)
every_voting_fusion = pytest.mark.parametrize("name", sorted(FUSIONS.keys() - BLURRING))


@every_fusion
def test_result_is_float32_probabilities_per_channel(name: str, raters: RaterVotes) -> None:
    soft = FUSIONS[name](raters)
    assert soft.dtype == np.float32
    assert soft.shape == (raters.n_channels, *raters.spatial_shape)
    assert soft.min() >= 0
    assert soft.max() <= 1


@every_fusion
def test_exclusive_channels_leave_room_for_the_background(name: str, raters: RaterVotes) -> None:
    if raters.exclusive:
        assert FUSIONS[name](raters).sum(axis=0).max() <= 1 + 1e-6


@every_fusion
def test_the_order_of_the_raters_does_not_matter(name: str, raters: RaterVotes) -> None:
    order = np.arange(raters.n_raters)[::-1]
    turned = RaterVotes(
        raters.votes[order],
        tuple(raters.names[r] for r in order),
        raters.spacing_mm,
        answered=None if raters.answered is None else raters.answered[order],
        exclusive=raters.exclusive,
    )
    np.testing.assert_allclose(FUSIONS[name](turned), FUSIONS[name](raters), atol=1e-4)


@every_fusion
def test_voxels_that_nobody_answered_are_zero(name: str, raters: RaterVotes) -> None:
    answered = np.ones((raters.n_raters, *raters.spatial_shape), dtype=bool)
    answered[..., :5] = False
    assert not FUSIONS[name](replace(raters, answered=answered))[..., :5].any()


@every_fusion
def test_votes_without_an_answer_do_not_count(name: str, raters: RaterVotes) -> None:
    if raters.answered is not None:
        changed = replace(raters, votes=raters.votes | ~raters.answered[:, None])
        np.testing.assert_array_equal(FUSIONS[name](changed), FUSIONS[name](raters))


@every_voting_fusion
def test_result_lies_between_the_raters(name: str, raters: RaterVotes) -> None:
    answered = np.ones_like(raters.votes[:, 0]) if raters.answered is None else raters.answered
    lowest = (raters.votes | ~answered[:, None]).all(axis=0) & answered.any(axis=0)
    highest = (raters.votes & answered[:, None]).any(axis=0)
    soft = FUSIONS[name](raters)
    # Unanimous voxels are where the lowest equals the highest, so this is exactness on them, too.
    assert (soft >= lowest).all()
    assert (soft <= highest).all()


@pytest.mark.parametrize("name", sorted(FUSIONS.keys() - BLURRING - {"majority"}))
def test_background_lies_between_the_raters_too(name: str, class_raters: RaterVotes) -> None:
    # Not so the majority: by its rule a tie between two classes goes to the background that nobody chose.
    background = 1 - FUSIONS[name](class_raters).sum(axis=0)
    chosen = ~class_raters.votes.any(axis=1)
    assert (background >= chosen.all(axis=0) - 1e-6).all()
    assert (background <= chosen.any(axis=0) + 1e-6).all()


@every_voting_fusion
def test_equal_raters_get_their_own_label(name: str, raters: RaterVotes) -> None:
    same = np.repeat(raters.votes[:1], 3, axis=0)
    agreed = RaterVotes(same, ("a", "b", "c"), raters.spacing_mm, exclusive=raters.exclusive)
    np.testing.assert_array_equal(FUSIONS[name](agreed), same[0])


@every_fusion
def test_nothing_marked_gives_nothing(name: str, raters: RaterVotes) -> None:
    assert not FUSIONS[name](replace(raters, votes=np.zeros_like(raters.votes))).any()


@every_fusion
def test_everything_marked_gives_everything(name: str) -> None:
    raters = RaterVotes(np.ones((3, 1, 4, 5), dtype=bool), ("a", "b", "c"), (1.0, 1.0))
    np.testing.assert_array_equal(FUSIONS[name](raters), np.ones((1, 4, 5), dtype=np.float32))


@every_fusion
def test_fusion_leaves_the_votes_alone(name: str, raters: RaterVotes) -> None:
    before = raters.votes.copy()
    FUSIONS[name](raters)
    np.testing.assert_array_equal(raters.votes, before)
