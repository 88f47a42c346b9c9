"""Recalibrated rows of a benchmark: each fold of a trainer, recalibrated by the others and scored again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from nnunet_softlabel.benchmark.grid import BenchmarkGrid
from nnunet_softlabel.benchmark.settings import Cell
from nnunet_softlabel.errors import DatasetError, UsageError, WorkerError
from nnunet_softlabel.evaluation.calibrate import calibrate
from nnunet_softlabel.evaluation.calibration_file import FILE_NAME
from nnunet_softlabel.evaluation.run import Scoring, evaluate
from nnunet_softlabel.evaluation.tables import METRICS_FILE, SUMMARY_FILE
from nnunet_softlabel.evaluation.thresholds import TUNED
from nnunet_softlabel.evaluation.tuning import tune_threshold
from nnunet_softlabel.report.runs import RECALIBRATED

Model = tuple[str, str, int]  # trainer, configuration, seed


def calibration_file(grid: BenchmarkGrid, cell: Cell) -> Path:
    """Beside the folds, where the other commands find it."""
    return grid.fold_folder(cell).parent / FILE_NAME


def recalibrated_folder(grid: BenchmarkGrid, cell: Cell) -> Path:
    """The scores of a cell's recalibrated validation cases."""
    return grid.output / "evaluation_recalibrated" / cell.name


def score_recalibrated(
    grid: BenchmarkGrid, trained: Collection[Cell], *, num_processes: int, log: Callable[[str], None]
) -> None:
    """Calibrate every model on its trained folds, and score each fold with the map of the others.

    Computed anew each time, so that no earlier map is taken for this one. A model whose map does not help, or
    with a single fold, gets no row; the log says so.
    """
    models: dict[Model, list[Cell]] = {}
    for cell in trained:
        models.setdefault((cell.trainer, cell.configuration, cell.seed), []).append(cell)
    for cells in models.values():
        for cell in cells:
            for name in (SUMMARY_FILE, METRICS_FILE):
                (recalibrated_folder(grid, cell) / name).unlink(missing_ok=True)
        try:
            _score_model(grid, cells, num_processes=num_processes, log=log)
        except (DatasetError, UsageError, WorkerError) as error:
            log(f"{cells[0].trainer}{RECALIBRATED}: no row: {error}")


def _score_model(
    grid: BenchmarkGrid, cells: Sequence[Cell], *, num_processes: int, log: Callable[[str], None]
) -> None:
    assert grid.scoring.calibrate is not None
    if len(cells) < 2:
        log(f"{cells[0].name}{RECALIBRATED}: no row: a fold is recalibrated by the others, and there is one.")
        return
    file = calibration_file(grid, cells[0])
    folders = [grid.validation_folder(cell) for cell in cells]
    found = calibrate(
        grid.references,
        folders,
        file,
        method=grid.scoring.calibrate,
        num_processes=num_processes,
        overwrite=True,
    )
    if not found["written"]:
        log(f"{cells[0].trainer}{RECALIBRATED}: no row: {found['why']}")
        return
    for cell in cells:
        folder = recalibrated_folder(grid, cell)
        tuned = folder / "thresholds.json"
        if grid.scoring.threshold == TUNED:
            others = [grid.validation_folder(other) for other in cells if other != cell]
            tune_threshold(
                grid.references, others, tuned, calibration=file, num_processes=num_processes, overwrite=True
            )
        evaluate(
            grid.references,
            grid.validation_folder(cell),
            folder,
            scoring=Scoring(
                threshold=grid.scoring.threshold,
                threshold_file=tuned if grid.scoring.threshold == TUNED else None,
                calibration=file,
                truth=grid.scoring.truth,
            ),
            num_processes=num_processes,
            overwrite=True,
        )


def recalibrated_cells(
    grid: BenchmarkGrid, finished: Mapping[str, Sequence[Cell]]
) -> dict[str, Sequence[Cell]]:
    """Rows of the page that have a recalibrated sister: all of their cells are scored."""
    if grid.scoring.calibrate is None:
        return {}
    return {name: own for name, own in finished.items() if _number_recalibrated(grid, own) == len(own)}


def notes_on_missing_rows(grid: BenchmarkGrid, finished: Mapping[str, Sequence[Cell]]) -> list[str]:
    """Which trainers have no recalibrated row, where one was asked for."""
    if grid.scoring.calibrate is None:
        return []
    return [
        f"{name}{RECALIBRATED}: no row. {_number_recalibrated(grid, cells)} of {len(cells)} networks are "
        f"recalibrated; a map that does not help is not used."
        for name, cells in finished.items()
        if _number_recalibrated(grid, cells) != len(cells)
    ]


def _number_recalibrated(grid: BenchmarkGrid, cells: Sequence[Cell]) -> int:
    return sum((recalibrated_folder(grid, cell) / SUMMARY_FILE).is_file() for cell in cells)
