"""What is committed of every study is what its CSV gives today."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from docs.studies.shared.resumable import read_rows

STUDIES = Path(__file__).parents[2] / "docs" / "studies"
NAMES = sorted(path.parent.name for path in STUDIES.glob("*/tables.py"))


def test_no_study_is_left_out():
    assert NAMES == sorted(path.parent.name for path in STUDIES.glob("*/__main__.py"))


@pytest.mark.parametrize("name", NAMES)
def test_tables_of_a_study_regenerate_without_a_change(name, tmp_path, monkeypatch):
    study = importlib.import_module(f"docs.studies.{name}.__main__")
    page = tmp_path / name / "tables.md"
    page.parent.mkdir()
    monkeypatch.setattr(study.tables, "PAGE", page)
    if hasattr(study.tables, "PLOT"):
        monkeypatch.setattr(study.tables, "PLOT", page.parent / study.tables.PLOT.name)
    monkeypatch.setattr(sys, "argv", ["study", "--tables"])
    study.main()
    assert page.read_text(encoding="utf-8") == (STUDIES / name / "tables.md").read_text(encoding="utf-8")
    assert {path.name for path in page.parent.iterdir()} - {"tables.md"} == {
        path.name for path in (STUDIES / name).glob("*.png")
    }


def test_no_cell_of_a_study_is_missing():
    """With its whole CSV a study trains nothing."""
    for name in ("losses", "knees", "datasets", "lidc"):
        study = importlib.import_module(f"docs.studies.{name}.__main__")
        cells = study.cells(study.EXPERIMENTS) if name == "datasets" else study.cells()
        # the threshold of the knees is a row of a cell
        key = [column for column in study.KEY if column != "threshold"]
        done = {tuple(row[column] for column in key) for row in read_rows(STUDIES / name / "results.csv")}
        assert set(cells) == done, name
