"""The cells of a grid as jobs of a cluster, through submitit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nnunet_softlabel.benchmark.cell_training import last_line, missing_model, recorded_outcome, train_cell
from nnunet_softlabel.benchmark.grid import BenchmarkGrid
from nnunet_softlabel.benchmark.held_out import is_predicted, predict_cell
from nnunet_softlabel.benchmark.settings import Cell
from nnunet_softlabel.benchmark.status import CellStatus, Outcome
from nnunet_softlabel.errors import UsageError
from nnunet_softlabel.public import public

CLUSTERS = ("slurm", "local")
# submitit's own names, for every kind of cluster; all others are sbatch's
SHARED = ("timeout_min", "mem_gb", "cpus_per_task", "gpus_per_node", "stderr_to_stdout")
TIMEOUT_MIN = 24 * 60  # submitit's own default is 5 minutes
RESTARTS = 20  # after a timeout; each goes on from nnU-Net's last checkpoint


@public
@dataclass(frozen=True)
class ClusterJobs:
    """Where and how jobs run.

    Attributes:
        kind: ``slurm``, or ``local``: processes of this machine, all at once, to try it out.
        options: submitit's (``timeout_min``, ``mem_gb``, ``cpus_per_task``, ``gpus_per_node``), or sbatch's
            (``partition``, ``account``, ``qos``, ``array_parallelism``, ...).
        poll_seconds: between two looks at the jobs.
    """

    kind: str = "slurm"
    options: Mapping[str, str | int] = field(default_factory=dict)
    poll_seconds: float = 10

    @classmethod
    def parse(cls, kind: str, options: Sequence[str]) -> ClusterJobs:
        """Options as the command line gives them, ``NAME=VALUE``; a number is taken for a number."""
        parsed: dict[str, str | int] = {}
        for text in options:
            name, sign, value = text.partition("=")
            if not (name and sign and value):
                raise UsageError(f"--cluster-options {text}: expected NAME=VALUE, as partition=gpu.")
            parsed[name] = int(value) if value.isdigit() else value
        return cls(kind, parsed)


class CellJob:
    """What a job does: train one cell, and predict the test images if asked.

    Stopped by a time limit, it is queued again and goes on.
    """

    def __init__(self, grid: BenchmarkGrid, cell: Cell) -> None:
        self.grid, self.cell = grid, cell

    def __call__(self) -> Outcome:
        """Run on the node."""
        outcome = train_cell(self.grid, self.cell)
        if self.grid.scoring.test and outcome.is_done:
            predict_cell(self.grid, self.cell)  # what it lacks is told when it is scored
        return outcome

    def checkpoint(self) -> Any:
        """Called by submitit before the time limit."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def train_on_cluster(
    grid: BenchmarkGrid, cluster: ClusterJobs, log: Callable[[str], None]
) -> dict[str, Outcome]:
    """Submit a job for each cell that is not done, wait for all, say what became of each.

    Raises:
        UsageError: without submitit, or for options that it or the cluster refuses.
    """
    executor = _executor(grid, cluster)
    from submitit.core.utils import FailedSubmissionError, UncompletedJobError
    from submitit.helpers import as_completed

    outcome = {cell.name: recorded_outcome(grid, cell) for cell in grid.cells}
    cells = []
    for cell in grid.cells:
        needed = missing_model(grid, cell)
        if needed is not None:
            waits = f"waits for {needed.name}; run the same command again"
            outcome[cell.name] = Outcome(CellStatus.UNTRAINED, waits)
            log(f"{cell.name}: {outcome[cell.name]}")
        elif not outcome[cell.name].is_done or (grid.scoring.test and not is_predicted(grid, cell)):
            cells.append(cell)
    try:
        jobs = executor.submit_array([CellJob(grid, cell) for cell in cells]) if cells else []
    except (FailedSubmissionError, OSError) as error:
        raise UsageError(f"--cluster {cluster.kind}: could not submit: {error}") from error
    waiting = {job.job_id: cell for job, cell in zip(jobs, cells, strict=True)}
    for job_id, cell in waiting.items():
        log(f"job {job_id}: {cell.name}")
    try:
        for job in as_completed(jobs, poll_frequency=cluster.poll_seconds):
            cell = waiting.pop(job.job_id)
            try:
                outcome[cell.name] = job.result()
                has_failed = outcome[cell.name].status is CellStatus.FAILED
                more = f": {last_line(grid.log_file(cell))}" if has_failed else ""
            except UncompletedJobError:  # killed by the cluster, or an error of ours
                outcome[cell.name] = Outcome(CellStatus.FAILED)
                more = f": {last_line(job.paths.stderr)}"
            log(f"job {job.job_id}: {cell.name}: {outcome[cell.name]}{more}")
    except KeyboardInterrupt:
        log(f"{len(waiting)} jobs go on without this process; the same command collects what they leave.")
        raise
    return outcome


def _executor(grid: BenchmarkGrid, cluster: ClusterJobs) -> Any:
    """A submitit executor with all options set."""
    try:
        from submitit import AutoExecutor
    except ImportError as error:
        raise UsageError("--cluster needs submitit: pip install 'nnunet-softlabel[cluster]'.") from error
    options: dict[str, str | int] = {
        "timeout_min": TIMEOUT_MIN,
        "name": f"softlabel_{grid.dataset.folder.name}",
    }
    if grid.budget.device == "cuda":
        options["gpus_per_node"] = 1
    for name, value in cluster.options.items():
        options[name if name in SHARED or name.startswith("slurm_") else f"slurm_{name}"] = value
    try:
        executor = AutoExecutor(grid.output / "jobs", cluster=cluster.kind, slurm_max_num_timeout=RESTARTS)
        executor.update_parameters(**options)
    except (AssertionError, NameError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--cluster {cluster.kind}, --cluster-options: {reason}") from error
    return executor
