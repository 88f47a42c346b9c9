"""Cases in ``fold_X/validation`` that the network of the fold was trained on.

Fold all was trained on all of them. In other folds nnU-Net leaves what it predicted after an earlier split.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from nnunet_softlabel.cases.splits import Splits, read_splits
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.formats.nnunet_folders import fold_of_validation

ALL = "all"


def is_fold_all(folder: Path) -> bool:
    """True for ``fold_all/validation``."""
    fold = fold_of_validation(folder)
    return fold is not None and fold.name == f"fold_{ALL}"


def refuse_fold_all(folders: Iterable[Path]) -> None:
    """Refuse the validation folder of fold all, whose network was trained on every case.

    Raises:
        UsageError: naming it.
    """
    for folder in folders:
        if is_fold_all(folder):
            raise UsageError(
                f"{folder}: the network of fold {ALL} was trained on these cases, so they are no validation "
                f"cases; give folds with a number."
            )


def refuse_trained_cases(folder: Path, cases: Iterable[str]) -> None:
    """Refuse cases in a validation folder that ``splits_final.json`` lists among the fold's training cases.

    Where the folder is no validation folder, or the splits of its data set are not there, nothing is known.

    Raises:
        DatasetError: naming the first.
    """
    fold, preprocessed = fold_of_validation(folder), os.environ.get("nnUNet_preprocessed")
    if fold is None or not fold.name.removeprefix("fold_").isdecimal() or not preprocessed:
        return
    splits_file = Path(preprocessed) / fold.parents[1].name / "splits_final.json"
    if splits_file.is_file():
        refuse_cases_of_fold(fold, cases, read_splits(splits_file), splits_file)


def refuse_cases_of_fold(fold: Path, cases: Iterable[str], splits: Splits, splits_file: Path) -> None:
    """Refuse predicted cases of ``fold_X`` that these splits train it on; see `refuse_trained_cases`."""
    number = int(fold.name.removeprefix("fold_"))
    trained: Sequence[str] = splits[number]["train"] if number < len(splits) else ()
    seen = sorted(set(trained).intersection(cases))
    if seen:
        raise DatasetError(
            f"Case {seen[0]}: {fold.name} predicted it and was trained on it, says {splits_file} "
            f"({len(seen)} such case{'s' * (len(seen) > 1)}); remove what an earlier split left in "
            f"{fold / 'validation'}, or put back the splits of that training."
        )
