"""Commands are killed at random moments; the same command afterwards gives the same bytes.

Every run of the tests kills each command a few times; by hand 40 times: ``KILLS=40 pytest tests/kills``.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nnunet_softlabel.formats.files import read_json
from tests.kills.models import model
from tests.scored_dataset import write_dataset

__all__ = ["model"]

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("KILLS", "3"))
# the program of the command line, with a stand-in for real trainings
PROGRAM = """
import sys
import nnunet_softlabel.benchmark.settings as settings
defaults = ((sys.executable, {fake!r}), settings.PREDICTION)
settings.CellCommands.__init__.__wrapped__.__defaults__ = defaults
from nnunet_softlabel.cli import main
sys.exit(main(sys.argv[1:]))
"""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL"),
    pytest.mark.timeout(7200),
]


def start(arguments: list[str], folder: Path) -> subprocess.Popen:
    program = PROGRAM.format(fake=str(ROOT / "tests" / "benchmark" / "fake_training.py"))
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "SOURCE_DATE_EPOCH": "0",
    }
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run(arguments: list[str], folder: Path) -> None:
    process = start(arguments, folder)
    text, _ = process.communicate(timeout=600)
    assert process.returncode == 0, text


def tree(folder: Path) -> dict[str, str]:
    """Hash of each file; hidden ones, logs and locks do not count."""
    return {
        str(path.relative_to(folder)): _digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not _is_of_this_run(path.relative_to(folder))
    }


def _is_of_this_run(path: Path) -> bool:
    return path.parts[0] == "logs" or path.suffix in (".lock", ".training") or path.name == "report.html"


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def kill_often(
    arguments: list[str], folder: Path, output: Path, prepare: Callable[[], None], *, number: int = KILLS
) -> None:
    """Kill at random moments of the command's time; after each kill, the same command completes it."""
    draw = random.Random(len(arguments))
    prepare()
    begun = time.monotonic()
    run(arguments, folder)
    seconds = time.monotonic() - begun
    expected = tree(output)
    assert expected
    for kill in range(number):
        prepare()
        process = start(arguments, folder)
        time.sleep(draw.uniform(0.3, 1) * seconds)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
        if tree(output) == expected and not list(output.rglob(".unfinished*")):
            continue  # it was done; without --overwrite it would rightly be refused now
        if is_all_there(output, expected):
            start(arguments, folder).communicate(timeout=600)  # the same, but that it had not tidied up yet
        else:
            run(arguments, folder)
        assert tree(output) == expected, f"kill {kill}"
        assert not list(output.rglob(".unfinished*")), f"kill {kill}"


def is_all_there(output: Path, expected: dict[str, str]) -> bool:
    """True if all files have their names, and nothing is to be put back."""
    found = {name: data for name, data in tree(output).items() if ".unfinished" not in str(name)}
    return found == expected and not list(output.rglob("moving.json"))


@pytest.fixture
def scored(tmp_path, monkeypatch):
    data = write_dataset(tmp_path / "raw", cases=4)
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    return data


def emptied(folder: Path) -> Callable[[], None]:
    return lambda: shutil.rmtree(folder, ignore_errors=True)


def restored(folder: Path, copy: Path) -> Callable[[], None]:
    def restore() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(copy, folder)

    return restore


COMMANDS = {
    "evaluate": ["evaluate", "-d", "900", "-i", "raw/predictions", "-o", "out", "-np", "1"],
    "apply-threshold": [
        *("apply-threshold", "-d", "900", "-i", "raw/predictions", "-o", "out"),
        *("--threshold", "0.3", "-np", "1"),
    ],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_killed_the_same_command_gives_the_same_bytes(scored, tmp_path, command):
    kill_often(COMMANDS[command], tmp_path, tmp_path / "out", emptied(tmp_path / "out"))


@pytest.mark.parametrize("command", COMMANDS)
def test_killed_while_it_replaces_the_same_command_gives_the_same_bytes(scored, tmp_path, command):
    earlier = [word.replace("0.3", "0.7") for word in COMMANDS[command]]
    earlier += ["--threshold", "0.7"] if command == "evaluate" else []
    run(earlier, tmp_path)
    shutil.copytree(tmp_path / "out", tmp_path / "earlier")
    prepare = restored(tmp_path / "out", tmp_path / "earlier")
    kill_often([*COMMANDS[command], "--overwrite"], tmp_path, tmp_path / "out", prepare)


def test_a_killed_benchmark_goes_on_to_the_same_scores(planned_dataset, tmp_path):
    arguments = ["benchmark", "-d", str(planned_dataset.id), "-o", "out", "-p", "nnUNetPlansReduced"]
    arguments += ["-f", "0", "1", "-device", "cpu", "--epochs", "1", "--iterations", "1", "-np", "1"]
    out = tmp_path / "out"
    kill_often(arguments, tmp_path, out, emptied(out))
    assert {read_json(path)["status"] for path in out.glob("cells/*.json")} == {"done"}


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_killed_export_gives_the_same_model(model, tmp_path, overwrite):
    arguments = ["export-stock", "-d", "901", "-c", "2d", "-tr", "nnUNetTrainerSoftCE", "-o", "out"]
    out = tmp_path / "out"
    prepare = emptied(out)
    if overwrite:
        run([*arguments, "-f", "0"], tmp_path)
        shutil.copytree(out, tmp_path / "earlier")
        prepare = restored(out, tmp_path / "earlier")
    kill_often([*arguments, *(["--overwrite"] if overwrite else [])], tmp_path, out, prepare)
