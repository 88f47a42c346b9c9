"""Distances of two surfaces: computed once by surface-distance, each metric a function of them.

Why that library: its elements are weighted by area, so thick slices do not distort the percentiles, and it
needs numpy and scipy only (MONAI and panoptica import torch). Its calls fail on empty masks with numpy 2;
these stop here.
"""

from __future__ import annotations

import numpy as np
import surface_distance

from nnunet_softlabel.evaluation.overlap import NAN, check_same_shape

Distances = dict[str, np.ndarray]


def surface_distances(
    reference: np.ndarray, prediction: np.ndarray, *, spacing_mm: tuple[float, ...]
) -> Distances | None:
    """Distances in mm between the surfaces of two masks, with areas; None unless both hold a voxel."""
    check_same_shape(reference=reference, prediction=prediction)
    if not (reference.any() and prediction.any()):
        return None
    distances: Distances = surface_distance.compute_surface_distances(reference, prediction, spacing_mm)
    return distances


def hd95(distances: Distances | None) -> float:
    """95th percentile of the surface distances, the larger of both directions, in mm.

    NaN if a mask is empty: no distance exists. Read it beside recall, which counts missed objects.
    """
    return NAN if distances is None else float(surface_distance.compute_robust_hausdorff(distances, 95))


def nsd(
    reference: np.ndarray, prediction: np.ndarray, distances: Distances | None, *, tolerance_mm: float
) -> float:
    """Normalised surface Dice: share of both surfaces that lies within the tolerance of the other one.

    0 if exactly one mask is empty, NaN if both are.
    """
    if distances is None:
        return 0.0 if reference.any() or prediction.any() else NAN
    return float(surface_distance.compute_surface_dice_at_tolerance(distances, tolerance_mm))


def mean_distance_mm(distances: Distances | None) -> float:
    """Area-weighted mean distance of the surfaces, mean of both directions, in mm. NaN if a mask is empty."""
    if distances is None:
        return NAN
    return float(np.mean(surface_distance.compute_average_surface_distance(distances)))
