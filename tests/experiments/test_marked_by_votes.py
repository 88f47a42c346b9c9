"""Counting what trainers mark by the votes of the readers."""

from __future__ import annotations

import numpy as np
import pytest
from marked_by_votes import BASE, SHARES, share_of_readers, table


@pytest.mark.parametrize("n_readers", [1, 2, 3, 4])
def test_shares_are_of_the_readers_who_marked(n_readers):
    votes = np.arange(n_readers + 1)
    found = [SHARES[i] for i in share_of_readers(votes / n_readers)]
    for n, name in zip(votes, found, strict=True):
        expected = "nobody" if n == 0 else "all" if n == n_readers else None
        if expected is None:
            expected = {-1: "less than half", 0: "half", 1: "more than half"}[int(np.sign(2 * n - n_readers))]
        assert name == expected


def test_the_surplus_outside_the_consensus_is_counted_against_stock():
    rows = [
        {"trainer": trainer, "fold": "0", "share": share, "voxels": "100", "marked": str(marked)}
        for trainer, counts in {"nnUNetTrainerSoftCE": (1, 13, 36, 60, 90), BASE: (0, 10, 20, 55, 90)}.items()
        for share, marked in zip(SHARES, counts, strict=True)
    ]
    _, _, voxels, stock, soft = table(rows).splitlines()[-5:]
    assert voxels.startswith("| voxels | 100 |")
    assert stock.startswith(f"| `{BASE}` | 0.00 % | 10.0 % |")
    assert soft.endswith("| +20 | 80 % |")
