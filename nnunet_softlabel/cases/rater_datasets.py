"""nnU-Net data sets of which each holds the labels of one rater: labels are matched by name."""

from __future__ import annotations

import filecmp
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_softlabel.cases.case import Case, Source
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.formats.dataset_json import channel_names_of, read_dataset_json
from nnunet_softlabel.formats.files import visible
from nnunet_softlabel.formats.images import read_image
from nnunet_softlabel.public import public


@dataclass(frozen=True)
class RaterDatasets:
    """What several data sets say together, as the command line would say it.

    Attributes:
        cases: with the images of the first data set that has the case, and a rater per data set.
        labels: as ``--labels``, of the first data set.
        rater_labels: as ``--rater-labels``, of data sets that use other values.
        channel_names: of the images.
        notes: what the user is told: images of one case that differ between data sets.
    """

    cases: list[Case]
    labels: list[str]
    rater_labels: list[str]
    channel_names: list[str]
    notes: list[str]


@public
def read_rater_datasets(folders: Sequence[Path]) -> RaterDatasets:
    """Read nnU-Net data sets, one per rater; the rater's name is that of the data set without its number.

    >>> found = ns.read_rater_datasets(["nnUNet_raw/Dataset601_expert", "nnUNet_raw/Dataset602_student"])
    >>> list(found.cases[0].raters), found.labels
    (['expert', 'student'], ['lesion=1'])

    Args:
        folders: ``DatasetXXX_RATER``; their training cases count.

    Raises:
        UsageError: for fewer than two, or one that is given twice.
        DatasetError: if their labels or channels differ by name, or one has no training case.
    """
    if len(folders) < 2:
        raise UsageError("--rater-datasets: give two data sets or more, one per rater.")
    twice = next((folder for folder in folders if folders.count(folder) > 1), None)
    if twice is not None:
        raise UsageError(f"--rater-datasets: {twice.name} is given twice; give each rater once.")
    raters = [re.sub(r"^Dataset\d+_", "", folder.name) for folder in folders]
    if len(set(raters)) < len(raters):
        raters = [folder.name for folder in folders]
    contents = [read_dataset_json(folder) for folder in folders]
    first = contents[0]
    for folder, content in zip(folders[1:], contents[1:], strict=True):
        for key in ("labels", "channel_names"):
            mine, theirs = _names(first, key), _names(content, key)
            if mine != theirs:
                raise DatasetError(
                    f"{folder}: its {key} are {', '.join(theirs)}, those of {folders[0].name} are "
                    f"{', '.join(mine)}; give them the same names."
                )
    images: dict[str, dict[Path, list[Path]]] = {}  # case -> data set -> its images
    masks: dict[str, dict[str, Source]] = {}
    for rater, folder, content in zip(raters, folders, contents, strict=True):
        for case, files in _training_cases(folder, content).items():
            images.setdefault(case, {})[folder] = files
            label = folder / "labelsTr" / f"{case}{content['file_ending']}"
            if not label.is_file():
                raise DatasetError(f"Case {case}: {folder.name} has its image but no {label}; add one.")
            masks.setdefault(case, {})[rater] = label
    cases = [
        Case(case, next(iter(files.values())), raters=masks[case]) for case, files in sorted(images.items())
    ]
    own = {rater: labels_as_texts(content) for rater, content in zip(raters, contents, strict=True)}
    labels = own[raters[0]]
    others = [
        f"{rater}:{name}={value}"
        for rater in raters[1:]
        if own[rater] != labels
        for name, value in own[rater].items()
    ]
    return RaterDatasets(
        cases,
        [f"{name}={value}" for name, value in labels.items()],
        others,
        channel_names_of(first),
        _other_images(folders, images),
    )


def _other_images(folders: Sequence[Path], images: Mapping[str, Mapping[Path, Sequence[Path]]]) -> list[str]:
    """A warning for every data set whose images of some cases are not those that are taken."""
    notes = []
    for folder in folders[1:]:
        other = []
        for case, found in sorted(images.items()):
            taken = next(iter(found.values()))
            if folder in found and not _are_same(taken, found[folder]):
                other.append((case, taken[0].parents[1].name))
        for case, owner in other[:1]:
            notes.append(
                f"WARNING: {len(other)} cases have another image in {folder.name} than in {owner}, as "
                f"{case}; the image of {owner} is taken. Do these names stand for the same patients?"
            )
    return notes


def _are_same(first: Sequence[Path], second: Sequence[Path]) -> bool:
    """True for the same voxels on the same grid."""
    return len(first) == len(second) and all(map(_is_same_image, first, second))


def _is_same_image(first: Path, second: Path) -> bool:
    if first.is_file() and second.is_file() and filecmp.cmp(first, second, shallow=False):
        return True
    (array, grid), (other, other_grid) = read_image(first), read_image(second)
    return not grid.difference(other_grid) and np.array_equal(array, other)


def _names(content: Mapping[str, Any], key: str) -> list[str]:
    if key == "labels":
        return sorted(name for name in content["labels"] if name != "background")
    return channel_names_of(content)


def labels_as_texts(content: Mapping[str, Any]) -> dict[str, str]:
    """Label -> its values as text."""
    return {
        name: ",".join(map(str, value if isinstance(value, list) else [value]))
        for name, value in content["labels"].items()
        if name != "background"
    }


def _training_cases(folder: Path, content: Mapping[str, Any]) -> dict[str, list[Path]]:
    """Case -> its images, one per channel."""
    ending = content["file_ending"]
    found: dict[str, list[Path]] = {}
    for path in visible(folder / "imagesTr", f"*{ending}"):
        if match := re.fullmatch(r"(.+)_\d{4}", path.name[: -len(ending)]):
            found.setdefault(match[1], []).append(path)
    if not found:
        raise DatasetError(f"{folder}: its imagesTr holds no {ending}; there is nothing to take from it.")
    return found
