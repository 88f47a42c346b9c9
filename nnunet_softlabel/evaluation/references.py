"""What a case is held against: soft label, consensus, raters."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.soft_dataset import SoftDataset


def read_references(
    dataset: SoftDataset, case: str, *, split: str
) -> tuple[NDArray[Any], NDArray[Any], dict[str, NDArray[Any]], Grid]:
    """Soft label, consensus, raters and grid of a case.

    Raises:
        DatasetError: naming the case, if one is missing or lies on another grid.
    """
    hard_file = dataset.label_file(case, split)
    for path in (hard_file, *dataset.soft_files(case, split)):
        if not path.is_file():
            raise DatasetError(f"Case {case}: its reference {path} is missing; convert the data set again.")
    soft = dataset.read_soft(case, split)
    hard, grid = dataset.read(hard_file)
    raters = dataset.read_raters(case, split)
    for name, array in {"consensus": hard, **raters}.items():
        if array.shape != soft.shape[1:]:
            raise DatasetError(
                f"Case {case}: {name} has shape {array.shape}, its soft label {soft.shape[1:]}; "
                f"convert the data set again."
            )
    return soft, hard, raters, grid
