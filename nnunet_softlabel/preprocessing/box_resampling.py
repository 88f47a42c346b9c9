"""nnU-Net's resampling of probabilities where a map is not zero: the rest stays zero."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from nnunetv2.preprocessing.resampling.default_resampling import (
    determine_do_sep_z_and_axis,
    resample_data_or_seg_to_shape,
)
from numpy.typing import NDArray

from nnunet_softlabel.metrics.boxes import bounding_box

LINEAR = {"is_seg": False, "order": 1, "order_z": 0}  # what `resampled_in_box` does as nnU-Net does it


def is_linear(resample: Callable[..., Any]) -> bool:
    """True for nnU-Net's default resampling of probabilities: linear, and nearest across thick slices."""
    if (
        not isinstance(resample, partial)
        or resample.func is not resample_data_or_seg_to_shape
        or resample.args
    ):
        return False
    given = resample.keywords
    return {**given, **LINEAR} == given and set(given) <= {*LINEAR, "force_separate_z"}


def resampled_in_box(
    values: NDArray[Any],
    shape: Sequence[int],
    spacing: Sequence[float],
    new_spacing: Sequence[float],
    *,
    force_separate_z: bool | None = None,
) -> NDArray[Any]:
    """Resample a map of which little is not zero, as `resample_data_or_seg_to_shape` but for rounding.

    Args:
        values: ``(z, y, x)``, not all 0.
        shape: of the result.
        spacing: of ``values``.
        new_spacing: of the result.
        force_separate_z: nnU-Net's; None lets the spacings decide.

    Returns:
        Array ``shape`` of the type of ``values``.
    """
    separate, across = determine_do_sep_z_and_axis(force_separate_z, spacing, new_spacing)
    box = bounding_box(values != 0, margin=1)  # a margin of zeros where the image goes on
    result = np.zeros(tuple(shape), dtype=values.dtype)
    inside = values[box].astype(np.float64)
    where: list[slice] = []
    for axis, (side, new_size) in enumerate(zip(box, shape, strict=True)):
        is_nearest = bool(separate) and axis == across
        inside, found = _along(inside, axis, side, (values.shape[axis], new_size), is_nearest=is_nearest)
        where.append(found)
    result[tuple(where)] = inside
    return result


def _along(
    inside: NDArray[Any], axis: int, side: slice, sizes: tuple[int, int], *, is_nearest: bool
) -> tuple[NDArray[Any], slice]:
    """Resample the part ``side`` of an axis; also says which part of the new axis that becomes."""
    size, new_size = sizes
    if size == new_size:
        return inside, side
    # voxel i of n lies at (i + 0.5) / n; beyond the outer voxels the edge goes on
    position = np.clip((np.arange(new_size) + 0.5) * (size / new_size) - 0.5, 0, size - 1)
    low = np.floor(position + 0.5 if is_nearest else position).astype(np.intp)
    high = np.minimum(low + (0 if is_nearest else 1), size - 1)
    hit = np.flatnonzero((low >= side.start) & (high < side.stop))
    found = slice(int(hit[0]), int(hit[-1]) + 1) if len(hit) else slice(0, 0)
    lower = inside.take(low[found] - side.start, axis=axis)
    if is_nearest:
        return lower, found
    weight = (position - low)[found].reshape([-1 if a == axis else 1 for a in range(inside.ndim)])
    upper = inside.take(high[found] - side.start, axis=axis)
    return lower + weight * (upper - lower), found
