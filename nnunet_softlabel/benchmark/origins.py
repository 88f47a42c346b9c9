"""What cells were made with: what may not change while a benchmark goes on, and versions, which are told."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from nnunet_softlabel.benchmark.records import CellRecord, MadeWith

SPLIT, SOURCE = "split", "trainer_source"
VERSIONS = {"code": "nnunet_softlabel", "nnunetv2": "nnunetv2"}
MOST_NAMES = 4  # of cells in a message


def digest_of_fold(fold: Mapping[str, Sequence[str]]) -> str:
    """SHA-256 of the cases that a fold trains on and validates with, in whatever order."""
    return hashlib.sha256(json.dumps([sorted(fold["train"]), sorted(fold["val"])]).encode()).hexdigest()


def what_differs(made_with: Mapping[str, object], wanted: Mapping[str, object]) -> str | None:
    """The first entry that forbids to take a cell up again; None if nothing does.

    What the record does not know forbids nothing: an earlier version wrote it, or nnU-Net had no folds yet.
    """
    for key, now in wanted.items():
        before = made_with.get(key)
        unknown = (key in (SPLIT, SOURCE) and before is None) or (key == SOURCE and now is None)
        if key not in VERSIONS and before != now and not unknown:
            return key
    return None


def changed_file_message(files: Sequence[Path], cells: Sequence[str], output: Path) -> str:
    """One line on cells that were trained before one of some files changed."""
    which = "" if len(files) == 1 else "or a file that it imports, "
    what = "has changed" if files[0].is_file() else "is gone"
    more = f" and {len(cells) - MOST_NAMES} more" if len(cells) > MOST_NAMES else ""
    return (
        f"{files[0]}: {which}{what} since the training of {', '.join(cells[:MOST_NAMES])}{more}; what is "
        f"trained now does not belong beside them. Choose another -o, bring the earlier file back, or delete "
        f"the records of these cells in {output / 'cells'} and their results."
    )


def version_notes(records: Mapping[str, CellRecord], now: MadeWith) -> list[str]:
    """Sentences on cells that other versions have trained.

    Args:
        records: name of a cell -> its record.
        now: what a cell would be made with.
    """
    notes = []
    current: Mapping[str, object] = now
    for key, package in VERSIONS.items():
        others: dict[object, list[str]] = {}
        for name, record in records.items():
            made_with: Mapping[str, object] = record["made_with"]
            if made_with.get(key) not in (None, current[key]):
                others.setdefault(made_with.get(key), []).append(name)
        notes += [
            f"{len(cells)} of {len(records)} trainings were made with {package} {version}, not with "
            f"{current[key]}, which is here now; the first is {cells[0]}. Results of two versions may differ."
            for version, cells in others.items()
        ]
    return notes
