"""Distances of two surfaces, computed once; metrics are functions of them.

The library is google-deepmind's surface-distance: its elements are weighted by area, so thick slices do not
distort the percentiles, and it needs numpy and scipy only (MONAI and panoptica import torch). Its tables of
surface elements and its metrics are used. Its own `compute_surface_distances` takes the same steps as ours (a
test compares them), but fails on empty masks with numpy 2, calls scipy by names that scipy 2 drops, and makes
the tables anew each time, which is half of its time.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import surface_distance
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from surface_distance import lookup_tables

from nnunet_softlabel.boxes import bounding_box
from nnunet_softlabel.metrics.near import SLACK
from nnunet_softlabel.metrics.overlap import NAN, check_same_shape

Distances = dict[str, NDArray[Any]]
SHORT = 3  # times the finest spacing: distances up to there are looked up, further ones are searched


def surface_distances(
    reference: NDArray[Any], prediction: NDArray[Any], *, spacing_mm: tuple[float, ...]
) -> Distances | None:
    """Distances in mm between the surfaces of two masks, with areas; None unless both hold a voxel.

    >>> reference, prediction = np.zeros((2, 9), bool), np.zeros((2, 9), bool)
    >>> reference[:, 2:6], prediction[:, 2:7] = True, True
    >>> float(max(surface_distances(reference, prediction, spacing_mm=(1.0, 1.0))["distances_pred_to_gt"]))
    1.0

    Returns:
        ``distances_gt_to_pred``, ``distances_pred_to_gt``, ascending, and the areas ``surfel_areas_gt``,
        ``surfel_areas_pred`` of the elements they start from, as surface-distance names them. A volume of a
        single slice is a flat image: its faces are no surface, its outline is.
    """
    check_same_shape(reference=reference, prediction=prediction)
    surfaces = [surface_of(mask, spacing_mm=spacing_mm) for mask in (reference, prediction)]
    return distances_between(*surfaces)


@dataclass(frozen=True)
class Surface:
    """Elements of the surface of a mask, of which distances to several others are taken.

    Attributes:
        places: ``(n, d)`` in voxels; elements lie between voxels.
        areas: of each element.
        spacing_mm: in the order of the axes.
    """

    places: NDArray[Any]
    areas: NDArray[Any]
    spacing_mm: tuple[float, ...]

    def distances_to(self, other: Surface) -> NDArray[Any]:
        """From each element to the nearest one of another surface, in mm.

        Most lie a few voxels apart: steps are tried from the shortest on. A tree finds what is further.
        """
        distances = np.empty(len(self.places))
        steps, lengths = _short_steps(self.spacing_mm)
        reach = np.abs(steps).max(axis=0)
        low, high = other.places.min(axis=0) - reach, other.places.max(axis=0) + reach
        is_near = ((self.places >= low) & (self.places <= high)).all(axis=1)
        # two reaches around the other surface, so that a step from within one never leaves the array
        shape = tuple(high - low + 1 + 2 * reach)
        strides = np.cumprod([1, *shape[:0:-1]])[::-1]
        is_other = np.zeros(shape, bool).reshape(-1)
        is_other[(other.places - low + reach) @ strides] = True
        left = np.flatnonzero(is_near)
        places = (self.places[left] - low + reach) @ strides
        for step, length in zip(steps @ strides, lengths, strict=True):
            if not len(left):
                break
            is_found = is_other[places + step]
            distances[left[is_found]] = length
            left, places = left[~is_found], places[~is_found]
        left = np.concatenate([left, np.flatnonzero(~is_near)])
        if len(left):
            distances[left] = self._by_tree(self.places[left], other)
        return distances

    def _by_tree(self, places: NDArray[Any], other: Surface) -> NDArray[Any]:
        spacing = np.array(self.spacing_mm)
        _, nearest = other.tree.query(places * spacing)
        return _lengths(places - other.places[nearest], self.spacing_mm)

    @cached_property
    def tree(self) -> cKDTree:
        """Finds the nearest element."""
        return cKDTree(self.places * np.array(self.spacing_mm), balanced_tree=False, compact_nodes=False)


def _lengths(steps: NDArray[Any], spacing_mm: tuple[float, ...]) -> NDArray[Any]:
    in_mm = steps * np.array(spacing_mm)
    return np.asarray(np.sqrt(np.add.reduce((in_mm * in_mm).T, axis=0)))


@lru_cache(maxsize=64)
def _short_steps(spacing_mm: tuple[float, ...]) -> tuple[NDArray[Any], NDArray[Any]]:
    """All steps up to `SHORT` times the finest spacing, ``(n, d)`` in voxels and mm, the shortest first."""
    most = SHORT * min(spacing_mm)
    ranges = [np.arange(-int(most / s), int(most / s) + 1) for s in spacing_mm]
    steps = np.stack(np.meshgrid(*ranges, indexing="ij"), axis=-1).reshape(-1, len(spacing_mm))
    lengths = _lengths(steps, spacing_mm)
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] <= most]
    return steps[order], lengths[order]


def surface_of(mask: NDArray[Any], *, spacing_mm: tuple[float, ...]) -> Surface | None:
    """The surface of a mask; None without a voxel. A volume of a single slice is a flat image."""
    if mask.ndim == 3 and 1 in mask.shape:
        flat = mask.shape.index(1)
        mask, spacing_mm = mask.squeeze(flat), tuple(np.delete(spacing_mm, flat).tolist())
    box = bounding_box(mask)
    if mask[box].size == 0:
        return None
    spacing_mm = tuple(float(s) for s in spacing_mm)
    kernel, areas = _surface_elements(spacing_mm)
    padded = np.pad(mask[box], 1)
    # an element lies between the voxels of two per axis, of which some are of the mask, but not all
    some, every = padded, padded
    for axis in range(mask.ndim):
        first, second = (slice(None),) * axis + (slice(None, -1),), (slice(None),) * axis + (slice(1, None),)
        some, every = some[first] | some[second], every[first] & every[second]
    places = np.argwhere(some & ~every)
    codes = np.zeros(len(places), np.intp)
    for corner, weight in np.ndenumerate(kernel):
        codes += padded[tuple((places + corner).T)] * int(weight)
    places += [side.start for side in box]
    return Surface(places.astype(np.int32), areas[codes], spacing_mm)


def distances_between(reference: Surface | None, prediction: Surface | None) -> Distances | None:
    """`surface_distances` of surfaces that are known already."""
    if reference is None or prediction is None:
        return None
    found: Distances = {}
    for here, there, way, side in (
        (reference, prediction, "gt_to_pred", "gt"),
        (prediction, reference, "pred_to_gt", "pred"),
    ):
        distances = here.distances_to(there)
        order = np.argsort(distances, kind="stable")
        found[f"distances_{way}"] = distances[order]
        found[f"surfel_areas_{side}"] = here.areas[order]
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

    Distances up to 1.0001 times the tolerance are within. 0 if exactly one mask is empty, NaN if both are.

    >>> reference, prediction = np.zeros((2, 9), bool), np.zeros((2, 9), bool)
    >>> reference[:, 2:6], prediction[:, 2:8] = True, True
    >>> distances = surface_distances(reference, prediction, spacing_mm=(1.0, 1.0))
    >>> nsd(reference, prediction, distances, tolerance_mm=2.0)
    1.0
    """
    if distances is None:
        return 0.0 if reference.any() or prediction.any() else NAN
    return float(surface_distance.compute_surface_dice_at_tolerance(distances, tolerance_mm * (1 + SLACK)))


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
