"""nnU-Net's resampling of probabilities where a map is not zero: the rest stays zero."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeGuard

import numpy as np
from nnunetv2.configuration import ANISO_THRESHOLD
from numpy.typing import NDArray

from nnunet_softlabel.boxes import bounding_box

LINEAR = {"is_seg": False, "order": 1, "order_z": 0}  # what `resampled_in_box` does as nnU-Net does it
PIECE = 1 << 18  # voxels resampled at a time; at least one row of the first axis


def is_linear(resample: Callable[..., Any]) -> TypeGuard[partial[Any]]:
    """True for nnU-Net's default resampling of probabilities: linear, and nearest across thick slices."""
    # imports PyTorch: the process that starts the workers asks
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

    if (
        not isinstance(resample, partial)
        or resample.func is not resample_data_or_seg_to_shape
        or resample.args
    ):
        return False
    given = resample.keywords
    return {**given, **LINEAR} == given and set(given) <= {*LINEAR, "force_separate_z"}


def thick_axis(
    spacing: Sequence[float], new_spacing: Sequence[float], *, force_separate_z: bool | None = None
) -> int | None:
    """The axis of thick slices, across which nnU-Net takes the nearest one; None: linear along all axes.

    The rule of its ``determine_do_sep_z_and_axis`` (a test compares them), whose module imports PyTorch.
    Slices are thick where one voxel side is more than three times another, before resampling or after.

    >>> thick_axis([5.0, 1.0, 1.0], [1.0, 1.0, 1.0]), thick_axis([1.0, 1.0, 1.0], [1.0, 1.0, 1.0])
    (0, None)
    """
    for sides in (spacing, new_spacing):
        is_thick = max(sides) / min(sides) > ANISO_THRESHOLD if force_separate_z is None else force_separate_z
        if is_thick:
            longest = [axis for axis, side in enumerate(sides) if max(sides) / side == 1]
            return longest[0] if len(longest) == 1 else None
    return None


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
    across = thick_axis(spacing, new_spacing, force_separate_z=force_separate_z)
    box = bounding_box(values != 0, margin=1)  # a margin of zeros where the image goes on
    steps = [
        _Step.along(axis, side, values.shape[axis], new, is_nearest=axis == across)
        for axis, (side, new) in enumerate(zip(box, shape, strict=True))
    ]
    result = np.zeros(tuple(shape), dtype=values.dtype)
    found = result[tuple(step.found for step in steps)]
    rows = max(1, PIECE // max(1, found[:1].size, values[box][:1].size))
    for start in range(0, len(found), rows):  # the whole in double precision would take several times as much
        part = slice(start, start + rows)
        inside = steps[0].resampled(values[box], part)
        for step in steps[1:]:
            inside = step.resampled(inside)
        found[part] = inside
    return result


@dataclass(frozen=True)
class _Step:
    """Resampling along one axis, from a part of the axis to a part of the new one.

    Attributes:
        axis: its number.
        found: the part of the new axis.
        low: ``(len(found),)`` where in the old part the nearest voxel lies, or that before.
        high: the voxel after; None to take the nearest.
        weight: of the voxel after.
    """

    axis: int
    found: slice
    low: NDArray[Any]
    high: NDArray[Any] | None
    weight: NDArray[Any]

    @classmethod
    def along(cls, axis: int, side: slice, size: int, new_size: int, *, is_nearest: bool) -> _Step:
        """From the part ``side`` of an axis with ``size`` voxels to one with ``new_size``."""
        if size == new_size:
            same = np.arange(side.stop - side.start)
            return cls(axis, side, same, None, np.zeros(len(same)))
        # voxel i of n lies at (i + 0.5) / n; beyond the outer voxels the edge goes on
        position = np.clip((np.arange(new_size) + 0.5) * (size / new_size) - 0.5, 0, size - 1)
        low = np.floor(position + 0.5 if is_nearest else position).astype(np.intp)
        high = np.minimum(low + (0 if is_nearest else 1), size - 1)
        hit = np.flatnonzero((low >= side.start) & (high < side.stop))
        found = slice(int(hit[0]), int(hit[-1]) + 1) if len(hit) else slice(0, 0)
        after = None if is_nearest else high[found] - side.start
        return cls(axis, found, low[found] - side.start, after, (position - low)[found])

    def resampled(self, inside: NDArray[Any], part: slice = slice(None)) -> NDArray[Any]:
        """Float64: the old part of the axis on the new one, or on a part of that."""
        lower = inside.take(self.low[part], axis=self.axis).astype(np.float64, copy=False)
        if self.high is None:
            return lower
        upper = inside.take(self.high[part], axis=self.axis).astype(np.float64, copy=False)
        weight = self.weight[part].reshape([-1 if a == self.axis else 1 for a in range(inside.ndim)])
        return lower + weight * (upper - lower)
