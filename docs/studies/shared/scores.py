"""Scores that several studies take of a network: the best threshold, the mean Dice."""

from __future__ import annotations

import numpy as np

from nnunet_softlabel.metrics.overlap import dice


def best_threshold(truth: np.ndarray, probability: np.ndarray) -> float:
    """The threshold with the highest mean Dice over images."""
    levels = np.arange(0.05, 1, 0.05)
    means = [mean_dice(truth, probability > t) for t in levels]
    return float(levels[int(np.argmax(means))])


def mean_dice(truth: np.ndarray, prediction: np.ndarray) -> float:
    return float(np.nanmean([dice(t, p) for t, p in zip(truth, prediction, strict=True)]))
