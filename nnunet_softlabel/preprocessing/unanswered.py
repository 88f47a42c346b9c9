"""Voxels that nobody answered, filled from their neighbours, so that interpolation beside them reads no 0.

Resampling and augmentation interpolate linearly. A voxel that was answered would lose probability to its
neighbours that were not, for these hold 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Answered:
    """Which voxels of a case somebody answered: bool, the others are ignored.

    Attributes:
        before: ``(z, y, x)`` as read, or None where nothing is resampled.
        after: of the preprocessed image.
    """

    before: NDArray[Any] | None
    after: NDArray[Any]


def filled(channel: NDArray[Any], is_answered: NDArray[Any], *, steps: int = 1) -> NDArray[Any]:
    """A channel whose unanswered voxels have the value of an answered neighbour, and 0 further away.

    Neighbours along the last axis are asked first, then those along the axis before. So a step reaches all
    voxels that touch an answered one, also by a corner, as linear interpolation does.

    Args:
        channel: probabilities, of any number of axes.
        is_answered: bool of the same shape.
        steps: how many voxels away.

    Returns:
        A new array.

    >>> filled(np.array([9.0, 1.0, 9.0, 9.0, 9.0]), np.array([0, 1, 0, 0, 0], bool))
    array([1., 1., 1., 0., 0.])
    """
    result = np.where(is_answered, channel, 0).astype(channel.dtype, copy=False)
    is_known = is_answered.copy()
    for _ in range(steps):
        for axis in reversed(range(channel.ndim)):
            values, known = np.moveaxis(result, axis, 0), np.moveaxis(is_known, axis, 0)  # views
            for to, source in ((slice(1, None), slice(None, -1)), (slice(None, -1), slice(1, None))):
                taken = known[source] & ~known[to]
                values[to][taken] = values[source][taken]
                known[to] |= taken
    return result
