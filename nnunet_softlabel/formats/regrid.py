"""Masks on another grid than their image: turned where axes differ, placed where cropped, resampled if asked.

Positions are physical, in SimpleITK's order ``(x, y[, z])``; arrays are ``(z, y, x)`` or ``(y, x)``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.soft_labels import MoveRecord

Regrid = Literal["nearest", "linear"]
MISSES = "misses the image altogether"
NO_SPACING = "the file does not say how far its slices are apart (SpacingBetweenSlices)"
POSITION_TOLERANCE = 1e-2  # of a voxel, as `Grid.difference` has it


class GridError(DatasetError):
    """A mask lies on another grid than its image.

    Attributes:
        is_hopeless: regridding cannot mend it.
    """

    def __init__(self, message: str, *, is_hopeless: bool = False) -> None:
        super().__init__(message)
        self.is_hopeless = is_hopeless


@dataclass(frozen=True)
class Moved:
    """What was done to bring a mask onto its image's grid.

    Attributes:
        how: "turned", "placed", "nearest" or "linear".
        difference: of the grids, in words.
        shift_mm: distance between a voxel of the image and the voxel of the mask it was taken from, at most.
        outside: share of the marked voxels that lies outside the image, and was cut off.
    """

    how: str
    difference: str
    shift_mm: float = 0.0
    outside: float = 0.0

    def to_json(self) -> MoveRecord:
        """For ``dataset.json``."""
        record: MoveRecord = {"how": self.how, "difference": self.difference, "shift_mm": self.shift_mm}
        if self.outside:
            record["outside"] = round(self.outside, 4)
        return record

    def in_words(self) -> str:
        """What was done, for messages."""
        if self.how in ("nearest", "linear"):
            cut = f", {percent(self.outside)} of its marks cut off" if self.outside else ""
            return f"regridded ({self.how}, by {self.shift_mm:.3g} mm at most{cut}): {self.difference}"
        return f"{self.how}: {self.difference}"


def percent(share: float) -> str:
    """A share in percent; what is there is never 0.

    >>> percent(0.5), percent(0.00001)
    ('50 %', 'less than 0.1 %')
    """
    return "less than 0.1 %" if share < 0.001 else f"{100 * share:.3g} %"


def turned(array: NDArray[Any], own: Grid, grid: Grid) -> tuple[NDArray[Any], Grid] | None:
    """The array with axes in the order and direction of ``grid``, and its new grid; None if they are oblique.

    Lossless: voxels are moved, never mixed.
    """
    if not (own.has_geometry and grid.has_geometry) or len(own.size) != len(grid.size):
        return None
    steps = np.linalg.solve(directions(grid), directions(own))  # own axis j in terms of the axes of grid
    if np.abs(steps - np.rint(steps)).max() > 1e-3 or not _is_permutation(np.rint(steps)):
        return None
    steps = np.rint(steps)
    order = [int(np.argmax(np.abs(row))) for row in steps]  # axis of grid -> own axis
    flips = [steps[i, j] < 0 for i, j in enumerate(order)]
    size = tuple(own.size[j] for j in order)
    spacing = tuple(own.spacing_mm[j] for j in order)
    first = np.array([own.size[j] - 1 if flip else 0 for j, flip in zip(order, flips, strict=True)], float)
    index = np.zeros(len(order))
    index[order] = first  # own index of the voxel that becomes the first
    origin = np.asarray(own.origin) + directions(own) @ (index * own.spacing_mm)
    last = len(order) - 1
    result = array.transpose([last - order[last - axis] for axis in range(last + 1)])
    result = np.flip(result, [last - i for i, flip in enumerate(flips) if flip])
    return np.ascontiguousarray(result), Grid(size, spacing, tuple(map(float, origin)), grid.direction)


def placed(array: NDArray[Any], own: Grid, grid: Grid) -> NDArray[Any] | None:
    """The array cropped or padded with 0 onto ``grid``; None if voxels do not fall on voxels.

    Raises:
        GridError: if something marked lies outside ``grid``.
    """
    corner = offset_voxels(own, grid)
    if corner is None or np.abs(corner - np.rint(corner)).max() > POSITION_TOLERANCE:
        return None
    starts = np.rint(corner).astype(int)[::-1]
    result = np.zeros(grid.shape, array.dtype)
    into, of = [], []
    for start, own_extent, extent in zip(starts, array.shape, grid.shape, strict=True):
        low, high = max(start, 0), min(start + own_extent, extent)
        into.append(slice(low, max(low, high)))
        of.append(slice(low - start, max(low, high) - start))
    inside = array[tuple(of)]
    if np.count_nonzero(inside) < np.count_nonzero(array):
        raise GridError("marks voxels outside the image")
    result[tuple(into)] = inside
    return result


def spread(array: NDArray[Any], own: Grid, grid: Grid) -> tuple[NDArray[Any], Grid]:
    """Frames ``(frame, y, x)`` with empty slices between: slices are as far apart as those of ``grid``.

    For files that say where each frame lies, and not how far slices are apart. Unchanged where that is no
    whole number of slices.
    """
    if len(own.size) != 3 or len(grid.size) != 3:
        return array, own
    cosines = np.abs(directions(grid).T @ directions(own)[:, 2])
    slice_mm = grid.spacing_mm[int(np.argmax(cosines))]
    apart = own.spacing_mm[2] / slice_mm if len(array) > 1 else 1.0
    number = round(apart)
    if cosines.max() < 1 - 1e-3 or number < 1 or abs(apart - number) * len(array) > 0.1:
        return array, own
    result = np.zeros((number * (len(array) - 1) + 1, *array.shape[1:]), array.dtype)
    result[::number] = array
    return result, replace(own, size=result.shape[::-1], spacing_mm=(*own.spacing_mm[:2], slice_mm))


def fits(own: Grid, grid: Grid, *, is_cropped: bool) -> bool:
    """True if a mask can be brought onto ``grid`` without loss, from what headers say."""
    if grid.difference(own) is None:
        return True
    upright = turned(np.broadcast_to(np.False_, own.shape), own, grid)
    if upright is None:
        return False
    if grid.difference(upright[1]) is None:
        return True
    corner = offset_voxels(upright[1], grid) if is_cropped else None
    return corner is not None and bool(np.abs(corner - np.rint(corner)).max() <= POSITION_TOLERANCE)


def resampled(array: NDArray[Any], own: Grid, grid: Grid, method: Regrid) -> NDArray[Any]:
    """A label map (nearest, linear) or a map of numbers (linear) on ``grid``; 0 outside its own.

    ``linear`` on a label map interpolates each label by itself and takes the largest, the background first.

    Raises:
        GridError: if the grids have no voxel in common, or something marked is all outside.
    """
    if not (own.has_geometry and grid.has_geometry) or len(own.size) != len(grid.size):
        raise GridError(
            "has no position, or another number of axes, so it cannot be regridded", is_hopeless=True
        )
    if not overlap(own, grid):
        raise GridError(MISSES, is_hopeless=True)
    if array.dtype.kind == "f":
        result = _resample(array, own, grid, method)
    elif method == "nearest":
        result = _resample(array, own, grid, "nearest")
    else:
        result = np.zeros(grid.shape, array.dtype)
        values = np.unique(array)
        best = _resample((array == 0).astype(np.float32), own, grid, "linear", outside=1.0)
        for value in values[values != 0]:
            share = _resample((array == value).astype(np.float32), own, grid, "linear")
            wins = share > best
            result[wins], best = value, np.where(wins, share, best)
    if array.any() and not result.any():
        raise GridError("has no marked voxel inside the image", is_hopeless=True)
    return result


def share_outside(array: NDArray[Any], own: Grid, grid: Grid) -> float:
    """Share of the marked voxels of a mask whose centres lie outside ``grid``."""
    inverse = np.linalg.inv(_steps_mm(grid))
    offset = np.subtract(own.origin, grid.origin)[:, None]
    ends = np.asarray(grid.size)[:, None] - 0.5

    def is_outside(indices: NDArray[Any]) -> NDArray[Any]:
        there = inverse @ (_steps_mm(own) @ indices + offset)
        return ((there < -0.5) | (there > ends)).any(axis=0)

    corners = np.stack(np.meshgrid(*[(0, size - 1) for size in own.size], indexing="ij"))
    if not is_outside(corners.reshape(len(own.size), -1)).any():
        return 0.0
    marked = outside = 0
    for number, plane in enumerate(array):  # indices of all voxels at once take far more memory than the mask
        found = [np.full(np.count_nonzero(plane), number), *np.nonzero(plane)]
        marked += len(found[0])
        outside += int(is_outside(np.stack(found[::-1])).sum())
    return outside / marked if marked else 0.0


def shift_mm(own: Grid, grid: Grid) -> float:
    """Distance between voxels of ``grid`` and the nearest ones of ``own``, at most; over a few per axis."""
    few = [np.unique(np.linspace(0, size - 1, 24).round()) for size in grid.size]
    indices = np.stack(np.meshgrid(*few, indexing="ij")).reshape(len(few), -1)
    inverse = np.linalg.inv(_steps_mm(own))
    offset = np.asarray(grid.origin) - np.asarray(own.origin)
    there = inverse @ (_steps_mm(grid) @ indices + offset[:, None])
    inside = ((there > -0.5) & (there < np.asarray(own.size)[:, None] - 0.5)).all(axis=0)
    if not inside.any():
        return 0.0
    rest = there[:, inside] - np.rint(there[:, inside])
    return float(np.linalg.norm(_steps_mm(own) @ rest, axis=0).max())


def directions(grid: Grid) -> NDArray[Any]:
    """Direction cosines, a column per axis."""
    return np.asarray(grid.direction, float).reshape(len(grid.size), -1)


def _steps_mm(grid: Grid) -> NDArray[Any]:
    return directions(grid) * np.asarray(grid.spacing_mm)


def _is_permutation(steps: NDArray[Any]) -> bool:
    ones = np.abs(steps)
    return bool((ones.sum(axis=0) == 1).all() and (ones.sum(axis=1) == 1).all())


def offset_voxels(own: Grid, grid: Grid) -> NDArray[Any] | None:
    """Index in ``grid`` of the first voxel of ``own``; None if axes or spacing differ."""
    if not (own.has_geometry and grid.has_geometry) or len(own.size) != len(grid.size):
        return None
    if np.abs(np.subtract(own.direction, grid.direction)).max() > 1e-3:
        return None
    # spacing that is off by little adds up over the voxels of the mask
    if (
        np.abs(np.subtract(own.spacing_mm, grid.spacing_mm)) * own.size > 0.1 * np.asarray(grid.spacing_mm)
    ).any():
        return None
    return np.linalg.solve(_steps_mm(grid), np.subtract(own.origin, grid.origin))


def overlap(own: Grid, grid: Grid) -> bool:
    """True if a voxel of ``grid`` can lie in the box of ``own``."""
    corners = np.stack(np.meshgrid(*[(-0.5, size - 0.5) for size in grid.size], indexing="ij"))
    positions = _steps_mm(grid) @ corners.reshape(len(grid.size), -1)
    offset = np.asarray(grid.origin) - np.asarray(own.origin)
    there = np.linalg.inv(_steps_mm(own)) @ (positions + offset[:, None])
    return bool((there.max(axis=1) > -0.5).all() and (there.min(axis=1) < np.asarray(own.size) - 0.5).all())


def _resample(
    array: NDArray[Any], own: Grid, grid: Grid, method: Regrid, *, outside: float = 0.0
) -> NDArray[Any]:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(own.spacing_mm)
    image.SetOrigin(own.origin)
    image.SetDirection(own.direction)
    filter_ = sitk.ResampleImageFilter()
    filter_.SetSize(grid.size)
    filter_.SetOutputSpacing(grid.spacing_mm)
    filter_.SetOutputOrigin(grid.origin)
    filter_.SetOutputDirection(grid.direction)
    filter_.SetInterpolator(sitk.sitkNearestNeighbor if method == "nearest" else sitk.sitkLinear)
    filter_.SetDefaultPixelValue(outside)
    return sitk.GetArrayFromImage(filter_.Execute(image))
