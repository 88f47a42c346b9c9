"""The cells of a grid, trained on this machine: one after another, or several at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from threading import Event
from time import time

from nnunet_softlabel.benchmark.cell_training import last_line, recorded_outcome, train_cell
from nnunet_softlabel.benchmark.grid import BenchmarkGrid
from nnunet_softlabel.benchmark.progress import outcome_line, who_trains
from nnunet_softlabel.benchmark.settings import Cell
from nnunet_softlabel.benchmark.status import CellStatus, Outcome

Log = Callable[[str], None]


def train_here(grid: BenchmarkGrid, log: Log, *, jobs: int = 1) -> dict[str, Outcome]:
    """Train what is missing; one line when a cell begins, one when it ends.

    Args:
        grid: its cells are trained in their order.
        log: takes one line of progress.
        jobs: trainings at the same time; on a CPU they share its cores evenly.

    Returns:
        What became of each cell, by its name.
    """
    jobs = min(jobs, sum(not recorded_outcome(grid, cell).is_done for cell in grid.cells))
    if jobs > 1:
        outcome = _train_together(grid, log, jobs=jobs)
        return {cell.name: outcome[cell.name] for cell in grid.cells}
    outcome = {}
    for number, cell in enumerate(grid.cells, start=1):
        outcome[cell.name] = Outcome(CellStatus.DONE)
        if _begins(grid, cell, log):
            outcome[cell.name] = train_cell(grid, cell)
            _tell(grid, cell, outcome[cell.name], log, begun=dict.fromkeys(grid.cells[number:], 0.0))
    return outcome


def _train_together(grid: BenchmarkGrid, log: Log, *, jobs: int) -> dict[str, Outcome]:
    """Several trainings at once; whatever ends the waiting ends all of them."""
    outcome: dict[str, Outcome] = {}
    waiting, since = list(grid.cells), dict[Cell, float]()
    running: dict[Future[Outcome], Cell] = {}
    threads = max(1, (os.cpu_count() or 1) // jobs) if grid.budget.device == "cpu" else None
    stop = Event()
    with ThreadPoolExecutor(jobs) as pool:
        try:
            while waiting or running:
                for cell in _ready(grid, waiting, running.values())[: jobs - len(running)]:
                    waiting.remove(cell)
                    if not _begins(grid, cell, log):
                        outcome[cell.name] = Outcome(CellStatus.DONE)
                        continue
                    since[cell] = time()
                    running[pool.submit(train_cell, grid, cell, stop=stop, threads=threads)] = cell
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    cell = running.pop(future)
                    outcome[cell.name] = future.result()
                    begun = dict.fromkeys(waiting, 0.0) | {c: time() - since[c] for c in running.values()}
                    _tell(grid, cell, outcome[cell.name], log, begun=begun, jobs=jobs)
        finally:
            stop.set()
    return outcome


def _begins(grid: BenchmarkGrid, cell: Cell, log: Log) -> bool:
    """Say that a cell begins; False if it is done: before, or by another process meanwhile."""
    is_done = recorded_outcome(grid, cell).is_done
    log(f"{_place(grid, cell)}: {'done before' if is_done else 'training'}")
    return not is_done


def _ready(grid: BenchmarkGrid, waiting: Sequence[Cell], running: Collection[Cell]) -> list[Cell]:
    """Cells that need the model of no cell that is not finished yet."""
    return [cell for cell in waiting if not any(grid.needs(cell, other) for other in [*waiting, *running])]


def _place(grid: BenchmarkGrid, cell: Cell) -> str:
    return f"[{grid.cells.index(cell) + 1}/{len(grid.cells)}] {cell.name}"


def _tell(
    grid: BenchmarkGrid,
    cell: Cell,
    outcome: Outcome,
    log: Log,
    *,
    begun: Mapping[Cell, float],
    jobs: int = 1,
) -> None:
    """Say what became of a cell, and how much is left of those that wait or have begun so long ago."""
    remaining = {c: seconds for c, seconds in begun.items() if not recorded_outcome(grid, c).is_done}
    text = outcome_line(grid, cell, outcome, remaining=remaining, jobs=jobs)
    if outcome.status is CellStatus.ELSEWHERE:
        text += who_trains(grid, cell)
    log(f"{_place(grid, cell)}: {text}")
    if outcome.status is CellStatus.FAILED:
        log(f"  failed: {last_line(grid.log_file(cell))}")
