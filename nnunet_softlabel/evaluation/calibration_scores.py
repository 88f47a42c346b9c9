"""Scores of probabilities before and after a recalibration, over cases that the map has not seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.evaluation import tables
from nnunet_softlabel.evaluation.calibration_targets import CalibrationTargets
from nnunet_softlabel.evaluation.ensemble import Predictions
from nnunet_softlabel.evaluation.recalibration import RecalibrationMap, recalibrated
from nnunet_softlabel.evaluation.records import CalibrationScores
from nnunet_softlabel.formats.channel_store import ChannelStore
from nnunet_softlabel.metrics import calibration, overlap
from nnunet_softlabel.metrics.near import near_object
from nnunet_softlabel.metrics.registry import Parameters

SCORES: dict[str, str] = {
    "nll": "NLL above entropy",
    "nll_near": "NLL near the object",
    "brier": "Brier",
    "brier_near": "Brier near the object",
    "ece_near": "ECE near the object",
    "qubiq_dice": "QUBIQ Dice",
    "volume_error_abs": "Expected volume error, relative, absolute",
    "volume_error": "Expected volume error, relative",
}


@dataclass(frozen=True)
class StateScores:
    """Of one case, before or after: scores ``(C, len(SCORES))``, reliability tables ``(C, bins, 3)``."""

    scores: NDArray[Any]
    reliability: NDArray[Any]


def before_and_after(
    case: str, recalibration: RecalibrationMap, *, predictions: Predictions, references: CalibrationTargets
) -> dict[str, StateScores]:
    """State -> scores of one case."""
    labels = references.dataset.labels
    targets = references.of(case, with_marks=True)
    mask, shape, near_mm = targets.mask, targets.shape, Parameters().near_mm
    count = labels.network_channels
    first = count - len(labels.names)  # after the background
    scores: dict[str, list[list[float]]] = {"before": [], "after": []}
    tables: dict[str, list[NDArray[Any]]] = {"before": [], "after": []}
    with (
        ChannelStore(predictions.channels(case, labels, shape), count, shape) as raw,
        ChannelStore(raw.channels(), count, shape) as after,
    ):
        after.change(partial(recalibrated, recalibration=recalibration, has_regions=labels.has_regions))
        for index, (q, marked) in enumerate(targets.channels(), first):
            near = near_object(marked, spacing_mm=targets.spacing_mm, near_mm=near_mm)
            near = near if mask is None else near & mask
            for state, store in (("before", raw), ("after", after)):
                p = store.channel(index)
                scores[state].append(_scores(q, p, mask, near))
                tables[state].append(calibration.reliability(q, p, mask=near))
    return {state: StateScores(np.array(scores[state]), np.array(tables[state])) for state in scores}


def _scores(q: NDArray[Any], p: NDArray[Any], mask: NDArray[Any] | None, near: NDArray[Any]) -> list[float]:
    volume = overlap.relative_volume_error(q, p, mask=mask)
    return [
        calibration.nll_above_entropy(q, p, mask=mask),
        calibration.nll_above_entropy(q, p, mask=near),
        calibration.brier(q, p, mask=mask),
        calibration.brier(q, p, mask=near),
        calibration.expected_calibration_error(q, p, mask=near),
        overlap.qubiq_dice(q, p, mask=mask),
        abs(volume),
        volume,
    ]


def summary_of_scores(scores: Sequence[Mapping[str, StateScores]], names: Sequence[str]) -> CalibrationScores:
    """Means over cases, and reliability tables summed over them, per class."""
    means = {}
    for state in ("before", "after"):
        values = np.array([case[state].scores for case in scores])  # (cases, C, scores)
        means[state] = [[_mean(column) for column in channel.T] for channel in values.swapaxes(0, 1)]
    return {
        "scores": {
            name: {
                metric: {"before": means["before"][c][k], "after": means["after"][c][k]}
                for k, metric in enumerate(SCORES)
            }
            for c, name in enumerate(names)
        },
        "reliability_near": {
            name: {
                state: np.sum([case[state].reliability[c] for case in scores], axis=0).tolist()
                for state in means
            }
            for c, name in enumerate(names)
        },
    }


def _mean(values: NDArray[Any]) -> float | None:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else None


def format_scores(content: CalibrationScores) -> str:
    """The table for the terminal: every score before and after, cross-fitted."""
    width = max(map(len, SCORES.values()))
    lines = []
    for name, scores in content["scores"].items():
        lines += [f"{name:<{width}}      before       after"]
        for metric, title in SCORES.items():
            pair = scores[metric]["before"], scores[metric]["after"]
            lines.append(
                f"{title:<{width}}"
                + "".join(f"{'-' if v is None else tables.four_digits(v):>12}" for v in pair)
            )
    return "\n".join(lines)
