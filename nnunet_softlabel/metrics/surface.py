"""Distances of two surfaces, computed once; metrics are functions of them.

The library is google-deepmind's surface-distance: its elements are weighted by area, so thick slices do not
distort the percentiles, and it needs numpy and scipy only (MONAI and panoptica import torch). Its tables of
surface elements and its metrics are used. Its own `compute_surface_distances` takes the same steps as ours (a
test compares them), but fails on empty masks with numpy 2, calls scipy by names that scipy 2 drops, and makes
the tables anew each time, which is half of its time.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import surface_distance
from numpy.typing import NDArray
from scipy import ndimage
from surface_distance import lookup_tables

from nnunet_softlabel.metrics.overlap import NAN, check_same_shape

Distances = dict[str, NDArray[Any]]


def surface_distances(
    reference: NDArray[Any], prediction: NDArray[Any], *, spacing_mm: tuple[float, ...]
) -> Distances | None:
    """Distances in mm between the surfaces of two masks, with areas; None unless both hold a voxel.

    >>> reference, prediction = np.zeros((2, 9), bool), np.zeros((2, 9), bool)
    >>> reference[:, 2:6], prediction[:, 2:7] = True, True
    >>> max(surface_distances(reference, prediction, spacing_mm=(1.0, 1.0))["distances_pred_to_gt"])
    np.float64(1.0)

    Returns:
        ``distances_gt_to_pred``, ``distances_pred_to_gt``, ascending, and the areas ``surfel_areas_gt``,
        ``surfel_areas_pred`` of the elements they start from, as surface-distance names them. A volume of a
        single slice is a flat image: its faces are no surface, its outline is.
    """
    check_same_shape(reference=reference, prediction=prediction)
    if reference.ndim == 3 and 1 in reference.shape:
        flat = reference.shape.index(1)
        reference, prediction = reference.squeeze(flat), prediction.squeeze(flat)
        spacing_mm = tuple(np.delete(spacing_mm, flat).tolist())
    if not (reference.any() and prediction.any()):
        return None
    box = ndimage.find_objects((reference | prediction).astype(np.uint8))[0]
    kernel, areas = _surface_elements(tuple(float(s) for s in spacing_mm))
    codes, borders, maps = [], [], []
    for mask in (reference, prediction):
        # elements lie between voxels: one more per axis than the box has voxels
        padded = np.pad(mask[box].astype(np.uint8), [(0, 1)] * mask.ndim)
        code = ndimage.correlate(padded, kernel, mode="constant", cval=0)
        border = (code != 0) & (code != kernel.sum())
        codes.append(code)
        borders.append(border)
        maps.append(ndimage.distance_transform_edt(~border, sampling=spacing_mm))
    found: Distances = {}
    for here, there, way, side in ((0, 1, "gt_to_pred", "gt"), (1, 0, "pred_to_gt", "pred")):
        distances = maps[there][borders[here]]
        order = np.argsort(distances, kind="stable")
        found[f"distances_{way}"] = distances[order]
        found[f"surfel_areas_{side}"] = areas[codes[here][borders[here]]][order]
    return found


@lru_cache(maxsize=64)
def _surface_elements(spacing_mm: tuple[float, ...]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The kernel that turns a neighbourhood into a code, and the area (2D: length) of surface by code."""
    if len(spacing_mm) == 2:
        table = lookup_tables.create_table_neighbour_code_to_contour_length(spacing_mm)
        return np.asarray(lookup_tables.ENCODE_NEIGHBOURHOOD_2D_KERNEL), np.asarray(table)
    table = lookup_tables.create_table_neighbour_code_to_surface_area(spacing_mm)
    return np.asarray(lookup_tables.ENCODE_NEIGHBOURHOOD_3D_KERNEL), np.asarray(table)


def hd95(distances: Distances | None) -> float:
    """95th percentile of the surface distances, the larger of both directions, in mm.

    NaN if a mask is empty: no distance exists. Read it beside recall, which counts missed objects.

    >>> reference, prediction = np.zeros((2, 9), bool), np.zeros((2, 9), bool)
    >>> reference[:, 2:6], prediction[:, 2:8] = True, True
    >>> hd95(surface_distances(reference, prediction, spacing_mm=(1.0, 0.5)))
    1.0
    """
    return NAN if distances is None else float(surface_distance.compute_robust_hausdorff(distances, 95))


def nsd(
    reference: NDArray[Any], prediction: NDArray[Any], distances: Distances | None, *, tolerance_mm: float
) -> float:
    """Normalised surface Dice: share of both surfaces that lies within the tolerance of the other one.

    0 if exactly one mask is empty, NaN if both are.

    >>> reference, prediction = np.zeros((2, 9), bool), np.zeros((2, 9), bool)
    >>> reference[:, 2:6], prediction[:, 2:8] = True, True
    >>> distances = surface_distances(reference, prediction, spacing_mm=(1.0, 1.0))
    >>> nsd(reference, prediction, distances, tolerance_mm=2.0)
    1.0
    """
    if distances is None:
        return 0.0 if reference.any() or prediction.any() else NAN
    return float(surface_distance.compute_surface_dice_at_tolerance(distances, tolerance_mm))


def mean_distance_mm(distances: Distances | None) -> float:
    """Area-weighted mean distance of the surfaces, mean of both directions, in mm. NaN if a mask is empty.

    >>> reference, prediction = np.zeros((2, 9), bool), np.zeros((2, 9), bool)
    >>> reference[:, 2:6], prediction[:, 2:8] = True, True
    >>> round(mean_distance_mm(surface_distances(reference, prediction, spacing_mm=(1.0, 0.5))), 3)
    0.211
    """
    if distances is None:
        return NAN
    return float(np.mean(surface_distance.compute_average_surface_distance(distances)))
