"""Soft labels are zero nearly everywhere: boxes of what is not, and a spatial transform that works there.

Memory that numpy promises as zeros costs nothing until something is written into it. So a channel costs what
its box costs, and a class that a patch does not show costs nearly nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from numpy.typing import NDArray
from torch.nn.functional import grid_sample

from nnunet_softlabel.boxes import Box

BLOCK = 8  # voxels along an edge of the blocks in which a grid is compared with a box
ROUNDING = 1e-2  # voxels; coordinates are float32


def zeros(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """As `torch.zeros`, but memory is not touched before it is written to."""
    return torch.from_numpy(np.zeros(tuple(shape), dtype=torch.empty(0, dtype=dtype).numpy().dtype))


def positive_box(values: NDArray[Any]) -> Box | None:
    """The smallest box with all positive voxels; None if there are none.

    The largest values of whole planes come first: numpy finds these at the speed of memory.

    >>> positive_box(np.array([[0, -1, 0, 0], [0, 3, 1, 0]]))
    (slice(1, 2, None), slice(1, 3, None))
    """
    box: list[slice] = []
    for _ in range(values.ndim):
        later = tuple(range(1, values.ndim))
        positive = np.flatnonzero((values.max(axis=later) if later else values) > 0)
        if not len(positive):
            return None
        found = slice(int(positive[0]), int(positive[-1]) + 1)
        box.append(found)
        values = values[found].max(axis=0)
    return tuple(box)


def positive_boxes(soft: torch.Tensor) -> Iterator[tuple[int, Box]]:
    """Each channel of ``(C, *spatial)`` that holds anything, with its `positive_box`."""
    for channel, values in enumerate(soft.numpy()):
        box = positive_box(values)
        if box is not None:
            yield channel, box


def positive_floats(soft: torch.Tensor) -> torch.Tensor:
    """A copy as float32; what is negative, padding, becomes 0."""
    result = zeros(soft.shape, torch.float32)
    for channel, box in positive_boxes(soft):
        result[channel][box] = soft[channel][box].clamp(min=0).float()
    return result


class SparseSpatialTransform(SpatialTransform):
    """nnU-Net's transform, with the same result; it interpolates soft labels only where they are not 0."""

    @classmethod
    def like(cls, transform: SpatialTransform) -> SparseSpatialTransform:
        """One that draws and does the same."""
        result = cls.__new__(cls)
        result.__dict__.update(transform.__dict__)
        return result

    def _apply_to_regr_target(self, regression_target: torch.Tensor, **params: Any) -> torch.Tensor:
        grid = params["grid"]
        is_plain = self.mode_image == "bilinear" and self.padding_mode_image == "zeros"
        if grid is None or not is_plain or self.align_corners:
            return super()._apply_to_regr_target(regression_target, **params)
        return interpolated(regression_target, grid)


def interpolated(soft: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """`grid_sample` with zeros outside, bit-equal, of channels that are zero nearly everywhere.

    Args:
        soft: ``(C, *spatial)``, float, not negative.
        grid: ``(*new_spatial, D)``, coordinates as `grid_sample` takes them.

    Returns:
        ``(C, *new_spatial)``.
    """
    result = zeros((soft.shape[0], *grid.shape[:-1]), soft.dtype)
    if grid.shape[-1] == 2:  # fast as a whole; channels may be slices, hundreds of them
        present = [channel for channel, _ in positive_boxes(soft)]
        if present:
            result[present] = grid_sample(soft[present][None], grid[None], align_corners=False)[0]
        return result
    lowest, highest = block_bounds(grid.numpy(), soft.shape[1:])
    for channel, box in positive_boxes(soft):
        # linear interpolation reaches less than one voxel beyond the box
        starts = np.array([side.start - 1 for side in box]) - ROUNDING
        stops = np.array([side.stop for side in box]) + ROUNDING
        hit = np.logical_and.reduce((highest > starts) & (lowest < stops), axis=-1)
        for block, row in enumerate(hit):
            inner = positive_box(row.astype(np.uint8))
            if inner is None:
                continue
            blocks = (slice(block, block + 1), *inner)
            where = tuple(slice(side.start * BLOCK, side.stop * BLOCK) for side in blocks)
            result[channel][where] = grid_sample(
                soft[channel][None, None], grid[where][None], align_corners=False
            )[0, 0]
    return result


def block_bounds(grid: NDArray[Any], shape: Sequence[int]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The least and the greatest voxel coordinate that each block of a grid asks for.

    Args:
        grid: ``(*new_spatial, D)``, as `grid_sample` takes it: the last axis of space first.
        shape: of what is sampled.

    Returns:
        Two arrays ``(*blocks, D)``, the first axis of space first.
    """
    bounds: list[NDArray[Any]] = []
    for extreme in (np.minimum, np.maximum):
        found = grid
        for axis in range(grid.ndim - 1):
            starts = range(0, grid.shape[axis], BLOCK)
            found = np.moveaxis(found, axis, 0)
            # much faster than reduceat
            reduced = [extreme.reduce(found[start : start + BLOCK], axis=0) for start in starts]
            found = np.moveaxis(np.stack(reduced), 0, axis)
        bounds.append(((found[..., ::-1] + 1) * np.array(shape, dtype=np.float32) - 1) / 2)
    return bounds[0], bounds[1]


def with_sparse_interpolation(transform: BasicTransform) -> BasicTransform:
    """The same augmentation; its spatial transform is a `SparseSpatialTransform`."""
    if type(transform) is SpatialTransform:
        return SparseSpatialTransform.like(transform)
    if type(transform) is ComposeTransforms:
        return ComposeTransforms([with_sparse_interpolation(child) for child in transform.transforms])
    return transform
