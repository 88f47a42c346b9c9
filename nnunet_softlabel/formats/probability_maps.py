"""Probability maps on disk: float32, or integers of which the type says which value is 1."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.images import is_flat, read_grey, write_image

PNG_ONE = 65535  # a probability of 1 in a 16 bit flat image
CUTS = np.arange(1, 10, dtype=np.float32) / np.float32(10)  # where metrics cut a map, 0.5 among them


def read_probability(path: Path, scale: float | None = None) -> tuple[NDArray[Any], Grid]:
    """Read a probability map as float32 in [0, 1].

    The type says which value is 1, never the values: 1 for volumes, floats and 1-bit images, 255 and 65535
    for flat images of 8 and 16 bit. What 16 bit hold of 0.1, 0.2, ..., 0.9 is read as exactly that, since
    the stored 0.5 is 32768 / 65535, and no majority.

    Args:
        path: the file.
        scale: the value that stands for 1, if it is another.

    Raises:
        DatasetError: as `read_mask`, for values outside [0, 1], and for flat integers of other types.
    """
    array, grid = read_grey(path)
    if scale is None:
        own = full_scale(path, array.dtype)
        scale = None if own == 1 else own
    if array.dtype == np.uint16 and scale == PNG_ONE:
        return _values_of_16_bit()[array], grid
    return _as_probability(array, str(path), scale), grid


def as_probability(array: NDArray[Any], what: str, scale: float | None = None) -> NDArray[Any]:
    """Values over ``scale`` (None: 1) as float32, clipped to [0, 1] where they are off by rounding.

    Raises:
        DatasetError: for values outside.
    """
    found = _as_probability(array, what, scale)
    return found.copy() if np.shares_memory(found, array) else found


def _as_probability(array: NDArray[Any], what: str, scale: float | None) -> NDArray[Any]:
    """The array itself where nothing has to be done."""
    lowest, highest = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
    array = array.astype(np.float32, copy=False)
    least, most = lowest, highest
    if scale is not None:
        array = array / np.float32(scale)
        least, most = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
    if least < -1e-4 or most > 1 + 1e-4:
        hint = "rescale to [0, 1]"
        if scale is None:
            likely = next((s for s in (100, 255, 65535) if highest <= s), 255)
            hint += f", or say with --soft-scale {likely} which value is 1"
        raise DatasetError(
            f"{what}: values from {lowest:.4g} to {highest:.4g} are no probabilities"
            f"{'' if scale is None else f' of {scale:g}'}; {hint}."
        )
    return array if 0 <= least and most <= 1 and array.flags.writeable else np.clip(array, 0, 1)


@lru_cache(maxsize=1)
def _values_of_16_bit() -> NDArray[Any]:
    """Probability of each value, float32."""
    table = np.arange(PNG_ONE + 1, dtype=np.float32) / np.float32(PNG_ONE)
    table[_in_16_bit(CUTS)] = CUTS
    return table


def _in_16_bit(probabilities: NDArray[Any]) -> NDArray[Any]:
    return np.rint(np.clip(probabilities, 0, 1) * PNG_ONE).astype(np.uint16)


def half_step(array: NDArray[Any], scale: float | None = None) -> float:
    """How far a probability map may be off because it was stored as integers; 0 if it was not.

    >>> half_step(np.float32([0, 51 / 255, 1])), half_step(np.float32([0, 0.123, 1]))
    (0.00196078431372549, 0.0)

    Args:
        array: probabilities as read.
        scale: the integer that stood for 1, if it is known.
    """
    for highest in (scale, 255.0):  # 16 bit are exact enough
        if highest is not None and highest > 1:
            numbers = array * np.float32(highest)
            if (np.abs(numbers - np.rint(numbers)) < 0.01).all():
                return 0.5 / highest
    return 0.0


def full_scale(path: Path, dtype: np.dtype[Any]) -> float:
    """The value that stands for a probability of 1 in a file of this type.

    Raises:
        DatasetError: for flat integers that are neither 8 nor 16 bit without sign.
    """
    if not is_flat(path) or dtype.kind in "bf":
        return 1.0
    if dtype not in (np.uint8, np.uint16):
        raise DatasetError(
            f"{path}: a probability map of {dtype}; store 8 or 16 bit without sign, or floating point."
        )
    return float(np.iinfo(dtype).max)


def write_probability(path: Path, array: NDArray[Any], grid: Grid) -> None:
    """Write a probability map: float32, or 16 bit with 65535 = 1 where the format is flat."""
    if is_flat(path):
        array = _in_16_bit(array)
    else:
        array = array.astype(np.float32, copy=False)
    write_image(path, array, grid)
