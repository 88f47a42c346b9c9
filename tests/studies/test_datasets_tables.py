"""Tables of the study on the real data sets, from rows made up."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from docs.studies.datasets import tables as dataset_tables
from docs.studies.datasets.__main__ import COLUMNS
from docs.studies.datasets.tables import paired_by_case, write

CASES = "abcdef"  # as many patients as an interval needs
MEANS = (("raters_long", "1", 0.25), ("cases_long", "all", 0.5), ("cases_long", "25", 0.125))


def row(experiment, variant, loss, case, score):
    about = {"experiment": experiment, "variant": variant, "fold": "0", "loss": loss, "case": case}
    return {name: str(score) for name in COLUMNS} | about | {"group": case, "class": "1"}


def test_differences_pair_the_same_case():
    before, after = dict(zip(CASES, range(6), strict=True)), dict(zip(CASES, range(1, 7), strict=True))
    base = [row("cases", "all", "stock", case, before[case]) for case in CASES]
    own = [row("cases", "all", "soft", case, after[case]) for case in reversed(CASES)]
    assert paired_by_case(base, own, "dice") == pytest.approx((1, 1, 1))
    mean, low, high = paired_by_case(base[:2], own[-2:], "dice")
    assert mean == 1
    assert np.isnan([low, high]).all()  # of two patients


def test_all_raters_is_the_experiment_with_all_cases(tmp_path, monkeypatch):
    rows = [
        row(experiment, variant, loss, case, score + (loss == "soft") * 0.25)
        for experiment, variant, score in MEANS
        for loss in ("stock", "soft")
        for case in CASES
    ]
    results, page = tmp_path / "study.csv", tmp_path / "page.md"
    with results.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    monkeypatch.setattr(dataset_tables, "PAGE", page)
    monkeypatch.setattr(dataset_tables, "PLOT", tmp_path / "scaling.png")
    write(results)
    raters, cases = page.read_text().split("## LIDC, number of cases")
    assert "| all | `soft` | 0.750 |" in raters
    assert "| 1 | `soft` | 0.500 |" in raters
    assert "| `soft` | 1 to all | +0.250 (+0.250 to +0.250) * |" in raters
    assert "| `soft` | 25 to all | +0.375" in cases
    assert "| 1 |" not in cases
    assert (tmp_path / "scaling.png").is_file()
