"""Scores that several studies take of a network: the best threshold, the mean Dice."""

from __future__ import annotations

import numpy as np

from docs.studies.shared.images import Images
from docs.studies.shared.resumable import Row
from nnunet_softlabel.metrics.calibration import brier, expected_calibration_error
from nnunet_softlabel.metrics.near import near_object
from nnunet_softlabel.metrics.overlap import dice, precision, qubiq_dice, recall


def best_threshold(truth: np.ndarray, probability: np.ndarray) -> float:
    """The threshold with the highest mean Dice over images."""
    levels = np.arange(0.05, 1, 0.05)
    means = [mean_dice(truth, probability > t) for t in levels]
    return float(levels[int(np.argmax(means))])


def mean_dice(truth: np.ndarray, prediction: np.ndarray) -> float:
    return float(np.nanmean([dice(t, p) for t, p in zip(truth, prediction, strict=True)]))


def score_images(test: Images, probability: np.ndarray, threshold: float) -> Row:
    """Overlap with the truth at 0.5 and at the threshold, calibration against the raters."""
    hard = probability > 0.5
    near = [near_object(q > 0, spacing_mm=test.spacing_mm, near_mm=5) for q in test.soft]
    triples = list(zip(test.soft, probability, near, strict=True))
    return {
        "dice": mean_dice(test.truth, hard),
        "precision": precision(test.truth, hard),
        "recall": recall(test.truth, hard),
        "best_threshold": threshold,
        "dice_best": mean_dice(test.truth, probability > threshold),
        "brier_near": float(np.nanmean([brier(q, p, mask=n) for q, p, n in triples])),
        "brier_truth": brier(test.truth.astype(np.float32), probability),
        "qubiq_dice": float(np.nanmean([qubiq_dice(q, p) for q, p, _ in triples])),
        "ece_near": float(np.nanmean([expected_calibration_error(q, p, mask=n) for q, p, n in triples])),
    }
