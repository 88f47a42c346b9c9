"""What the preprocessed soft label of a case is made from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from nnunet_softlabel.preprocessing.records import CaseSource, MadeFrom, PlanRecord


def made_from(plan: PlanRecord, entry: CaseSource) -> MadeFrom:
    """All that decides the result of a case; each file holds this, key by key in this order."""
    return {
        "plan": plan,
        "shape": entry["shape"],
        "source": entry["source"],
        "properties": entry["properties"],
    }


def existing_soft_files(raw: SoftDataset, case: str) -> list[Path]:
    """The soft label of a case.

    Raises:
        DatasetError: if a file is missing.
    """
    files = raw.soft_files(case)
    for path in files:
        if not path.is_file():
            raise DatasetError(f"Case {case}: has no soft label {path}; convert the data set again.")
    return files


def check_digest(raw: SoftDataset, case: str, digest: str) -> None:
    """Refuse a soft label that is not the one `convert` wrote.

    Raises:
        DatasetError: naming it.
    """
    digests = raw.about.get("digests")  # data sets of earlier versions have none
    if digests is not None and digests.get(case) != digest:
        raise DatasetError(
            f"Case {case}: soft label {raw.soft_files(case)[0]} is not the one that was converted "
            f"(digests in dataset.json): it is damaged or of another case; convert the data set again."
        )


def hash_files(files: Sequence[Path]) -> str:
    """One word for the content of files."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()
