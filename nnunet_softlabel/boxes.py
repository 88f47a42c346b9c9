"""Boxes of voxels: little work needs more of an image than the box of what is marked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Box = tuple[slice, ...]


def bounding_box(mask: NDArray[Any], *, margin: int | Sequence[int] = 0) -> Box:
    """The smallest box that holds all voxels of a mask, and a margin where the image has it; empty for none.

    >>> bounding_box(np.array([[0, 0, 0, 0], [0, 1, 0, 0]]) > 0, margin=1)
    (slice(0, 2, None), slice(0, 3, None))
    """
    margins = [margin] * mask.ndim if isinstance(margin, int) else list(margin)
    box: list[slice] = []
    for axis, (size, more) in enumerate(zip(mask.shape, margins, strict=True)):
        # within the box of the axes before, without their margins: the rest is empty
        occupied = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        if not len(occupied):
            return tuple(slice(0, 0) for _ in mask.shape)
        start, stop = int(occupied[0]), int(occupied[-1]) + 1
        mask = mask[(slice(None),) * axis + (slice(start, stop),)]
        box.append(slice(max(start - more, 0), min(stop + more, size)))
    return tuple(box)


def enclosing(boxes: Sequence[Box]) -> Box:
    """The smallest box around boxes; empty ones do not count.

    >>> enclosing([(slice(2, 4),), (slice(0, 0),), (slice(3, 9),)])
    (slice(2, 9, None),)
    """
    filled = [box for box in boxes if all(side.start < side.stop for side in box)]
    if not filled:
        return boxes[0]
    sides = zip(*filled, strict=True)
    return tuple(slice(min(s.start for s in side), max(s.stop for s in side)) for side in sides)
