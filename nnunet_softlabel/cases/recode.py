"""Values in raters' files become values of the data set."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.labels import Values


def recoded(array: NDArray[Any], values: Values, what: str, *, step: float = 0.0) -> NDArray[Any]:
    """Label values of the source to those of the data set, by one look-up table.

    Args:
        array: of the file.
        values: value in the file -> value in the data set; names of segments are no values.
        what: the file, for messages.
        step: of scaled integers; values within half a step of a whole number are that number.

    Raises:
        DatasetError: for fractions, and for values that no label names.
    """
    mapping = {value: label for value, label in values.items() if isinstance(value, int)}
    if len(mapping) <= 1:
        raise DatasetError(
            f"{what}: holds numbers, but --labels gives none; write, for instance, "
            f"{next((v for v in values if isinstance(v, str)), 'lesion')}=1."
        )
    if array.dtype == bool:
        array = array.astype(np.uint8)  # a bool array would choose, not look up
    if array.dtype.kind == "f":
        array = _whole(array, what, step)
    lowest, highest = (int(array.min()), int(array.max())) if array.size else (0, 0)
    dtype = np.uint8 if max(mapping.values()) < 255 else np.uint16
    unknown = np.iinfo(dtype).max
    if lowest < 0 or highest > max(mapping):
        value = lowest if lowest < 0 else highest
        raise DatasetError(
            f"{what}: holds the value {value}, which no --labels entry names; "
            f"name it (LABEL={value}) or remove it."
        )
    table = np.full(max(mapping) + 1, unknown, dtype=dtype)
    for value, label in mapping.items():
        table[value] = label
    result = table[array.astype(np.intp if array.dtype.kind == "f" else array.dtype, copy=False)]
    if result.max(initial=0) == unknown:
        value = int(array[result == unknown][0])
        raise DatasetError(
            f"{what}: holds the value {value}, which no --labels entry names; "
            f"name it (LABEL={value}) or remove it."
        )
    return result


def _whole(array: NDArray[Any], what: str, step: float) -> NDArray[Any]:
    """Whole numbers; a scaled integer may be half a step off, but never halfway to the next number."""
    rounded = np.rint(array)
    wrong = np.abs(array - rounded) > min(step / 2, 0.25)
    if wrong.any():
        raise DatasetError(f"{what}: holds fractions such as {array[wrong][0]:g}; give whole labels.")
    return rounded
