"""What a benchmark is asked for: what does not fit is refused before a training starts."""

import sys

import pytest

from nnunet_softlabel.benchmark import (
    ClusterJobs,
    benchmark,
    report,
)
from nnunet_softlabel.cli import main
from nnunet_softlabel.errors import UsageError
from nnunet_softlabel.formats.files import read_json
from tests.benchmark.grids import TRAINERS, silent


def test_seeds_have_results_of_their_own_and_are_averaged(grid_factory, fake_training):
    grid = grid_factory(seeds=[0, 1], trainers=TRAINERS[:1])
    assert len({grid.fold_folder(cell) for cell in grid.cells}) == 2
    report(grid, benchmark(grid, num_processes=1, log=silent))
    found = read_json(grid.output / "soft_summary.json")["trainers"]["nnUNetTrainer"]
    assert found["seeds"] == [0, 1]
    assert (
        found["mean"]["model"]["soft"]["lesion"]["soft_dice"]["n"] == found["cases"]
    )  # with the mean of its seeds


def test_a_fold_alone_has_nothing_to_tune_on(grid_factory, fake_training):
    with pytest.raises(UsageError, match="give at least two to folds"):
        grid_factory(threshold="tuned")
    benchmark(grid_factory(trainers=TRAINERS[:1]), num_processes=1, log=silent)
    grid = grid_factory(trainers=TRAINERS[:1], folds=[0, 1], threshold="tuned")
    outcome = benchmark(grid, num_processes=1, only="report", log=silent)
    assert "no other fold is trained" in str(outcome[grid.cells[0].name])


def test_a_threshold_that_cannot_be_is_refused_before_training(grid_factory):
    with pytest.raises(UsageError, match="threshold 2: give a number in"):
        grid_factory(threshold="2")


def test_unknown_plan_and_configuration_are_refused(grid_factory):
    with pytest.raises(UsageError, match=r"plans nnUNetPlansOther: .* is not there"):
        grid_factory(plans="nnUNetPlansOther")
    with pytest.raises(
        UsageError, match="configurations 3d_lowres: nnUNetPlansReduced has no such configuration"
    ):
        grid_factory(configurations=["3d_lowres"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--epochs", "0"], "--epochs 0: give a number from 1"),
        (["--primary", "dise"], "--primary dise: is no metric with a direction"),
        (["--primary", "volume_error"], "--primary volume_error: is no metric with a direction"),
        (["--margin", "dice"], "--margin dice: expected METRIC=VALUE"),
        (["--margin", "dice=-1"], "--margin dice=-1: expected METRIC=VALUE"),
        (["--margin", "dice=inf"], "--margin dice=inf: expected METRIC=VALUE"),
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
