"""What a user sees while a benchmark works, and how many processes its validation takes."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from time import sleep

import numpy as np
from tqdm import tqdm

from nnunet_softlabel.benchmark.grid import BenchmarkGrid
from nnunet_softlabel.benchmark.records import CellRecord
from nnunet_softlabel.benchmark.settings import Cell
from nnunet_softlabel.benchmark.status import Outcome

POLL_SECONDS = 0.5
VOXELS_PER_SECOND = 2e6  # nnU-Net's export of probabilities, per channel and process
SECONDS_WORTH_A_PROCESS = 20  # below, the start of another process costs more than it saves
MOST_PROCESSES = 8  # nnU-Net's own default


def wait_for_training(
    process: subprocess.Popen[bytes], grid: BenchmarkGrid, cell: Cell, *, stop: Event | None = None
) -> int:
    """Wait, and show epochs and validated cases; a training does not outlive the benchmark.

    With ``stop`` others train beside this one: no bar is shown, and the training ends when it is set.
    """
    epochs, cases = grid.budget.epochs, len(grid.validation_cases(cell))
    log = grid.log_file(cell)
    start = log.stat().st_size if log.is_file() else 0  # of this run, after those of earlier ones
    with (
        tqdm(
            total=None if epochs is None else epochs + cases,
            unit="step",
            disable=None if stop is None else True,
        ) as bar,
        _ending_with_benchmark(process),
    ):
        while process.poll() is None:
            if stop is not None and stop.is_set():
                raise KeyboardInterrupt  # the waiting for the others ended
            sleep(POLL_SECONDS)
            _show(bar, _new_text(log, start), epochs, cases)
        if process.returncode == 0 and bar.total is not None:
            bar.update(bar.total - bar.n)
    return int(process.returncode)


@contextmanager
def _ending_with_benchmark(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Whatever ends the waiting, the process does not outlive it."""
    try:
        yield
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
        if process.stdin is not None:
            process.stdin.close()


def _new_text(log: Path, start: int) -> str:
    with log.open("rb") as file:
        file.seek(start)
        return file.read().decode("utf-8", errors="replace")


def _show(bar: tqdm, text: str, epochs: int | None, cases: int) -> None:
    """Epochs that have begun, then cases that are validated, by what nnU-Net prints."""
    validated = len(re.findall(r"predicting ", text))
    begun = re.findall(r"Epoch (\d+)\s*$", text, re.MULTILINE)
    if validated and epochs is not None:
        bar.set_description(f"validation {validated}/{cases}", refresh=False)
        bar.update(min(epochs + validated - 1, epochs + cases) - bar.n)
    elif begun:
        bar.set_description("training", refresh=False)
        bar.update(int(begun[-1]) - bar.n)


def wait_to_end(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process that does not outlive the benchmark; returns its exit code."""
    with _ending_with_benchmark(process):
        while process.poll() is None:
            sleep(POLL_SECONDS)
    return int(process.returncode)


def wait_for_prediction(process: subprocess.Popen[bytes], log: Path, cases: int) -> int:
    """Wait, and show predicted test cases; a prediction does not outlive the benchmark."""
    start = log.stat().st_size if log.is_file() else 0
    with (
        tqdm(total=cases, unit="case", desc="test images", disable=None) as bar,
        _ending_with_benchmark(process),
    ):
        while process.poll() is None:
            sleep(POLL_SECONDS)
            begun = len(re.findall(r"Predicting ", _new_text(log, start)))
            bar.update(min(max(begun - 1, 0), cases) - bar.n)
    return int(process.returncode)


def validation_processes(grid: BenchmarkGrid, cell: Cell) -> int:
    """How many processes export probabilities of a cell's validation cases."""
    cases = grid.validation_cases(cell)
    return processes_for(grid, len(cases), [grid.case_voxels(case) for case in cases[:5]])


def processes_for(grid: BenchmarkGrid, cases: int, sizes: Sequence[int]) -> int:
    """How many processes export probabilities: one for small cases, more where the work is worth their start.

    nnU-Net starts 8, whatever the cases are; each costs seconds before its first case.
    """
    channels = len(grid.dataset.labels.names) + 1
    seconds = cases * float(np.median(sizes)) * channels / VOXELS_PER_SECOND if sizes else 0
    wanted = math.ceil(seconds / SECONDS_WORTH_A_PROCESS)
    return max(1, min(wanted, cases, os.cpu_count() or 1, MOST_PROCESSES))


def outcome_line(
    grid: BenchmarkGrid, cell: Cell, outcome: Outcome, *, remaining: Mapping[Cell, float], jobs: int = 1
) -> str:
    """``done in 12 min, Dice 0.812; 3 left, about 36 min``.

    Args:
        grid: the cell is one of its cells.
        cell: that ended.
        outcome: what became of it.
        remaining: cells that have not ended -> seconds since they began.
        jobs: trainings at the same time.
    """
    record = grid.record(cell)
    text = str(outcome)
    if record is not None and "train_seconds" in record:
        text += f" in {duration(seconds_of(record))}"
        dice = validation_dice(grid, cell)
        text += "" if dice is None else f", Dice {dice:.3f}"
    if not remaining:
        return text
    known = {other: seconds_of(grid.record(other)) for other in grid.cells}
    finished = {other: seconds for other, seconds in known.items() if seconds > 0}
    if not finished:
        return f"{text}; {len(remaining)} left"
    left = sum(max(0.0, _expected(other, finished) - begun) for other, begun in remaining.items()) / jobs
    more = f", about {duration(left)}" if left >= 1 else ""  # those that are about to end need no number
    return f"{text}; {len(remaining)} left{more}"


def _expected(cell: Cell, finished: Mapping[Cell, float]) -> float:
    """Seconds of a cell: the mean of its trainer and configuration, else of all that is finished."""
    same = [
        seconds
        for other, seconds in finished.items()
        if (other.trainer, other.configuration) == (cell.trainer, cell.configuration)
    ]
    return float(np.mean(same or list(finished.values())))


def seconds_of(record: CellRecord | None) -> float:
    """Training and validation of a cell; 0 if it is not done."""
    if record is None:
        return 0.0
    return float(record.get("train_seconds", 0)) + float(record.get("validation_seconds", 0))


def validation_dice(grid: BenchmarkGrid, cell: Cell) -> float | None:
    """nnU-Net's mean foreground Dice of the validation cases at 0.5, or None if it has not left one."""
    path = grid.validation_folder(cell) / "summary.json"
    try:
        value = float(json.loads(path.read_text(encoding="utf-8"))["foreground_mean"]["Dice"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return None if math.isnan(value) else value


def duration(seconds: float) -> str:
    """Seconds in words: ``45 s``, ``12 min``, ``3 h 20 min``.

    >>> duration(12000)
    '3 h 20 min'
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def who_trains(grid: BenchmarkGrid, cell: Cell) -> str:
    """Which process works on a cell, by its record."""
    record = grid.record(cell)
    if record is None or not isinstance(record.get("by"), Mapping):
        return ""
    by = record["by"]
    return f" (process {by.get('pid')} on {by.get('host')}, since {by.get('since')})"
