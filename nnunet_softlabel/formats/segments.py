"""Segments (masks with names, or one channel per class) become a label map in the data set's values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.class_channels import check_masks
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.labels import Labels


@dataclass(frozen=True)
class Segments:
    """Masks of one file.

    Attributes:
        masks: name, or number of the channel from 1 -> bool ``(*spatial)``.
        grid: where the voxels lie.
        is_cropped: the format stores a part of the image's grid: what is outside is background.
        has_slice_spacing: the file says how far slices are apart; else the grid has the frames alone.
    """

    masks: Mapping[int | str, NDArray[Any]]
    grid: Grid
    is_cropped: bool = True
    has_slice_spacing: bool = True


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
    code = np.zeros(segments.grid.shape, np.uint32)  # voxel -> which of the sets it is in
    sets: list[frozenset[int]] = [frozenset()]
    names: dict[int, set[str]] = {}  # bit -> segments that set it
    if any(isinstance(key, int) for key in segments.masks):
        check_masks(list(segments.masks.values()), labels, values, what)
    for key, mask in segments.masks.items():
        if not mask.any() or (isinstance(key, int) and key not in values):
            continue
        bits = frozenset(_bits(key, labels, values, what))
        for bit in bits:
            names.setdefault(bit, set()).add(str(key))
        before, inverse = np.unique(code[mask], return_inverse=True)
        after = [sets[i] | bits for i in before.tolist()]
        sets += [own for own in dict.fromkeys(after) if own not in sets]
        code[mask] = np.array([sets.index(own) for own in after], np.uint32)[inverse]
    dtype = np.uint8 if max(_all_values(labels)) < 256 else np.uint16
    table = np.zeros(len(sets), dtype)
    for i in np.unique(code).tolist():
        value = _value_of(set(sets[i]), labels) if sets[i] else 0
        if value is None:
            overlapping = sorted({name for bit in sets[i] for name in names[bit]})
            number = int(np.count_nonzero(code == i))
            raise DatasetError(
                f"{what}: the segments {', '.join(overlapping)} meet in {number} voxels, for which --labels "
                f"has no value; separate them, or name regions, as in whole=A,B core=B."
            )
        table[i] = value
    return table[code]


def _bits(key: int | str, labels: Labels, values: Mapping[int | str, int], what: str) -> list[int]:
    """Channels that a segment belongs to; the one after the last is `ignore`."""
    ignored = len(labels.names)
    if key in values:
        value = values[key]
        bits = [i for i, region in enumerate(labels.values.values()) if value in region]
        return [ignored] if value == labels.ignore else bits
    own = labels.values.get(str(key), ())
    if key == "ignore" and labels.ignore is not None:
        own = (labels.ignore,)
    others = [other for other, value in values.items() if isinstance(other, str) and value in own]
    if own and not others:
        return [ignored if key == "ignore" else labels.names.index(str(key))]
    hint = f"; the label {key} is the segment {', '.join(others)}" if others else ""
    raise DatasetError(
        f"{what}: holds the segment {key!r}, which no --labels entry names{hint}; name it (LABEL={key}), say "
        f"that it is background (background={key}), or remove it."
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
