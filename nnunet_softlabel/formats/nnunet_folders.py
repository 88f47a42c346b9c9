"""nnU-Net's folders, as its environment variables name them, and which data set in them is 501."""

from __future__ import annotations

import os
from pathlib import Path

from nnunet_softlabel.errors import UsageError


def environment_folder(variable: str) -> Path:
    """The folder an nnU-Net environment variable names.

    Raises:
        UsageError: if the variable is not set.
    """
    value = os.environ.get(variable)
    if not value:
        raise UsageError(
            f"{variable} is not set; export it to the folder nnU-Net uses, as for nnU-Net itself."
        )
    return Path(value)


def find_dataset(base: Path, dataset: int | str) -> Path:
    """The folder ``DatasetXXX_NAME`` of an id or a full name under ``base``.

    Raises:
        UsageError: if there is none, or more than one.
    """
    text = str(dataset)
    if text.startswith("Dataset"):
        found = [base / text] if (base / text).is_dir() else []
    elif text.isdigit():
        found = sorted(path for path in base.glob(f"Dataset{int(text):03d}_*") if path.is_dir())
    else:
        raise UsageError(f"-d {dataset}: give the number of a data set, or its full name DatasetXXX_NAME.")
    if not found:
        raise UsageError(f"-d {dataset}: no such data set in {base}.")
    if len(found) > 1:
        raise UsageError(f"-d {dataset}: several data sets in {base}: {', '.join(p.name for p in found)}.")
    return found[0]
