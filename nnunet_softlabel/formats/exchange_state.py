"""Are new soft labels just taking the place of old ones inside a data set? See `conversion.exchange`."""

from __future__ import annotations

from pathlib import Path

from nnunet_softlabel.errors import DatasetError

WORK = ".unfinished_soft_labels"  # in the data set
JOURNAL = "moving.json"
NEW_JSON = "new_dataset.json"
REPLACED = "replaced"


def check_is_settled(dataset: Path) -> None:
    """Refuse a data set in which some files are old and some new, because a conversion was killed.

    Raises:
        DatasetError: saying how to go on.
    """
    work = dataset / WORK
    if not (work / JOURNAL).is_file() or not (work / NEW_JSON).is_file():
        return
    replaced = work / REPLACED
    if replaced.is_dir() and any(replaced.iterdir()):
        raise DatasetError(
            f"{dataset}: a conversion was interrupted while new soft labels took the place of old ones; "
            f"complete it with the same `nnunet_softlabel convert --into` and --resume."
        )
