"""Votes that are counted in a box are those of the whole grid."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_softlabel.fusion import RaterCounts, RaterVotes, estimate_rater_rates
from nnunet_softlabel.fusion.rater_votes import marked_box
from nnunet_softlabel.inspection.run import _counts_of


@pytest.mark.parametrize("shared", [False, True])
def test_votes_counted_in_a_box_give_the_rates_of_the_whole_grid(shared: bool) -> None:
    votes = np.zeros((3, 2, 5, 8, 9), bool)
    votes[:, :, 1:4, 2:6, 3:7] = np.random.default_rng(0).random((3, 2, 3, 4, 4)) > 0.5
    whole = RaterVotes(votes, ("eve", "ann", "bob"), (1.0, 1.0, 1.0), exclusive=False)
    box = marked_box(whole, margin_mm=0)
    assert box is not None
    found = _counts_of(whole.cropped(box), whole.spatial_shape)
    assert found == RaterCounts(whole.names, tuple(map(dict, RaterCounts.of(whole).channels)))
    assert found.estimate(shared=shared) == estimate_rater_rates([whole], shared=shared)
