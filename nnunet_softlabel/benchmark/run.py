"""Training and scoring all cells of a grid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from nnunet_softlabel.benchmark.cell_scores import score_cell
from nnunet_softlabel.benchmark.cell_training import recorded_outcome
from nnunet_softlabel.benchmark.cluster import ClusterJobs, train_on_cluster
from nnunet_softlabel.benchmark.grid import BenchmarkGrid
from nnunet_softlabel.benchmark.held_out import predict_all
from nnunet_softlabel.benchmark.held_out_rows import score_held_out
from nnunet_softlabel.benchmark.local_training import train_here
from nnunet_softlabel.benchmark.recalibrated_rows import score_recalibrated
from nnunet_softlabel.benchmark.status import CellStatus, Outcome
from nnunet_softlabel.errors import DatasetError, WorkerError
from nnunet_softlabel.formats.locks import held_lock
from nnunet_softlabel.public import public

Part = Literal["train", "report"]


@public
def benchmark(
    grid: BenchmarkGrid,
    *,
    num_processes: int = 2,
    jobs: int = 1,
    cluster: ClusterJobs | None = None,
    only: Part | None = None,
    log: Callable[[str], None] = print,
) -> dict[str, Outcome]:
    """Train and evaluate every cell of a grid; a failed cell does not lose the others.

    Examples:
        >>> trainings = ns.benchmark.Trainings(["nnUNetTrainerSoftCE"], folds=[0], plans="nnUNetPlansReduced")
        >>> grid = ns.benchmark.BenchmarkGrid(
        ...     911, "bench", trainings, budget=ns.Budget(epochs=1, iterations=1, device="cpu"))
        >>> outcome = ns.benchmark.benchmark(grid, num_processes=1, log=lambda line: None)
        >>> [str(found) for found in outcome.values()]
        ['done']

    Args:
        grid: what to do, and where.
        num_processes: processes of the evaluation, which runs here.
        jobs: trainings at the same time on this machine; on a CPU they share its cores evenly.
        cluster: train the cells as jobs, instead of here.
        only: ``train`` scores nothing, ``report`` trains nothing and scores what is done.
        log: takes one line of progress.

    Returns:
        What became of each cell, by its name.

    Raises:
        UsageError: if a cell was made with something else than this grid asks for.
    """
    outcome = {cell.name: recorded_outcome(grid, cell) for cell in grid.cells}  # refuses a mixture at once
    if only != "report":
        outcome = (
            train_here(grid, log, jobs=jobs) if cluster is None else train_on_cluster(grid, cluster, log)
        )
        if grid.scoring.test and cluster is None:
            predict_all(grid, [cell for cell in grid.cells if outcome[cell.name].is_done], log)
    if only != "train":
        score(grid, outcome, num_processes=num_processes, log=log)
    return outcome


def score(
    grid: BenchmarkGrid, outcome: dict[str, Outcome], *, num_processes: int, log: Callable[[str], None]
) -> None:
    """Score the trained cells; one that cannot be scored says so in ``outcome``.

    One process scores at a time. What others have finished meanwhile is scored too.
    """
    grid.output.mkdir(parents=True, exist_ok=True)
    with held_lock(grid.output / "scores.lock", patience_seconds=-1):
        refresh(grid, outcome)
        trained = [cell for cell in grid.cells if outcome[cell.name].is_done]
        for cell in trained:
            try:
                score_cell(grid, cell, trained=trained, num_processes=num_processes)
            except (DatasetError, WorkerError) as error:
                outcome[cell.name] = Outcome(CellStatus.UNSCORED, str(error))
                log(f"{cell.name}: not scored: {error}")
        if grid.scoring.calibrate is not None:
            scored = [cell for cell in trained if outcome[cell.name].is_done]
            score_recalibrated(grid, scored, num_processes=num_processes, log=log)
        if grid.scoring.test:
            score_held_out(grid, trained, num_processes=num_processes, log=log)


def refresh(grid: BenchmarkGrid, outcome: dict[str, Outcome]) -> None:
    """Read again what became of cells that another process had in training."""
    for cell in grid.cells:
        if outcome[cell.name].status is CellStatus.ELSEWHERE and recorded_outcome(grid, cell).is_done:
            outcome[cell.name] = Outcome(CellStatus.DONE)
