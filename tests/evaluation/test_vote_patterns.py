from __future__ import annotations

import numpy as np
import pytest

from nnunet_softlabel.evaluation import vote_patterns
from nnunet_softlabel.evaluation.vote_patterns import VotePatterns, of_voxels
from nnunet_softlabel.formats.encoding import channels_of
from nnunet_softlabel.formats.labels import Labels

LABELS = Labels({"a": (1,), "b": (2, 4)}, ignore=5)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_patterns_give_back_what_every_rater_drew(rng, dtype):
    maps = {f"r{k}": rng.integers(0, 6, (5, 6, 7)).astype(dtype) for k in range(3)}
    votes = VotePatterns.of(maps.items(), LABELS, (5, 6, 7))
    for name, label_map in maps.items():
        for own, expected in zip(votes.members[name], channels_of(label_map, LABELS), strict=True):
            np.testing.assert_array_equal(of_voxels(own, votes.codes), expected)
        np.testing.assert_array_equal(of_voxels(votes.answered[name], votes.codes), label_map != 5)


def test_more_patterns_than_two_bytes_can_number_are_told_apart(rng, monkeypatch):
    monkeypatch.setattr(vote_patterns, "CHUNK", 50_000)
    shape = (90, 40, 40)
    maps = {
        f"r{k}": rng.integers(0, 251, (3, *shape[1:])).astype(np.uint8).repeat(30, axis=0) for k in (0, 1)
    }
    maps["r2"] = np.broadcast_to(np.arange(90, dtype=np.uint8)[:, None, None], shape).copy()
    votes = VotePatterns.of(maps.items(), LABELS, shape)
    assert votes.codes.dtype == np.uint32
    for name in maps:
        np.testing.assert_array_equal(of_voxels(votes.members[name][0], votes.codes), maps[name] == 1)


def test_the_background_of_all_raters_is_pattern_0():
    votes = VotePatterns.of([("r", np.array([[-1, 0]], np.int16)), ("q", np.array([[1, 0]]))], LABELS, (1, 2))
    assert votes.codes[0, 1] == 0
    assert not any(members[:, 0].any() for members in votes.members.values())
