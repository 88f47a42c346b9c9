"""Rows of the test set: each fold of a trainer, the mean of its folds, and the folds recalibrated."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_softlabel.benchmark.grid import BenchmarkGrid
from nnunet_softlabel.benchmark.held_out import held_out_folder, is_predicted
from nnunet_softlabel.benchmark.recalibrated_rows import calibration_file, recalibrated_folder
from nnunet_softlabel.benchmark.settings import Cell
from nnunet_softlabel.errors import DatasetError, UsageError, WorkerError
from nnunet_softlabel.evaluation.digests import digest_of_scored
from nnunet_softlabel.evaluation.ensemble import Predictions
from nnunet_softlabel.evaluation.run import Scoring, evaluate
from nnunet_softlabel.evaluation.tables import METRICS_FILE, SUMMARY_FILE
from nnunet_softlabel.evaluation.thresholds import TUNED, read_thresholds
from nnunet_softlabel.evaluation.tuning import tune_threshold
from nnunet_softlabel.formats.files import read_json
from nnunet_softlabel.report.runs import RECALIBRATED


@dataclass(frozen=True)
class Row:
    """Predictions of the test images that are scored together.

    Attributes:
        suffix: of the trainer's name on the page.
        cells: whose probabilities are averaged; one for a fold of its own.
        folder: of the scores.
        calibration: recalibrates them, or None.
    """

    suffix: str
    cells: tuple[Cell, ...]
    folder: Path
    calibration: Path | None = None


def mean_suffix(folds: int) -> str:
    """``, mean of 5 folds``."""
    return f", mean of {folds} folds"


def models_of(cells: Collection[Cell]) -> list[list[Cell]]:
    """Folds of the same trainer, configuration and seed."""
    models: dict[tuple[str, str, int], list[Cell]] = {}
    for cell in cells:
        models.setdefault((cell.trainer, cell.configuration, cell.seed), []).append(cell)
    return list(models.values())


def rows_of(grid: BenchmarkGrid, cells: Sequence[Cell]) -> list[Row]:
    """The rows of a model: what is scored of its folds.

    Recalibrated rows are of single folds: the map was fitted on single networks, and a mean is less sure.
    """
    base = grid.output / "test_scores"
    base /= "0.5" if grid.scoring.threshold == "0.5" else f"threshold_{grid.scoring.threshold}"
    found = [Row("", (cell,), base / cell.name) for cell in cells]
    if len(cells) > 1:
        name = cells[0].name.replace(f"fold_{cells[0].fold}", "folds_" + "_".join(str(c.fold) for c in cells))
        found.append(Row(mean_suffix(len(cells)), tuple(cells), base / name))
    file = calibration_file(grid, cells[0])
    validated = all((recalibrated_folder(grid, cell) / SUMMARY_FILE).is_file() for cell in cells)
    if grid.scoring.calibrate is not None and file.is_file() and validated:
        found += [Row(RECALIBRATED, (cell,), base / f"{cell.name}__recalibrated", file) for cell in cells]
    return found


def score_held_out(
    grid: BenchmarkGrid, trained: Collection[Cell], *, num_processes: int, log: Callable[[str], None]
) -> None:
    """Score the test predictions of every trained cell, and the mean of each trainer's folds.

    What is scored already, of the files that are there now, is kept. What cannot be scored says so.
    """
    for cells in models_of(trained):
        predicted = [cell for cell in cells if is_predicted(grid, cell)]
        for cell in cells:
            if cell not in predicted:
                log(f"{cell.name}: its test images are not predicted")
        for row in rows_of(grid, predicted) if predicted else ():
            try:
                _score_row(grid, row, predicted, num_processes=num_processes)
            except (DatasetError, UsageError, WorkerError) as error:
                for name in (SUMMARY_FILE, METRICS_FILE):
                    (row.folder / name).unlink(missing_ok=True)
                log(f"{row.cells[0].name}{row.suffix}: test images not scored: {error}")


def _score_row(grid: BenchmarkGrid, row: Row, cells: Sequence[Cell], *, num_processes: int) -> None:
    folders = [held_out_folder(grid, cell) for cell in row.cells]
    tuned = None
    if grid.scoring.threshold == TUNED:
        tuned = row.folder / "thresholds.json"
        validation = [grid.validation_folder(cell) for cell in cells]
        tune_threshold(
            grid.references,
            validation,
            tuned,
            calibration=row.calibration,
            num_processes=num_processes,
            overwrite=True,
        )
    if _is_scored(grid, row, folders, tuned):
        return
    evaluate(
        grid.references,
        folders,
        row.folder,
        scoring=Scoring(
            split="Ts",
            cases=grid.test_cases,
            threshold=grid.scoring.threshold,
            threshold_file=tuned,
            calibration=row.calibration,
            truth=grid.scoring.truth,
        ),
        num_processes=num_processes,
        overwrite=True,
    )


def _is_scored(grid: BenchmarkGrid, row: Row, folders: Sequence[Path], tuned: Path | None) -> bool:
    """True if the scores on disk are of the files that are there now, with this threshold and truth."""
    if not ((row.folder / METRICS_FILE).is_file() and (row.folder / SUMMARY_FILE).is_file()):
        return False
    summary = read_json(row.folder / SUMMARY_FILE)
    threshold = summary.get("threshold", {})
    if threshold.get("choice") != grid.scoring.threshold:
        return False
    if (
        tuned is not None
        and threshold.get("values") != read_thresholds(tuned, grid.references.labels.names).values
    ):
        return False
    found = Predictions.find(folders, file_ending=grid.references.file_ending)
    found = found.with_calibration(row.calibration, grid.references)
    dataset = grid.references.for_predictions(folders)
    digest = digest_of_scored(dataset, found, grid.test_cases, split="Ts", truth=grid.scoring.truth)
    return bool(summary.get("digest") == digest)


def scored_rows(grid: BenchmarkGrid, finished: Mapping[str, Sequence[Cell]]) -> dict[str, list[Row]]:
    """Name on the page -> rows of it that are scored; a row has all networks of its trainer."""
    return {
        name: rows
        for name, (rows, predicted) in _rows_by_name(grid, finished).items()
        if _networks(rows) == _networks(rows, scored=True) == predicted
    }


def notes_on_partial_rows(grid: BenchmarkGrid, finished: Mapping[str, Sequence[Cell]]) -> list[str]:
    """Which rows are left out, since they would set some seeds or folds of a trainer against all."""
    notes = []
    for name, (rows, predicted) in _rows_by_name(grid, finished).items():
        have = _networks(rows, scored=True)
        if have != predicted:
            notes.append(
                f"{name}: no row of the test set. {have} of {predicted} networks have these scores; the row "
                f"would set them against all."
            )
    return notes


def _rows_by_name(
    grid: BenchmarkGrid, finished: Mapping[str, Sequence[Cell]]
) -> dict[str, tuple[list[Row], int]]:
    """Name on the page -> rows of all models of a trainer, scored or not, and how many networks predicted."""
    found: dict[str, tuple[list[Row], int]] = {}
    for name, cells in finished.items():
        predicted = [cell for cell in cells if is_predicted(grid, cell)]
        for row in (row for model in models_of(predicted) for row in rows_of(grid, model)):
            found.setdefault(name + row.suffix, ([], len(predicted)))[0].append(row)
    return found


def _networks(rows: Sequence[Row], *, scored: bool = False) -> int:
    """How many networks are in some rows, or in those of them that are scored."""
    return sum(len(row.cells) for row in rows if not scored or (row.folder / SUMMARY_FILE).is_file())
