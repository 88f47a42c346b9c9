"""The test set on the page, in ``soft_summary.json`` and in ``test_metrics.csv``: the main result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nnunet_softlabel.benchmark.grid import BenchmarkGrid
from nnunet_softlabel.benchmark.held_out import is_predicted
from nnunet_softlabel.benchmark.held_out_rows import notes_on_partial_rows, scored_rows
from nnunet_softlabel.benchmark.pages import TEST_METRICS_FILE
from nnunet_softlabel.benchmark.records import HeldOutSummary
from nnunet_softlabel.benchmark.refined_rows import Round
from nnunet_softlabel.benchmark.summary import difference_record, sentences_of, trainer_summaries
from nnunet_softlabel.evaluation.tables import write_rows
from nnunet_softlabel.evaluation.thresholds import TUNED
from nnunet_softlabel.report.comparison import compare_pairs
from nnunet_softlabel.report.findings import Findings
from nnunet_softlabel.report.runs import RECALIBRATED, RunResult


def held_out_results(
    every_round: Sequence[Round],
    baselines: Mapping[str, str],
    *,
    margins: Mapping[str, float] | None,
    primary: Sequence[str] | None,
) -> Findings | None:
    """Runs, tests and sentences of the test set; None if nothing of it is scored.

    Means are tested against the mean of the baseline, that one and every recalibrated row against its own
    single folds.

    Args:
        every_round: the first, and the second if there is one.
        baselines: name -> name of the run it is tested against.
        margins: as `results.report` takes them.
        primary: as `results.report` takes them.
    """
    rows = {name: own for each in every_round for name, own in scored_rows(each.grid, each.finished).items()}
    runs = {
        name: RunResult.from_folders(
            name,
            [row.folder for row in own],
            settings={"folds": sorted({cell.fold for row in own for cell in row.cells})},
        )
        for name, own in rows.items()
    }
    if not runs:
        return None
    against = _against(list(runs), {name: own[0].suffix for name, own in rows.items()}, baselines)
    rows_of = {name: run.rows for name, run in runs.items()}
    pairs = [(first, second) for second, first in against.items()]
    comparisons = compare_pairs(rows_of, pairs, margins=margins, primary=primary)
    grid = every_round[0].grid
    sentences = sentences_of(grid, rows_of, pairs, comparisons, margins=margins, primary=primary)
    return Findings(list(runs.values()), comparisons, sentences, held_out_notes(every_round))


def _against(
    names: Sequence[str], suffixes: Mapping[str, str], baselines: Mapping[str, str]
) -> dict[str, str]:
    """Run -> the run it is tested against."""
    found: dict[str, str] = {}
    for name in names:
        suffix = suffixes[name]
        own = name.removesuffix(suffix) if suffix else name
        first = baselines.get(own)
        if first is not None and suffix != RECALIBRATED and first + suffix in names:
            found[name] = first + suffix
        elif suffix and own in names:
            found[name] = own
    return found


def held_out_notes(every_round: Sequence[Round]) -> list[str]:
    """What a reader of the test set must know, missing predictions first."""
    grid = every_round[0].grid
    notes = [
        f"{cell.name}{each.words}: its test images are not predicted or not scored; not among these numbers."
        for each in every_round
        for cell in each.cells
        if not is_predicted(each.grid, cell)
    ]
    notes += [note for each in every_round for note in notes_on_partial_rows(each.grid, each.finished)]
    if grid.scoring.threshold == TUNED:
        notes.append(
            "Thresholds were tuned per trainer on the validation cases of all its folds. No test case was "
            "seen. The mean of the folds is cut at the threshold of single folds."
        )
    if grid.scoring.calibrate is not None:
        notes.append(
            "Recalibrated: single folds, with the map that was fitted on the validation cases of all folds. "
            "The mean of the folds is not recalibrated: this map was fitted on single networks."
        )
    return notes


def held_out_summary(grid: BenchmarkGrid, test: Findings) -> HeldOutSummary:
    """For ``soft_summary.json``; writes ``test_metrics.csv``."""
    rows = [{"trainer": run.name, **row} for run in test.runs for row in run.rows]
    write_rows(grid.output / TEST_METRICS_FILE, rows, more_columns=["trainer"])
    return {
        "cases": len(test.cases),
        "trainers": trainer_summaries(test.runs),
        "differences": [difference_record(found) for found in test.comparisons],
        "verdict": [sentence.text for sentence in test.sentences],
        "notes": list(test.notes),
    }
