"""New soft labels take the place of old ones inside a data set: ``convert --into``.

Several folders and ``dataset.json`` cannot change places at once. ``moving.json`` says what is being moved,
and the new ``dataset.json`` comes last. `put_back` undoes what a process that was killed before had done. Old
files are not deleted before the new ones are complete: they may be the raters that are fused.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_softlabel.conversion.work_folder import locked, remove
from nnunet_softlabel.formats.exchange_state import JOURNAL, NEW_JSON, REPLACED, WORK
from nnunet_softlabel.formats.files import expecting_shape, read_json, write_json


def exchange(work: Path, dataset: Path, names: Sequence[str], content: Mapping[str, Any]) -> None:
    """Put those of ``names`` that are in ``work/dataset`` into the data set, then its ``dataset.json``.

    Args:
        work: `WORK` in the data set, locked.
        dataset: folder of the data set.
        names: folders and files; old ones of these names go, whether new ones come or not.
        content: the new ``dataset.json``.
    """
    new = [name for name in names if (work / "dataset" / name).exists()]
    write_json(work / NEW_JSON, content)
    write_json(work / JOURNAL, {"names": list(names), "new": new})
    (work / REPLACED).mkdir(exist_ok=True)
    for name in names:
        if (dataset / name).exists():
            os.rename(dataset / name, work / REPLACED / name)
    for name in new:
        os.rename(work / "dataset" / name, dataset / name)
    os.replace(work / NEW_JSON, dataset / "dataset.json")
    remove(work)  # the journal, without the new dataset.json, says that all is in place


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
            remove(work)
            return
        journal = read_json(work / JOURNAL)
        with expecting_shape(work / JOURNAL, "put back what is in `replaced`, and remove the folder"):
            names, new_names = ([str(name) for name in journal[key]] for key in ("names", "new"))
        for name in names:
            old, new, place = work / REPLACED / name, work / "dataset" / name, dataset / name
            if name in new_names and not new.exists():
                os.rename(place, new)
            if old.exists():
                os.rename(old, place)
        (work / JOURNAL).unlink()
