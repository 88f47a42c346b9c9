"""What a case is held against: soft label, consensus, raters, truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.soft_dataset import SoftDataset


def read_references(
    dataset: SoftDataset, case: str, *, split: str
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray], Grid]:
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


def read_truth(
    dataset: SoftDataset, folder: Path, case: str, *, grid: Grid, values: Mapping[int, int]
) -> np.ndarray:
    """Label map of a known truth, in the data set's own values.

    Args:
        dataset: says how files are read.
        folder: holds ``CASE<ending>``.
        case: its name.
        grid: of the references, as `read_references` gives it.
        values: of the truth's files -> own values, from `truth_values`.

    Raises:
        DatasetError: for a value that no label has, or another grid.
    """
    path = folder / f"{case}{dataset.file_ending}"
    array, own_grid = dataset.read(path)
    if array.shape != grid.shape:
        raise DatasetError(f"{path}: the truth has shape {array.shape}, the soft label {grid.shape}.")
    difference = grid.difference(own_grid)
    if difference is not None:
        raise DatasetError(
            f"{path}: the truth lies elsewhere than the references ({difference}); "
            f"resample it onto the image, or mend its header."
        )
    found = np.unique(array)
    unknown = [value for value in found.tolist() if value not in values]
    if unknown:
        raise DatasetError(
            f"{path}: the truth holds the value {unknown[0]:g}, which no label has; "
            f"expected {', '.join(map(str, sorted(values)))}."
        )
    truth = np.zeros(array.shape, np.uint16)
    for value in found.tolist():
        truth[array == value] = values[value]
    return truth


def truth_values(dataset: SoftDataset, folder: Path, cases: Sequence[str]) -> dict[int, int]:
    """Values in the files of a truth -> the data set's own: those of the raters' files, or the own ones.

    If raters' files used other values than the data set (255 became 1), the truth may use either, in all
    files alike: the raters' if they explain every file, else the own ones.

    Raises:
        DatasetError: if the truth of a case is missing.
    """
    labels = dataset.labels
    own = {0, *(value for values in labels.values.values() for value in values)}
    own |= set() if labels.ignore is None else {labels.ignore}
    identity = {value: value for value in sorted(own)}
    for case in cases:
        if not (folder / f"{case}{dataset.file_ending}").is_file():
            raise DatasetError(f"Case {case}: --truth {folder} holds no {case}{dataset.file_ending} of it.")
    about = dataset.about or {}
    said = about.get("label_values", {})  # names of segments are no values
    of_raters = {int(value): int(label) for value, label in said.items() if value.isdigit()}
    of_raters = {value: label for value, label in of_raters.items() if label in own} | {0: 0}
    if all(value == label for value, label in of_raters.items()):
        return identity
    found: set[float] = set()
    for case in cases:
        found.update(np.unique(dataset.read(folder / f"{case}{dataset.file_ending}")[0]).tolist())
    return of_raters if found <= set(of_raters) or not found <= own else identity
