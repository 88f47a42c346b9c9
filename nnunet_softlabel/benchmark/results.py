"""What a benchmark found: scores of its finished cells, tests against the baseline, one HTML page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np

from nnunet_softlabel.benchmark.case_pictures import case_pictures
from nnunet_softlabel.benchmark.caveats import make_notes
from nnunet_softlabel.benchmark.cell_scores import is_scored
from nnunet_softlabel.benchmark.cell_training import recorded_outcome
from nnunet_softlabel.benchmark.grid import BenchmarkGrid
from nnunet_softlabel.benchmark.held_out_results import held_out_notes, held_out_results, held_out_summary
from nnunet_softlabel.benchmark.pages import REPORT_FILE, asked_of, keep_earlier_page
from nnunet_softlabel.benchmark.recalibrated_rows import (
    notes_on_missing_rows,
    recalibrated_cells,
    recalibrated_folder,
)
from nnunet_softlabel.benchmark.records import BenchmarkSummary
from nnunet_softlabel.benchmark.refined_rows import Round, baselines_of_refined, refined_notes, refined_round
from nnunet_softlabel.benchmark.rounds import Rounds
from nnunet_softlabel.benchmark.settings import Cell
from nnunet_softlabel.benchmark.status import CellStatus, Outcome
from nnunet_softlabel.benchmark.summary import (
    difference_record,
    iterations_of,
    sentences_of,
    shared_settings,
    trainer_summaries,
)
from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.evaluation.tables import METRICS_FILE, SUMMARY_FILE, versions, write_rows
from nnunet_softlabel.formats.files import write_json
from nnunet_softlabel.formats.locks import held_lock
from nnunet_softlabel.public import public
from nnunet_softlabel.report.comparison import compare_pairs
from nnunet_softlabel.report.findings import Findings, Provenance
from nnunet_softlabel.report.page import write_report
from nnunet_softlabel.report.runs import RECALIBRATED, REFINED, RunResult

TRAINING_PACKAGES = ("torch", "batchgeneratorsv2", "dynamic-network-architectures")
GIB = 2**30


@public
def report(
    grid: BenchmarkGrid,
    outcome: Mapping[str, Outcome],
    *,
    commands: Sequence[str] = (),
    margins: Mapping[str, float] | None = None,
    primary: Sequence[str] | None = None,
    rounds: Rounds | None = None,
) -> Path:
    """Write ``soft_metrics.csv``, ``soft_summary.json`` and ``report.html`` into the benchmark's folder.

    Those of another threshold or truth stay, under names that say so. One process writes at a time, and the
    page has all that any process has finished by then.

    >>> trainings = ns.benchmark.Trainings(["nnUNetTrainerSoftCE"], folds=[0], plans="nnUNetPlansReduced")
    >>> grid = ns.benchmark.BenchmarkGrid(
    ...     911, "bench", trainings, budget=ns.Budget(epochs=1, iterations=1, device="cpu"))
    >>> outcome = ns.benchmark.benchmark(grid, num_processes=1, log=lambda line: None)
    >>> ns.benchmark.report(grid, outcome).name
    'report.html'

    Args:
        grid: the benchmark.
        outcome: what became of each cell, as `benchmark` returns it.
        commands: shown on the page.
        margins: metric -> margin of non-inferiority.
        primary: metrics that are tested; None takes `primary_tests`.
        rounds: of `two_rounds`; adds the rows of the second round.

    Returns:
        The page.

    Raises:
        DatasetError: if no cell is done.
        ValueError: for a margin that is not positive, or of a metric without a direction.
    """
    grid.output.mkdir(parents=True, exist_ok=True)
    with held_lock(grid.output / "scores.lock", patience_seconds=-1):
        grid.refuse_other_labels()
        finished_elsewhere = {
            cell.name: Outcome(CellStatus.DONE)
            for cell in grid.cells
            if outcome[cell.name].status is CellStatus.ELSEWHERE
            and recorded_outcome(grid, cell).is_done
            and is_scored(grid, cell)
        }
        return _report(
            grid, {**outcome, **finished_elsewhere}, rounds,
            commands=commands, margins=margins, primary=primary,
        )  # fmt: skip


def _report(
    grid: BenchmarkGrid,
    outcome: Mapping[str, Outcome],
    rounds: Rounds | None,
    *,
    commands: Sequence[str],
    margins: Mapping[str, float] | None,
    primary: Sequence[str] | None,
) -> Path:
    finished = _finished_cells(grid, outcome)
    if not finished:
        others = (CellStatus.DONE, CellStatus.ELSEWHERE)
        reason = next((str(what) for what in outcome.values() if what.status not in others), "")
        raise DatasetError(
            f"{grid.output}: no training is done and scored ({reason}); see {grid.output / 'logs'}."
        )
    runs = {name: _run(grid, name, cells) for name, cells in finished.items()}
    baselines, every_round = _baselines(finished), [Round(grid, finished)]
    if rounds is not None and rounds.grid is not None:
        second = refined_round(rounds.grid, _finished_cells(rounds.grid, rounds.second))
        every_round.append(second)
        runs |= {name: _run(second.grid, name, cells) for name, cells in second.finished.items()}
        baselines |= baselines_of_refined(second, finished)
    for name, cells in recalibrated_cells(grid, finished).items():
        runs[name + RECALIBRATED] = _recalibrated_run(grid, name + RECALIBRATED, cells)
        baselines[name + RECALIBRATED] = baselines.get(name, next(iter(finished)))
    rows = {name: run.rows for name, run in runs.items()}
    pairs = [(first, name) for name, first in baselines.items()]
    comparisons = compare_pairs(rows, pairs, margins=margins, primary=primary)
    all_runs = list(runs.values())
    notes = [*make_notes(grid, outcome, finished, all_runs), *notes_on_missing_rows(grid, finished)]
    notes += [] if rounds is None else refined_notes(grid, rounds)
    for path in keep_earlier_page(grid):
        print(f"The earlier page stays: {path}")
    named_rows = [{"trainer": run.name, **row} for run in all_runs for row in run.rows]
    write_rows(grid.output / METRICS_FILE, named_rows, more_columns=["trainer"])
    settings = shared_settings(grid, finished)
    sentences = sentences_of(
        grid, rows, pairs, comparisons,
        margins=margins, primary=primary, iterations=iterations_of(every_round),
    )  # fmt: skip
    test = (
        held_out_results(every_round, baselines, margins=margins, primary=primary)
        if grid.scoring.test
        else None
    )
    notes += held_out_notes(every_round) if grid.scoring.test and test is None else []
    summary: BenchmarkSummary = {
        "settings": settings,
        "notes": notes,
        "trainers": trainer_summaries(all_runs),
        "differences": [difference_record(test) for test in comparisons],
        "asked": asked_of(grid),
        "verdict": [sentence.text for sentence in sentences],
    }
    if test is not None:
        summary["test"] = held_out_summary(grid, test)
    write_json(grid.output / SUMMARY_FILE, summary)
    return write_report(
        grid.output / REPORT_FILE,
        Findings(all_runs, comparisons, sentences, notes),
        title=f"{grid.dataset.folder.name}: {_title(list(runs))}",
        pictures=case_pictures(every_round),
        provenance=Provenance(
            settings, commands, versions() | {name: metadata.version(name) for name in TRAINING_PACKAGES}
        ),
        test=test,
        overwrite=True,  # of this benchmark's own page, which grows with its cells
    )


def _title(names: Sequence[str]) -> str:
    """Two trainers by name, more by number: their names stand on the page."""
    again = {RECALIBRATED: "recalibrated", REFINED: "on refined labels"}
    trained = [name for name in names if not name.endswith(tuple(again))]
    text = " against ".join(trained) if len(trained) < 3 else f"{len(trained)} trainers"
    also = [words for suffix, words in again.items() if any(name.endswith(suffix) for name in names)]
    return " and ".join([f"{text}, as trained", *also]) if also else text


def _finished_cells(grid: BenchmarkGrid, outcome: Mapping[str, Outcome]) -> dict[str, list[Cell]]:
    """Name on the page -> finished cells, in the order of the grid, baseline first."""
    several = len({cell.configuration for cell in grid.cells}) > 1
    cells: dict[str, list[Cell]] = defaultdict(list)
    for cell in grid.cells:
        if outcome[cell.name].is_done:
            cells[f"{cell.trainer} {cell.configuration}" if several else cell.trainer].append(cell)
    return dict(cells)


def _baselines(finished: Mapping[str, Sequence[Cell]]) -> dict[str, str]:
    """Run -> what it is tested against: the first trainer of its configuration, that one the first run."""
    first_run = next(iter(finished))
    baseline = finished[first_run][0].trainer
    of_configuration = {
        cells[0].configuration: name for name, cells in finished.items() if cells[0].trainer == baseline
    }
    found = {
        name: first_run if cells[0].trainer == baseline else of_configuration.get(cells[0].configuration)
        for name, cells in finished.items()
    }
    return {name: first for name, first in found.items() if first is not None and name != first_run}


def _run(grid: BenchmarkGrid, name: str, cells: Sequence[Cell]) -> RunResult:
    records = [grid.record_of_done(cell) for cell in cells]
    curves: dict[str, list[list[float]]] = defaultdict(list)
    for record in records:
        for curve, values in record["curves"].items():
            curves[curve].append(values)
    # trainings of one grid are equally long; after a resume with other folds the shortest decides
    averaged = {
        curve: np.mean([v[: min(map(len, values))] for v in values], axis=0).tolist()
        for curve, values in curves.items()
    }
    return RunResult.from_folders(
        name,
        [grid.evaluation_folder(cell) for cell in cells],
        curves=averaged,
        training_seconds=sum(record["train_seconds"] for record in records),
        peak_memory_gib=max(record["peak_memory_gb"] for record in records) * 1e9 / GIB,
        settings={"folds": sorted({c.fold for c in cells}), "seeds": sorted({c.seed for c in cells})},
    )


def _recalibrated_run(grid: BenchmarkGrid, name: str, cells: Sequence[Cell]) -> RunResult:
    """The same networks, so no training of its own."""
    return RunResult.from_folders(
        name,
        [recalibrated_folder(grid, cell) for cell in cells],
        settings={"folds": sorted({c.fold for c in cells}), "seeds": sorted({c.seed for c in cells})},
    )
