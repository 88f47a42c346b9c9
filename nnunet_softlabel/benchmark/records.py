"""The record of a cell, ``cells/CELL.json``, and what a benchmark stores of all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from typing_extensions import NotRequired

    from nnunet_softlabel.evaluation.records import Means


class MadeWith(TypedDict):
    """What must agree before a cell is taken up again, and the versions, which need not.

    ``split`` is a digest of the cases of the fold, None until nnU-Net makes its folds; ``trainer_source`` one
    of the files of a trainer of the user, None for others. Records of earlier versions lack both, and
    ``nnunetv2``.
    """

    trainer: str
    configuration: str
    fold: int
    seed: int
    epochs: int | None
    iterations: int | None
    plans: str
    plans_hash: str
    soft_labels: str
    split: str | None
    trainer_source: str | None
    code: str
    nnunetv2: str


class StartedBy(TypedDict):
    """The process that trains a cell."""

    host: str
    pid: int
    since: str


class CellRecord(TypedDict):
    """Of a cell; ``status`` is a `CellStatus`, ``by`` is there until it is done, the rest afterwards."""

    made_with: MadeWith
    status: str
    by: NotRequired[StartedBy]
    folder: NotRequired[str]
    epochs: NotRequired[int]
    iterations: NotRequired[int]
    train_seconds: NotRequired[float]
    validation_seconds: NotRequired[float]
    peak_memory_gb: NotRequired[float]
    device: NotRequired[str]
    curves: NotRequired[dict[str, list[float]]]


class Asked(TypedDict):
    """What tells one page of a benchmark from another."""

    threshold: str
    truth: str | None
    test: NotRequired[bool]


class TrainerSummary(TypedDict):
    """One row of the page."""

    cases: int
    train_seconds: float | None
    peak_memory_gib: float | None
    threshold: str
    folds: NotRequired[list[int]]
    seeds: NotRequired[list[int]]
    mean: Means


# "class" is a word of Python's, so this has no body
Difference = TypedDict(
    "Difference",
    {
        "trainer": str,
        "baseline": str,
        "class": str,
        "metric": str,
        "reference": str,
        "difference": "float | None",
        "low": "float | None",
        "high": "float | None",
        "primary": bool,
        "p": "float | None",
        "p_holm": "float | None",
        "effect_size": "float | None",
        "margin": "float | None",
        "non_inferior": "bool | None",
        "dropped": "dict[str, int]",
    },
)


class HeldOutSummary(TypedDict):
    """The main result of ``--test``: scores of the test images."""

    cases: int
    trainers: dict[str, TrainerSummary]
    differences: list[Difference]
    verdict: list[str]
    notes: list[str]


class BenchmarkSummary(TypedDict):
    """All of a benchmark's ``soft_summary.json``."""

    settings: dict[str, object]
    notes: list[str]
    trainers: dict[str, TrainerSummary]
    differences: list[Difference]
    asked: Asked
    verdict: list[str]
    test: NotRequired[HeldOutSummary]
