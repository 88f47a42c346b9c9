"""What is asked of a benchmark: which trainings, and how they are scored."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_softlabel.evaluation.truth import Truth
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from nnunet_softlabel.public import public

TRAINING = (sys.executable, "-m", "nnunet_softlabel.training")
PREDICTION = (sys.executable, "-m", "nnunet_softlabel.training.prediction")


@public
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


@public
@dataclass(frozen=True)
class Trainings:
    """Which trainings a benchmark makes: every trainer with every configuration, fold and seed.

    >>> len(Trainings(["nnUNetTrainer", "nnUNetTrainerSoftCE"]).folds)
    5

    Attributes:
        trainers: class names; the first is the baseline.
        configurations: such as ``3d_fullres``.
        folds: of ``splits_final.json``.
        seeds: each trains all the others.
        plans: plans identifier.
    """

    trainers: Sequence[str]
    configurations: Sequence[str] = ("3d_fullres",)
    folds: Sequence[int] = (0, 1, 2, 3, 4)
    seeds: Sequence[int] = (0,)
    plans: str = "nnUNetPlans"

    def cells(self) -> list[Cell]:
        """One per training."""
        return [
            Cell(trainer, configuration, fold, seed)
            for seed in dict.fromkeys(self.seeds)
            for fold in dict.fromkeys(self.folds)
            for configuration in dict.fromkeys(self.configurations)
            for trainer in dict.fromkeys(self.trainers)
        ]


@public
@dataclass(frozen=True)
class CellScoring:
    """How the trainings of a benchmark are scored, all alike.

    >>> CellScoring(threshold="tuned").calibrate is None
    True

    Attributes:
        threshold: where probabilities are cut: a number, ``rater-corrected``, or ``tuned``, which tunes each
            fold's threshold on the validation cases of the other folds.
        calibrate: adds a recalibrated row for every trainer, by a method of `calibrate`; None adds none.
        truth: where the files of a known truth are, as in `evaluate`, or None.
        test: predict the test images too, and score them; they are the main result then.
        references: what predictions are scored against; None: the data set itself.
    """

    threshold: str = "0.5"
    calibrate: str | None = None
    truth: Path | Truth | None = None
    test: bool = False
    references: SoftDataset | None = None


@public
@dataclass(frozen=True)
class CellCommands:
    """The programs of a cell; each is given a file of arguments and one for the result.

    >>> CellCommands().training[1:]
    ('-m', 'nnunet_softlabel.training')

    Attributes:
        training: trains a cell.
        prediction: predicts the test images with a cell.
    """

    training: Sequence[str] = TRAINING
    prediction: Sequence[str] = PREDICTION
