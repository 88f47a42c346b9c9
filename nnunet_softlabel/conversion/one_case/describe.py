"""What one case holds, in numbers: for the summary that `convert` prints, with or without writing."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.conversion.case_records import CaseRecord, Contents
from nnunet_softlabel.conversion.one_case.fuse import fuse_case
from nnunet_softlabel.conversion.one_case.read import LoadedCase, load_case
from nnunet_softlabel.conversion.settings import CaseSettings, has_too_few_raters
from nnunet_softlabel.formats.labels import Labels


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
    record |= describe(fuse_case(case, loaded, settings).soft, loaded, settings.labels)
    record["moved"] = {what: move.to_json() for what, move in loaded.moved.items()}
    return record


def describe(soft: NDArray[Any], loaded: LoadedCase, labels: Labels) -> Contents:
    """What a soft label ``(C, *spatial)`` and its raters hold."""
    maps = list(loaded.rater_maps.values())
    if labels.ignore is not None:
        maps = [np.where(label_map == labels.ignore, 0, label_map) for label_map in maps]
    marked = np.any([label_map > 0 for label_map in maps], axis=0) if maps else soft.max(axis=0) > 0
    disputed = (
        np.any([label_map != maps[0] for label_map in maps[1:]], axis=0) if len(maps) > 1 else marked & False
    )
    return {
        "marked_mm3": float(marked.sum() * np.prod(loaded.grid.spacing_mm)),
        "disputed_share": float(disputed.sum() / marked.sum()) if marked.any() else 0.0,
        "soft_voxels": int(((soft > 0) & (soft < 1)).any(axis=0).sum()),
        "pairs": _pairs(loaded.rater_maps),
        "expected_voxels": {
            name: float(q.sum(dtype=np.float64)) for name, q in zip(labels.names, soft, strict=True)
        },
    }


def _pairs(maps: Mapping[str, NDArray[Any]]) -> list[tuple[str, str, bool]]:
    """Every two raters, and whether they drew the same; pairs who drew nothing tell nothing."""
    return [
        (first, second, np.array_equal(maps[first], maps[second]))
        for first, second in combinations(sorted(maps), 2)
        if maps[first].any() or maps[second].any()
    ]
