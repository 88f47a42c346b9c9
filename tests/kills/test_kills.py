"""Real kills at random moments: afterwards the same command gives the same bytes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.conversion.conversion_helpers import run, tree

KILLS = int(os.environ.get("KILLS", "3"))  # by hand 40: KILLS=40 pytest tests/kills -m slow
pytestmark = pytest.mark.slow

# imports are done once, in the parent of all: a kill is to hit the work, not the start of Python
FORKED = """
import os, sys, time
from nnunet_softlabel.cli import main
import nnunet_softlabel.conversion.run, nnunet_softlabel.inspection, skimage.io
for line in sys.stdin:
    delay, *arguments = line.rstrip("\\n").split("\\t")
    child = os.fork()
    if child == 0:
        sys.stdin.close()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        try:
            os._exit(main(arguments))
        except SystemExit as stopped:
            os._exit(stopped.code)
    time.sleep(float(delay))
    os.kill(child, 9)
    _, status = os.waitpid(child, 0)
    print("killed" if os.WIFSIGNALED(status) else os.WEXITSTATUS(status), flush=True)
"""


class Killer:
    """Starts a command and kills it after some seconds."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", FORKED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, seconds: float, *arguments: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\t".join([str(seconds), *arguments]) + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()


@pytest.fixture
def killer():
    killer = Killer()
    yield killer
    assert killer.process.stdin is not None
    killer.process.stdin.close()
    killer.process.send_signal(signal.SIGTERM)
    killer.process.wait()


def kill_often(
    killer: Killer,
    arguments: list[str],
    go_on: list[str],
    prepare: Callable[[], None],
    state: Callable[[], dict[str, bytes]],
) -> None:
    """Kill the command at random moments; then ``go_on`` must give what it gives undisturbed."""
    prepare()
    started = time.monotonic()
    assert run(*arguments) == 0
    seconds, complete = time.monotonic() - started, state()
    random, killed = np.random.default_rng(0), 0
    for _ in range(10 * KILLS):
        prepare()
        killed += killer(float(random.uniform(0, seconds)), *arguments) == "killed"
        assert run(*go_on) == 0
        assert state() == complete
        if killed == KILLS:
            return
    assert killed == KILLS


@pytest.fixture
def source(tmp_path: Path, rater_folder_factory):
    return rater_folder_factory(tmp_path / "s", num_cases=4, num_raters=2, shape=(6, 20, 20))


def restore(folder: Path, content: dict[str, bytes]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, data in content.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(data)


@pytest.mark.parametrize("flag", ["--resume", "--overwrite"])
def test_convert(source, nnunet_folders, killer, flag: str) -> None:
    arguments = source.arguments()
    kill_often(
        killer, arguments, [*arguments, flag],
        lambda: restore(nnunet_folders.raw, {}), lambda: tree(nnunet_folders.raw),
    )  # fmt: skip


def test_convert_overwrite(source, nnunet_folders, killer) -> None:
    assert run(*source.arguments(), "--fusion", "majority") == 0
    old = tree(nnunet_folders.raw)
    arguments = [*source.arguments(), "--overwrite"]
    kill_often(
        killer, arguments, arguments,
        lambda: restore(nnunet_folders.raw, old), lambda: tree(nnunet_folders.raw),
    )  # fmt: skip


@pytest.mark.parametrize("flag", ["--resume", "--overwrite"])
def test_convert_into(source, nnunet_folders, killer, flag: str) -> None:
    assert run(*source.arguments()) == 0
    old = tree(nnunet_folders.raw)
    own = str(nnunet_folders.raw / "Dataset901_Tiny/raterLabelsTr/{rater}/{case}.nii.gz")
    arguments = ["convert", "--into", "901", "--raters", own, "--fusion", "majority", "-np", "1"]
    kill_often(
        killer, [*arguments, "--overwrite"], [*arguments, "--overwrite", flag],
        lambda: restore(nnunet_folders.raw, old), lambda: tree(nnunet_folders.raw),
    )  # fmt: skip


def test_inspect(source, nnunet_folders, killer, tmp_path: Path) -> None:
    output = tmp_path / "inspection"
    arguments = ["inspect", "--raters", source.rater_pattern, "--labels", *source.labels, "-np", "1"]
    arguments += ["-o", str(output), "--overwrite"]
    kill_often(
        killer, arguments, arguments, lambda: shutil.rmtree(output, ignore_errors=True), lambda: tree(output)
    )


def test_preprocess(planned_dataset, tmp_path: Path, monkeypatch, killer) -> None:
    own = planned_dataset.copy_to(tmp_path, monkeypatch)
    folder = own.preprocessed / "nnUNetPlans_3d_fullres" / "soft_labels"
    arguments = ["preprocess", "-d", "911", "-np", "1"]

    def state() -> dict[str, bytes]:
        return {name: data for name, data in tree(folder).items() if not name.endswith(".lock")}

    # the killer was started before the variables were changed: it has to be started again
    fresh = Killer()
    kill_often(fresh, arguments, arguments, lambda: shutil.rmtree(folder, ignore_errors=True), state)
    fresh.process.kill()
    fresh.process.wait()
