"""What one case holds, in numbers: for the summary that `convert` prints, with or without writing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.conversion.case_records import Contents
from nnunet_softlabel.conversion.one_case.read import LoadedCase
from nnunet_softlabel.formats.labels import MAX_LABEL, Labels
from nnunet_softlabel.formats.packed import PackedMap, is_zero_in_all, stacked


def describe(
    soft: Sequence[PackedMap], loaded: LoadedCase, labels: Labels, expected: Sequence[float]
) -> Contents:
    """What a soft label and its raters hold.

    Args:
        soft: one map per channel.
        loaded: with the raters.
        labels: of the channels.
        expected: sum of each channel.
    """
    maps = list(loaded.rater_maps.values())
    marked = disputed = n_soft = 0
    seen, same = np.zeros(MAX_LABEL + 1, bool), _one_per_membership(labels)
    for index in range(soft[0].n_chunks):
        if not is_zero_in_all(soft, index):
            values = stacked(soft, index)
            n_soft += int(np.count_nonzero(((values > 0) & (values < 1)).any(axis=0)))
            marked += 0 if maps else int(np.count_nonzero(values.max(axis=0) > 0))
        if maps and not is_zero_in_all(maps, index):
            drawn = np.stack([packed.get(index) for packed in maps])
            seen[drawn.ravel()] = True
            drawn = drawn if same is None else same[drawn]
            lowest = highest = drawn
            if labels.ignore is not None:  # no answer agrees with every answer
                unanswered = drawn == labels.ignore
                lowest = np.where(unanswered, np.iinfo(drawn.dtype).max, drawn)
                highest = drawn = np.where(unanswered, 0, drawn)
            marked += int(np.count_nonzero(drawn.any(axis=0)))
            disputed += int(np.count_nonzero(lowest.min(axis=0) < highest.max(axis=0)))
    return {
        "marked_mm3": float(marked * np.prod(loaded.grid.spacing_mm)),
        "disputed_share": float(disputed / marked) if marked else 0.0,
        "soft_voxels": n_soft,
        "pairs": _pairs(loaded.rater_maps),
        "expected_voxels": dict(zip(labels.names, expected, strict=True)),
        "drawn_labels": [name for name, values in labels.values.items() if seen[list(values)].any()],
    }


def _one_per_membership(labels: Labels) -> NDArray[Any] | None:
    """Value -> one for all values of the same regions: lesions may be numbered as one likes; None: itself."""
    if not labels.has_regions:
        return None
    values = sorted({value for region in labels.values.values() for value in region})
    first: dict[tuple[bool, ...], int] = {}
    same = np.arange(MAX_LABEL + 1, dtype=np.uint16)
    for value in values:
        same[value] = first.setdefault(tuple(value in region for region in labels.values.values()), value)
    return same


def _pairs(maps: Mapping[str, PackedMap]) -> list[tuple[str, str, bool]]:
    """Every two raters, and whether they drew the same; pairs who drew nothing tell nothing."""
    return [
        (first, second, maps[first].equals(maps[second]))
        for first, second in combinations(sorted(maps), 2)
        if maps[first].any() or maps[second].any()
    ]
