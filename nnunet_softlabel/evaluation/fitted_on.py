"""What a calibration or a threshold was fitted on: whether it is still there, and which cases are the same.

A model that is trained again leaves a map of its earlier probabilities. A case of another data set may have
the name of a case that was fitted on, and another image.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.formats.files import expecting_shape
from nnunet_softlabel.formats.nnunet_folders import fold_of_validation
from nnunet_softlabel.formats.predictions import checksums_of
from nnunet_softlabel.formats.soft_dataset import SoftDataset

CHECKPOINT = "checkpoint_final.pth"  # of the network that made the validation predictions
ENDS = 1 << 16  # bytes at both ends of an image: a compressed one has its checksum there


@dataclass(frozen=True)
class Origin:
    """Whose cases something was fitted on; nothing is known of files of earlier versions.

    Attributes:
        dataset: name of the folder of the data set.
        images: case -> mark of its image.
    """

    dataset: str | None = None
    images: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, file: Path, content: Mapping[str, Any]) -> Origin:
        """As the content of a file has it.

        Raises:
            DatasetError: if it is of another shape.
        """
        with expecting_shape(file, "fit it again"):
            return cls(content.get("dataset"), {str(k): str(v) for k, v in content.get("images", {}).items()})

    def seen(self, cases: Iterable[str], dataset: SoftDataset | None) -> list[str]:
        """Of cases whose names were fitted on, those that are the same; all if the data set is not known.

        Cases of another data set are others if their images are. A data set that shares images with the one
        that was fitted on, such as one with other labels, has the same cases.
        """
        if dataset is None or self.dataset in (None, dataset.folder.name):
            return list(cases)
        return [case for case in cases if self.images.get(case) in (None, image_mark(dataset, case))]


UNKNOWN = Origin()


def image_mark(dataset: SoftDataset, case: str) -> str | None:
    """A word for the first channel of a case's image, of its size and both ends; None without an image."""
    for split in ("Tr", "Ts"):
        path = dataset.folder / f"images{split}" / f"{case}_0000{dataset.file_ending}"
        if path.is_file():
            size = path.stat().st_size
            with path.open("rb") as file:
                head = file.read(ENDS)
                file.seek(max(size - ENDS, 0))
                return hashlib.sha256(f"{size}\n".encode() + head + file.read(ENDS)).hexdigest()[:12]
    return None


def image_marks(dataset: SoftDataset, cases: Iterable[str]) -> dict[str, str]:
    """`image_mark` of each case that has an image."""
    marks = {case: image_mark(dataset, case) for case in cases}
    return {case: mark for case, mark in marks.items() if mark is not None}


def digests_of_fitted(
    folders_of: Mapping[str, tuple[Path, ...]], cases: Iterable[str], file: Path
) -> dict[str, str]:
    """Digest of every probability file of the cases, and of the checkpoint of every fold.

    Args:
        folders_of: case -> folders that hold it.
        cases: that were fitted on.
        file: where the digests are stored; paths are relative to its folder, so that a model can be moved.

    Raises:
        DatasetError: if a probability file cannot be read.
    """
    paths = [folder / f"{case}.npz" for case in cases for folder in folders_of[case]]
    folds = {fold_of_validation(folder) for folder in {path.parent for path in paths}} - {None}
    paths += [fold / CHECKPOINT for fold in folds if fold is not None]
    found = {}
    for path in sorted(paths):
        digest = _digest(path)
        if digest is None and path.suffix == ".npz":
            raise DatasetError(f"{path}: cannot be read as nnU-Net's probabilities; predict again.")
        if digest is not None:
            found[os.path.relpath(path.resolve(), file.parent.resolve()).replace(os.sep, "/")] = digest
    return found


def refuse_changed(file: Path, content: Mapping[str, Any], command: str) -> None:
    """Refuse what was fitted on files that hold something else now; see `changed_since`.

    Raises:
        UsageError: naming the first, and the command that fits again.
        DatasetError: if the entry is of another shape.
    """
    path = changed_since(file, content)
    if path is not None:
        what = "the network" if path.name == CHECKPOINT else "predictions"
        raise UsageError(
            f"{file}: was fitted on {what} in {path.parent}, and {path.name} has changed since; "
            f"run {command} again."
        )


def changed_since(file: Path, content: Mapping[str, Any]) -> Path | None:
    """The first file that was fitted on and holds something else now; files that are gone tell nothing.

    Raises:
        DatasetError: if the entry is of another shape.
    """
    with expecting_shape(file, "fit it again"):
        fitted_on = {str(name): str(digest) for name, digest in content.get("fitted_on", {}).items()}
    paths = {file.parent.resolve() / name: digest for name, digest in fitted_on.items()}
    return next((path for path, own in paths.items() if path.is_file() and _digest(path) != own), None)


def _digest(path: Path) -> str | None:
    """Of the checksums in an archive's table of contents; None if it is none.

    Of a checkpoint only tensors count: what nnU-Net writes of its progress may change without them.
    """
    try:
        found = checksums_of(path)
    except DatasetError:
        return None
    if path.name == CHECKPOINT:
        found = [entry for entry in found if "/data/" in entry[0]]
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()[:12]
