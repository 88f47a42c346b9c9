"""Every command with a pool: a killed worker and Ctrl-C are one line, a killed command leaves no worker."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nnunet_softlabel.benchmark import BenchmarkGrid, Trainings, benchmark
from nnunet_softlabel.cli import main
from nnunet_softlabel.training.budget import Budget
from tests.benchmark.conftest import fake_training
from tests.process_tree import AT_GATE, GATE, OPEN, is_alive, wait_until, workers_at_gate
from tests.scored_dataset import build, build_at

__all__ = ["build", "build_at", "fake_training"]

pytestmark = pytest.mark.slow
COMMANDS = ("convert", "inspect", "evaluate", "tune-threshold", "apply-threshold", "preprocess")
FURTHER = ("calibrate", "maps", "average", "refine")
HEARS_INTERRUPTS = (  # a job in the background may have them ignored
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
)
# so that this little data set is worth two processes
START = (
    "import sys; from nnunet_softlabel import cli; "
    "preparation = __import__('nnunet_softlabel.preprocessing.preparation', fromlist=['x']) "
    "if sys.argv[1] == 'preprocess' else None; "
    "preparation and setattr(preparation, 'VOXELS_PER_PROCESS', 1); "
    "sys.exit(cli.main(sys.argv[1:]))"
)


@pytest.fixture
def arguments_of(request, tmp_path: Path, monkeypatch) -> Callable[[str], tuple[list[str], Path]]:
    """The command line of a command, and what it must not leave half-written."""

    def scored() -> list[str]:
        made = request.getfixturevalue("build")(cases=12)
        monkeypatch.setenv("nnUNet_raw", str(made.dataset.folder.parent))
        return ["-d", "900", "-i", str(made.predictions), "-np", "2"]

    def make(command: str) -> tuple[list[str], Path]:
        output = tmp_path / "output"
        if command in ("convert", "inspect"):
            folders = request.getfixturevalue("nnunet_folders")
            source = request.getfixturevalue("rater_folder_factory")(
                tmp_path / "s", num_cases=12, shape=(12, 40, 40)
            )
            if command == "convert":
                return [*source.arguments(), "-np", "2"], folders.raw / "Dataset901_Tiny"
            raters = ["--raters", source.rater_pattern, "--labels", *source.labels]
            return ["inspect", *raters, "-o", str(output), "-np", "2"], output
        if command == "preprocess":
            planned = request.getfixturevalue("planned_dataset").copy_to(tmp_path, monkeypatch)
            (manifest,) = planned.preprocessed.glob("*_3d_fullres/soft_labels/manifest.json")
            return ["preprocess", "-d", str(planned.id), "-np", "2", "--overwrite"], manifest
        if command in ("tune-threshold", "calibrate"):
            file = output / ("thresholds.json" if command == "tune-threshold" else "calibration.json")
            return [command, *scored(), "-o", str(file)], file
        if command == "maps":
            return [command, *scored(), "-o", str(output)], output / "volumes.csv"
        if command == "average":
            dataset, _, predictions, *rest = scored()[1:]
            shutil.copytree(predictions, tmp_path / "other")
            folders = ["-i", predictions, str(tmp_path / "other")]
            return [command, "-d", dataset, *folders, *rest, "-o", str(output)], output / "made_from.json"
        if command == "refine":
            dataset, _, predictions, *rest = scored()[1:]
            write_first_round(Path(predictions), tmp_path, monkeypatch)
            first = ["-d", dataset, "-tr", "nnUNetTrainerSoftCE", "-c", "3d_fullres"]
            return [command, *first, "-o", "901", *rest], tmp_path / "Dataset901_BallsRefined"
        threshold = ["--threshold", "0.5"]
        name = "soft_summary.json" if command == "evaluate" else "apply_threshold.json"
        return [command, *scored(), "-o", str(output), *threshold], output / name

    return make


def write_first_round(predictions: Path, root: Path, monkeypatch) -> None:
    """Two folds, each with the predictions of the cases that it did not train on."""
    for name in ("preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(root / name))
    model = root / "results" / "Dataset900_Balls" / "nnUNetTrainerSoftCE__nnUNetPlans__3d_fullres"
    cases = sorted(path.stem for path in predictions.glob("*.npz"))
    splits = [{"train": cases[1 - k :: 2], "val": cases[k::2]} for k in range(2)]
    for k, split in enumerate(splits):
        validation = model / f"fold_{k}" / "validation"
        validation.mkdir(parents=True)
        for case in split["val"]:
            shutil.copy2(predictions / f"{case}.npz", validation)
    (root / "preprocessed" / "Dataset900_Balls").mkdir(parents=True)
    (root / "preprocessed" / "Dataset900_Balls" / "splits_final.json").write_text(json.dumps(splits))


def start(arguments: list[str], gate: Path, before: str = "") -> tuple[subprocess.Popen[str], list[int]]:
    """The running command and its two workers, each of which waits with a job at the gate."""
    gate.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", f"{AT_GATE}{before}{START}", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), GATE: str(gate)},
        start_new_session=True,  # a group of its own, as a terminal has
    )
    found = wait_until(lambda: len(workers_at_gate(gate)) == 2 or process.poll() is not None, seconds=120)
    assert found
    assert process.poll() is None, process.communicate()[1]
    return process, workers_at_gate(gate)


@pytest.mark.parametrize("command", COMMANDS + FURTHER)
def test_a_killed_worker_is_one_line_and_exit_2(command: str, arguments_of, tmp_path: Path) -> None:
    arguments, result = arguments_of(command)
    # `preprocess --overwrite` keeps the manifest of before, which proves the files that it names
    before = result.read_bytes() if result.is_file() else None
    process, workers = start(arguments, tmp_path / "gate")
    os.kill(workers[0], 9)
    error = process.communicate(timeout=120)[1]
    assert process.returncode == 2
    assert len(error.strip().splitlines()) == 1
    assert f"nnunet_softlabel {command}: error: " in error
    assert "Case " in error.split(": a worker process was killed", maxsplit=1)[0]
    assert "a worker process was killed" in error
    assert "smaller -np" in error
    assert (result.read_bytes() if result.exists() else None) == before
    assert wait_until(lambda: not any(map(is_alive, workers)), seconds=10)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_killed_command_leaves_no_worker(command: str, arguments_of, tmp_path: Path) -> None:
    process, workers = start(arguments_of(command)[0], tmp_path / "gate")
    process.kill()
    process.communicate()
    assert wait_until(lambda: not any(map(is_alive, workers)), seconds=10)


@pytest.mark.parametrize("command", COMMANDS)
def test_an_interrupt_from_the_terminal_is_one_line(command: str, arguments_of, tmp_path: Path) -> None:
    arguments, result = arguments_of(command)
    before = result.read_bytes() if result.is_file() else None
    process, workers = start(arguments, tmp_path / "gate", HEARS_INTERRUPTS)
    os.killpg(process.pid, signal.SIGINT)  # Ctrl-C: to the command and to its workers
    error = process.communicate(timeout=120)[1]
    assert process.returncode == 130
    assert len(error.strip().splitlines()) == 1
    assert error.startswith(f"nnunet_softlabel {command}: interrupted; ")
    assert wait_until(lambda: not any(map(is_alive, workers)), seconds=10)
    assert (result.read_bytes() if result.exists() else None) == before
    go_on = {"convert": ["--resume"]}.get(command, [])
    assert main([*arguments, *go_on]) == 0
    assert result.exists()


def test_a_killed_worker_of_one_cell_leaves_the_scoring_of_the_others(
    build, tmp_path: Path, planned_dataset, fake_training
) -> None:
    trainers = ["nnUNetTrainer", "nnUNetTrainerAPL"]
    output = tmp_path / "benchmark"
    grid = BenchmarkGrid(
        planned_dataset.id,
        output,
        Trainings(trainers, folds=[0, 1], plans="nnUNetPlansReduced"),
        budget=Budget(1, 1, "cpu"),
    )
    benchmark(grid, num_processes=1, only="train", log=lambda text: None)
    common = ["benchmark", "-d", str(planned_dataset.id), "-o", str(output), "--only", "report", "-np", "2"]
    rest = ["-p", "nnUNetPlansReduced", "-f", "0", "1", "--epochs", "1", "--iterations", "1"]
    gate = tmp_path / "gate"
    process, workers = start([*common, "-tr", *trainers, *rest, "-device", "cpu"], gate, FEW_ARE_MANY)
    os.kill(workers[0], 9)
    (gate / OPEN).touch()
    error = process.communicate(timeout=300)[1]
    assert process.returncode == 2
    assert "error: 1 cells are not scored; " in error
    assert "a worker process was killed" in error
    assert "Traceback" not in error
    assert len(list((output / "evaluation").rglob("soft_metrics.csv"))) == 3
    assert (output / "report.html").is_file()
    assert wait_until(lambda: not any(map(is_alive, workers)), seconds=10)


# the cells of the planned data set have few cases: let them be worth two processes, too
FEW_ARE_MANY = "from nnunet_softlabel import processes; processes.fewer_for_few = lambda most, jobs: most; "
