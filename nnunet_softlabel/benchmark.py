"""Trainers x configurations x folds x seeds: train what is missing, evaluate, compare, report.

Every cell of the grid is one training in a process of its own, and leaves a record of what it was made with. A
killed benchmark goes on where it stopped; a cell that was made with something else is refused, never mixed in.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import sleep
from typing import Any

from filelock import FileLock, Timeout
from tqdm import tqdm

from nnunet_softlabel import __version__
from nnunet_softlabel.errors import UsageError
from nnunet_softlabel.evaluation.evaluate import evaluate
from nnunet_softlabel.evaluation.tables import METRICS_FILE, SUMMARY_FILE
from nnunet_softlabel.soft_labels import SoftDataset, environment_folder, find_dataset, read_json, write_json
from nnunet_softlabel.training.plugin import trainer_path


@dataclass(frozen=True)
class Budget:
    """How long every trainer trains; None leaves nnU-Net's own number."""

    epochs: int | None = None
    iterations: int | None = None


@dataclass(frozen=True)
class Cell:
    """One training of the grid."""

    trainer: str
    configuration: str
    fold: int
    seed: int

    @property
    def name(self) -> str:
        """For files and messages."""
        return f"{self.trainer}__{self.configuration}__fold_{self.fold}__seed_{self.seed}"


class Grid:
    """The cells of a benchmark, their records and results under one folder.

    Args:
        dataset: id or name.
        output: the benchmark's folder.
        trainers: class names; the first is the baseline.
        configurations: such as ``3d_fullres``.
        folds: of ``splits_final.json``.
        seeds: each trains all the others.
        plans: plans identifier.
        budget: epochs and iterations of all trainers alike.
        device: ``cuda``, ``cpu`` or ``mps``.
        truth: folder of label maps of a known truth, or None.

    Raises:
        UsageError: for an unknown data set, plan, configuration or fold.
    """

    def __init__(
        self,
        dataset: int | str,
        output: Path,
        *,
        trainers: Sequence[str],
        configurations: Sequence[str] = ("3d_fullres",),
        folds: Sequence[int] = (0, 1, 2, 3, 4),
        seeds: Sequence[int] = (0,),
        plans: str = "nnUNetPlans",
        budget: Budget | None = None,
        device: str = "cuda",
        truth: Path | None = None,
    ) -> None:
        self.dataset = SoftDataset.find(dataset)
        self.output, self.plans, self.device, self.truth = output.absolute(), plans, device, truth
        self.budget = budget or Budget()
        base = find_dataset(environment_folder("nnUNet_preprocessed"), self.dataset.folder.name)
        self.plans_file = base / f"{plans}.json"
        if not self.plans_file.is_file():
            raise UsageError(
                f"-p {plans}: {self.plans_file} is not there; run nnUNetv2_plan_and_preprocess first."
            )
        planned = read_json(self.plans_file)["configurations"]
        for configuration in configurations:
            if configuration not in planned:
                raise UsageError(
                    f"-c {configuration}: {plans} has no such configuration; it has {', '.join(planned)}."
                )
        self.cells = [
            Cell(trainer, configuration, fold, seed)
            for seed in seeds
            for fold in folds
            for configuration in configurations
            for trainer in dict.fromkeys(trainers)
        ]

    def results_folder(self, cell: Cell) -> Path:
        """``nnUNet_results`` of a cell: nnU-Net's path knows no seed."""
        return self.output / "results" / f"seed_{cell.seed}"

    def fold_folder(self, cell: Cell) -> Path:
        """Where nnU-Net puts the cell."""
        name = f"{cell.trainer}__{self.plans}__{cell.configuration}"
        return self.results_folder(cell) / self.dataset.folder.name / name / f"fold_{cell.fold}"

    def record_file(self, cell: Cell) -> Path:
        """What the cell was made with, and what became of it."""
        return self.output / "cells" / f"{cell.name}.json"

    def evaluation_folder(self, cell: Cell) -> Path:
        """The scores of the cell's validation cases."""
        return self.output / "evaluation" / cell.name

    def made_with(self, cell: Cell) -> dict[str, Any]:
        """What must agree before a cell is taken up again."""
        assert self.dataset.about is not None  # SoftDataset refuses a data set without
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
            "code": __version__,
        }

    def record(self, cell: Cell) -> dict[str, Any] | None:
        """The record of a cell, or None if it was never started.

        Raises:
            UsageError: if it was made with something else than this benchmark asks for.
        """
        path = self.record_file(cell)
        if not path.is_file():
            return None
        record = read_json(path)
        for key, wanted in self.made_with(cell).items():
            if record["made_with"].get(key) != wanted:
                raise UsageError(
                    f"{path}: was made with {key} {record['made_with'].get(key)}, "
                    f"this benchmark asks for {wanted}; "
                    f"choose another -o, or delete that file and its results."
                )
        return record

    def train(self, cell: Cell) -> bool:
        """Train a cell unless it is done; True if it is done now.

        A lock lets several benchmark processes (one per GPU) share a grid: each takes what no other works on.
        """
        record = self.record(cell)
        if record is not None and record["status"] == "done":
            return True
        path = self.record_file(cell)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(path.with_suffix(".lock")).acquire(timeout=0):
                return self._train_locked(cell, record)
        except Timeout:
            return False

    def _train_locked(self, cell: Cell, record: dict[str, Any] | None) -> bool:
        path, made_with = self.record_file(cell), self.made_with(cell)
        write_json(path, {"made_with": made_with, "status": "started"})
        arguments = {
            "dataset": self.dataset.folder.name,
            "configuration": cell.configuration,
            "fold": cell.fold,
            "trainer": cell.trainer,
            "plans": self.plans,
            "epochs": self.budget.epochs,
            "iterations": self.budget.iterations,
            "seed": cell.seed,
            "device": self.device,
            "continues": record is not None,
        }
        log = self.output / "logs" / f"{cell.name}.txt"
        log.parent.mkdir(exist_ok=True)
        arguments_file, result_file = path.with_suffix(".arguments"), path.with_suffix(".result")
        write_json(arguments_file, arguments)
        environment = os.environ | {
            "nnUNet_results": str(self.results_folder(cell)),
            "nnUNet_extTrainer": trainer_path(),
        }
        self.results_folder(cell).mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "nnunet_softlabel.training", str(arguments_file), str(result_file)]
        with log.open("a", encoding="utf-8") as file:
            process = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)
        code = _wait(process, log, self.budget.epochs)
        result = read_json(result_file) if code == 0 else {}
        for temporary in (arguments_file, result_file):
            temporary.unlink(missing_ok=True)
        status = "done" if code == 0 else "failed"
        write_json(path, {"made_with": made_with, "status": status, **result})
        return code == 0

    def evaluate(self, cell: Cell, *, num_processes: int) -> None:
        """Score the validation cases of a cell that is done."""
        folder = self.evaluation_folder(cell)
        if (folder / METRICS_FILE).is_file() and (folder / SUMMARY_FILE).is_file():
            return
        evaluate(
            self.dataset,
            self.fold_folder(cell) / "validation",
            folder,
            truth=self.truth,
            num_processes=num_processes,
            overwrite=True,
        )


def _wait(process: subprocess.Popen, log: Path, epochs: int | None) -> int:
    """Wait for a training and show its epoch; a training does not outlive the benchmark."""
    try:
        with tqdm(total=epochs, unit="epoch", disable=None) as bar:
            while process.poll() is None:
                sleep(1)
                found = re.findall(
                    r"Epoch (\d+)\s*$", log.read_text(encoding="utf-8", errors="replace"), re.MULTILINE
                )
                if found:
                    bar.update(int(found[-1]) - bar.n)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    return process.returncode


def benchmark(grid: Grid, *, num_processes: int = 2, log: Any = print) -> dict[str, str]:
    """Train and evaluate every cell of a grid; a failed cell does not lose the others.

    Args:
        grid: what to do, and where.
        num_processes: processes of the evaluation.
        log: takes one line of progress.

    Returns:
        What became of each cell: ``done``, ``failed``, or ``elsewhere`` if another process works on it.

    Raises:
        UsageError: if a cell was made with something else than this grid asks for.
    """
    for cell in grid.cells:  # refuse a mixture before hours of training, not after
        grid.record(cell)
    outcome: dict[str, str] = {}
    for number, cell in enumerate(grid.cells, start=1):
        log(f"[{number}/{len(grid.cells)}] {cell.name}")
        is_done = grid.train(cell)
        record = grid.record(cell)
        outcome[cell.name] = (
            "done" if is_done else "failed" if record and record["status"] == "failed" else "elsewhere"
        )
        if is_done:
            grid.evaluate(cell, num_processes=num_processes)
        elif outcome[cell.name] == "failed":
            log(f"  failed: {last_line(grid.output / 'logs' / f'{cell.name}.txt')}")
    return outcome


def last_line(path: Path) -> str:
    """The last line of a log that says something."""
    lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return f"{lines[-1].strip() if lines else 'no output'} (see {path})"
