"""What the channels of predictions mean, as the ``dataset.json`` of their model says."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.dataset_json import problem_of_labels
from nnunet_softlabel.formats.files import read_json
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.formats.nnunet_folders import file_of_model


def check_labels_of_model(folders: Iterable[Path], labels: Labels) -> None:
    """Refuse predictions of a model whose channels have other names, label values or another order.

    Without a ``dataset.json`` nothing is known. A label ``ignore`` has no channel, so it may differ.

    Args:
        folders: of the predictions.
        labels: of the data set that they are held against.

    Raises:
        DatasetError: naming both.
    """
    for folder in folders:
        file = file_of_model(folder, "dataset.json")
        if file is None:
            continue
        content = read_json(file)
        if problem := problem_of_labels(content):
            raise DatasetError(f"{file}: {problem}.")
        own, asked = _in_words(Labels.from_dataset_json(content)), _in_words(labels)
        if own != asked:
            raise DatasetError(
                f"{folder}: was predicted by a model of the labels {own}, says {file}; the data set has "
                f"{asked}. Give predictions of a model with the labels of the data set."
            )


def _in_words(labels: Labels) -> str:
    """Channels in their order; for regions what nnU-Net paints them with, too."""
    channels = [f"{name}={','.join(map(str, sorted(values)))}" for name, values in labels.values.items()]
    if not labels.has_regions:
        return " ".join(channels)
    return f"{' '.join(channels)} (regions_class_order {' '.join(map(str, labels.region_order))})"
