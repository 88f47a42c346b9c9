"""Test images of a benchmark: every fold predicts them, with nnU-Net's own predictor."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import cache
from pathlib import Path
from typing import TypedDict

from filelock import Timeout

from nnunet_softlabel.benchmark.cell_training import last_line, start_supervised
from nnunet_softlabel.benchmark.grid import BenchmarkGrid
from nnunet_softlabel.benchmark.progress import duration, processes_for, wait_for_prediction
from nnunet_softlabel.benchmark.settings import Cell
from nnunet_softlabel.benchmark.status import CellStatus, Outcome
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.formats.files import hash_files, read_json, write_json
from nnunet_softlabel.formats.locks import held_lock
from nnunet_softlabel.training.prediction import PredictArguments
from nnunet_softlabel.training.supervisor import BUSY

CHECKPOINT = "checkpoint_final.pth"


class MadeFrom(TypedDict):
    """What a cell's test predictions were made from, as digests; others are not taken for these."""

    checkpoint: str
    images: dict[str, str]


class HeldOutRecord(TypedDict):
    """Beside the predictions of a cell, once all of them are there."""

    made_from: MadeFrom
    seconds: float


def held_out_folder(grid: BenchmarkGrid, cell: Cell) -> Path:
    """Probabilities of the test images, by one fold."""
    return grid.output / "test" / cell.name


def held_out_log(grid: BenchmarkGrid, cell: Cell) -> Path:
    """What nnU-Net prints while it predicts."""
    return grid.output / "logs" / f"{cell.name}__test.txt"


def is_predicted(grid: BenchmarkGrid, cell: Cell) -> bool:
    """True if all test cases are predicted by the model that is there now, from the images that are there."""
    folder, record = held_out_folder(grid, cell), _record_file(grid, cell)
    if not record.is_file():
        return False
    names = [f"{case}{end}" for case in grid.test_cases for end in (".npz", grid.dataset.file_ending)]
    return all((folder / name).is_file() for name in names) and _is_made_from(grid, cell, record)


def predict_all(
    grid: BenchmarkGrid, trained: Collection[Cell], log: Callable[[str], None]
) -> dict[str, Outcome]:
    """Predict with every trained cell what is missing; one line when a cell begins, one when it ends."""
    outcome: dict[str, Outcome] = {}
    cells = sorted(trained, key=lambda cell: grid.first_stage(cell) is not None)
    for number, cell in enumerate(cells, start=1):
        place = f"[{number}/{len(cells)}] {cell.name}, test images"
        if is_predicted(grid, cell):
            outcome[cell.name] = Outcome(CellStatus.DONE)
            log(f"{place}: done before")
            continue
        log(f"{place}: predicting {len(grid.test_cases)} cases")
        found = outcome[cell.name] = predict_cell(grid, cell)
        seconds = read_json(_record_file(grid, cell))["seconds"] if found.is_done else 0
        log(f"{place}: {found}" + (f" in {duration(seconds)}" if found.is_done else ""))
        if found.status is CellStatus.FAILED:
            log(f"  failed: {last_line(held_out_log(grid, cell))}")
    return outcome


def predict_cell(grid: BenchmarkGrid, cell: Cell) -> Outcome:
    """Predict the test images with one fold, unless it is done; says what became of it.

    Several processes can share a benchmark, as in `cell_training.train_cell`. A prediction that was stopped
    goes on with the cases that it lacks.
    """
    record = _record_file(grid, cell)
    record.parent.mkdir(parents=True, exist_ok=True)
    first = grid.first_stage(cell)
    if first is not None and not is_predicted(grid, first):
        return Outcome(CellStatus.UNTRAINED, f"waits for the test predictions of {first.name}")
    try:
        with held_lock(record.with_suffix(".lock")):
            if is_predicted(grid, cell):
                return Outcome(CellStatus.DONE)
            return _predict_locked(grid, cell)
    except Timeout:
        return Outcome(CellStatus.ELSEWHERE)


def refuse_unpredicted(grid: BenchmarkGrid, outcome: Mapping[str, Outcome]) -> None:
    """End with an error if a trained fold has not predicted the test images.

    Raises:
        UsageError: naming the first, and where to look.
    """
    missing = [c for c in grid.cells if outcome[c.name].is_done and not is_predicted(grid, c)]
    if missing:
        raise UsageError(
            f"--test: {len(missing)} trained folds lack test predictions, the first is {missing[0].name}; "
            f"see {held_out_log(grid, missing[0])}, and run the command again (without --only report)."
        )


def _predict_locked(grid: BenchmarkGrid, cell: Cell) -> Outcome:
    folder, record = held_out_folder(grid, cell), _record_file(grid, cell)
    started = record.with_suffix(".started")
    if not (started.is_file() and _is_made_from(grid, cell, started)):  # of another model: nothing is kept
        for path in (*folder.glob("*.npz"), *folder.glob(f"*{grid.dataset.file_ending}")):
            path.unlink()
    record.unlink(missing_ok=True)
    made_from = _made_from(grid, cell)
    write_json(started, {"made_from": made_from})
    arguments, result = record.with_suffix(".arguments"), record.with_suffix(".result")
    write_json(arguments, _arguments(grid, cell))
    log = held_out_log(grid, cell)
    command = [*grid.commands.prediction, str(arguments), str(result)]
    process = start_supervised(grid, cell, command, lock=record.with_suffix(".running"), log=log)
    code = wait_for_prediction(process, log, len(grid.test_cases))
    if code == BUSY:
        return Outcome(CellStatus.ELSEWHERE)
    if code == 0:
        done: HeldOutRecord = {"made_from": made_from, "seconds": float(read_json(result)["seconds"])}
        write_json(record, done)
        started.unlink()
    for temporary in (arguments, result):
        temporary.unlink(missing_ok=True)
    return Outcome(CellStatus.DONE if code == 0 else CellStatus.FAILED)


def _arguments(grid: BenchmarkGrid, cell: Cell) -> PredictArguments:
    first = grid.first_stage(cell)
    sizes = [grid.case_voxels(case, "Ts") for case in grid.test_cases[:5]]
    return {
        "model": str(grid.fold_folder(cell).parent),
        "fold": cell.fold,
        "images": [[str(path) for path in grid.dataset.image_files(case, "Ts")] for case in grid.test_cases],
        "output": str(held_out_folder(grid, cell)),
        "previous_stage": None if first is None else str(held_out_folder(grid, first)),
        "device": grid.budget.device,
        "num_processes": processes_for(grid, len(grid.test_cases), sizes),
    }


def _record_file(grid: BenchmarkGrid, cell: Cell) -> Path:
    return grid.output / "test" / f"{cell.name}.json"


def _made_from(grid: BenchmarkGrid, cell: Cell) -> MadeFrom:
    checkpoint = grid.fold_folder(cell) / CHECKPOINT
    files = [path for case in grid.test_cases for path in grid.dataset.image_files(case, "Ts")]
    return {
        "checkpoint": _digest(checkpoint, "train this fold again"),
        "images": {path.name: _digest(path, "bring this test image back") for path in files},
    }


def _digest(path: Path, advice: str) -> str:
    """SHA-256 of a file."""
    try:
        found = path.stat()
        return _digest_of_content(path, found.st_size, found.st_mtime_ns)
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror}); {advice}.") from error


@cache
def _digest_of_content(path: Path, size: int, modified_ns: int) -> str:
    """Computed again in this process only if size or time of the file are others: checkpoints are large."""
    return hash_files([path])


def _is_made_from(grid: BenchmarkGrid, cell: Cell, record: Path) -> bool:
    try:
        return bool(read_json(record).get("made_from") == _made_from(grid, cell))
    except DatasetError:  # cut off, or the model is gone: predict again, which tells why
        return False
