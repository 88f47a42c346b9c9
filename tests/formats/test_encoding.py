from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from nnunet_softlabel.formats.encoding import channels_of_raters, consensus
from nnunet_softlabel.formats.labels import Labels


@pytest.mark.parametrize("raters", [2, 3, 7, 11, 16, 22, 48, 64])
def test_ties_of_votes_go_to_the_background_whatever_the_number_of_raters(raters: int) -> None:
    votes = [v for v in product(range(raters + 1), repeat=2) if sum(v) <= raters]
    soft = (np.array(votes, np.float32) / np.float32(raters)).T[..., np.newaxis]
    hard = consensus(soft, Labels({"a": (1,), "b": (2,)}))[:, 0]
    for (a, b), found in zip(votes, hard, strict=True):
        background = raters - a - b
        expected = 0 if background >= max(a, b) else 1 if a >= b else 2
        assert found == expected, (a, b, background)


def test_channels_of_raters_are_those_of_each_rater() -> None:
    labels = Labels({"whole": (1, 2), "core": (2,)})
    maps = [np.array([[0, 1], [2, 1]], np.uint8), np.array([[2, 0], [0, 0]], np.uint8)]
    found = channels_of_raters(maps, labels)
    assert found.dtype == bool
    by_hand = [[[[0, 1], [1, 1]], [[0, 0], [1, 0]]], [[[1, 0], [0, 0]], [[1, 0], [0, 0]]]]
    np.testing.assert_array_equal(found, by_hand)
