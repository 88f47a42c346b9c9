"""What the preprocessed soft label of a case is made from."""

from __future__ import annotations

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
