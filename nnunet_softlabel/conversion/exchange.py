"""New soft labels take the place of old ones inside a data set: `convert --into`.

Several folders and ``dataset.json`` cannot change places at once. ``moving.json`` says what is being moved, and
the new ``dataset.json`` comes last. A process that is killed before leaves a state that `put_back` undoes; what
it leaves behind afterwards is only to be removed. Old files are never deleted before the new ones are complete:
raters of the data set itself may be what is fused.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_softlabel.conversion.work_folder import locked, remove
from nnunet_softlabel.formats.exchange_state import JOURNAL, REPLACED, WORK
from nnunet_softlabel.formats.files import read_json, write_json

NEW_JSON = "new_dataset.json"


def exchange(work: Path, dataset: Path, names: Sequence[str], content: Mapping[str, Any]) -> None:
    """Put those of ``names`` that are in ``work/dataset`` into the data set, then its ``dataset.json``.

    Args:
        work: ``WORK`` in the data set, locked.
        dataset: folder of the data set.
        names: folders and files; old ones of these names go, new ones or not.
        content: the new ``dataset.json``.
    """
    write_json(work / NEW_JSON, content)
    write_json(work / JOURNAL, {"names": list(names)})
    (work / REPLACED).mkdir(exist_ok=True)
    for name in names:
        if (dataset / name).exists():
            os.rename(dataset / name, work / REPLACED / name)
    for name in names:
        if (work / "dataset" / name).exists():
            os.rename(work / "dataset" / name, dataset / name)
    os.replace(work / NEW_JSON, dataset / "dataset.json")
    (work / JOURNAL).unlink()
    remove(work)


def put_back(dataset: Path) -> None:
    """Undo an `exchange` that was killed in the middle, or finish one that was killed at its end.

    Raises:
        UsageError: if another process is converting into the data set.
    """
    work = dataset / WORK
    if not (work / JOURNAL).is_file():
        return
    with locked(work):
        if not (work / JOURNAL).is_file():
            return
        if not (work / NEW_JSON).is_file():  # all is in place
            (work / JOURNAL).unlink()
            remove(work)
            return
        for name in map(str, read_json(work / JOURNAL)["names"]):
            _put_back(name, work, dataset)
        (work / JOURNAL).unlink()


def _put_back(name: str, work: Path, dataset: Path) -> None:
    old, new, place = work / REPLACED / name, work / "dataset" / name, dataset / name
    is_first_half = place.exists() and not new.exists() and not old.exists() and _is_old(work, name)
    if place.exists() and not new.exists() and not is_first_half:
        os.rename(place, new)
    if old.exists():
        os.rename(old, place)
