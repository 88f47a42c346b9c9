"""Voxels near the object: in a whole image the easy background decides how well calibrated a map is."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.boxes import bounding_box

SLACK = (
    1e-4  # of a distance that is asked for: whole voxels lie at it exactly, and headers give 1 mm as 1.000001
)


def near_object(marked: NDArray[Any], *, spacing_mm: tuple[float, ...], near_mm: float) -> NDArray[Any]:
    """Voxels no further than ``near_mm`` (by 0.01 % at most) from a voxel that is marked; none if nothing is.

    Mark what any rater drew (soft label > 0) and never the prediction: every model is then judged on the same
    voxels. The mask is spread by the ball of this radius, 8 voxels to a byte: a distance transform takes 80
    bytes per voxel.

    >>> near_object(np.array([[0, 0, 0, 0, 1]]) > 0, spacing_mm=(1.0, 2.0), near_mm=5.0)
    array([[False, False,  True,  True,  True]])
    """
    near = np.zeros_like(marked, dtype=bool)
    if near_mm < 0 or not marked.any():
        return near
    reach = [int(near_mm / spacing) + 1 for spacing in spacing_mm]
    box = bounding_box(marked, margin=reach)
    near[box] = _spread(marked[box], reach, spacing_mm, near_mm)
    return near


def _spread(
    marked: NDArray[Any], reach: list[int], spacing_mm: tuple[float, ...], near_mm: float
) -> NDArray[Any]:
    *others, length = marked.shape
    rows = np.ascontiguousarray(marked)  # spread along the last axis, further and further
    packed = {0: np.packbits(rows, axis=-1)}
    found = np.zeros_like(packed[0])
    for steps in product(*(range(-n, n + 1) for n in reach[:-1])):
        width = _half_width(steps, reach[-1], spacing_mm, near_mm)
        if width < 0 or any(abs(step) >= size for step, size in zip(steps, others, strict=True)):
            continue
        if width not in packed:
            packed[width] = np.packbits(_along_last_axis(rows, width), axis=-1)
        here = tuple(
            slice(max(step, 0), size + min(step, 0)) for step, size in zip(steps, others, strict=True)
        )
        there = tuple(
            slice(max(-step, 0), size + min(-step, 0)) for step, size in zip(steps, others, strict=True)
        )
        found[here] |= packed[width][there]
    return np.unpackbits(found, axis=-1, count=length).view(bool)


def _half_width(steps: tuple[int, ...], most: int, spacing_mm: tuple[float, ...], near_mm: float) -> int:
    """Voxels along the last axis that the ball reaches beside these steps along the others; -1 for none."""
    squares = [(step * spacing) * (step * spacing) for step, spacing in zip(steps, spacing_mm, strict=False)]
    last, reach_mm = spacing_mm[-1], near_mm * (1 + SLACK)
    widths = (w for w in range(most, -1, -1) if np.sqrt(sum(squares) + (w * last) * (w * last)) <= reach_mm)
    return next(widths, -1)


def _along_last_axis(rows: NDArray[Any], width: int) -> NDArray[Any]:
    """True where a row holds a True no further than ``width``, by doubling."""
    spread, reached = rows.copy(), 0
    while reached < width:
        step = min(max(reached, 1), width - reached, rows.shape[-1] - 1)
        if step <= 0:
            break
        before = spread.copy()
        spread[..., step:] |= before[..., :-step]
        spread[..., :-step] |= before[..., step:]
        reached += step
    return spread
