"""Scores of a cell's validation cases, with a threshold that has not seen them."""

from __future__ import annotations

from collections.abc import Collection

from nnunet_softlabel.benchmark.grid import BenchmarkGrid
from nnunet_softlabel.benchmark.settings import Cell
from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.evaluation.digests import digest_of_folders
from nnunet_softlabel.evaluation.fitted_on import changed_since
from nnunet_softlabel.evaluation.run import Scoring, evaluate
from nnunet_softlabel.evaluation.tables import METRICS_FILE, SUMMARY_FILE
from nnunet_softlabel.evaluation.thresholds import TUNED, read_thresholds
from nnunet_softlabel.evaluation.tuning import tune_threshold
from nnunet_softlabel.formats.files import read_json, write_json


def score_cell(grid: BenchmarkGrid, cell: Cell, *, trained: Collection[Cell], num_processes: int) -> None:
    """Evaluate a trained cell, unless it is done with this threshold and truth.

    Args:
        grid: the benchmark.
        cell: which was trained.
        trained: all trained cells; a tuned threshold comes from other folds among them.
        num_processes: spawned workers.

    Raises:
        DatasetError: if predictions are missing, or no other fold is there to tune on.
    """
    grid.refuse_other_labels()
    if grid.scoring.threshold == TUNED:
        tune_on_other_folds(grid, cell, trained, num_processes=num_processes)
    if is_scored(grid, cell):
        return
    evaluate(
        grid.references,
        grid.validation_folder(cell),
        grid.evaluation_folder(cell),
        scoring=Scoring(
            threshold=grid.scoring.threshold,
            threshold_file=grid.threshold_file(cell) if grid.scoring.threshold == TUNED else None,
            truth=grid.scoring.truth,
        ),
        num_processes=num_processes,
        overwrite=True,
    )
    grid.refuse_other_labels()


def is_scored(grid: BenchmarkGrid, cell: Cell) -> bool:
    """True if the scores on disk are those that this benchmark asks for, of the files that are there now."""
    folder, predictions = grid.evaluation_folder(cell), grid.validation_folder(cell)
    if not ((folder / METRICS_FILE).is_file() and (folder / SUMMARY_FILE).is_file()):
        return False
    summary = read_json(folder / SUMMARY_FILE)
    found = summary.get("threshold", {})
    if found.get("choice") != grid.scoring.threshold:
        return False
    if grid.scoring.threshold == TUNED:
        tuned = read_thresholds(grid.threshold_file(cell), grid.references.labels.names)
        if found.get("values") != tuned.values:
            return False
    return bool(
        summary.get("digest") == digest_of_folders(grid.references, predictions, truth=grid.scoring.truth)
    )


def tune_on_other_folds(
    grid: BenchmarkGrid, cell: Cell, trained: Collection[Cell], *, num_processes: int = 2
) -> None:
    """Store the threshold of a fold beside its model, tuned on the validation cases of the other folds.

    The threshold has not seen the cases that it cuts. The networks of the other folds have trained on them,
    as in any cross validation, but are not the one that is judged.

    Raises:
        DatasetError: if no other fold of this trainer, configuration and seed is trained.
    """
    others = [
        other
        for other in trained
        if other.fold != cell.fold
        and (other.trainer, other.configuration, other.seed) == (cell.trainer, cell.configuration, cell.seed)
    ]
    if not others:
        raise DatasetError(f"{cell.name}: no other fold is trained, so there is nothing to tune on.")
    file = grid.threshold_file(cell)
    folders = [grid.validation_folder(other) for other in others]
    digest = digest_of_folders(grid.references, folders)
    earlier = read_json(file) if file.is_file() else {}
    if earlier.get("digest") != digest or changed_since(file, earlier) is not None:
        tuned = tune_threshold(grid.references, folders, file, num_processes=num_processes, overwrite=True)
        write_json(file, tuned | {"digest": digest})
