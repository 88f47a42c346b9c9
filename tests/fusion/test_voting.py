"""Mean, weighted mean and majority, by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from nnunet_softlabel.fusion import RaterVotes, agreement_weights, majority_vote, mean_vote, weighted_vote

Maker = Callable[..., RaterVotes]


@pytest.fixture
def three(votes_of: Maker) -> RaterVotes:
    """Three raters on 2x2 voxels: 3, 2, 1 and 0 votes."""
    return votes_of([[[1, 1], [1, 0]], [[1, 1], [0, 0]], [[1, 0], [0, 0]]])


def test_mean_is_the_share_of_the_raters(three: RaterVotes) -> None:
    np.testing.assert_allclose(mean_vote(three)[0], [[1, 2 / 3], [1 / 3, 0]], rtol=1e-6)


def test_mean_is_over_those_who_answered(votes_of: Maker) -> None:
    # Columns: both answered; only a; only b; nobody.
    answered = np.array([[[1, 1, 0, 0]], [[1, 0, 1, 0]]], dtype=bool)
    raters = votes_of([[[1, 1, 1, 1]], [[0, 0, 0, 0]]], answered=answered)
    np.testing.assert_array_equal(mean_vote(raters)[0], [[0.5, 1, 0, 0]])


def test_weights_are_shares_of_their_sum(three: RaterVotes) -> None:
    # Weights 3, 2, 1 and votes abc, ab, a, none: 6/6, 5/6, 3/6, 0.
    soft = weighted_vote(three, weights={"a": 3, "b": 2, "c": 1, "not in this case": 9})
    np.testing.assert_allclose(soft[0], [[1, 5 / 6], [3 / 6, 0]], rtol=1e-6)


def test_equal_weights_are_the_mean(raters: RaterVotes) -> None:
    np.testing.assert_allclose(
        weighted_vote(raters, weights=dict.fromkeys(raters.names, 0.3)), mean_vote(raters), atol=1e-6
    )


def test_agreement_is_the_mean_dice_with_the_others(three: RaterVotes) -> None:
    # Marks: a 3, b 2, c 1. Dice ab = 2*2/5 = 0.8, ac = 2*1/4 = 0.5, bc = 2*1/3.
    weights = agreement_weights(three)
    assert weights == pytest.approx({"a": 0.65, "b": (0.8 + 2 / 3) / 2, "c": (0.5 + 2 / 3) / 2})
    np.testing.assert_array_equal(weighted_vote(three), weighted_vote(three, weights=weights))


def test_agreement_looks_only_where_both_answered(votes_of: Maker) -> None:
    # Where both answered (the first two voxels) they agree; the third is a's alone.
    answered = np.array([[[1, 1, 1]], [[1, 1, 0]]], dtype=bool)
    raters = votes_of([[[1, 0, 1]], [[1, 0, 0]]], answered=answered)
    assert agreement_weights(raters) == {"a": 1.0, "b": 1.0}


def test_raters_who_never_meet_weigh_alike(votes_of: Maker) -> None:
    assert agreement_weights(votes_of([[[1, 0]], [[0, 1]]])) == {"a": 1.0, "b": 1.0}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"a": 1.0, "b": 1.0}, "weights lack c"),
        ({"a": 1.0, "b": -1.0, "c": 1.0}, "not negative"),
        ({"a": 1.0, "b": np.nan, "c": 1.0}, "finite"),
        ({"a": 0.0, "b": 0.0, "c": 0.0}, "not all 0"),
    ],
)
def test_bad_weights_are_refused(three: RaterVotes, weights: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        weighted_vote(three, weights=weights)


def test_majority_is_more_than_half(three: RaterVotes) -> None:
    np.testing.assert_array_equal(majority_vote(three)[0], [[1, 1], [0, 0]])


@pytest.mark.parametrize("exclusive", [True, False])
def test_a_tie_with_the_background_goes_to_it(votes_of: Maker, exclusive: bool) -> None:
    raters = votes_of([[[1, 1]], [[0, 1]]], exclusive=exclusive)
    np.testing.assert_array_equal(majority_vote(raters)[0], [[0, 1]])


def test_a_tie_between_classes_goes_to_the_background(votes_of: Maker) -> None:
    # Votes for class 1 / class 2 / background of five raters: 2/2/1 is a tie, 2/1/2 too; 2/1/1, where one did
    # not answer, is class 1 although it is no absolute majority.
    first = [[1, 1, 1], [1, 1, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    second = [[0, 0, 0], [0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 0, 0]]
    answered = np.ones((5, 1, 3), dtype=bool)
    answered[4, 0, 2] = False
    raters = votes_of([[[f], [s]] for f, s in zip(first, second, strict=True)], answered=answered)
    np.testing.assert_array_equal(majority_vote(raters)[:, 0], [[0, 0, 1], [0, 0, 0]])


def test_many_raters_do_not_overflow_the_counts() -> None:
    votes = np.zeros((200, 1, 1, 2), dtype=bool)
    votes[:150, 0, 0, 0] = True
    raters = RaterVotes(votes, tuple(map(str, range(200))), (1.0, 1.0))
    np.testing.assert_array_equal(majority_vote(raters), [[[1, 0]]])
    np.testing.assert_allclose(mean_vote(raters), [[[0.75, 0]]])


def test_counts_of_more_raters_than_a_byte_holds() -> None:
    votes = np.zeros((600, 2, 1, 3), dtype=bool)
    votes[:301, 0, 0, 0] = votes[:256, 0, 0, 1] = votes[256:300, 1, 0, 1] = True
    answered = np.ones((600, 1, 3), dtype=bool)
    answered[300:, 0, 1] = False
    raters = RaterVotes(votes, tuple(map(str, range(600))), (1.0, 1.0), answered=answered)
    np.testing.assert_array_equal(majority_vote(raters)[:, 0], [[1, 1, 0], [0, 0, 0]])
    shares = [[301 / 600, 256 / 300, 0], [0, 44 / 300, 0]]
    np.testing.assert_allclose(mean_vote(raters)[:, 0], shares, rtol=1e-6)
    alike = dict.fromkeys(raters.names, 1.0)
    np.testing.assert_allclose(weighted_vote(raters, weights=alike)[:, 0], shares, rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-300, 1e-42, 1e-3, 1.0, 1e5, 1e38, 1e300])
def test_only_the_ratio_of_weights_counts_however_large_they_are(three: RaterVotes, scale: float) -> None:
    soft = weighted_vote(three, weights={"a": 3 * scale, "b": 2 * scale, "c": scale})
    np.testing.assert_allclose(soft[0], [[1, 5 / 6], [3 / 6, 0]], rtol=1e-6)


def test_a_rater_without_weight_has_no_say_even_where_nobody_else_answered(votes_of: Maker) -> None:
    answered = np.array([[[1, 0]], [[1, 1]]], dtype=bool)
    raters = votes_of([[[1, 1]], [[0, 1]]], answered=answered)
    np.testing.assert_array_equal(weighted_vote(raters, weights={"a": 2, "b": 0})[0], [[1, 0]])


def test_two_who_marked_nothing_agree_and_a_single_rater_weighs_one(votes_of: Maker) -> None:
    # Dice ab = 1 (both nothing), ac = bc = 0
    weights = agreement_weights(votes_of([[[0, 0]], [[0, 0]], [[1, 0]]]))
    assert weights == {"a": 0.5, "b": 0.5, "c": 0.0}
    assert agreement_weights(votes_of([[[1, 0]]])) == {"a": 1.0}


def test_regions_overlap_and_are_each_decided_by_more_than_half(votes_of: Maker) -> None:
    # whole: 2 of 3 and 3 of 3; core: 1 of 3 and 2 of 3
    raters = votes_of([[[[1, 1]], [[1, 1]]], [[[1, 1]], [[0, 1]]], [[[0, 1]], [[0, 0]]]], exclusive=False)
    np.testing.assert_array_equal(majority_vote(raters)[:, 0], [[1, 1], [0, 1]])
