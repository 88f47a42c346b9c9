"""Candidates: who marked what, on images small enough to count by hand."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_softlabel.fusion import RaterVotes
from nnunet_softlabel.fusion.candidate import Candidate
from nnunet_softlabel.fusion.lesion_candidates import find_candidates


def votes_of(*boxes: list[tuple[slice, slice]], shape: tuple[int, ...] = (20, 30), **options) -> RaterVotes:
    """One rater per list of boxes, on a flat image."""
    votes = np.zeros((len(boxes), 1, *shape), bool)
    for rater, own in enumerate(boxes):
        for box in own:
            votes[rater, 0][box] = True
    names = tuple("abcdefg"[: len(boxes)])
    return RaterVotes(votes, names, options.pop("spacing_mm", (1.0, 1.0)), **options)


LEFT, RIGHT = (slice(2, 8), slice(2, 8)), (slice(2, 8), slice(8, 14))


def test_touching_lesions_stay_two_though_their_union_is_one_blob() -> None:
    found = find_candidates(votes_of([LEFT], [RIGHT]), 0).candidates
    assert [c.votes for c in found] == [{"a": True, "b": False}, {"a": False, "b": True}]


def test_outlines_that_share_a_quarter_of_the_smaller_are_one_lesion() -> None:
    # 36 voxels each; shifted by 4 columns they share 12, a third; by 5 they share 6, a sixth
    near, far = (slice(2, 8), slice(6, 12)), (slice(2, 8), slice(7, 13))
    assert [c.votes for c in find_candidates(votes_of([LEFT], [near]), 0).candidates] == [
        {"a": True, "b": True}
    ]
    assert len(find_candidates(votes_of([LEFT], [far]), 0).candidates) == 2


def test_diagonal_neighbours_are_one_component() -> None:
    steps = [(slice(k, k + 2), slice(k, k + 2)) for k in range(2, 8, 2)]
    assert len(find_candidates(votes_of(steps), 0).candidates) == 1


def test_sizes_are_in_mm_and_of_those_who_marked_it() -> None:
    small = (slice(2, 8), slice(2, 6))  # 24 voxels of 1.5 mm^2; the other has 36
    (found,) = find_candidates(votes_of([LEFT], [small], [], spacing_mm=(3.0, 0.5)), 0).candidates
    assert found.size_mm == pytest.approx(1.5 * 30)


def test_slips_of_the_pen_are_no_candidates() -> None:
    four_voxels = (slice(15, 17), slice(15, 17))
    assert len(find_candidates(votes_of([LEFT], [LEFT, four_voxels]), 0).candidates) == 1


def test_a_crumb_beside_a_lesion_belongs_to_it_if_its_rater_marked_the_lesion() -> None:
    large, crumb = (slice(2, 12), slice(2, 12)), (slice(2, 3), slice(13, 18))  # 100 and 5 voxels
    mine = find_candidates(votes_of([large, crumb], [large]), 0)
    assert len(mine.candidates) == 1
    assert mine.voxel.size == 205
    others = find_candidates(votes_of([large], [crumb]), 0)
    assert [c.votes for c in others.candidates] == [{"a": True, "b": False}]
    assert others.voxel.size == 100


def test_far_from_everything_a_small_lesion_is_a_candidate() -> None:
    large, far = (slice(2, 12), slice(2, 12)), (slice(2, 3), slice(20, 25))
    assert len(find_candidates(votes_of([large], [far]), 0).candidates) == 2


def test_raters_who_did_not_answer_there_have_no_vote() -> None:
    raters = votes_of([LEFT], [], [])
    answered = np.ones((3, 20, 30), bool)
    answered[2, :, :10] = False
    given = RaterVotes(raters.votes, raters.names, raters.spacing_mm, answered=answered)
    assert find_candidates(given, 0).candidates[0].votes == {"a": True, "b": False}


def test_what_the_network_sees_and_nobody_marked_is_a_candidate_after_the_marked_ones() -> None:
    probability = np.zeros((20, 30), np.float32)
    probability[12:18, 20:26] = 0.4
    probability[LEFT] = 0.9
    found = find_candidates(votes_of([LEFT], []), 0, probability)
    assert [c.is_marked for c in found.candidates] == [True, False]
    assert found.candidates[1].votes == {"a": False, "b": False}
    assert found.candidates[0].score == pytest.approx(0.9)
    assert found.candidates[1].score == pytest.approx(0.4)


def test_the_score_does_not_depend_on_how_much_is_marked_around_the_peak() -> None:
    probability = np.zeros((20, 30), np.float32)
    probability[3:7, 3:7] = 0.8
    wide = (slice(0, 12), slice(0, 14))
    scores = [find_candidates(votes_of([box]), 0, probability).candidates[0].score for box in (LEFT, wide)]
    assert scores[0] == scores[1]


def test_volumes_use_26_neighbours_and_thick_slices_are_not_smoothed_together() -> None:
    votes = np.zeros((1, 1, 4, 10, 10), bool)
    votes[0, 0, 0, 2:5, 2:5] = votes[0, 0, 1, 5:8, 5:8] = True  # they touch at a corner
    raters = RaterVotes(votes, ("a",), (5.0, 1.0, 1.0))
    probability = np.zeros((4, 10, 10), np.float32)
    probability[0, 2:5, 2:5] = 0.6
    (found,) = find_candidates(raters, 0, probability).candidates
    assert found.score == pytest.approx(0.6)


def test_sixteen_raters_are_no_trouble() -> None:
    votes = np.zeros((16, 1, 20, 30), bool)
    votes[:9, 0, 2:8, 2:8] = True
    raters = RaterVotes(votes, tuple(f"r{i:02d}" for i in range(16)), (1.0, 1.0))
    (found,) = find_candidates(raters, 0).candidates
    assert sum(found.votes.values()) == 9


def test_a_probability_map_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="probability has shape"):
        find_candidates(votes_of([LEFT]), 0, np.zeros((3, 3)))


def test_candidates_survive_json() -> None:
    candidate = Candidate({"a": True}, 12.5, None, (1, 2))
    assert Candidate.from_json(candidate.to_json()) == candidate
