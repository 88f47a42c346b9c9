"""Training and scoring all cells of a grid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from nnunet_softlabel.benchmark.cell_scores import score_cell
from nnunet_softlabel.benchmark.cell_training import (
    DONE,
    ELSEWHERE,
    FAILED,
    last_line,
    recorded_status,
    train_cell,
)
from nnunet_softlabel.benchmark.cluster import ClusterJobs, train_on_cluster
from nnunet_softlabel.benchmark.grid import BenchmarkGrid
from nnunet_softlabel.benchmark.progress import outcome_line, who_trains
from nnunet_softlabel.benchmark.recalibrated_rows import score_recalibrated
from nnunet_softlabel.errors import DatasetError, WorkerError
from nnunet_softlabel.formats.locks import held_lock

Part = Literal["train", "report"]


def benchmark(
    grid: BenchmarkGrid,
    *,
    num_processes: int = 2,
    cluster: ClusterJobs | None = None,
    only: Part | None = None,
    log: Callable[[str], None] = print,
) -> dict[str, str]:
    """Train and evaluate every cell of a grid; a failed cell does not lose the others.

    Args:
        grid: what to do, and where.
        num_processes: processes of the evaluation, which runs here.
        cluster: train the cells as jobs, instead of one after another here.
        only: ``train`` scores nothing, ``report`` trains nothing and scores what is done.
        log: takes one line of progress.

    Returns:
        What became of each cell: ``done``, or what else, in words.

    Raises:
        UsageError: if a cell was made with something else than this grid asks for.
    """
    outcome = {cell.name: recorded_status(grid, cell) for cell in grid.cells}  # refuses a mixture at once
    if only != "report":
        outcome = train_here(grid, log) if cluster is None else train_on_cluster(grid, cluster, log)
    if only != "train":
        score(grid, outcome, num_processes=num_processes, log=log)
    return outcome


def train_here(grid: BenchmarkGrid, log: Callable[[str], None]) -> dict[str, str]:
    """Train what is missing, one cell after another; one line when a cell begins, one when it ends."""
    outcome: dict[str, str] = {}
    width = len(grid.cells)
    for number, cell in enumerate(grid.cells, start=1):
        place = f"[{number}/{width}] {cell.name}"
        if recorded_status(grid, cell) == DONE:
            outcome[cell.name] = DONE
            log(f"{place}: done before")
            continue
        log(f"{place}: training")
        outcome[cell.name] = train_cell(grid, cell)
        remaining = [c for c in grid.cells[number:] if recorded_status(grid, c) != DONE]
        text = outcome_line(grid, cell, outcome[cell.name], remaining=remaining)
        if outcome[cell.name] == ELSEWHERE:
            text += who_trains(grid, cell)
        log(f"{place}: {text}")
        if outcome[cell.name] == FAILED:
            log(f"  failed: {last_line(grid.log_file(cell))}")
    return outcome


def score(
    grid: BenchmarkGrid, outcome: dict[str, str], *, num_processes: int, log: Callable[[str], None]
) -> None:
    """Score the trained cells; one that cannot be scored says so in ``outcome``.

    One process scores at a time. What others have finished meanwhile is scored too.
    """
    grid.output.mkdir(parents=True, exist_ok=True)
    with held_lock(grid.output / "scores.lock", patience_seconds=-1):
        refresh(grid, outcome)
        trained = [cell for cell in grid.cells if outcome[cell.name] == DONE]
        for cell in trained:
            try:
                score_cell(grid, cell, trained=trained, num_processes=num_processes)
            except (DatasetError, WorkerError) as error:
                outcome[cell.name] = f"trained, but not scored: {error}"
                log(f"{cell.name}: not scored: {error}")
        if grid.calibrate is not None:
            scored = [cell for cell in trained if outcome[cell.name] == DONE]
            score_recalibrated(grid, scored, num_processes=num_processes, log=log)


def refresh(grid: BenchmarkGrid, outcome: dict[str, str]) -> None:
    """Read again what became of cells that another process had in training."""
    for cell in grid.cells:
        if outcome[cell.name] == ELSEWHERE and recorded_status(grid, cell) == DONE:
            outcome[cell.name] = DONE
