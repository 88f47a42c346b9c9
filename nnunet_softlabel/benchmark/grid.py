"""The cells of a benchmark: where their files are, and what each was made with."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import cast

from nnunet_softlabel import __version__
from nnunet_softlabel.benchmark.origins import (
    SOURCE,
    SPLIT,
    changed_file_message,
    digest_of_fold,
    what_differs,
)
from nnunet_softlabel.benchmark.records import CellRecord, MadeWith
from nnunet_softlabel.benchmark.settings import Cell, CellCommands, CellScoring, Trainings
from nnunet_softlabel.benchmark.status import CellStatus
from nnunet_softlabel.cases.splits import read_splits
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.evaluation.thresholds import FILE_NAME, TUNED, choose_threshold
from nnunet_softlabel.formats.files import Json, read_json
from nnunet_softlabel.formats.nnunet_folders import environment_folder, find_dataset
from nnunet_softlabel.formats.plans import missing_plans
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from nnunet_softlabel.public import public
from nnunet_softlabel.training.budget import Budget
from nnunet_softlabel.training.starts_from import starts_from
from nnunet_softlabel.training.trainer_source import digest_of_own_trainer, own_trainer_files

# of a cell, in its record
RECORDED = tuple(status.value for status in (CellStatus.STARTED, CellStatus.DONE, CellStatus.FAILED))


@public
class BenchmarkGrid:
    """The cells of a benchmark, their records and results under one folder.

    Args:
        dataset: id or name.
        output: the benchmark's folder.
        trainings: trainers, configurations, folds and seeds.
        budget: epochs and iterations of all trainers alike, and the device.
        scoring: threshold, references, test images.
        commands: what trains a cell and what predicts with it, if not this package.

    Raises:
        UsageError: for an unknown data set, plan or configuration, or a threshold that cannot be.
    """

    def __init__(
        self,
        dataset: int | str,
        output: Path,
        trainings: Trainings,
        *,
        budget: Budget | None = None,
        scoring: CellScoring | None = None,
        commands: CellCommands | None = None,
    ) -> None:
        self.dataset = SoftDataset.find(dataset)
        self.output, self.plans = output.absolute(), trainings.plans
        self.budget, self.scoring = budget or Budget(), scoring or CellScoring()
        self.commands = commands or CellCommands()
        self.references = self.scoring.references or self.dataset
        base = find_dataset(environment_folder("nnUNet_preprocessed"), self.dataset.folder.name)
        self.preprocessed = base
        self.plans_file = base / f"{self.plans}.json"
        self._planned = self._plans_of(trainings.configurations)
        _check_order(trainings.trainers)
        self._check_scoring(number_of_folds=len(set(trainings.folds)))
        # a second stage learns from what the first stages of all folds predict
        self.cells = sorted(trainings.cells(), key=lambda cell: self.first_stage(cell) is not None)

    def _check_scoring(self, *, number_of_folds: int) -> None:
        """Refuse what cannot be scored before hours of training, not after."""
        threshold, calibrate = self.scoring.threshold, self.scoring.calibrate
        if calibrate is not None and number_of_folds < 2:
            raise UsageError(
                f"--calibrate {calibrate}: each fold is recalibrated by the others; give at least two to -f."
            )
        if threshold != TUNED:
            choose_threshold(threshold, self.dataset)
        elif number_of_folds < 2:
            raise UsageError(
                f"--threshold {TUNED}: a fold's threshold is tuned on the validation cases of other folds; "
                f"give at least two to -f."
            )

    def _plans_of(self, configurations: Sequence[str]) -> Json:
        """Name of a configuration -> its plan; refuses names that the plans file does not have."""
        if not self.plans_file.is_file():
            raise UsageError(missing_plans(self.plans_file))
        planned = read_json(self.plans_file).get("configurations")
        if not isinstance(planned, dict):
            raise UsageError(f"{self.plans_file}: holds no configurations; plan the data set again.")
        for configuration in configurations:
            if configuration not in planned:
                raise UsageError(
                    f"-c {configuration}: {self.plans} has no such configuration; "
                    f"it has {', '.join(planned)}."
                )
        return planned

    def begins_with(self, cell: Cell) -> Cell | None:
        """The cell whose model this one goes on from, None if it begins anew."""
        trainer = starts_from(cell.trainer)
        return None if trainer is None else replace(cell, trainer=trainer)

    def first_stage(self, cell: Cell) -> Cell | None:
        """The cell of the first stage of a cascade, None for other configurations; maybe not of this grid."""
        name = self._planned[cell.configuration].get("previous_stage")
        return None if name is None else replace(cell, configuration=str(name))

    def needs(self, cell: Cell, other: Cell) -> bool:
        """Whether a cell goes on from what another leaves: its model, or its first stage, of any fold."""
        first = self.first_stage(cell)
        if first is not None and replace(first, fold=other.fold) == other:
            return True
        return other == self.begins_with(cell)

    @property
    def test_cases(self) -> list[str]:
        """Cases of the test set that have references."""
        return self.dataset.cases("Ts")

    def results_folder(self, cell: Cell) -> Path:
        """``nnUNet_results`` of a cell: nnU-Net's path knows no seed."""
        return self.output / "results" / f"seed_{cell.seed}"

    def fold_folder(self, cell: Cell) -> Path:
        """Where nnU-Net puts the cell."""
        name = f"{cell.trainer}__{self.plans}__{cell.configuration}"
        return self.results_folder(cell) / self.dataset.folder.name / name / f"fold_{cell.fold}"

    def validation_folder(self, cell: Cell) -> Path:
        """Probabilities of the cell's validation cases."""
        return self.fold_folder(cell) / "validation"

    def threshold_file(self, cell: Cell) -> Path:
        """Beside the model, where `evaluate` looks for a tuned threshold."""
        return self.fold_folder(cell) / FILE_NAME

    def record_file(self, cell: Cell) -> Path:
        """What the cell was made with, and what became of it."""
        return self.output / "cells" / f"{cell.name}.json"

    def log_file(self, cell: Cell) -> Path:
        """What nnU-Net prints while it trains the cell."""
        return self.output / "logs" / f"{cell.name}.txt"

    def evaluation_folder(self, cell: Cell) -> Path:
        """The scores of the cell's validation cases; another threshold has a folder of its own."""
        suffix = "" if self.scoring.threshold == "0.5" else f"__threshold_{self.scoring.threshold}"
        return self.output / "evaluation" / f"{cell.name}{suffix}"

    @property
    def splits_file(self) -> Path:
        """Where nnU-Net reads its folds, or writes them in the first training."""
        return self.preprocessed / "splits_final.json"

    @property
    def splits(self) -> list[dict[str, list[str]]]:
        """Training and validation cases of each fold, as nnU-Net reads them; empty if there are none yet."""
        return read_splits(self.splits_file) if self.splits_file.is_file() else []

    def validation_cases(self, cell: Cell) -> list[str]:
        """Cases of the cell's fold; empty if nnU-Net has not made its splits yet."""
        splits = self.splits
        return splits[cell.fold]["val"] if cell.fold < len(splits) else []

    def case_voxels(self, case: str, split: str = "Tr") -> int:
        """Size of a case, in voxels."""
        return int(self.dataset.read_hard(case, split).size)

    def refuse_other_labels(self) -> None:
        """Refuse to go on if the data set was converted again since this benchmark began.

        Raises:
            DatasetError: naming it.
        """
        now = SoftDataset(self.dataset.folder).about
        if now.get("digest") != self.dataset.about.get("digest"):
            raise DatasetError(
                f"{self.dataset.folder}: was converted again while this benchmark worked, so its labels are "
                f"no longer those of the trainings; preprocess again and start a benchmark with another -o."
            )

    def made_with(self, cell: Cell) -> MadeWith:
        """What must agree before a cell is taken up again, and the versions."""
        splits = self.splits
        return {
            "trainer": cell.trainer,
            "configuration": cell.configuration,
            "fold": cell.fold,
            "seed": cell.seed,
            "epochs": self.budget.epochs,
            "iterations": self.budget.iterations,
            "plans": self.plans,
            "plans_hash": hashlib.sha256(self.plans_file.read_bytes()).hexdigest(),
            "soft_labels": self.dataset.about["digest"],
            "split": digest_of_fold(splits[cell.fold]) if cell.fold < len(splits) else None,
            "trainer_source": digest_of_own_trainer(cell.trainer),
            "code": __version__,
            "nnunetv2": metadata.version("nnunetv2"),
        }

    def record(self, cell: Cell) -> CellRecord | None:
        """The record of a cell, or None if it was never started.

        Raises:
            UsageError: if it was made with something else than this benchmark asks for.
        """
        record = self._stored_record(cell)
        if record is None:
            return None
        made_with: Mapping[str, object] = record["made_with"]
        wanted: Mapping[str, object] = self.made_with(cell)
        key = what_differs(made_with, wanted)
        if key in (SPLIT, SOURCE):
            files = [self.splits_file] if key == SPLIT else own_trainer_files(cell.trainer)
            raise UsageError(changed_file_message(files, self._cells_that_differ_as(cell, key), self.output))
        if key is not None:
            raise UsageError(
                f"{self.record_file(cell)}: was made with {key} {made_with.get(key)}, "
                f"this benchmark asks for {wanted[key]}; "
                f"choose another -o, or delete that file and its results."
            )
        return record

    def _cells_that_differ_as(self, cell: Cell, key: str) -> list[str]:
        """Names of the cells that were trained before the same file changed, this one first."""
        found = {cell.name: None}
        for other in self.cells:
            record = self._stored_record(other) if key == SPLIT or other.trainer == cell.trainer else None
            if record is not None and what_differs(record["made_with"], self.made_with(other)) == key:
                found[other.name] = None
        return list(found)

    def _stored_record(self, cell: Cell) -> CellRecord | None:
        """The record of a cell, whatever it was made with."""
        path = self.record_file(cell)
        if not path.is_file():
            return None
        record = read_json(path)
        if not isinstance(record.get("made_with"), dict) or record.get("status") not in RECORDED:
            raise UsageError(f"{path}: is no record of a training; delete it, and its results with it.")
        return cast(CellRecord, record)

    def record_of_done(self, cell: Cell) -> CellRecord:
        """The record of a cell that is known to be done."""
        record = self.record(cell)
        assert record is not None, f"{cell.name} is done, so it has a record"
        return record


def _check_order(trainers: Sequence[str]) -> None:
    """Refuse a trainer that goes on from the model of one that is not trained before it."""
    for number, trainer in enumerate(trainers):
        base = starts_from(trainer)
        if base is not None and base not in trainers[:number]:
            raise UsageError(f"-tr {trainer}: goes on from the model of {base}; name {base} before it.")
