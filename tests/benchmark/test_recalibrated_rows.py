"""Every trainer once more, recalibrated by its other folds."""

import pytest

from nnunet_softlabel.benchmark import benchmark, report
from nnunet_softlabel.benchmark import recalibrated_rows as rows
from nnunet_softlabel.errors import UsageError
from nnunet_softlabel.formats.files import read_json
from tests.benchmark.grids import TRAINERS, silent


def helps(monkeypatch):
    """Fake networks are as good as can be; let any map count as a help."""
    monkeypatch.setattr("nnunet_softlabel.evaluation.calibrate.DECISIVE", ())


def test_a_row_for_each_trainer_with_the_maps_of_other_folds(grid_factory, fake_training, monkeypatch):
    helps(monkeypatch)
    grid = grid_factory(folds=[0, 1], calibrate="affine")
    outcome = benchmark(grid, num_processes=1, log=silent)
    page = report(grid, outcome).read_text(encoding="utf-8")
    assert "nnUNetTrainerAPL, recalibrated" in page or "APL, recalibrated" in page
    assert "nnUNetTrainer against nnUNetTrainerAPL, as trained and recalibrated</h1>" in page
    summary = read_json(grid.output / "soft_summary.json")
    assert list(summary["trainers"]) == [*TRAINERS, *(f"{name}, recalibrated" for name in TRAINERS)]
    assert {d["trainer"] for d in summary["differences"]} == set(summary["trainers"]) - {TRAINERS[0]}
    for cell in grid.cells:
        stored = read_json(rows.recalibrated_folder(grid, cell) / "soft_summary.json")
        assert stored["calibration"]["file"] == str(rows.calibration_file(grid, cell))
        parts = read_json(rows.calibration_file(grid, cell))["parts"]
        assert len(parts) == 2


def test_thresholds_are_tuned_on_recalibrated_probabilities(grid_factory, fake_training, monkeypatch):
    helps(monkeypatch)
    grid = grid_factory(trainers=TRAINERS[:1], folds=[0, 1], calibrate="temperature", threshold="tuned")
    benchmark(grid, num_processes=1, log=silent)
    for cell in grid.cells:
        folder = rows.recalibrated_folder(grid, cell)
        digest = read_json(folder / "soft_summary.json")["calibration"]["digest"]
        assert read_json(folder / "thresholds.json")["calibration"] == digest


def test_a_map_that_does_not_help_gives_no_row(grid_factory, fake_training, monkeypatch):
    monkeypatch.setattr("nnunet_softlabel.evaluation.calibrate._why_not", lambda *_: "it does not help")
    lines = []
    grid = grid_factory(trainers=TRAINERS[:1], folds=[0, 1], calibrate="affine")
    outcome = benchmark(grid, num_processes=1, log=lines.append)
    assert any("no row: it does not help" in line for line in lines)
    report(grid, outcome)
    assert list(read_json(grid.output / "soft_summary.json")["trainers"]) == [TRAINERS[0]]


def test_one_fold_cannot_be_recalibrated(grid_factory):
    with pytest.raises(UsageError, match="give at least two to folds"):
        grid_factory(folds=[0], calibrate="affine")
