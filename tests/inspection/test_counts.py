"""What is counted chunk by chunk is what all votes at once say."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings

from nnunet_softlabel.formats import packed as packed_module
from nnunet_softlabel.inspection.measures import compare_raters, measure_case
from tests.drawn_raters import Drawn, drawings


@pytest.mark.parametrize("chunk", [37, 1 << 16])
@given(drawn=drawings())
@settings(max_examples=25, deadline=None, derandomize=True)
def test_measures_of_chunks_are_those_of_all_votes(chunk: int, drawn: Drawn) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed_module, "CHUNK", chunk)
        measures, identical = compare_raters(drawn.packed)
    votes = drawn.votes
    for found, expected in zip(measures, measure_case(votes), strict=True):
        np.testing.assert_array_equal(found.coincidences, expected.coincidences)
        for name in ("dice", "volume_mm3", "marked_mm3", "disputed_mm3"):
            np.testing.assert_equal(getattr(found, name), getattr(expected, name))
    same = []
    for one, other in combinations(range(votes.n_raters), 2):
        answered = votes.answered
        is_same = np.array_equal(votes.votes[one], votes.votes[other]) and votes.votes[one].any()
        if is_same and (answered is None or np.array_equal(answered[one], answered[other])):
            same.append((votes.names[one], votes.names[other]))
    assert identical == same


@given(drawn=drawings())
@settings(max_examples=25, deadline=None, derandomize=True)
def test_measures_are_counted_by_hand(drawn: Drawn) -> None:
    """Slow and plain: one voxel after the other."""
    votes = drawn.votes
    answered = np.ones(votes.votes[:, 0].shape, bool) if votes.answered is None else votes.answered
    voxel_mm3 = float(np.prod(votes.spacing_mm))
    for channel, found in enumerate(measure_case(votes)):
        masks = votes.votes[:, channel] & answered
        table = np.zeros((2, 2))
        for said, asked in zip(
            masks.reshape(len(masks), -1).T, answered.reshape(len(masks), -1).T, strict=True
        ):
            given_votes = said[asked].astype(int)
            for first, second in combinations(given_votes, 2):
                table[first, second] += 1 / (len(given_votes) - 1)
                table[second, first] += 1 / (len(given_votes) - 1)
        np.testing.assert_allclose(found.coincidences, table)
        assert found.volume_mm3 == pytest.approx(
            {name: mask.sum() * voxel_mm3 for name, mask in zip(votes.names, masks, strict=True)}
        )
        disputed = masks.any(axis=0) & (masks.sum(axis=0) < answered.sum(axis=0))
        assert found.disputed_mm3 == pytest.approx(disputed.sum() * voxel_mm3)
        assert found.marked_mm3 == pytest.approx(masks.any(axis=0).sum() * voxel_mm3)
