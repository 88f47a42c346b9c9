"""Both rounds in one call: train the folds, refine the labels, train again on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from nnunet_softlabel.benchmark.cluster import ClusterJobs
from nnunet_softlabel.benchmark.grid import BenchmarkGrid
from nnunet_softlabel.benchmark.run import Part, benchmark
from nnunet_softlabel.benchmark.second_round import (
    SecondRound,
    describe_second_round,
    evidence_cells,
    is_made,
    make_dataset,
    read_record,
    second_grid,
    second_round_problems,
    trainers_of,
)
from nnunet_softlabel.benchmark.status import Outcome
from nnunet_softlabel.errors import UsageError
from nnunet_softlabel.public import public


@dataclass(frozen=True)
class Rounds:
    """How far two rounds got.

    Attributes:
        first: what became of each cell of the first round, by its name.
        grid: of the second round; None if there is none yet.
        second: what became of its cells.
        why: there is no second round, in words; empty if there is one.
        found: what the refinement found, in words.
    """

    first: dict[str, Outcome]
    grid: BenchmarkGrid | None = None
    second: dict[str, Outcome] = field(default_factory=dict)
    why: str = ""
    found: str = ""


@public
def two_rounds(
    grid: BenchmarkGrid,
    asked: SecondRound,
    *,
    num_processes: int = 2,
    jobs: int = 1,
    cluster: ClusterJobs | None = None,
    only: Part | None = None,
    log: Callable[[str], None] = print,
) -> Rounds:
    """Train and score a grid, make lesion-wise labels of its validation probabilities, train again on them.

    Resumes where it stopped, as `benchmark` does. Both rounds are scored against the references of the first.
    Hand the result to `report` for one page.

    Examples:
        >>> trainings = ns.benchmark.Trainings(
        ...     ["nnUNetTrainerSoftCE"], folds=[0, 1, 2], plans="nnUNetPlansReduced")
        >>> grid = ns.benchmark.BenchmarkGrid(
        ...     911, "bench", trainings, budget=ns.Budget(epochs=1, iterations=1, device="cpu"))
        >>> second = ns.benchmark.SecondRound(912)
        >>> rounds = ns.benchmark.two_rounds(grid, second, num_processes=1, log=lambda line: None)
        >>> rounds.why
        'the refined labels are those of the first round: nothing is trained again'

    Args:
        grid: the first round; its folds validate every training case.
        asked: the second round.
        num_processes: processes of evaluation, refinement and preprocessing, which run here.
        jobs: trainings at the same time on this machine.
        cluster: train the cells as jobs.
        only: ``train`` scores nothing, ``report`` trains nothing and scores what is done.
        log: takes one line of progress.

    Returns:
        What became of both.

    Raises:
        UsageError: if the second round cannot work, or a cell was made with something else.
        DatasetError: if a network saw a case that it predicts.
    """
    problems = list(second_round_problems(grid, asked))
    if problems:
        raise UsageError(problems[0])
    log(describe_second_round(grid, asked))
    first = benchmark(grid, num_processes=num_processes, jobs=jobs, cluster=cluster, only=only, log=log)
    waiting = next((cell for cell in evidence_cells(grid, asked) if not first[cell.name].is_done), None)
    if waiting is not None:
        why = f"the refined labels wait for {waiting.name} ({first[waiting.name]})"
    elif only == "report" and not is_made(grid, asked):
        why = "the labels are not refined yet"
    else:
        record = (
            read_record(grid)
            if only == "report"
            else make_dataset(grid, asked, num_processes=num_processes, log=log)
        )
        assert record is not None, "the labels are made, so they have a record"
        if not record["is_mean"]:
            second = second_grid(grid, asked, record)
            outcome = benchmark(
                second, num_processes=num_processes, jobs=jobs, cluster=cluster, only=only,
                log=lambda line: log(f"second round: {line}"),
            )  # fmt: skip
            return Rounds(first, second, outcome, found=record["found"])
        why = "the refined labels are those of the first round: nothing is trained again"
        log(f"{record['dataset']}: {why}")
        return Rounds(first, why=why, found=record["found"])
    log(f"no second round of {', '.join(trainers_of(grid, asked))} yet: {why}")
    return Rounds(first, why=why)
