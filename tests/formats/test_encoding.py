from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from nnunet_softlabel.formats.encoding import consensus
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
