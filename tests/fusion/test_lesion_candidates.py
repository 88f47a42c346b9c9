"""Candidates: who marked what, on images small enough to count by hand."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_softlabel.fusion import RaterVotes
from nnunet_softlabel.fusion.candidate import Candidate
from nnunet_softlabel.fusion.lesion_candidates import CandidateMap, find_candidates


def votes_of(*boxes: list[tuple[slice, slice]], shape: tuple[int, ...] = (20, 30), **options) -> RaterVotes:
    """One rater per list of boxes, on a flat image."""
    votes = np.zeros((len(boxes), 1, *shape), bool)
    for rater, own in enumerate(boxes):
        for box in own:
            votes[rater, 0][box] = True
    names = tuple("abcdefg"[: len(boxes)])
    return RaterVotes(votes, names, options.pop("spacing_mm", (1.0, 1.0)), **options)


def marks_of(found: CandidateMap) -> list[int]:
    """Number of marks of all raters in each candidate."""
    return [sum(int(n.sum()) for _, n in extent.pieces()) for extent in found.extents]


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


def test_each_of_a_raters_lesions_has_its_own_size() -> None:
    small, large = (slice(2, 8), slice(2, 6)), (slice(2, 12), slice(14, 24))  # 24 and 100 voxels
    found = find_candidates(votes_of([small, large]), 0).candidates
    assert [candidate.size_mm for candidate in found] == [24, 100]


def test_slips_of_the_pen_are_no_candidates() -> None:
    four_voxels = (slice(15, 17), slice(15, 17))
    assert len(find_candidates(votes_of([LEFT], [LEFT, four_voxels]), 0).candidates) == 1


def test_a_crumb_beside_a_lesion_belongs_to_it_if_its_rater_marked_the_lesion() -> None:
    large, crumb = (slice(2, 12), slice(2, 12)), (slice(2, 3), slice(13, 18))  # 100 and 5 voxels
    mine = find_candidates(votes_of([large, crumb], [large]), 0)
    assert len(mine.candidates) == 1
    assert marks_of(mine) == [205]
    others = find_candidates(votes_of([large], [crumb]), 0)
    assert [c.votes for c in others.candidates] == [{"a": True, "b": False}]
    assert marks_of(others) == [100]


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


def test_exactly_a_quarter_of_the_smaller_is_enough() -> None:
    # 64 voxels each; shifted by 6 columns they share 16
    one, two = (slice(2, 10), slice(2, 10)), (slice(2, 10), slice(8, 16))
    assert len(find_candidates(votes_of([one], [two]), 0).candidates) == 1
    # of 16 and 144 voxels, four in common are a quarter of the smaller
    small, large = (slice(2, 6), slice(2, 6)), (slice(2, 14), slice(5, 17))
    assert len(find_candidates(votes_of([small], [large]), 0).candidates) == 1


LARGE = (slice(2, 12), slice(2, 12))  # 100 voxels


@pytest.mark.parametrize(
    ("box", "number"),
    [
        ((slice(2, 3), slice(14, 19)), 1),  # 3 mm from the last column
        ((slice(2, 3), slice(15, 20)), 2),  # 4 mm
        ((slice(2, 4), slice(13, 18)), 2),  # 10 voxels, a tenth: no crumb
        ((slice(2, 5), slice(13, 16)), 1),  # 9 voxels
        ((slice(14, 15), slice(2, 7)), 1),  # 3 mm below
        ((slice(15, 16), slice(2, 7)), 2),
    ],
)
def test_a_crumb_is_smaller_than_a_tenth_and_no_further_than_3_mm(box, number: int) -> None:
    for raters in (votes_of([LARGE], [box]), votes_of([box], [LARGE])):
        assert len(find_candidates(raters, 0).candidates) == number


def test_of_coarse_voxels_a_crumb_is_no_further_than_two() -> None:
    near, far = (slice(2, 3), slice(13, 18)), (slice(2, 3), slice(14, 19))
    options = {"spacing_mm": (2.0, 2.0)}  # 4 and 6 mm from the last column
    assert len(find_candidates(votes_of([LARGE], [near], **options), 0).candidates) == 1
    assert len(find_candidates(votes_of([LARGE], [far], **options), 0).candidates) == 2


def test_a_crumb_between_two_lesions_belongs_to_the_larger() -> None:
    larger, crumb, large = LARGE, (slice(2, 3), slice(13, 18)), (slice(2, 10), slice(19, 28))
    found = find_candidates(votes_of([larger, crumb, large]), 0)
    assert marks_of(found) == [105, 72]


def seen(*boxes: tuple[tuple[slice, slice], float]) -> np.ndarray:
    probability = np.zeros((20, 30), np.float32)
    for box, p in boxes:
        probability[box] = p
    return probability


SPOT = (slice(12, 18), slice(20, 26))


def test_what_the_network_sees_must_exceed_its_level_after_smoothing() -> None:
    assert len(find_candidates(votes_of([LEFT]), 0, seen((SPOT, 0.16))).candidates) == 2
    assert len(find_candidates(votes_of([LEFT]), 0, seen((SPOT, 0.15))).candidates) == 1
    thin = (slice(12, 13), slice(20, 26))  # a third of 0.4 is left, 0.13
    assert len(find_candidates(votes_of([LEFT]), 0, seen((thin, 0.4))).candidates) == 1
    assert len(find_candidates(votes_of([LEFT]), 0, seen((thin, 0.6))).candidates) == 2


def test_what_the_network_sees_beside_a_lesion_is_no_candidate_if_it_is_a_crumb() -> None:
    crumb, more = (slice(2, 4), slice(13, 17)), (slice(2, 4), slice(13, 18))  # 8 and 10 of 100 voxels
    assert len(find_candidates(votes_of([LARGE]), 0, seen((crumb, 0.9))).candidates) == 1
    assert len(find_candidates(votes_of([LARGE]), 0, seen((more, 0.9))).candidates) == 2


@pytest.mark.parametrize(("columns", "number"), [(3, 0), (2, 1)])
def test_what_the_network_sees_counts_where_anyone_answered_most_of_it(columns: int, number: int) -> None:
    # b answered nothing of six columns, a all but the first two or three
    raters = votes_of([LEFT], [])
    answered = np.ones((2, 20, 30), bool)
    answered[0, :, 20 : 20 + columns] = answered[1, :, 20:26] = False
    given = RaterVotes(raters.votes, raters.names, raters.spacing_mm, answered=answered)
    found = find_candidates(given, 0, seen((SPOT, 0.5))).candidates[1:]
    assert [c.votes for c in found] == [{"a": False}] * number


def test_a_rater_who_answered_half_of_a_lesion_has_no_vote_on_it() -> None:
    raters = votes_of([LEFT], [], [])
    answered = np.ones((3, 20, 30), bool)
    answered[1, :, 2:5] = False  # half of it
    answered[2, :, 2:4] = False  # a third
    given = RaterVotes(raters.votes, raters.names, raters.spacing_mm, answered=answered)
    assert find_candidates(given, 0).candidates[0].votes == {"a": True, "c": False}


def test_what_nobody_marked_has_the_size_of_what_the_network_sees() -> None:
    found = find_candidates(votes_of([LEFT], spacing_mm=(3.0, 0.5)), 0, seen((SPOT, 0.5))).candidates
    assert found[1].size_mm == pytest.approx(36 * 1.5)


def test_the_centre_is_the_marked_voxel_nearest_to_the_centre_of_mass() -> None:
    (found,) = find_candidates(votes_of([(slice(3, 8), slice(10, 13))]), 0).candidates
    assert found.centre == (5, 11)
    # a bracket: its centre of mass (6.5, 3.5) lies beside it
    bracket = [(slice(2, 12), slice(2, 3)), (slice(2, 3), slice(2, 8)), (slice(11, 12), slice(2, 8))]
    (found,) = find_candidates(votes_of(bracket), 0).candidates
    assert found.centre in ((6, 2), (7, 2))
    # columns are far apart: the nearest now lies in an arm
    (found,) = find_candidates(votes_of(bracket, spacing_mm=(0.1, 3.0)), 0).candidates
    assert found.centre[1] in (3, 4)


def test_candidates_come_in_the_order_of_their_first_voxels() -> None:
    low, high = (slice(12, 18), slice(2, 8)), (slice(2, 8), slice(20, 26))
    found = find_candidates(votes_of([low], [high]), 0)
    assert [c.votes for c in found.candidates] == [{"a": False, "b": True}, {"a": True, "b": False}]
    assert marks_of(found) == [36, 36]
    assert [list(extent.chosen) for extent in found.extents] == [[1], [0]]
    assert set(found.extents[1].voxels() // 30) == set(range(12, 18))


def test_only_the_asked_channel_is_looked_at() -> None:
    votes = np.zeros((2, 2, 20, 30), bool)
    votes[(0, 0, *LEFT)] = votes[(1, 1, *RIGHT)] = True
    raters = RaterVotes(votes, ("a", "b"), (1.0, 1.0))
    assert find_candidates(raters, 0).candidates[0].votes == {"a": True, "b": False}
    assert find_candidates(raters, 1).candidates[0].votes == {"a": False, "b": True}


def test_a_network_sees_what_exceeds_its_level() -> None:
    assert [Candidate({}, 1.0, s, ()).is_seen for s in (None, 0.15, 0.151)] == [False, False, True]
