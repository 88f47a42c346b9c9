"""What goes into a training in a process of its own, and what comes out, as JSON."""

from __future__ import annotations

from typing import Any, TypedDict

OfNnunet = dict[str, Any]  # batches, properties and checkpoints as nnU-Net passes them


class TrainArguments(TypedDict):
    """Of `nnunet_softlabel.training.run.train`."""

    dataset: str
    configuration: str
    fold: int
    trainer: str
    plans: str
    epochs: int | None
    iterations: int | None
    seed: int
    device: str
    continues: bool


class TrainingResult(TypedDict):
    """What a training tells of itself; times in seconds, ``curves`` is name -> one value per epoch."""

    folder: str
    epochs: int
    iterations: int
    train_seconds: float
    validation_seconds: float
    peak_memory_gb: float
    device: str
    curves: dict[str, list[float]]
