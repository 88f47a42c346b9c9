"""One cell is trained in a process of its own, which a lock keeps from being started twice."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from socket import gethostname
from threading import Event
from typing import cast

from filelock import Timeout

from nnunet_softlabel.benchmark.grid import BenchmarkGrid
from nnunet_softlabel.benchmark.progress import validation_processes, wait_for_training
from nnunet_softlabel.benchmark.records import CellRecord, StartedBy
from nnunet_softlabel.benchmark.settings import Cell
from nnunet_softlabel.benchmark.status import CellStatus, Outcome
from nnunet_softlabel.formats.files import read_json, write_json
from nnunet_softlabel.formats.locks import held_lock
from nnunet_softlabel.training.records import TrainArguments, TrainingResult
from nnunet_softlabel.training.supervisor import BUSY
from nnunet_softlabel.training.trainer_path import trainer_path

SUPERVISOR = (sys.executable, "-m", "nnunet_softlabel.training.supervisor")


def train_cell(
    grid: BenchmarkGrid, cell: Cell, *, stop: Event | None = None, threads: int | None = None
) -> Outcome:
    """Train a cell unless it is done; says what became of it: done, failed, or in training elsewhere.

    Several benchmark processes (one per GPU or node) can share a grid: each takes what no other works on.
    The training itself runs under a supervisor that ends it with this process, and that holds a lock of its
    own: a training that this process leaves behind is not started a second time.

    Args:
        grid: the cell is one of its cells.
        cell: to train.
        stop: of trainings beside each other: ends this one when it is set, and no bar is shown; None: alone.
        threads: of the training, where ``OMP_NUM_THREADS`` does not say it; None leaves it to torch.
    """
    path = grid.record_file(cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    needed = missing_model(grid, cell)
    if needed is not None:
        return Outcome(CellStatus.UNTRAINED, f"waits for {needed.name}")
    try:
        with held_lock(path.with_suffix(".lock")):
            record = grid.record(cell)
            if record is not None and record["status"] == CellStatus.DONE.value:
                return Outcome(CellStatus.DONE)
            return _train_locked(grid, cell, continues=record is not None, stop=stop, threads=threads)
    except Timeout:
        return Outcome(CellStatus.ELSEWHERE)


def missing_model(grid: BenchmarkGrid, cell: Cell) -> Cell | None:
    """A cell that is not done and that this one goes on from: its model, or a first stage of the grid."""
    model = grid.begins_with(cell)
    needed = [other for other in grid.cells if grid.needs(cell, other)]
    if model is not None and model not in needed:
        needed.append(model)
    return next((other for other in needed if not recorded_outcome(grid, other).is_done), None)


def recorded_outcome(grid: BenchmarkGrid, cell: Cell) -> Outcome:
    """What became of a cell so far, by its record alone."""
    record = grid.record(cell)
    return Outcome(CellStatus.UNTRAINED if record is None else CellStatus(record["status"]))


def _train_locked(
    grid: BenchmarkGrid, cell: Cell, *, continues: bool, stop: Event | None, threads: int | None
) -> Outcome:
    path, made_with = grid.record_file(cell), grid.made_with(cell)
    by: StartedBy = {
        "host": gethostname(),
        "pid": os.getpid(),
        "since": f"{datetime.now():%Y-%m-%d %H:%M}",
    }
    record: CellRecord = {"made_with": made_with, "status": CellStatus.STARTED.value, "by": by}
    write_json(path, record)
    arguments_file, result_file = path.with_suffix(".arguments"), path.with_suffix(".result")
    write_json(arguments_file, _arguments(grid, cell, continues=continues))
    grid.results_folder(cell).mkdir(parents=True, exist_ok=True)
    log = grid.log_file(cell)
    command = [*grid.commands.training, str(arguments_file), str(result_file)]
    process = start_supervised(
        grid, cell, command, lock=path.with_suffix(".training"), log=log, threads=threads
    )
    code = wait_for_training(process, grid, cell, stop=stop)
    if code == BUSY:
        return Outcome(CellStatus.ELSEWHERE)
    split = grid.made_with(cell)["split"]
    if made_with["split"] is None:
        made_with = {**made_with, "split": split}  # nnU-Net has made its folds meanwhile
    elif made_with["split"] != split:
        code = 1
        with log.open("a", encoding="utf-8") as file:
            file.write(f"{grid.splits_file}: changed during this training, which validated other cases.\n")
    status = CellStatus.DONE if code == 0 else CellStatus.FAILED
    record = {"made_with": made_with, "status": status.value}
    if code == 0:
        record |= cast(TrainingResult, read_json(result_file))
    for temporary in (arguments_file, result_file):
        temporary.unlink(missing_ok=True)
    write_json(path, record)
    return Outcome(status)


def start_supervised(
    grid: BenchmarkGrid,
    cell: Cell,
    command: Sequence[str],
    *,
    lock: Path,
    log: Path,
    threads: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start a command that holds the lock, ends with this process, and adds to the log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        return subprocess.Popen(
            [*SUPERVISOR, str(lock), *command],
            env=cell_environment(grid, cell, threads=threads),
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def cell_environment(grid: BenchmarkGrid, cell: Cell, *, threads: int | None = None) -> dict[str, str]:
    """Variables of a process that trains a cell, or predicts with it."""
    environment = os.environ | {
        "nnUNet_results": str(grid.results_folder(cell)),
        "nnUNet_extTrainer": trainer_path(),
    }
    if (
        grid.budget.device == "cpu"
    ):  # threads that wait by spinning are several times slower on a shared machine
        environment.setdefault("OMP_WAIT_POLICY", "passive")
    if threads is not None:
        environment.setdefault("OMP_NUM_THREADS", str(threads))
    environment.setdefault("nnUNet_def_n_proc", str(validation_processes(grid, cell)))
    return environment


def _arguments(grid: BenchmarkGrid, cell: Cell, *, continues: bool) -> TrainArguments:
    return {
        "dataset": grid.dataset.folder.name,
        "configuration": cell.configuration,
        "fold": cell.fold,
        "trainer": cell.trainer,
        "plans": grid.plans,
        "epochs": grid.budget.epochs,
        "iterations": grid.budget.iterations,
        "seed": cell.seed,
        "device": grid.budget.device,
        "continues": continues,
    }


def last_line(path: Path) -> str:
    """The last line of a log that says something."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    lines = [line for line in text.splitlines() if line.strip()]
    return f"{lines[-1].strip() if lines else 'no output'} (see {path})"
