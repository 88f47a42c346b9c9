"""Metrics: pure functions on arrays; `registry` names them all. No files, no torch."""

from __future__ import annotations

from nnunet_softlabel.metrics.calibration import brier, nll_above_entropy, reliability
from nnunet_softlabel.metrics.energy_distance import generalised_energy_distance
from nnunet_softlabel.metrics.froc import ScoredLesions, froc, lesion_average_precision, scored_lesions
from nnunet_softlabel.metrics.lesions import count_lesions, detection_auc
from nnunet_softlabel.metrics.overlap import dice, f_beta, iou, precision, recall, soft_dice
from nnunet_softlabel.metrics.surface import hd95, mean_distance_mm, nsd, surface_distances

__all__ = [
    "ScoredLesions",
    "brier",
    "count_lesions",
    "detection_auc",
    "dice",
    "f_beta",
    "froc",
    "generalised_energy_distance",
    "hd95",
    "iou",
    "lesion_average_precision",
    "mean_distance_mm",
    "nll_above_entropy",
    "nsd",
    "precision",
    "recall",
    "reliability",
    "scored_lesions",
    "soft_dice",
    "surface_distances",
]
