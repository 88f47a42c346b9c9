"""What a benchmark hands to the report of one trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.evaluation.case_scores import Row
from nnunet_softlabel.evaluation.tables import METRICS_FILE, SUMMARY_FILE, TRAINING, read_rows
from nnunet_softlabel.formats.files import read_json
from nnunet_softlabel.public import public

RECALIBRATED = ", recalibrated"  # ends the name of a row that is another row, recalibrated
REFINED = ", refined labels"  # ends the name of a row that was trained again, on labels that this row made


@dataclass(frozen=True)
class RunResult:
    """One trainer, over all its folds and seeds.

    Attributes:
        name: the trainer, as the page calls it.
        rows: of ``soft_metrics.csv``, all folds and seeds together; ``training`` tells them apart.
        reliability: class -> place (image, near) -> summed table of `calibration.reliability`.
        curves: name of a curve -> one value per epoch.
        training_seconds: time of all trainings together.
        peak_memory_gib: the most memory a training took.
        threshold: how probabilities were cut.
        settings: what else tells this run from others.
    """

    name: str
    rows: Sequence[Row]
    reliability: Mapping[str, Mapping[str, NDArray[Any]]] = field(default_factory=dict)
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)
    training_seconds: float | None = None
    peak_memory_gib: float | None = None
    threshold: str = "0.5"
    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    @public
    def from_folders(cls, name: str, folders: Sequence[Path], **more: Any) -> RunResult:
        """Collect what `evaluate` wrote into several folders, one per fold and seed."""
        rows: list[Row] = []
        tables: dict[str, dict[str, NDArray[Any]]] = {}
        thresholds: dict[str, None] = {}
        for folder in folders:
            rows += [{TRAINING: folder.name, **row} for row in read_rows(folder / METRICS_FILE)]
            summary = read_json(folder / SUMMARY_FILE)
            values = ", ".join(f"{k} {v:.3g}" for k, v in summary["threshold"]["values"].items())
            thresholds[f"{summary['threshold']['choice']} ({values})"] = None
            for class_name, places in summary["reliability"].items():
                for place, table in places.items():
                    known = tables.setdefault(class_name, {})
                    known[place] = known.get(place, 0) + np.asarray(table, dtype=np.float64)
        return cls(name, rows, tables, threshold="; ".join(thresholds), **more)

    @property
    def classes(self) -> list[str]:
        """Classes or regions with scores."""
        return list(dict.fromkeys(str(row["class"]) for row in self.rows))

    @property
    def cases(self) -> set[str]:
        """Cases with scores."""
        return {str(row["case"]) for row in self.rows}
