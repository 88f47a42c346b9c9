"""Segments (masks with names, or one channel per class) become a label map in the data set's values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.labels import Labels


@dataclass(frozen=True)
class Segments:
    """Masks of one file.

    Attributes:
        masks: name, or number of the channel from 1 -> bool ``(*spatial)``.
        grid: where the voxels lie.
        is_cropped: the format stores a part of the image's grid: what is outside is background.
    """

    masks: Mapping[int | str, NDArray[Any]]
    grid: Grid
    is_cropped: bool = True


def label_map_of(
    segments: Segments, labels: Labels, values: Mapping[int | str, int], what: str
) -> NDArray[Any]:
    """One label map; segments that overlap must form regions that the labels know.

    Args:
        segments: of the file.
        labels: what the channels mean.
        values: name of a segment, or number of a channel -> label value in the data set. A segment named as a
            label needs no entry.
        what: the file, for messages.

    Raises:
        DatasetError: for a segment that no label names, or an overlap that no label value stands for.
    """
    code = np.zeros(segments.grid.shape, np.uint64)
    names: dict[int, set[str]] = {}  # bit -> segments that set it
    for key, mask in segments.masks.items():
        if not mask.any() or _is_background(key, mask, segments, values):
            continue
        for bit in _bits(key, labels, values, what):
            code[mask] |= np.uint64(1 << bit)
            names.setdefault(bit, set()).add(str(key))
    found, inverse = np.unique(code, return_inverse=True)
    dtype = np.uint8 if max(_all_values(labels)) < 256 else np.uint16
    table = np.zeros(len(found), dtype)
    for i, bits in enumerate(found):
        own = {bit for bit in names if int(bits) >> bit & 1}
        value = _value_of(own, labels) if own else 0
        if value is None:
            overlapping = sorted({name for bit in own for name in names[bit]})
            number = int(np.count_nonzero(inverse == i))
            raise DatasetError(
                f"{what}: the segments {', '.join(overlapping)} meet in {number} voxels, for which --labels "
                f"has no value; separate them, or name regions, as in whole=A,B core=B."
            )
        table[i] = value
    return table[inverse].reshape(code.shape)


def _is_background(
    key: int | str, mask: NDArray[Any], segments: Segments, values: Mapping[int | str, int]
) -> bool:
    """True for a channel without label that is just what no other channel marks."""
    if not isinstance(key, int) or key in values:
        return False
    others = np.any([other for number, other in segments.masks.items() if number != key], axis=0)
    return bool((mask == ~others).all())


def _bits(key: int | str, labels: Labels, values: Mapping[int | str, int], what: str) -> list[int]:
    """Channels that a segment belongs to; the one after the last is `ignore`."""
    ignored = len(labels.names)
    if key in values:
        value = values[key]
        bits = [i for i, region in enumerate(labels.values.values()) if value in region]
        return [ignored] if value == labels.ignore else bits
    if key in labels.names:
        return [labels.names.index(str(key))]
    if key == "ignore" and labels.ignore is not None:
        return [ignored]
    kind = f"channel {key}" if isinstance(key, int) else f"segment {key!r}"
    hint = f"LABEL={key}"
    raise DatasetError(
        f"{what}: holds the {kind}, which no --labels entry names; name it ({hint}) or remove it."
    )


def _all_values(labels: Labels) -> set[int]:
    values = {value for region in labels.values.values() for value in region}
    return values | ({labels.ignore} if labels.ignore is not None else set())


def _value_of(bits: set[int], labels: Labels) -> int | None:
    """The label value in just these channels, or in the fewest besides; None if there is none, or several."""
    ignored = len(labels.names)
    if ignored in bits:
        return labels.ignore if bits == {ignored} else None
    candidates: dict[int, list[int]] = {}
    for value in sorted({value for region in labels.values.values() for value in region}):
        own = {i for i, region in enumerate(labels.values.values()) if value in region}
        if bits <= own:
            candidates.setdefault(len(own), []).append(value)
    if not candidates:
        return None
    best = candidates[min(candidates)]
    return best[0] if len(best) == 1 else None
