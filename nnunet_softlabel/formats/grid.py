"""Where the voxels of an image lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Grid:
    """Where the voxels of an image lie.

    Attributes:
        size: voxels per axis, ``(x, y[, z])``.
        spacing_mm: distance of neighbouring voxels per axis, ``(x, y[, z])``.
        origin: physical position of the first voxel.
        direction: direction cosines, row by row.
        has_geometry: False for formats that store voxels only; such grids agree if their sizes do.
    """

    size: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]
    has_geometry: bool = True

    @classmethod
    def upright(cls, shape: Sequence[int], spacing_mm: Sequence[float]) -> Grid:
        """The grid of an array whose axes are those of the patient, its first voxel at 0.

        >>> Grid.upright((4, 8, 9), (2.0, 1.0, 0.5)).spacing_mm
        (0.5, 1.0, 2.0)

        Args:
            shape: of the array, ``(z, y, x)`` or ``(y, x)``.
            spacing_mm: in the order of the array's axes.
        """
        size, spacing = tuple(shape)[::-1], tuple(float(s) for s in spacing_mm)[::-1]
        direction = np.eye(len(size)).ravel()
        return cls(size, spacing, (0.0,) * len(size), tuple(direction.tolist()))

    @classmethod
    def without_geometry(cls, shape: Sequence[int]) -> Grid:
        """The grid of an array of which nothing is known: unit spacing."""
        return replace(cls.upright(shape, (1.0,) * len(shape)), has_geometry=False)

    @classmethod
    def flat(cls, shape: Sequence[int]) -> Grid:
        """The grid of a flat image without geometry; a colour image has one axis more."""
        return cls.without_geometry(shape[:2])

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array, ``(z, y, x)`` or ``(y, x)``."""
        return self.size[::-1]

    @property
    def spacing_of_axes_mm(self) -> tuple[float, ...]:
        """Spacing in the order of the array's axes."""
        return self.spacing_mm[::-1]

    def difference(self, other: Grid) -> str | None:
        """What distinguishes two grids beyond the rounding of file headers, or None."""
        if self.size != other.size:
            return f"size {other.size} instead of {self.size}"
        if not (self.has_geometry and other.has_geometry):
            return None
        tolerances = {
            "spacing_mm": 1e-3 * min(self.spacing_mm),
            "origin": 1e-2 * min(self.spacing_mm),
            "direction": 1e-3,
        }
        for name, tolerance in tolerances.items():
            mine, theirs = np.asarray(getattr(self, name)), np.asarray(getattr(other, name))
            if np.abs(mine - theirs).max() > tolerance:
                return f"{name} {_rounded(theirs)} instead of {_rounded(mine)}"
        return None


def _rounded(values: NDArray[Any]) -> tuple[float, ...]:
    return tuple(float(f"{value:.6g}") for value in values)
