"""Several trainings at once on this machine: each once, in an order that works, and none is left behind."""

import sys
from dataclasses import replace

import pytest

from nnunet_softlabel.benchmark import CellCommands, benchmark
from nnunet_softlabel.benchmark.cell_training import cell_environment
from nnunet_softlabel.benchmark.grid import BenchmarkGrid
from nnunet_softlabel.benchmark.preflight import find_problems
from nnunet_softlabel.cli import main
from tests.benchmark.grids import TRAINERS, silent
from tests.process_tree import is_alive, wait_until


def test_each_cell_is_trained_once_and_told_when_it_begins_and_ends(grid_factory, fake_training):
    lines = []
    grid = grid_factory(folds=[0, 1])
    outcome = benchmark(grid, num_processes=1, jobs=3, log=lines.append)
    assert list(outcome) == [cell.name for cell in grid.cells]
    assert set(map(str, outcome.values())) == {"done"}
    trained = sorted((arguments["trainer"], arguments["fold"]) for arguments in fake_training)
    assert trained == sorted((cell.trainer, cell.fold) for cell in grid.cells)
    for number, cell in enumerate(grid.cells, start=1):
        assert f"[{number}/4] {cell.name}: training" in lines
        assert sum(line.startswith(f"[{number}/4] {cell.name}: done in 2 s") for line in lines) == 1
    again = []
    benchmark(grid, num_processes=1, jobs=3, log=again.append)
    assert again == [f"[{n}/4] {cell.name}: done before" for n, cell in enumerate(grid.cells, start=1)]


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_another_process_did_meanwhile_is_not_told_to_be_trained_here(jobs, grid_factory, fake_training):
    grid = grid_factory(trainers=TRAINERS[:1], folds=[0, 1, 2])
    other, lines = grid_factory(trainers=TRAINERS[:1], folds=[2]), []

    def log(line):
        lines.append(line)
        if len(lines) == 1:
            benchmark(other, num_processes=1, only="train", log=silent)

    benchmark(grid, num_processes=1, jobs=jobs, only="train", log=log)
    assert f"[3/3] {grid.cells[2].name}: done before" in lines
    assert len(fake_training) == 3
    assert not any("; 2 left" in line for line in lines)


def test_a_failed_training_does_not_lose_those_beside_it(grid_factory, fake_training):
    lines = []
    grid = grid_factory(trainers=("nnUNetTrainerBroken", *TRAINERS))
    outcome = benchmark(grid, num_processes=1, jobs=2, log=lines.append)
    assert list(map(str, outcome.values())) == ["failed", "done", "done"]
    assert any("no such trainer" in line for line in lines)


def test_a_fine_tuned_row_waits_for_its_model_and_is_trained_in_the_same_run(grid_factory, fake_training):
    trainers = ("nnUNetTrainer", "nnUNetTrainerSoftCEFineTune")
    outcome = benchmark(grid_factory(trainers=trainers), num_processes=1, jobs=2, log=silent)
    assert list(map(str, outcome.values())) == ["done", "done"]
    assert [arguments["trainer"] for arguments in fake_training] == list(trainers)


def with_cascade(monkeypatch):
    """Plans in which ``2d`` is the second stage of ``3d_fullres``: no image here is large enough for one."""

    def first_stage(self, cell):
        return replace(cell, configuration="3d_fullres") if cell.configuration == "2d" else None

    monkeypatch.setattr(BenchmarkGrid, "first_stage", first_stage)
    monkeypatch.setattr(BenchmarkGrid, "_plans_of", lambda self, configurations: {})


@pytest.mark.parametrize("jobs", [1, 3])
def test_second_stages_are_trained_after_the_first_stages_of_all_folds(
    jobs, grid_factory, fake_training, monkeypatch
):
    with_cascade(monkeypatch)
    grid = grid_factory(trainers=TRAINERS[:1], configurations=("3d_fullres", "2d"), folds=[0, 1, 2])
    benchmark(grid, num_processes=1, jobs=jobs, only="train", log=silent)
    stages = [arguments["configuration"] for arguments in fake_training]
    assert stages == ["3d_fullres"] * 3 + ["2d"] * 3


def test_a_second_stage_waits_for_first_stages_that_are_trained_elsewhere(
    grid_factory, fake_training, monkeypatch
):
    from filelock import FileLock

    with_cascade(monkeypatch)
    grid = grid_factory(trainers=TRAINERS[:1], configurations=("3d_fullres", "2d"), folds=[0, 1])
    lock = grid.record_file(grid.cells[1]).with_suffix(".lock")
    lock.parent.mkdir(parents=True)
    with FileLock(lock):
        outcome = benchmark(grid, num_processes=1, only="train", log=silent)
    waits = f"not trained: waits for {grid.cells[1].name}"
    assert list(map(str, outcome.values())) == ["done", "in training elsewhere", waits, waits]
    benchmark(grid, num_processes=1, only="train", log=silent)
    assert [arguments["configuration"] for arguments in fake_training] == ["3d_fullres"] * 2 + ["2d"] * 2


def test_a_cascade_without_all_first_stages_is_a_problem_before_the_first_training(grid_factory, monkeypatch):
    with_cascade(monkeypatch)

    def problems(**options):
        grid = grid_factory(trainers=TRAINERS[:1], **options)
        return [
            text for text in find_problems(grid, num_processes=1) if "learns from the predictions" in text
        ]

    assert problems(configurations=("3d_fullres", "2d"), folds=[0, 1, 2]) == []
    (some_folds,) = problems(configurations=("3d_fullres", "2d"), folds=[0])
    assert "add 3d_fullres to -c, on all folds (-f)" in some_folds
    assert len(problems(configurations=("2d",), folds=[0, 1, 2])) == 1
    grid = grid_factory(trainers=TRAINERS[:1], folds=[0])
    predicted = grid.fold_folder(grid.cells[0]).parent / "predicted_next_stage" / "2d"
    predicted.mkdir(parents=True)
    for cases in grid.splits[0].values():
        for case in cases:
            (predicted / f"{case}.b2nd").touch()
    assert problems(configurations=("2d",), folds=[0]) == []


ENDLESS = """
import os, sys, time
open(os.path.join(sys.argv[1], str(os.getpid())), "w").close()
time.sleep(600)
"""


def test_an_interrupt_ends_all_trainings(grid_factory, tmp_path):
    begun = tmp_path / "begun"
    begun.mkdir()
    grid = grid_factory(commands=CellCommands([sys.executable, "-c", ENDLESS, str(begun)]))

    def interrupt(line):
        if line.startswith("[2/2]"):
            assert wait_until(lambda: any(begun.iterdir()), seconds=120)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        benchmark(grid, num_processes=1, jobs=2, log=interrupt)
    (pid,) = (int(path.name) for path in begun.iterdir())
    assert wait_until(lambda: not is_alive(pid), seconds=60)
    assert str(grid.record(grid.cells[0])["status"]) == "started"  # and goes on with the next command


def test_trainings_beside_each_other_share_the_cores_of_a_cpu(grid_factory, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    grid = grid_factory()
    assert cell_environment(grid, grid.cells[0], threads=3)["OMP_NUM_THREADS"] == "3"
    assert "OMP_NUM_THREADS" not in cell_environment(grid, grid.cells[0])
    monkeypatch.setenv("OMP_NUM_THREADS", "5")  # the user's word counts
    assert cell_environment(grid, grid.cells[0], threads=3)["OMP_NUM_THREADS"] == "5"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--jobs", "0"], "--jobs 0: give a number from 1"),
        (["--jobs", "2", "--cluster", "local"], "--jobs is for this machine"),
    ],
)
def test_a_number_of_jobs_that_cannot_be_is_refused(flags, message, planned_dataset, tmp_path, capsys):
    arguments = ["benchmark", "-d", str(planned_dataset.id), "-o", str(tmp_path / "out"), *flags]
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
