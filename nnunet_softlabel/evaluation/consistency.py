"""Do probabilities and the segmentation beside them say the same? If not, one is of something else."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.evaluation.decision import Decision
from nnunet_softlabel.evaluation.thresholds import Threshold
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.formats.predictions import probability_channels
from nnunet_softlabel.formats.soft_dataset import SoftDataset

UNDECIDED = 1e-3  # closer calls than this may fall either way by rounding


def checked_channels(
    dataset: SoftDataset,
    folder: Path,
    case: str,
    shape: tuple[int, ...],
    *,
    stock: Decision | None = None,
) -> Iterator[NDArray[Any]]:
    """What `probability_channels` gives; after the last channel they are held against the segmentation.

    Probabilities must make, at 0.5, the segmentation that lies beside them. That catches files of another
    case or model, and readers that turn axes. Without a segmentation nothing is checked.

    Args:
        dataset: says what channels mean, and how files are read.
        folder: of the predictions.
        case: its name.
        shape: of a channel.
        stock: a decision at 0.5 that takes the same channels; None makes one.

    Raises:
        DatasetError: as `probability_channels`; if the two differ by more than rounding.
    """
    labels, path = dataset.labels, folder / f"{case}{dataset.file_ending}"
    own = None
    if stock is None and (path.exists() or path.is_symlink()):
        stock = own = Decision(labels, stock_threshold(labels), shape)
    channels = probability_channels(folder, case, labels, shape)
    yield from channels if own is None else map(own.take, channels)  # which keeps none of them
    stored = stored_segmentation(dataset, folder, case)
    if stored is not None and stock is not None:
        again = partial(probability_channels, folder, case, labels, shape, has_known_sums=True)
        check_label_map(stored, stock.label_map, again, path=path, case=case, labels=labels)


def stored_segmentation(dataset: SoftDataset, predictions: Path, case: str) -> NDArray[Any] | None:
    """The segmentation that lies beside the probabilities of a case; None without one."""
    path = predictions / f"{case}{dataset.file_ending}"
    return dataset.read(path)[0] if path.exists() or path.is_symlink() else None


def channels_of_models(
    like: SoftDataset | Labels,
    folders: Sequence[Path],
    case: str,
    shape: tuple[int, ...],
    *,
    stock: Decision | None = None,
) -> list[Iterator[NDArray[Any]]]:
    """The channels of a case of several models, to be taken side by side.

    Several models are checked before, one after the other: all at once would take memory for each.

    Args:
        like: what channels mean; a data set also has the segmentations beside the probabilities checked.
        folders: of the models.
        case: its name.
        shape: of a channel.
        stock: see `checked_channels`; of a single model.

    Raises:
        DatasetError: as `checked_channels`; of a single model some of it after the last channel.
    """
    labels = like if isinstance(like, Labels) else like.labels
    streams = [
        probability_channels(folder, case, labels, shape)
        if isinstance(like, Labels)
        else checked_channels(like, folder, case, shape, stock=stock)
        for folder in folders
    ]
    if len(streams) == 1:
        return streams
    for stream in streams:
        exhaust(stream)
    return [probability_channels(f, case, labels, shape, has_known_sums=True) for f in folders]


def exhaust(stream: Iterator[object]) -> None:
    """Take what is left, so that all checks are made."""
    deque(stream, maxlen=0)


def check_label_map(
    stored: NDArray[Any],
    decided: NDArray[Any],
    channels: Callable[[], Iterator[NDArray[Any]]],
    *,
    path: Path,
    case: str,
    labels: Labels,
) -> None:
    """Refuse the segmentation of ``path``, as nnU-Net's reader turns it, if probabilities make another.

    Args:
        stored: the segmentation.
        decided: what the probabilities make at 0.5.
        channels: gives all probabilities, channel by channel; close calls may fall either way.
        path: of the segmentation.
        case: its name.
        labels: what the channels mean.

    Raises:
        DatasetError: if they differ by more than rounding.
    """
    remedy = (
        f"are both of the same case, model and reader? Predict again, or take {path.name} away if it was "
        f"postprocessed"
    )
    if stored.shape != decided.shape:
        raise DatasetError(f"{path}: has shape {stored.shape}, its {case}.npz {decided.shape}; {remedy}.")
    differs = stored != decided
    if not differs.any():
        return
    number = np.count_nonzero(~_undecided(np.stack([c[differs] for c in channels()]), labels))
    if number:
        raise DatasetError(
            f"{path}: differs in {number} of {differs.size} voxels from what {case}.npz says at 0.5; "
            f"{remedy}."
        )


def stock_threshold(labels: Labels) -> Threshold:
    """nnU-Net's own rule."""
    return Threshold("0.5", dict.fromkeys(labels.names, 0.5))


def _undecided(probabilities: NDArray[Any], labels: Labels) -> NDArray[Any]:
    if labels.has_regions:
        return np.asarray((np.abs(probabilities - 0.5) < UNDECIDED).any(axis=0))
    second, first = np.partition(probabilities, -2, axis=0)[-2:]
    return np.asarray(first - second < UNDECIDED)
