"""The second round of a benchmark: what it asks for, and the data set of refined labels that it trains on."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict, cast

from nnunet_softlabel import __version__
from nnunet_softlabel.benchmark.cell_training import last_line, start_supervised
from nnunet_softlabel.benchmark.grid import BenchmarkGrid
from nnunet_softlabel.benchmark.progress import wait_to_end
from nnunet_softlabel.benchmark.settings import Cell, Trainings
from nnunet_softlabel.conversion.checks import check_id_is_free, final_folder, new_dataset
from nnunet_softlabel.conversion.settings import Running
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.evaluation.thresholds import RATER_CORRECTED
from nnunet_softlabel.formats.files import read_json, write_json
from nnunet_softlabel.formats.locks import held_lock
from nnunet_softlabel.formats.nnunet_folders import dataset_number, environment_folder
from nnunet_softlabel.public import public
from nnunet_softlabel.refinement.run import FirstRound, check_can_refine, default_name, refine
from nnunet_softlabel.refinement.summary import format_summary
from nnunet_softlabel.training.starts_from import starts_from

FOLDER = "refined"
PREPROCESSING = "nnunetv2.experiment_planning.plan_and_preprocess_entrypoints"


@public
@dataclass(frozen=True)
class SecondRound:
    """What a second round asks for.

    Attributes:
        dataset_id: of the data set with refined labels, which is made.
        trainers: trained on it. The validation probabilities of the first of them make the labels. Empty: the
            last trainer of the grid alone.
    """

    dataset_id: int
    trainers: Sequence[str] = ()


class MadeFrom(TypedDict):
    """What decides the refined labels; others are not taken for these."""

    refined: str
    dataset: str
    soft_labels: str
    training: str
    first_round: str
    code: str


class RefinedRecord(TypedDict):
    """``refined/refinement.json``: ``status`` is started or done; ``is_mean`` if no label changed."""

    made_from: MadeFrom
    status: str
    dataset: str
    is_mean: bool
    found: str


def trainers_of(grid: BenchmarkGrid, asked: SecondRound) -> list[str]:
    """The trainers of the second round, the one that makes the labels first."""
    return list(dict.fromkeys(asked.trainers)) or [grid.cells[-1].trainer]


def evidence_cells(grid: BenchmarkGrid, asked: SecondRound) -> list[Cell]:
    """The folds whose validation probabilities make the labels: of the first configuration and seed."""
    first = (trainers_of(grid, asked)[0], grid.cells[0].configuration, grid.cells[0].seed)
    return [cell for cell in grid.cells if (cell.trainer, cell.configuration, cell.seed) == first]


def first_round_of(grid: BenchmarkGrid, asked: SecondRound) -> FirstRound:
    """The training that `refine` reads."""
    cell = evidence_cells(grid, asked)[0]
    return FirstRound(cell.trainer, cell.configuration, grid.plans, results=grid.results_folder(cell))


def name_of(grid: BenchmarkGrid, asked: SecondRound) -> str:
    """The data set of the second round."""
    return f"Dataset{asked.dataset_id:03d}_{default_name(grid.dataset)}"


def describe_second_round(grid: BenchmarkGrid, asked: SecondRound) -> str:
    """What was decided for the user, in a line."""
    first, again = first_round_of(grid, asked), trainers_of(grid, asked)
    number = sum(cell.trainer in again for cell in grid.cells)
    return (
        f"second round: {number} trainings of {', '.join(again)} on "
        f"{name_of(grid, asked)}; its labels come from the validation probabilities of {first.trainer} "
        f"{first.configuration}, seed {grid.cells[0].seed}"
    )


def second_round_problems(grid: BenchmarkGrid, asked: SecondRound) -> Iterator[str]:
    """All that would end a second round, one line each."""
    again, known = trainers_of(grid, asked), {cell.trainer for cell in grid.cells}
    for number, trainer in enumerate(again):
        if trainer not in known:
            yield f"--refine-tr {trainer}: is not among -tr, so no row of the first round compares with it."
        base = starts_from(trainer)
        if base is not None and base not in again[:number]:
            yield f"--refine-tr {trainer}: goes on from the model of {base}; name {base} before it."
    try:
        check_can_refine(grid.dataset)
    except (UsageError, DatasetError) as error:
        yield f"--refine: {error}"
    folds = {cell.fold for cell in grid.cells}
    lacking = set(range(len(grid.splits) or 5)) - folds
    if lacking:
        yield (
            f"--refine: -f lacks {' '.join(map(str, sorted(lacking)))}; every training case needs a network "
            f"that did not see it."
        )
    try:
        _refuse_taken(grid, asked)
    except UsageError as error:
        yield f"--refine: {error}"


def _refuse_taken(grid: BenchmarkGrid, asked: SecondRound) -> None:
    """Refuse an id under which anything lies that this benchmark did not make."""
    final = final_folder(new_dataset(asked.dataset_id, default_name(grid.dataset)))
    check_id_is_free(final)
    if read_record(grid) is not None:
        return
    for base in (final.parent, environment_folder("nnUNet_preprocessed")):
        if (base / final.name).exists():
            raise UsageError(
                f"{base / final.name} is already there, and this benchmark did not make it; give another id."
            )


def read_record(grid: BenchmarkGrid) -> RefinedRecord | None:
    """What is known of the refined labels; None if they were never begun."""
    path = _record_file(grid)
    return cast(RefinedRecord, read_json(path)) if path.is_file() else None


def is_made(grid: BenchmarkGrid, asked: SecondRound) -> bool:
    """True if the refined labels of the trainings that are there now are made."""
    record = read_record(grid)
    return (
        record is not None
        and record["status"] == "done"
        and _is_made_from(record, _made_from(grid, asked))
        and (environment_folder("nnUNet_raw") / record["dataset"]).is_dir()
    )


def make_dataset(
    grid: BenchmarkGrid, asked: SecondRound, *, num_processes: int, log: Callable[[str], None]
) -> RefinedRecord:
    """Make the refined labels and preprocess their data set with the plans of the first round, unless done.

    Args:
        grid: the first round, whose folds are all trained.
        asked: the second round.
        num_processes: that convert and preprocess.
        log: takes one line of progress.

    Raises:
        UsageError: if the id is taken, or the labels were made from other trainings.
        DatasetError: if a network saw a case that it predicts, or nnU-Net's preprocessing fails.
    """
    (grid.output / FOLDER).mkdir(parents=True, exist_ok=True)
    with held_lock(_record_file(grid).with_suffix(".lock"), patience_seconds=-1):
        made_from, known = _made_from(grid, asked), read_record(grid)
        if is_made(grid, asked):
            assert known is not None, "it is made, so it has a record"
            log(f"{known['dataset']}: refined before")
            return known
        if known is not None and not _is_made_from(known, made_from):
            raise UsageError(
                f"--refine: {known['dataset']} of this benchmark was made from other trainings or labels, "
                f"or has another id; choose another -o and another id, or delete that data set and "
                f"{grid.output / FOLDER}."
            )
        _refuse_taken(grid, asked)
        name = name_of(grid, asked)
        record: RefinedRecord = {
            "made_from": made_from, "status": "started", "dataset": name, "is_mean": False, "found": "",
        }  # fmt: skip
        write_json(_record_file(grid), record)
        log(f"{name}: refining labels")
        found = refine(
            grid.dataset,
            first_round_of(grid, asked),
            dataset_id=asked.dataset_id,
            running=Running(num_processes, resume=True),
        )
        record["is_mean"], record["found"] = found.is_mean, format_summary(found.summary)
        for line in record["found"].splitlines():
            log(line)
        log(f"candidates to judge: {found.dataset / 'refinement' / 'candidates.html'}")
        if not found.is_mean:
            log(f"{name}: preprocessing with the plans of {grid.dataset.folder.name}")
            take_plans(grid, found.dataset.name)
            preprocess_images(grid, evidence_cells(grid, asked)[0], name, num_processes=num_processes)
        record["status"] = "done"
        write_json(_record_file(grid), record)
        return record


def take_plans(grid: BenchmarkGrid, name: str) -> None:
    """Plans, fingerprint and folds of the first round for a data set with the same images."""
    folder = grid.preprocessed.parent / name
    folder.mkdir(exist_ok=True)
    write_json(folder / grid.plans_file.name, read_json(grid.plans_file) | {"dataset_name": name})
    fingerprint = grid.preprocessed / "dataset_fingerprint.json"
    if fingerprint.is_file():  # nnU-Net copies it beside every model
        shutil.copyfile(fingerprint, folder / fingerprint.name)
    shutil.copyfile(environment_folder("nnUNet_raw") / name / "dataset.json", folder / "dataset.json")
    write_json(folder / "splits_final.json", grid.splits)


def preprocess_images(grid: BenchmarkGrid, cell: Cell, name: str, *, num_processes: int) -> None:
    """nnU-Net's own preprocessing of a data set, in a process that ends with this one.

    Raises:
        DatasetError: if it fails, with the place of its output.
    """
    configurations = dict.fromkeys(other.configuration for other in grid.cells)
    number = str(dataset_number(name))
    code = f"from {PREPROCESSING} import preprocess_entry as main; main()"
    command = [sys.executable, "-c", code, "-d", number, "-plans_name", grid.plans, "-c", *configurations]
    log = grid.output / "logs" / "refined_preprocessing.txt"
    lock = grid.output / FOLDER / "preprocessing.lock"
    process = start_supervised(
        grid, cell, [*command, "-np", str(num_processes), "--no_pbar"], lock=lock, log=log
    )
    if wait_to_end(process):
        raise DatasetError(f"{name}: nnU-Net's preprocessing failed: {last_line(log)}")


def second_grid(grid: BenchmarkGrid, asked: SecondRound, record: RefinedRecord) -> BenchmarkGrid:
    """The trainings of the second round; their references are those of the first."""
    return BenchmarkGrid(
        record["dataset"],
        grid.output / FOLDER,
        Trainings(
            trainers_of(grid, asked),
            configurations=[cell.configuration for cell in grid.cells],
            folds=[cell.fold for cell in grid.cells],
            seeds=[cell.seed for cell in grid.cells],
            plans=grid.plans,
        ),
        budget=grid.budget,
        scoring=replace(
            grid.scoring,
            # which belongs to networks that learned the mean
            threshold="0.5" if grid.scoring.threshold == RATER_CORRECTED else grid.scoring.threshold,
            calibrate=None,
            references=grid.dataset,
        ),
        commands=grid.commands,
    )


def _record_file(grid: BenchmarkGrid) -> Path:
    return grid.output / FOLDER / "refinement.json"


def _is_made_from(record: RefinedRecord, wanted: MadeFrom) -> bool:
    """Another version of this package alone is no reason to refuse: the page tells it."""
    return {**record["made_from"], "code": wanted["code"]} == wanted


def _made_from(grid: BenchmarkGrid, asked: SecondRound) -> MadeFrom:
    """A training has a record of its own, with times and losses: another training has another."""
    first = first_round_of(grid, asked)
    records = [grid.record_of_done(cell) for cell in evidence_cells(grid, asked)]
    return {
        "refined": name_of(grid, asked),
        "dataset": grid.dataset.folder.name,
        "soft_labels": str(grid.dataset.about["digest"]),
        "training": first.folder(grid.dataset).name,
        "first_round": hashlib.sha256(json.dumps(records, sort_keys=True).encode()).hexdigest(),
        "code": __version__,
    }
