"""Cells of an experiment: only what is missing runs, what is run stays."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from docs.studies.shared.resumable import read_rows, run_missing

KEY, COLUMNS = ("name", "seed"), ("name", "seed", "value")
CELLS = [("a", "0"), ("a", "1"), ("b", "0")]


def rows_of(cell):
    if cell[0] == "broken":
        raise RuntimeError("a cell that fails")
    if cell[0] == "leaves a file":
        Path(cell[1]).write_text("ran", encoding="utf-8")
        return [{"name": cell[0], "seed": cell[1], "value": 0.0}]
    return [{"name": cell[0], "seed": cell[1], "value": 10.0 * int(cell[1])}]


def run(path, cells=CELLS):
    run_missing(path, cells, rows_of, key=KEY, columns=COLUMNS)


def test_every_cell_is_written(tmp_path):
    run(tmp_path / "x.csv")
    rows = read_rows(tmp_path / "x.csv")
    assert sorted((r["name"], r["seed"], r["value"]) for r in rows) == [
        ("a", "0", "0"),
        ("a", "1", "10"),
        ("b", "0", "0"),
    ]


def test_cells_that_are_there_stay_as_they_are(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("name,seed,value\na,0,77\n")
    run(path)
    assert [r["value"] for r in read_rows(path) if (r["name"], r["seed"]) == ("a", "0")] == ["77"]
    assert len(read_rows(path)) == 3


def test_torn_last_line_is_run_again(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("name,seed,value\na,0,77\na,1,1")
    run(path)
    assert {(r["name"], r["seed"]): r["value"] for r in read_rows(path)} == {
        ("a", "0"): "77",
        ("a", "1"): "10",
        ("b", "0"): "0",
    }


def test_rows_of_a_cell_are_written_all_or_not(tmp_path, monkeypatch):
    path = tmp_path / "x.csv"
    run(path, CELLS[:1])
    before = path.read_text()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        run(path)
    assert path.read_text() == before


def test_a_failing_cell_keeps_the_others(tmp_path):
    path = tmp_path / "x.csv"
    with pytest.raises(RuntimeError, match="a cell that fails"):
        run(path, [("a", "0"), ("broken", "0")])
    assert [r["name"] for r in read_rows(path)] == ["a"]


def test_results_of_another_script_are_not_mixed_in(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("name,other\na,0\n")
    with pytest.raises(SystemExit, match="has other columns"):
        run(path)
    assert path.read_text() == "name,other\na,0\n"


def test_a_cell_that_fails_is_told_before_the_others_have_run(tmp_path):
    files = [tmp_path / str(k) for k in range(20)]
    with pytest.raises(RuntimeError, match="a cell that fails"):
        run(tmp_path / "x.csv", [("broken", "0"), *(("leaves a file", str(file)) for file in files)])
    assert not files[-1].exists()  # a few may be on their way to the process already
