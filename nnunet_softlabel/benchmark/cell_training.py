"""One cell is trained in a process of its own, which a lock keeps from being started twice."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from time import sleep
from typing import Any

from filelock import FileLock, Timeout
from tqdm import tqdm

from nnunet_softlabel.benchmark.grid import BenchmarkGrid, Cell
from nnunet_softlabel.formats.files import read_json, write_json
from nnunet_softlabel.training.trainer_path import trainer_path

DONE, FAILED, ELSEWHERE, UNTRAINED = "done", "failed", "in training elsewhere", "not trained"


def train_cell(grid: BenchmarkGrid, cell: Cell) -> str:
    """Train a cell unless it is done; says what became of it: done, failed, or in training elsewhere.

    Several benchmark processes (one per GPU or node) can share a grid: each takes what no other works on.
    """
    path = grid.record_file(cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    needed = missing_model(grid, cell)
    if needed is not None:
        return f"{UNTRAINED}: waits for {needed.name}"
    try:
        with FileLock(path.with_suffix(".lock")).acquire(timeout=0):
            record = grid.record(cell)
            if record is not None and record["status"] == DONE:
                return DONE
            return _train_locked(grid, cell, continues=record is not None)
    except Timeout:
        return ELSEWHERE


def missing_model(grid: BenchmarkGrid, cell: Cell) -> Cell | None:
    """The cell whose model this one goes on from, if that is not done yet."""
    needed = grid.begins_with(cell)
    return None if needed is None or recorded_status(grid, needed) == DONE else needed


def recorded_status(grid: BenchmarkGrid, cell: Cell) -> str:
    """What became of a cell so far, by its record alone."""
    record = grid.record(cell)
    if record is None:
        return UNTRAINED
    return "started, not finished" if record["status"] == "started" else str(record["status"])


def _train_locked(grid: BenchmarkGrid, cell: Cell, *, continues: bool) -> str:
    path, made_with = grid.record_file(cell), grid.made_with(cell)
    write_json(path, {"made_with": made_with, "status": "started"})
    arguments_file, result_file = path.with_suffix(".arguments"), path.with_suffix(".result")
    write_json(arguments_file, _arguments(grid, cell, continues=continues))
    environment = os.environ | {
        "nnUNet_results": str(grid.results_folder(cell)),
        "nnUNet_extTrainer": trainer_path(),
    }
    if grid.device == "cpu":  # threads that wait by spinning are several times slower on a shared machine
        environment.setdefault("OMP_WAIT_POLICY", "passive")
    grid.results_folder(cell).mkdir(parents=True, exist_ok=True)
    log = grid.log_file(cell)
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [*grid.training_command, str(arguments_file), str(result_file)]
    with log.open("a", encoding="utf-8") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)
    code = _wait(process, log, grid.budget.epochs)
    result = read_json(result_file) if code == 0 else {}
    for temporary in (arguments_file, result_file):
        temporary.unlink(missing_ok=True)
    status = DONE if code == 0 else FAILED
    write_json(path, {"made_with": made_with, "status": status, **result})
    return status


def _arguments(grid: BenchmarkGrid, cell: Cell, *, continues: bool) -> dict[str, Any]:
    """Of `nnunet_softlabel.training.run.train`."""
    return {
        "dataset": grid.dataset.folder.name,
        "configuration": cell.configuration,
        "fold": cell.fold,
        "trainer": cell.trainer,
        "plans": grid.plans,
        "epochs": grid.budget.epochs,
        "iterations": grid.budget.iterations,
        "seed": cell.seed,
        "device": grid.device,
        "continues": continues,
    }


def _wait(process: subprocess.Popen, log: Path, epochs: int | None) -> int:
    """Wait for a training and show its epoch; a training does not outlive the benchmark."""
    try:
        with tqdm(total=epochs, unit="epoch", disable=None) as bar:
            while process.poll() is None:
                sleep(1)
                found = re.findall(
                    r"Epoch (\d+)\s*$", log.read_text(encoding="utf-8", errors="replace"), re.MULTILINE
                )
                if found:
                    bar.update(int(found[-1]) - bar.n)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    return process.returncode


def last_line(path: Path) -> str:
    """The last line of a log that says something."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    lines = [line for line in text.splitlines() if line.strip()]
    return f"{lines[-1].strip() if lines else 'no output'} (see {path})"
