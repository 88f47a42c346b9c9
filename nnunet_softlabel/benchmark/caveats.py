"""What a reader of the report must know beyond its numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from nnunet_softlabel.benchmark.grid import BenchmarkGrid
from nnunet_softlabel.benchmark.origins import version_notes
from nnunet_softlabel.benchmark.settings import Cell
from nnunet_softlabel.benchmark.status import Outcome
from nnunet_softlabel.evaluation.case_scores import RATER
from nnunet_softlabel.evaluation.comparisons import CONSENSUS, RATERS
from nnunet_softlabel.evaluation.thresholds import RATER_CORRECTED, TUNED
from nnunet_softlabel.metrics.overlap import mean_of_defined
from nnunet_softlabel.report.comparison import case_values
from nnunet_softlabel.report.runs import RunResult

SHY_BY = 0.05
LOW_SENSITIVITY = 0.8  # below, (sensitivity + false positive rate) / 2 lies clearly under 0.5


def make_notes(
    grid: BenchmarkGrid,
    outcome: Mapping[str, Outcome],
    finished: Mapping[str, Sequence[Cell]],
    runs: Sequence[RunResult],
) -> list[str]:
    """Notes for the head of the page, the missing cells first."""
    notes = [
        f"{cell.name}: {outcome[cell.name]}; not in this page."
        for cell in grid.cells
        if not outcome[cell.name].is_done
    ]
    sets = {json.dumps(sorted((cell.fold, cell.seed) for cell in cells)) for cells in finished.values()}
    if len(sets) > 1:
        notes.append(
            "Trainers have finished different folds or seeds: tests use the cases they share, means do not."
        )
    if len({cell.configuration for cell in grid.cells}) > 1:
        notes.append(
            "Each trainer is tested against the first trainer of its own configuration, "
            "and that one against the first configuration."
        )
    return [*notes, *notes_on_versions(grid, finished), *threshold_notes(grid, runs)]


def notes_on_versions(grid: BenchmarkGrid, finished: Mapping[str, Sequence[Cell]]) -> list[str]:
    """Which trainings other versions of nnU-Net or of this package have made."""
    records = {cell.name: grid.record_of_done(cell) for cells in finished.values() for cell in cells}
    return version_notes(records, grid.made_with(grid.cells[0]))


def threshold_notes(grid: BenchmarkGrid, runs: Sequence[RunResult]) -> list[str]:
    """Where the threshold comes from, or what speaks for another one."""
    if grid.scoring.threshold == TUNED:
        return [
            "Thresholds were tuned per trainer and fold on the validation cases of the other folds, "
            "never on the cases that they cut; they lie beside the models (thresholds.json)."
        ]
    if grid.scoring.threshold == RATER_CORRECTED:
        return [
            "The threshold follows from the raters' error rates. It is meant for networks that learned the "
            "mean of the raters; for a trainer of the hard consensus it is only another number."
        ]
    notes = []
    for class_name in runs[0].classes:
        sensitivity = rater_sensitivity(runs, class_name)
        shy = [run.name for run in runs if marks_too_little(run, class_name)]
        if sensitivity < LOW_SENSITIVITY and shy:
            notes.append(
                f"{class_name}: {', '.join(shy)}: recall lies more than {SHY_BY} below precision at the "
                f"threshold {grid.scoring.threshold}. Of what one rater marked, another marked "
                f"{sensitivity:.0%} on average. A lower threshold may serve better: "
                f"`nnunet_softlabel benchmark` with --threshold tuned (nothing is trained again; it needs "
                f"two folds), or `nnunet_softlabel tune-threshold`."
            )
    return notes


def marks_too_little(run: RunResult, class_name: str) -> bool:
    """True if the mean recall against the consensus lies clearly below the mean precision."""
    means = []
    for metric in ("recall", "precision"):
        found = case_values(run.rows, metric=metric, class_name=class_name, reference=CONSENSUS)
        means.append(mean_of_defined(value for value, _ in found.values()))
    recall, precision = means
    return recall < precision - SHY_BY


def rater_sensitivity(runs: Sequence[RunResult], class_name: str) -> float:
    """The raters' sensitivity against each other: mean recall over ordered pairs; NaN if there is none."""
    found: dict[str, float] = {}
    place = {"metric": "recall", "class_name": class_name, "reference": RATERS, "prediction": RATER}
    for run in runs:
        found |= {case: value for case, (value, _) in case_values(run.rows, **place).items()}
    return mean_of_defined(found.values())
