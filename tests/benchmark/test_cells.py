"""Cells are trained once, resumed, left alone, scored; here, and as jobs of a cluster."""

import sys
from pathlib import Path

import pytest

from nnunet_softlabel.benchmark import (
    CellCommands,
    ClusterJobs,
    benchmark,
    cell_training,
    report,
)
from nnunet_softlabel.cases.splits import read_splits
from nnunet_softlabel.cli import main
from nnunet_softlabel.errors import UsageError
from nnunet_softlabel.formats.files import read_json, write_json
from nnunet_softlabel.training.budget import Budget
from tests.benchmark.grids import TRAINERS, silent


def test_a_killed_cell_continues_from_its_checkpoint(grid_factory, fake_training):
    grid = grid_factory(trainers=TRAINERS[:1])
    record = grid.record_file(grid.cells[0])
    record.parent.mkdir(parents=True)
    write_json(record, {"made_with": grid.made_with(grid.cells[0]), "status": "started"})
    benchmark(grid, num_processes=1, log=silent)
    assert fake_training[0]["continues"] is True


def test_a_failed_cell_does_not_lose_the_others(grid_factory, fake_training):
    lines = []
    grid = grid_factory(trainers=("nnUNetTrainerBroken", *TRAINERS))
    outcome = benchmark(grid, num_processes=1, log=lines.append)
    assert sorted(map(str, outcome.values())) == ["done", "done", "failed"]
    assert any("no such trainer" in line for line in lines)
    assert "nnUNetTrainerBroken" in report(grid, outcome).read_text(encoding="utf-8")  # named in the notes


def test_a_cell_that_cannot_be_scored_does_not_lose_the_others(grid_factory, fake_training):
    grid = grid_factory(trainers=(*TRAINERS, "nnUNetTrainerWithoutNpz"))
    outcome = benchmark(grid, num_processes=1, log=silent)
    assert list(map(str, outcome.values()))[:2] == ["done", "done"]
    assert str(list(outcome.values())[2]).startswith("trained, but not scored: ")
    assert "trained, but not scored" in report(grid, outcome).read_text(encoding="utf-8")


FINE_TUNED = ("nnUNetTrainer", "nnUNetTrainerSoftCEFineTune")


def test_a_fine_tuned_row_is_trained_after_the_model_it_goes_on_from(grid_factory, fake_training):
    outcome = benchmark(grid_factory(trainers=FINE_TUNED), num_processes=1, log=silent)
    assert list(map(str, outcome.values())) == ["done", "done"]
    assert [arguments["trainer"] for arguments in fake_training] == list(FINE_TUNED)


def test_a_fine_tuned_row_waits_for_the_model_it_goes_on_from(grid_factory, fake_training):
    from filelock import FileLock

    grid = grid_factory(trainers=FINE_TUNED)
    lock = grid.record_file(grid.cells[0]).with_suffix(".lock")
    lock.parent.mkdir(parents=True)
    with FileLock(lock):
        outcome = benchmark(grid, num_processes=1, log=silent)
    waits = f"not trained: waits for {grid.cells[0].name}"
    assert list(map(str, outcome.values())) == ["in training elsewhere", waits]
    assert fake_training == []
    assert list(map(str, benchmark(grid, num_processes=1, log=silent).values())) == ["done", "done"]


@pytest.mark.parametrize("trainers", [FINE_TUNED[1:], FINE_TUNED[::-1]])
def test_a_fine_tuned_row_without_its_model_is_refused(grid_factory, trainers):
    wanted = (
        r"^trainers nnUNetTrainerSoftCEFineTune: goes on from the model of nnUNetTrainer; "
        "name nnUNetTrainer before"
    )
    with pytest.raises(UsageError, match=wanted):
        grid_factory(trainers=trainers)


def test_a_cell_made_with_something_else_is_refused(grid_factory, fake_training):
    benchmark(grid_factory(), num_processes=1, log=silent)
    with pytest.raises(UsageError, match="was made with iterations 1, this benchmark asks for 2"):
        benchmark(grid_factory(budget=Budget(1, 2, "cpu")), num_processes=1, log=silent)


def test_a_cell_of_another_split_is_refused(
    planned_dataset, grid_factory, fake_training, tmp_path, monkeypatch
):
    """The same fold has other cases by now: some would be scored twice, or by networks that saw them."""
    planned_dataset.copy_to(tmp_path, monkeypatch)
    grid = grid_factory()
    benchmark(grid, num_processes=1, log=silent)
    path = grid.preprocessed / "splits_final.json"
    folds = read_splits(path)
    write_json(path, [{side: cases[::-1] for side, cases in fold.items()} for fold in folds])
    assert set(map(str, benchmark(grid, num_processes=1, log=silent).values())) == {"done"}
    write_json(path, folds[::-1])
    with pytest.raises(UsageError, match=r"splits_final\.json"):
        benchmark(grid_factory(), num_processes=1, log=silent)


def test_a_cell_knows_the_split_that_its_own_training_made(
    planned_dataset, grid_factory, fake_training, tmp_path, monkeypatch
):
    planned_dataset.copy_to(tmp_path, monkeypatch)
    grid = grid_factory(trainers=TRAINERS[:1])
    path = grid.preprocessed / "splits_final.json"
    folds, popen = read_splits(path), cell_training.subprocess.Popen
    path.unlink()

    def train(command, **options):
        write_json(path, folds)
        return popen(command, **options)

    monkeypatch.setattr(cell_training.subprocess, "Popen", train)
    assert grid.made_with(grid.cells[0])["split"] is None
    benchmark(grid, num_processes=1, log=silent)
    assert read_json(grid.record_file(grid.cells[0]))["made_with"]["split"]


def test_a_cell_of_an_unknown_split_is_taken_up(grid_factory, fake_training):
    """A record of a training that ended before nnU-Net made its splits."""
    grid = grid_factory(trainers=TRAINERS[:1])
    record = grid.record_file(grid.cells[0])
    record.parent.mkdir(parents=True)
    write_json(record, {"made_with": grid.made_with(grid.cells[0]) | {"split": None}, "status": "started"})
    assert list(map(str, benchmark(grid, num_processes=1, log=silent).values())) == ["done"]


def test_a_cell_in_training_elsewhere_is_left_alone(grid_factory, fake_training):
    from filelock import FileLock

    grid = grid_factory()
    lock = grid.record_file(grid.cells[0]).with_suffix(".lock")
    lock.parent.mkdir(parents=True)
    with FileLock(lock):
        outcome = benchmark(grid, num_processes=1, log=silent)
    assert list(map(str, outcome.values())) == ["in training elsewhere", "done"]
    assert [arguments["trainer"] for arguments in fake_training] == [TRAINERS[1]]


def test_only_train_scores_nothing_and_only_report_trains_nothing(grid_factory, fake_training):
    grid = grid_factory()
    benchmark(grid_factory(trainers=TRAINERS[:1]), only="train", log=silent)
    assert not (grid.output / "evaluation").exists()
    outcome = benchmark(grid, num_processes=1, only="report", log=silent)
    assert list(map(str, outcome.values())) == ["done", "not trained"]
    assert len(fake_training) == 1
    assert "nnUNetTrainerAPL__3d_fullres__fold_0__seed_0: not trained" in report(grid, outcome).read_text(
        encoding="utf-8"
    )


def test_tuned_thresholds_never_saw_the_cases_they_cut(grid_factory, fake_training):
    grid = grid_factory(folds=[0, 1, 2], threshold="tuned")
    page = report(grid, benchmark(grid, num_processes=1, log=silent))
    for cell in grid.cells:
        tuned = read_json(grid.threshold_file(cell))
        own = {path.stem for path in grid.validation_folder(cell).glob("*.npz")}
        assert own.isdisjoint(tuned["cases"])
        assert tuned["cases"]
        summary = read_json(grid.evaluation_folder(cell) / "soft_summary.json")
        assert summary["threshold"]["values"] == tuned["thresholds"]
    assert "never on the cases that they cut" in page.read_text(encoding="utf-8")


def test_a_threshold_of_a_network_that_changed_is_tuned_again(grid_factory, fake_training):
    grid = grid_factory(trainers=TRAINERS[:1], folds=[0, 1], threshold="tuned")
    benchmark(grid, num_processes=1, log=silent)
    file = grid.threshold_file(grid.cells[0])
    tuned = read_json(file)
    write_json(file, tuned | {"fitted_on": dict.fromkeys(tuned["fitted_on"], "of other weights")})
    outcome = benchmark(grid, num_processes=1, log=silent)
    assert set(map(str, outcome.values())) == {"done"}
    assert read_json(file) == tuned


def test_another_threshold_scores_again_and_trains_nothing(grid_factory, fake_training):
    for threshold in ("0.5", "0.3"):
        grid = grid_factory(threshold=threshold)
        benchmark(grid, num_processes=1, log=silent)
        summary = read_json(grid.evaluation_folder(grid.cells[0]) / "soft_summary.json")
        assert summary["threshold"]["values"] == {"lesion": float(threshold)}
    assert len(fake_training) == 2


@pytest.mark.slow
def test_jobs_train_the_cells_and_lose_no_other(grid_factory, monkeypatch):
    pytest.importorskip("submitit")
    root = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", str(root))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    lines = []
    grid = grid_factory(
        trainers=("nnUNetTrainerBroken", "nnUNetTrainer"),
        commands=CellCommands([sys.executable, str(root / "tests" / "benchmark" / "fake_training.py")]),
    )
    cluster = ClusterJobs("local", {"timeout_min": 5, "partition": "gpu"}, poll_seconds=0.2)
    outcome = benchmark(grid, num_processes=1, cluster=cluster, log=lines.append)
    assert list(map(str, outcome.values())) == ["failed", "done"]
    assert any("no such trainer" in line for line in lines)
    assert report(grid, outcome).is_file()
    # again: only what is not done is submitted
    lines.clear()
    benchmark(grid, num_processes=1, cluster=cluster, log=lines.append)
    assert len([line for line in lines if line.startswith("job ")]) == 2  # submitted, ended
    assert all("nnUNetTrainerBroken" in line for line in lines)


@pytest.mark.slow
def test_a_job_that_dies_does_not_lose_the_others(grid_factory, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    lines = []
    grid = grid_factory(trainers=TRAINERS[:1], commands=CellCommands(["no-such-program"]))
    cluster = ClusterJobs("local", poll_seconds=0.2)
    outcome = benchmark(grid, num_processes=1, cluster=cluster, log=lines.append)
    assert list(map(str, outcome.values())) == ["failed"]
    assert "no-such-program" in lines[-1]


def test_a_stopped_job_is_queued_again_with_its_cell(grid_factory):
    pytest.importorskip("submitit")
    from nnunet_softlabel.benchmark.cluster import CellJob

    job = CellJob(grid_factory(), grid_factory().cells[0])
    assert job.checkpoint().function is job


@pytest.mark.slow
def test_benchmark_command_trains_for_real(planned_dataset, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    arguments = ["benchmark", "-d", str(planned_dataset.id), "-f", "0", "-p", "nnUNetPlansReduced"]
    arguments += ["-device", "cpu", "--epochs", "1", "--iterations", "2", "-np", "1"]
    arguments += ["-tr", "nnUNetTrainerAPL", "-o", str(tmp_path / "b")]
    monkeypatch.setattr(sys, "argv", ["nnunet_softlabel", *arguments])
    assert main(arguments) == 0
    assert "Report:" in capsys.readouterr().out
    assert (tmp_path / "b" / "report.html").is_file()
