"""Tables of the study on the real data sets, from rows made up."""

from __future__ import annotations

import csv

import pytest

from docs.studies.datasets import tables as dataset_tables
from docs.studies.datasets.__main__ import COLUMNS
from docs.studies.datasets.tables import paired_by_case, write

MEANS = (("raters_long", "1", 0.25), ("cases_long", "all", 0.5), ("cases_long", "25", 0.125))


def row(experiment, variant, loss, case, score):
    about = {"experiment": experiment, "variant": variant, "fold": "0", "loss": loss, "case": case}
    return {name: str(score) for name in COLUMNS} | about | {"group": case, "class": "1"}


def test_differences_pair_the_same_case():
    base = [row("cases", "all", "stock", "a", 0.5), row("cases", "all", "stock", "b", 0.9)]
    own = [row("cases", "all", "soft", "b", 1.0), row("cases", "all", "soft", "a", 0.8)]
    mean, low, high = paired_by_case(base, own, "dice")
    assert mean == pytest.approx(0.2)
    assert (low, high) == pytest.approx((0.1, 0.3))


def test_all_raters_is_the_experiment_with_all_cases(tmp_path, monkeypatch):
    rows = [
        row(experiment, variant, loss, case, score + (loss == "soft") * 0.25)
        for experiment, variant, score in MEANS
        for loss in ("stock", "soft")
        for case in "ab"
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
