"""Several trainings that start at once, and one that is killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import time
from itertools import count
from multiprocessing.pool import ThreadPool
from pathlib import Path

import pytest
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_softlabel.formats.files import read_json
from nnunet_softlabel.preprocessing import preparation as preprocessing
from nnunet_softlabel.preprocessing.preparation import Preparation
from tests.preprocessing.preparations import preparation, remade, soft_files


def _train(preprocessed: Path, log: Path, gate: Path) -> None:
    """What each of several trainings does when it starts; the third case waits for the gate."""
    original, number = preprocessing.make_case, count()

    def make_case(*args: object) -> str:
        may_begin = next(number) < 2
        while not (may_begin or gate.exists()):
            time.sleep(0.01)
        return original(*args)

    def write(text: str) -> None:
        if text.startswith("Preprocessing"):
            (log / str(os.getpid())).touch()

    preprocessing.make_case = make_case
    preprocessing.POLL_SECONDS = 0.05
    manager = PlansManager(read_json(preprocessed / "nnUNetPlans.json"))
    Preparation(preprocessed, manager, manager.get_configuration("3d_fullres")).ensure(log=write)


@pytest.mark.slow
@pytest.mark.parametrize("is_killed", [False, True])
def test_five_trainings_that_start_at_once(own, tmp_path: Path, is_killed: bool) -> None:
    made = preparation(own)
    complete = soft_files(made.folder)
    shutil.rmtree(made.folder)
    log = tmp_path / "log"
    log.mkdir()
    gate = tmp_path / "gate"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_train, args=(own.preprocessed, log, gate)) for _ in range(5)]
    for process in processes:
        process.start()
    if is_killed:
        while not (made.folder.is_dir() and len(list(made.folder.glob("case*.b2nd"))) >= 2):
            time.sleep(0.01)
        (worker,) = log.iterdir()
        os.kill(int(worker.name), signal.SIGKILL)
    gate.touch()
    for process in processes:
        process.join(300)
    assert sorted(process.exitcode for process in processes) == [-9 if is_killed else 0, 0, 0, 0, 0]
    assert len(list(log.iterdir())) == 1 + is_killed
    assert soft_files(made.folder) == complete
    assert remade(own) == ""


def test_five_threads_that_start_at_once_work_once(own, monkeypatch) -> None:
    """The fast form of the test above: a lock of this kind is between threads as between processes."""
    made = preparation(own)
    complete = soft_files(made.folder)
    shutil.rmtree(made.folder)
    monkeypatch.setattr(preprocessing, "POLL_SECONDS", 0.02)
    lines: list[str] = []
    preparations = [preparation(own) for _ in range(5)]
    with ThreadPool(5) as pool:
        manifests = pool.map(lambda one: one.ensure(log=lines.append), preparations)
    assert sum(line.startswith("Preprocessing") for line in lines) == 1
    assert all(manifest == manifests[0] for manifest in manifests)
    assert soft_files(made.folder) == complete


def test_killed_preparation_is_taken_up(own, monkeypatch) -> None:
    """Killed after two cases: the next makes the rest only."""

    class Killed(BaseException):
        pass

    made = preparation(own)
    complete = soft_files(made.folder)
    shutil.rmtree(made.folder)
    original = preprocessing.make_case

    def make_case(case: str, *args: object) -> str:
        if case == "case_02":
            raise Killed
        return original(case, *args)

    with monkeypatch.context() as patch:
        patch.setattr(preprocessing, "make_case", make_case)
        with pytest.raises(Killed):
            made.ensure(log=lambda text: None)
    inode = (made.folder / "case_00.b2nd").stat().st_ino
    assert not (made.folder / "manifest.json").exists()
    assert remade(own) == "not done yet"
    assert soft_files(made.folder) == complete
    assert (made.folder / "case_00.b2nd").stat().st_ino == inode


def test_lock_that_does_not_function_only_costs_work(own, monkeypatch) -> None:
    def broken(self: object, **options: object) -> None:
        raise NotImplementedError

    made = preparation(own)
    complete = soft_files(made.folder)
    shutil.rmtree(made.folder)
    monkeypatch.setattr(preprocessing.FileLock, "acquire", broken)
    assert remade(own) == "not done yet"
    assert soft_files(made.folder) == complete


def test_waiting_has_an_end(own, monkeypatch) -> None:
    from filelock import FileLock

    made = preparation(own)
    (made.folder / "manifest.json").unlink()
    monkeypatch.setattr(preprocessing, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(preprocessing, "PATIENCE_SECONDS", 0.05)
    lines: list[str] = []
    with FileLock(made.folder / "preparation.lock"):
        made.ensure(log=lines.append)
    assert lines[0].startswith("Waiting for another process")
    assert lines[1].startswith("Preprocessing soft labels")
    assert json.loads((made.folder / "manifest.json").read_text(encoding="utf-8"))["cases"]
