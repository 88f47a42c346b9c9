"""What distinguishes two grids, in words: axes, crop, spacing, place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.regrid import (
    MISSES,
    POSITION_TOLERANCE,
    directions,
    offset_voxels,
    overlap,
    turned,
)

AXES = "xyz"


def difference_in_words(grid: Grid, own: Grid) -> str:
    """What distinguishes the grid of a mask from that of its image: axes, crop, spacing, place."""
    plain = grid.difference(own) or "none"
    if not (own.has_geometry and grid.has_geometry) or len(own.size) != len(grid.size):
        return plain
    words = []
    same_axes: tuple[NDArray[Any], Grid] | None = (np.empty(0), own)
    if np.abs(np.asarray(own.direction) - grid.direction).max() > 1e-3:
        same_axes = turned(np.zeros(own.shape, np.bool_), own, grid)
        words.append(
            "axes " + (_axes_in_words(own, grid) if same_axes else f"turned by {_angle(own, grid):.1f}°")
        )
    upright = same_axes[1] if same_axes else own
    if np.abs(np.subtract(upright.spacing_mm, grid.spacing_mm)).max() > 1e-3 * min(grid.spacing_mm):
        words.append(f"spacing_mm {_short(upright.spacing_mm)} instead of {_short(grid.spacing_mm)}")
        if upright.size != grid.size:
            words.append(f"size {upright.size} instead of {grid.size}")
    elif same_axes:
        words += _place_in_words(upright, grid)
    if not overlap(own, grid):
        words.append(MISSES)
    return "; ".join(words) or plain


def _place_in_words(own: Grid, grid: Grid) -> list[str]:
    """Crop and shift of a grid with the axes and spacing of the other."""
    corner = offset_voxels(own, grid)
    assert corner is not None  # axes and spacing agree
    words = []
    if own.size != grid.size:
        ends = np.asarray(grid.size) - (corner + own.size)
        sides = [
            f"{AXES[i]} {corner[i]:+.4g} at the start, {ends[i]:+.4g} at the end"
            for i in range(len(corner))
            if abs(corner[i]) > POSITION_TOLERANCE or abs(ends[i]) > POSITION_TOLERANCE
        ]
        words.append(f"size {own.size} instead of {grid.size} (crop in voxels: {', '.join(sides) or 'none'})")
    elif np.abs(corner).max() > POSITION_TOLERANCE:
        words.append(f"origin {_short(own.origin)} instead of {_short(grid.origin)}")
    return words


def _axes_in_words(own: Grid, grid: Grid) -> str:
    """As in ``x, z, y reversed``: which own axis runs along x, y, z of the image, and which way."""
    steps = np.rint(np.linalg.solve(directions(grid), directions(own)))
    names = []
    for row in steps:
        own_axis = int(np.argmax(np.abs(row)))
        names.append(AXES[own_axis] + (" reversed" if row[own_axis] < 0 else ""))
    return f"({', '.join(names)}) instead of ({', '.join(AXES[: len(names)])})"


def _angle(own: Grid, grid: Grid) -> float:
    """Degrees between the axes, the largest."""
    cosines = np.abs((directions(own) * directions(grid)).sum(axis=0))
    return float(np.degrees(np.arccos(np.clip(cosines, 0, 1))).max())


def _short(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(f"{value:.6g}") for value in values)
