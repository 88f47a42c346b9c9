"""The grid: cells are trained once, resumed, refused when they do not fit, and reported."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nnunet_softlabel.benchmark import (
    Budget,
    ClusterJobs,
    Grid,
    benchmark,
    cell_training,
    format_benchmark,
    report,
)
from nnunet_softlabel.cli import main
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.formats.files import read_json, write_json
from tests.benchmark import fake_training as fake

TRAINERS = ("nnUNetTrainer", "nnUNetTrainerAPL")


def silent(text):
    pass


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
def fake_training(monkeypatch):
    """Arguments of the trainings that were started; none is real."""
    started = []

    def run(command, **options):
        started.append(json.loads(Path(command[-2]).read_text(encoding="utf-8")))
        return fake.popen(command, **options)

    monkeypatch.setattr(cell_training, "subprocess", fake.subprocess_with(run))
    return started


def differences(grid):
    summary = read_json(grid.output / "soft_summary.json")
    return {(d["metric"], d["baseline"], d["trainer"]): d for d in summary["differences"]}


def test_benchmark_trains_what_is_missing_and_reports(grid_factory, fake_training):
    grid = grid_factory()
    outcome = benchmark(grid, num_processes=1, log=silent)
    assert set(outcome.values()) == {"done"}
    page = report(grid, outcome, commands=["nnunet_softlabel benchmark"])
    text = page.read_text(encoding="utf-8")
    assert "nnUNetTrainerAPL" in text
    assert "<script src=" not in text
    summary = read_json(grid.output / "soft_summary.json")
    assert ("dice", *TRAINERS) in differences(grid)
    # the sharper baseline is nearer to the soft label
    soft_dice = {
        name: t["mean"]["model"]["soft"]["lesion"]["soft_dice"]["mean"]
        for name, t in summary["trainers"].items()
    }
    assert soft_dice["nnUNetTrainer"] > soft_dice["nnUNetTrainerAPL"]
    assert "nnUNetTrainerAPL" in format_benchmark(grid.output)
    benchmark(grid_factory(), num_processes=1, log=silent)
    assert len(fake_training) == 2  # nothing was trained again


def test_page_names_the_versions_it_was_made_with(grid_factory, fake_training):
    grid = grid_factory(trainers=TRAINERS[:1])
    text = report(grid, benchmark(grid, num_processes=1, log=silent)).read_text(encoding="utf-8")
    assert all(name in text for name in ("torch", "nnunetv2", "batchgeneratorsv2"))


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
    assert sorted(outcome.values()) == ["done", "done", "failed"]
    assert any("no such trainer" in line for line in lines)
    assert "nnUNetTrainerBroken" in report(grid, outcome).read_text(encoding="utf-8")  # named in the notes


def test_a_cell_that_cannot_be_scored_does_not_lose_the_others(grid_factory, fake_training):
    grid = grid_factory(trainers=(*TRAINERS, "nnUNetTrainerWithoutNpz"))
    outcome = benchmark(grid, num_processes=1, log=silent)
    assert list(outcome.values())[:2] == ["done", "done"]
    assert list(outcome.values())[2].startswith("trained, but not scored: ")
    assert "trained, but not scored" in report(grid, outcome).read_text(encoding="utf-8")


def test_a_cell_made_with_something_else_is_refused(grid_factory, fake_training):
    benchmark(grid_factory(), num_processes=1, log=silent)
    with pytest.raises(UsageError, match="was made with iterations 1, this benchmark asks for 2"):
        benchmark(grid_factory(budget=Budget(1, 2)), num_processes=1, log=silent)


def test_a_cell_in_training_elsewhere_is_left_alone(grid_factory, fake_training):
    from filelock import FileLock

    grid = grid_factory()
    lock = grid.record_file(grid.cells[0]).with_suffix(".lock")
    lock.parent.mkdir(parents=True)
    with FileLock(lock):
        outcome = benchmark(grid, num_processes=1, log=silent)
    assert list(outcome.values()) == ["in training elsewhere", "done"]
    assert [arguments["trainer"] for arguments in fake_training] == [TRAINERS[1]]


def test_seeds_have_results_of_their_own_and_are_averaged(grid_factory, fake_training):
    grid = grid_factory(seeds=[0, 1], trainers=TRAINERS[:1])
    assert len({grid.fold_folder(cell) for cell in grid.cells}) == 2
    report(grid, benchmark(grid, num_processes=1, log=silent))
    found = read_json(grid.output / "soft_summary.json")["trainers"]["nnUNetTrainer"]
    assert found["seeds"] == [0, 1]
    assert found["mean"]["model"]["soft"]["lesion"]["soft_dice"]["n"] == 2 * found["cases"]


def test_each_trainer_meets_the_baseline_of_its_configuration(grid_factory, fake_training):
    grid = grid_factory(configurations=["3d_fullres", "2d"], folds=[0, 1])
    page = report(grid, benchmark(grid, num_processes=1, log=silent))
    pairs = {(baseline, trainer) for _, baseline, trainer in differences(grid)}
    assert pairs == {
        ("nnUNetTrainer 3d_fullres", "nnUNetTrainerAPL 3d_fullres"),
        ("nnUNetTrainer 2d", "nnUNetTrainerAPL 2d"),
        ("nnUNetTrainer 3d_fullres", "nnUNetTrainer 2d"),
    }
    text = page.read_text(encoding="utf-8")
    assert "first trainer of its own configuration" in text
    assert "patch size, 2d" in text


def test_only_train_scores_nothing_and_only_report_trains_nothing(grid_factory, fake_training):
    grid = grid_factory()
    benchmark(grid_factory(trainers=TRAINERS[:1]), only="train", log=silent)
    assert not (grid.output / "evaluation").exists()
    outcome = benchmark(grid, num_processes=1, only="report", log=silent)
    assert list(outcome.values()) == ["done", "not trained"]
    assert len(fake_training) == 1
    assert "nnUNetTrainerAPL__3d_fullres__fold_0__seed_0: not trained" in report(grid, outcome).read_text(
        encoding="utf-8"
    )


def test_margins_reach_the_page(grid_factory, fake_training):
    grid = grid_factory()
    outcome = benchmark(grid, num_processes=1, log=silent)
    page = report(grid, outcome, margins={"dice": 0.9})
    assert "margin 0.9" in page.read_text(encoding="utf-8")
    found = differences(grid)
    assert found[("dice", *TRAINERS)]["margin"] == 0.9
    assert found[("recall", *TRAINERS)]["margin"] is None


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


def test_another_threshold_scores_again_and_trains_nothing(grid_factory, fake_training):
    for threshold in ("0.5", "0.3"):
        grid = grid_factory(threshold=threshold)
        benchmark(grid, num_processes=1, log=silent)
        summary = read_json(grid.evaluation_folder(grid.cells[0]) / "soft_summary.json")
        assert summary["threshold"]["values"] == {"lesion": float(threshold)}
    assert len(fake_training) == 2


def test_a_fold_alone_has_nothing_to_tune_on(grid_factory, fake_training):
    with pytest.raises(UsageError, match="give at least two to -f"):
        grid_factory(threshold="tuned")
    benchmark(grid_factory(trainers=TRAINERS[:1]), num_processes=1, log=silent)
    grid = grid_factory(trainers=TRAINERS[:1], folds=[0, 1], threshold="tuned")
    outcome = benchmark(grid, num_processes=1, only="report", log=silent)
    assert "no other fold is trained" in outcome[grid.cells[0].name]


def test_a_threshold_that_cannot_be_is_refused_before_training(grid_factory):
    with pytest.raises(UsageError, match="--threshold 2: give a number in"):
        grid_factory(threshold="2")


def test_raters_who_miss_much_bring_an_advice(grid_factory, fake_training, monkeypatch):
    from nnunet_softlabel.benchmark import caveats as notes

    grid = grid_factory(trainers=TRAINERS[:1])
    outcome = benchmark(grid, num_processes=1, log=silent)
    assert "--threshold tuned (nothing is trained again" not in report(grid, outcome).read_text(
        encoding="utf-8"
    )
    monkeypatch.setattr(notes, "rater_sensitivity", lambda runs, class_name: 0.45)
    text = report(grid, outcome).read_text(encoding="utf-8")
    assert "another marked 45% on average" in text
    assert "--threshold tuned (nothing is trained again" in text


def test_sensitivity_of_raters_is_their_mean_recall_of_each_other():
    from nnunet_softlabel.benchmark.caveats import rater_sensitivity

    place = {"class": "lesion", "reference": "raters", "prediction": "rater"}
    rows = [{"case": case, "recall": recall, **place} for case, recall in (("a", 0.4), ("b", 0.6))]
    rows.append({"case": "c", "recall": float("nan"), **place})
    run = SimpleNamespace(rows=rows)
    assert rater_sensitivity([run, run], "lesion") == pytest.approx(0.5)
    assert np.isnan(rater_sensitivity([run], "other"))


def test_unknown_plan_and_configuration_are_refused(grid_factory):
    with pytest.raises(UsageError, match=r"-p nnUNetPlansOther: .* is not there"):
        grid_factory(plans="nnUNetPlansOther")
    with pytest.raises(UsageError, match="-c 3d_lowres: nnUNetPlansReduced has no such configuration"):
        grid_factory(configurations=["3d_lowres"])


def test_a_report_without_a_finished_cell_is_refused(grid_factory):
    grid = grid_factory()
    with pytest.raises(DatasetError, match="no training is done"):
        report(grid, {cell.name: "failed" for cell in grid.cells})


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--epochs", "0"], "--epochs 0: give a number from 1"),
        (["--margin", "dice"], "--margin dice: expected METRIC=VALUE"),
        (["--margin", "dice=-1"], "--margin dice=-1: expected METRIC=VALUE"),
        (["--margin", "dise=0.1"], "--margin dise=0.1: expected METRIC=VALUE"),
        (["--cluster-options", "partition=gpu"], "--cluster-options belongs to --cluster"),
        (["--cluster", "local", "--only", "report"], "--only report trains nothing"),
        (["--cluster", "slurm", "--cluster-options", "gpu"], "--cluster-options gpu: expected NAME=VALUE"),
    ],
)
def test_command_refuses_wrong_flags_in_one_line(flags, message, planned_dataset, tmp_path, capsys):
    assert main(["benchmark", "-d", str(planned_dataset.id), "-o", str(tmp_path / "b"), *flags]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "b").exists()


def test_cluster_options_are_numbers_or_text():
    jobs = ClusterJobs.parse("slurm", ["partition=gpu", "timeout_min=90", "constraint=a100|h100"])
    assert jobs.options == {"partition": "gpu", "timeout_min": 90, "constraint": "a100|h100"}


def test_missing_submitit_is_one_line(grid_factory, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UsageError, match=r"pip install 'nnunet-softlabel\[cluster\]'"):
        benchmark(grid_factory(), cluster=ClusterJobs("local"), log=silent)


def test_options_the_cluster_does_not_know_are_refused(grid_factory):
    pytest.importorskip("submitit")
    with pytest.raises(UsageError, match="Unknown argument 'colour'"):
        benchmark(grid_factory(), cluster=ClusterJobs("local", {"colour": "red"}), log=silent)


def test_slurm_without_slurm_is_refused(grid_factory, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match="are you indeed on a slurm cluster"):
        benchmark(grid_factory(), cluster=ClusterJobs("slurm"), log=silent)


@pytest.mark.slow
def test_jobs_train_the_cells_and_lose_no_other(grid_factory, monkeypatch):
    pytest.importorskip("submitit")
    root = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", str(root))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    lines = []
    grid = grid_factory(
        trainers=("nnUNetTrainerBroken", "nnUNetTrainer"),
        training_command=[sys.executable, str(root / "tests" / "benchmark" / "fake_training.py")],
    )
    cluster = ClusterJobs("local", {"timeout_min": 5, "partition": "gpu"}, poll_seconds=0.2)
    outcome = benchmark(grid, num_processes=1, cluster=cluster, log=lines.append)
    assert list(outcome.values()) == ["failed", "done"]
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
    grid = grid_factory(trainers=TRAINERS[:1], training_command=["no-such-program"])
    cluster = ClusterJobs("local", poll_seconds=0.2)
    outcome = benchmark(grid, num_processes=1, cluster=cluster, log=lines.append)
    assert list(outcome.values()) == ["failed"]
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
