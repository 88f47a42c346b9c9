"""nnU-Net's folders, as its environment variables name them, and which data set in them is 501."""

from __future__ import annotations

import os
from pathlib import Path

from nnunet_softlabel.errors import UsageError

MOST_NAMES = 5  # in a message


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


def dataset_number(name: str) -> int:
    """The id of ``DatasetXXX_NAME``; nnU-Net's planning and preprocessing take nothing else after ``-d``.

    Raises:
        UsageError: if the name is not of this form.

    >>> dataset_number("Dataset007_Knee")
    7
    """
    number = name.removeprefix("Dataset").partition("_")[0]
    if not name.startswith("Dataset") or not (number.isascii() and number.isdigit()):
        raise UsageError(f"-d {name}: give the number of a data set, or its full name DatasetXXX_NAME.")
    return int(number)


def find_dataset(base: Path, dataset: int | str) -> Path:
    """The folder ``DatasetXXX_NAME`` of an id or a full name under ``base``.

    Raises:
        UsageError: if there is none, or more than one.
    """
    text = str(dataset)
    if text.isascii() and text.isdigit():
        number = int(text)
        found = sorted(path for path in base.glob(f"Dataset{number:03d}_*") if path.is_dir())
    else:
        number = dataset_number(text)
        found = [base / text] if (base / text).is_dir() else []
    if not found:
        raise UsageError(f"-d {dataset}: no such data set in {base}{_what_to_do(base, number)}.")
    if len(found) > 1:
        raise UsageError(f"-d {dataset}: several data sets in {base}: {', '.join(p.name for p in found)}.")
    return found[0]


def fold_of_validation(folder: Path) -> Path | None:
    """``fold_X`` of a folder ``fold_X/validation``, also by a link; None for any other folder.

    >>> fold_of_validation(Path("nnUNetTrainer__nnUNetPlans__2d/fold_all/validation")).name
    'fold_all'
    """
    for place in (folder.absolute(), folder.resolve()):
        if place.name == "validation" and place.parent.name.startswith("fold_"):
            return place.parent
    return None


def file_of_model(folder: Path, name: str) -> Path | None:
    """A file of the model, which nnU-Net writes beside predictions and beside its folds; None without one.

    Args:
        folder: of the predictions.
        name: such as ``plans.json``.
    """
    fold = fold_of_validation(folder)
    places = [folder, *(() if fold is None else [fold.parent])]
    return next((place / name for place in places if (place / name).is_file()), None)


def missing_model(trainer: str, model: Path) -> str:
    """What to say of a model that is not there: the models of the data set, or that none is trained."""
    there = sorted(path.name for path in model.parent.glob("*__*__*") if path.is_dir())
    choice = f", or choose with -tr, -p and -c what is there: {', '.join(there)}" if there else ""
    return f"-tr {trainer}: {model} is not there; train the model first{choice}."


def _what_to_do(base: Path, number: int) -> str:
    """Of a data set that is missing in ``base``: what comes before, or which data sets are there."""
    raw, results = os.environ.get("nnUNet_raw"), os.environ.get("nnUNet_results")
    if raw and Path(raw) != base and any(Path(raw).glob(f"Dataset{number:03d}_*")):
        if results and Path(results) == base:
            return f"; train it first: nnUNetv2_train {number} CONFIGURATION FOLD -tr TRAINER --npz"
        return f"; plan it first: nnUNetv2_plan_and_preprocess -d {number}"
    there = sorted(path.name for path in base.glob("Dataset*_*") if path.is_dir())
    more = f" and {len(there) - MOST_NAMES} more" if len(there) > MOST_NAMES else ""
    return f"; there is {', '.join(there[:MOST_NAMES])}{more}" if there else ", which holds none"
