"""RaterVotes refuses what does not fit together, and the box finds what is marked."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_softlabel.fusion import RaterVotes
from nnunet_softlabel.fusion.rater_votes import marked_box


def one_mark(shape: tuple[int, ...] = (1, 1, 9, 9)) -> np.ndarray:
    votes = np.zeros(shape, dtype=bool)
    votes[..., 4, 5] = True
    return votes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"votes": one_mark().astype(np.uint8)}, "votes must be bool"),
        ({"votes": one_mark((1, 9, 9))[0]}, "votes must be bool"),
        ({"votes": np.zeros((0, 1, 9, 9), dtype=bool), "names": ()}, "need a rater"),
        ({"names": ("a", "b")}, "names must be 1"),
        ({"votes": np.repeat(one_mark(), 2, axis=0), "names": ("a", "a")}, "different"),
        ({"spacing_mm": (1.0,)}, "spacing_mm must hold 2"),
        ({"spacing_mm": (1.0, 0.0)}, "positive"),
        ({"answered": np.ones((2, 9, 9), dtype=bool)}, "answered must be bool"),
        ({"answered": np.ones((1, 8, 9), dtype=bool)}, "answered must be bool"),
        ({"votes": np.repeat(one_mark(), 2, axis=1)}, "two classes at once"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict, message: str) -> None:
    valid = {"votes": one_mark(), "names": ("a",), "spacing_mm": (1.0, 1.0)}
    with pytest.raises(ValueError, match=message):
        RaterVotes(**(valid | change))


def test_overlapping_regions_are_welcome() -> None:
    regions = RaterVotes(np.repeat(one_mark(), 2, axis=1), ("a",), (1.0, 1.0), exclusive=False)
    assert regions.n_channels == 2


def test_box_is_widened_in_mm_and_cut_at_the_edge() -> None:
    # The mark is at (4, 5) of 9 x 9; 3 mm are 2 rows of 2 mm (rounded up) and 6 columns of 0.5 mm.
    raters = RaterVotes(one_mark(), ("a",), (2.0, 0.5))
    assert marked_box(raters, margin_mm=3.0) == (slice(2, 7), slice(0, 9))
    assert marked_box(raters, margin_mm=float("inf")) == (slice(0, 9), slice(0, 9))


def test_there_is_no_box_around_nothing() -> None:
    raters = RaterVotes(np.zeros((2, 1, 4, 4), dtype=bool), ("a", "b"), (1.0, 1.0))
    assert marked_box(raters, margin_mm=1.0) is None


def test_dice_of_a_pair_leaves_out_what_one_did_not_answer() -> None:
    votes = np.array([[[1, 1, 0, 0]], [[1, 0, 1, 0]], [[0, 0, 0, 0]]], bool)
    assert RaterVotes(votes, ("a", "b", "c"), (1.0,)).dice_of_pair(0, 1) == 0.5  # 2 * 1 / (2 + 2)
    answered = np.array([[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 1, 1]], bool)
    raters = RaterVotes(votes, ("a", "b", "c"), (1.0,), answered=answered)
    assert raters.dice_of_pair(0, 1, 0) == pytest.approx(2 / 3)  # 2 * 1 / (1 + 2)
    assert np.isnan(RaterVotes(votes[[2, 2]], ("a", "b"), (1.0,)).dice_of_pair(0, 1))
