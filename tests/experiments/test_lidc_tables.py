"""The study on LIDC: counts by votes, tables from one row a case."""

from __future__ import annotations

import numpy as np
import pytest
from lidc_study import COLUMNS, marked_by_votes
from lidc_tables import BASE, METRICS, SHARES, as_soft_metrics, comparison, votes


@pytest.mark.parametrize("n_readers", [1, 2, 3, 4])
def test_voxels_are_counted_by_the_share_of_readers_who_marked_them(n_readers):
    n_votes = np.arange(n_readers + 1)
    soft = np.round(n_votes / n_readers * 32760) / 32760  # as stored
    marked = n_votes == n_readers
    found = marked_by_votes(soft, marked)
    assert found["voxels nobody"] == found["voxels all"] == 1
    assert found["voxels half"] == (n_readers % 2 == 0)
    assert found["voxels less than half"] == found["voxels more than half"] == (n_readers - 1) // 2
    assert [found[f"marked {share}"] for share in SHARES] == [0, 0, 0, 0, 1]


def row(trainer, fold, case, score, marked):
    counts = dict(zip((f"marked {s}" for s in SHARES), map(str, marked), strict=True))
    about = {"trainer": trainer, "fold": fold, "case": case, "group": case}
    return about | {m: str(score) for m in METRICS} | {f"voxels {s}": "100" for s in SHARES} | counts


def test_the_surplus_outside_the_consensus_is_counted_against_stock():
    rows = [
        row("nnUNetTrainerSoftCE", "0", "a", 0.5, (1, 13, 36, 60, 90)),
        row(BASE, "0", "a", 0.5, (0, 10, 20, 55, 90)),
    ]
    voxels, stock, soft = votes(rows).splitlines()[-3:]
    assert voxels.startswith("| voxels | 100 |")
    assert stock.startswith(f"| `{BASE}` | 0.00 % | 10.0 % |")
    assert soft.endswith("| +20 | 80 % |")


def test_every_trainer_is_compared_with_stock_case_by_case():
    rows = [row(BASE, "0", case, 0.25, [0] * 5) for case in "abcdefgh"]
    rows += [row("nnUNetTrainerSoftCE", "0", case, 0.75, [0] * 5) for case in "hgfedcba"]
    text = comparison(as_soft_metrics(rows))
    assert f"| `{BASE}` | 0.250 |" in text
    assert "| `nnUNetTrainerSoftCE` | Dice | +0.500 | +0.500 to +0.500 |" in text


def test_a_row_of_the_table_has_what_the_study_writes():
    assert set(row(BASE, "0", "a", 0.5, [0] * 5)) == set(COLUMNS)
