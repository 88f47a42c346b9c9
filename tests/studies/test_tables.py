"""What is committed of every study is what its CSV gives today."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from docs.studies.shared.resumable import read_rows

STUDIES = Path(__file__).parents[2] / "docs" / "studies"
NAMES = sorted(path.parent.name for path in STUDIES.glob("*/tables.md"))


def test_a_study_with_a_page_has_its_tables():
    assert {"datasets", "knees", "labels", "lidc", "losses"} <= set(NAMES)
    for page in STUDIES.glob("*/README.md"):
        parts = ("DESIGN.md", "__main__.py", "tables.py", "tables.md")
        assert [part for part in parts if not (page.parent / part).is_file()] == []


@pytest.mark.parametrize("name", NAMES)
def test_tables_of_a_study_regenerate_without_a_change(name, tmp_path, monkeypatch):
    study = importlib.import_module(f"docs.studies.{name}.__main__")
    written = tmp_path / name
    written.mkdir()
    for module in (study, study.tables):
        for place, path in list(vars(module).items()):
            if isinstance(path, Path) and path.suffix in (".md", ".png"):
                monkeypatch.setattr(module, place, written / path.name)
    monkeypatch.setattr(sys, "argv", ["study", "--tables"])
    study.main()
    page = (written / "tables.md").read_text(encoding="utf-8")
    assert page == (STUDIES / name / "tables.md").read_text(encoding="utf-8")
    pictures = {path.name for path in (STUDIES / name).glob("*.png")}
    assert {path.name for path in written.iterdir()} - {"tables.md"} == pictures


def test_no_cell_of_a_study_is_missing():
    """With its whole CSV a study trains nothing."""
    for name in ("losses", "knees", "datasets", "lidc"):
        study = importlib.import_module(f"docs.studies.{name}.__main__")
        cells = study.cells(study.EXPERIMENTS) if name == "datasets" else study.cells()
        # the threshold of the knees is a row of a cell
        key = [column for column in study.KEY if column != "threshold"]
        done = {tuple(row[column] for column in key) for row in read_rows(STUDIES / name / "results.csv")}
        assert set(cells) == done, name
