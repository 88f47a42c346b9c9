"""Do probabilities and the segmentation beside them say the same? If not, one is of something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.evaluation.thresholds import Threshold, decide
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.formats.soft_dataset import SoftDataset

UNDECIDED = 1e-3  # closer calls than this may fall either way by rounding


def check_segmentation(
    dataset: SoftDataset, predictions: Path, case: str, probabilities: NDArray[Any]
) -> None:
    """Refuse probabilities that do not make, at 0.5, the segmentation that lies beside them.

    Catches files of another case or model, and readers that turn axes. Without a segmentation nothing is
    checked.

    Args:
        dataset: says what channels mean, and how files are read.
        predictions: the folder.
        case: its name.
        probabilities: of the case, as `read_probabilities` gives them.

    Raises:
        DatasetError: if they differ by more than rounding.
    """
    stored = stored_segmentation(dataset, predictions, case)
    if stored is not None:
        path = predictions / f"{case}{dataset.file_ending}"
        check_decision(path, case, stored, probabilities, labels=dataset.labels)


def stored_segmentation(dataset: SoftDataset, predictions: Path, case: str) -> NDArray[Any] | None:
    """The segmentation that lies beside the probabilities of a case; None without one."""
    path = predictions / f"{case}{dataset.file_ending}"
    return dataset.read(path)[0] if path.exists() or path.is_symlink() else None


def check_decision(
    path: Path, case: str, stored: NDArray[Any], probabilities: NDArray[Any], *, labels: Labels
) -> None:
    """Refuse the segmentation of ``path``, as nnU-Net's reader turns it, if probabilities make another."""
    remedy = (
        f"are both of the same case, model and reader? Predict again, or take {path.name} away if it was "
        f"postprocessed"
    )
    if stored.shape != probabilities.shape[1:]:
        raise DatasetError(
            f"{path}: has shape {stored.shape}, its {case}.npz {probabilities.shape[1:]}; {remedy}."
        )
    differs = stored != decide(probabilities, labels, stock_threshold(labels))
    if differs.any():
        differs &= ~_undecided(probabilities, labels)
    if differs.any():
        raise DatasetError(
            f"{path}: differs in {int(differs.sum())} of {differs.size} voxels from what {case}.npz says at "
            f"0.5; {remedy}."
        )


def stock_threshold(labels: Labels) -> Threshold:
    """nnU-Net's own rule."""
    return Threshold("0.5", dict.fromkeys(labels.names, 0.5))


def _undecided(probabilities: NDArray[Any], labels: Labels) -> NDArray[Any]:
    if labels.has_regions:
        return np.asarray((np.abs(probabilities - 0.5) < UNDECIDED).any(axis=0))
    second, first = np.partition(probabilities, -2, axis=0)[-2:]
    return np.asarray(first - second < UNDECIDED)
