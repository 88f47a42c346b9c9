"""What one case holds, in numbers: for the summary that `convert` prints, with or without writing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.conversion.case_records import CaseRecord, Contents
from nnunet_softlabel.conversion.one_case.fuse import fuse_case
from nnunet_softlabel.conversion.one_case.read import LoadedCase, load_case
from nnunet_softlabel.conversion.settings import CaseSettings, has_too_few_raters
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.formats.packed import PackedMap, is_zero_in_all, stacked


def look_at_case(case: Case, settings: CaseSettings) -> CaseRecord:
    """Read, check and fuse a case, and write nothing.

    Raises:
        DatasetError: for any file that is not what it should be.
    """
    record: CaseRecord = {"case": case.name, "raters": sorted(case.raters), "is_test": case.is_test}
    if has_too_few_raters(case, settings):
        record["is_dropped"] = True
        return record
    loaded = load_case(case, settings)
    soft = fuse_case(case, loaded, settings).soft
    expected = [float(packed.whole().sum(dtype=np.float64)) for packed in soft]
    record |= describe(soft, loaded, settings.labels, expected)
    record["moved"] = {what: move.to_json() for what, move in loaded.moved.items()}
    return record


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
    for index in range(soft[0].n_chunks):
        if not is_zero_in_all(soft, index):
            values = stacked(soft, index)
            n_soft += int(np.count_nonzero(((values > 0) & (values < 1)).any(axis=0)))
            marked += 0 if maps else int(np.count_nonzero(values.max(axis=0) > 0))
        if maps and not is_zero_in_all(maps, index):
            drawn = np.stack([packed.get(index) for packed in maps])
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
    }


def _pairs(maps: Mapping[str, PackedMap]) -> list[tuple[str, str, bool]]:
    """Every two raters, and whether they drew the same; pairs who drew nothing tell nothing."""
    return [
        (first, second, maps[first].equals(maps[second]))
        for first, second in combinations(sorted(maps), 2)
        if maps[first].any() or maps[second].any()
    ]
