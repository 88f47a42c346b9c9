"""The grid: cells are trained once, resumed, refused when they do not fit, and reported."""

import json
import sys
from types import SimpleNamespace

import pytest

from nnunet_softlabel import benchmark as module
from nnunet_softlabel.benchmark import Budget, Grid, benchmark
from nnunet_softlabel.benchmark_report import format_benchmark, report
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.soft_labels import read_json, write_json

TRAINERS = ("nnUNetTrainer", "nnUNetTrainerAPL")


@pytest.fixture
def grid_factory(planned_dataset, tmp_path):
    def make(**options):
        options = {
            "trainers": TRAINERS,
            "folds": [0],
            "plans": "nnUNetPlansReduced",
            "budget": Budget(1, 1),
        } | options
        return Grid(planned_dataset.id, tmp_path / "benchmark", device="cpu", **options)

    return make


@pytest.fixture
def fake_training(monkeypatch, planned_dataset):
    """Stands in for the training process: writes the probabilities of the soft label, a little blurred."""
    import numpy as np
    from scipy.ndimage import gaussian_filter

    from nnunet_softlabel.soft_labels import SoftDataset, with_background

    started = []

    def run(command, env, stdout, stderr):
        arguments = json.loads(open(command[3]).read())
        started.append(arguments)
        if arguments["trainer"] == "nnUNetTrainerBroken":
            stdout.write("RuntimeError: no such trainer\n")
            return SimpleNamespace(poll=lambda: 1, returncode=1)
        dataset = SoftDataset(planned_dataset.raw)
        name = f"{arguments['trainer']}__{arguments['plans']}__{arguments['configuration']}"
        folder = (
            module.Path(env["nnUNet_results"]) / planned_dataset.name / name / f"fold_{arguments['fold']}"
        )
        (folder / "validation").mkdir(parents=True, exist_ok=True)
        blur = 0.5 + TRAINERS.index(arguments["trainer"])
        split = read_json_list(planned_dataset.preprocessed / "splits_final.json")[arguments["fold"]]
        for case in split["val"]:
            soft = with_background(gaussian_filter(dataset.read_soft(case), (0, blur, blur, blur)))
            np.savez(folder / "validation" / f"{case}.npz", probabilities=soft)
            (folder / "validation" / f"{case}.pkl").write_bytes(b"")
        result = {
            "train_seconds": 1.0,
            "validation_seconds": 1.0,
            "peak_memory_gb": 0.1,
            "curves": {"train_losses": [1.0]},
        }
        write_json(module.Path(command[4]), result | {"epochs": 1, "iterations": 1, "device": "cpu"})
        return SimpleNamespace(poll=lambda: 0, returncode=0)

    monkeypatch.setattr(module.subprocess, "Popen", run)
    return started


def read_json_list(path):
    return json.loads(path.read_text())


def test_benchmark_trains_what_is_missing_and_reports(grid_factory, fake_training):
    grid = grid_factory()
    outcome = benchmark(grid, num_processes=1, log=lambda text: None)
    assert set(outcome.values()) == {"done"}
    page = report(grid, outcome, commands=["nnunet_softlabel benchmark"])
    text = page.read_text()
    assert "nnUNetTrainerAPL" in text
    assert "<script src=" not in text
    summary = read_json(grid.output / "soft_summary.json")
    differences = {(d["metric"], d["baseline"], d["trainer"]) for d in summary["differences"]}
    assert ("dice", *TRAINERS) in differences
    # the sharper baseline is nearer to the soft label
    soft_dice = {
        name: t["mean"]["model"]["soft"]["lesion"]["soft_dice"]["mean"]
        for name, t in summary["trainers"].items()
    }
    assert soft_dice["nnUNetTrainer"] > soft_dice["nnUNetTrainerAPL"]
    assert "nnUNetTrainerAPL" in format_benchmark(grid.output)
    benchmark(grid_factory(), num_processes=1, log=lambda text: None)
    assert len(fake_training) == 2  # nothing was trained again


def test_a_killed_cell_continues_from_its_checkpoint(grid_factory, fake_training):
    grid = grid_factory(trainers=TRAINERS[:1])
    record = grid.record_file(grid.cells[0])
    record.parent.mkdir(parents=True)
    write_json(record, {"made_with": grid.made_with(grid.cells[0]), "status": "started"})
    benchmark(grid, num_processes=1, log=lambda text: None)
    assert fake_training[0]["continues"] is True


def test_a_failed_cell_does_not_lose_the_others(grid_factory, fake_training):
    lines = []
    grid = grid_factory(trainers=("nnUNetTrainerBroken", *TRAINERS))
    outcome = benchmark(grid, num_processes=1, log=lines.append)
    assert sorted(outcome.values()) == ["done", "done", "failed"]
    assert any("no such trainer" in line for line in lines)
    assert "nnUNetTrainerBroken" in report(grid, outcome).read_text()  # named in the notes


def test_a_cell_made_with_something_else_is_refused(grid_factory, fake_training):
    benchmark(grid_factory(), num_processes=1, log=lambda text: None)
    with pytest.raises(UsageError, match="was made with iterations 1, this benchmark asks for 2"):
        benchmark(grid_factory(budget=Budget(1, 2)), num_processes=1, log=lambda text: None)


def test_seeds_have_results_of_their_own(grid_factory):
    grid = grid_factory(seeds=[0, 1], trainers=TRAINERS[:1])
    folders = {grid.fold_folder(cell) for cell in grid.cells}
    assert len(folders) == 2


def test_unknown_plan_and_configuration_are_refused(grid_factory):
    with pytest.raises(UsageError, match=r"-p nnUNetPlansOther: .* is not there"):
        grid_factory(plans="nnUNetPlansOther")
    with pytest.raises(UsageError, match="-c 3d_lowres: nnUNetPlansReduced has no such configuration"):
        grid_factory(configurations=["3d_lowres"])


def test_a_report_without_a_finished_cell_is_refused(grid_factory):
    grid = grid_factory()
    with pytest.raises(DatasetError, match="no training is done"):
        report(grid, {cell.name: "failed" for cell in grid.cells})


def test_command_refuses_numbers_below_one(planned_dataset, tmp_path, capsys):
    from nnunet_softlabel.cli import main

    assert main(["benchmark", "-d", str(planned_dataset.id), "-o", str(tmp_path / "b"), "--epochs", "0"]) == 2
    assert "--epochs 0: give a number from 1" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


@pytest.mark.slow
def test_benchmark_command_trains_for_real(planned_dataset, tmp_path, capsys, monkeypatch):
    from nnunet_softlabel.cli import main

    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    arguments = [
        "benchmark",
        "-d",
        str(planned_dataset.id),
        "-f",
        "0",
        "-p",
        "nnUNetPlansReduced",
        "-device",
        "cpu",
    ]
    arguments += [
        "--epochs",
        "1",
        "--iterations",
        "2",
        "-o",
        str(tmp_path / "b"),
        "-np",
        "1",
        "-tr",
        "nnUNetTrainerAPL",
    ]
    monkeypatch.setattr(sys, "argv", ["nnunet_softlabel", *arguments])
    assert main(arguments) == 0
    assert "Report:" in capsys.readouterr().out
    assert (tmp_path / "b" / "report.html").is_file()
