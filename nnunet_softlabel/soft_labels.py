"""The soft-label format: names and places of everything a soft-label data set holds.

`SoftDataset` says where the files are; what is in them is in `nnunet_softlabel.labels`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.image_io import read_mask, read_probability
from nnunet_softlabel.labels import (
    IGNORED,
    SCALE,
    Labels,
    channels_of,
    consensus,
    dequantise,
    parse_labels,
    quantise,
    with_background,
)

__all__ = [
    "FORMAT_VERSION",
    "IGNORED",
    "SCALE",
    "Labels",
    "SoftDataset",
    "channels_of",
    "check_case_names",
    "check_file_name",
    "consensus",
    "dequantise",
    "environment_folder",
    "find_dataset",
    "parse_labels",
    "quantise",
    "read_json",
    "soft_files",
    "with_background",
    "write_json",
]

FORMAT_VERSION = 1


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


def find_dataset(base: Path, dataset: int | str) -> Path:
    """The folder ``DatasetXXX_NAME`` of an id or a full name under ``base``.

    Raises:
        UsageError: if there is none, or more than one.
    """
    text = str(dataset)
    if text.startswith("Dataset"):
        found = [base / text] if (base / text).is_dir() else []
    elif text.isdigit():
        found = sorted(path for path in base.glob(f"Dataset{int(text):03d}_*") if path.is_dir())
    else:
        raise UsageError(f"-d {dataset}: give the number of a data set, or its full name DatasetXXX_NAME.")
    if not found:
        raise UsageError(f"-d {dataset}: no such data set in {base}.")
    if len(found) > 1:
        raise UsageError(f"-d {dataset}: several data sets in {base}: {', '.join(p.name for p in found)}.")
    return found[0]


class SoftDataset:
    """A soft-label data set in ``nnUNet_raw``: where its files are and what they mean.

    Raises:
        DatasetError: if the folder is no data set, or has no soft labels.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.dataset_json: dict[str, Any] = read_json(folder / "dataset.json")
        self.about: dict[str, Any] | None = self.dataset_json.get("soft_labels")
        if self.about is None:
            raise DatasetError(
                f"{folder}: holds no soft labels; make them with `nnunet_softlabel convert` "
                f"(--into adds them here)."
            )
        if self.about.get("format_version") != FORMAT_VERSION:
            raise DatasetError(
                f"{folder}: soft-label format {self.about.get('format_version')}, this version reads "
                f"{FORMAT_VERSION}; convert the data set again."
            )
        self.labels = Labels.from_dataset_json(self.dataset_json)

    @classmethod
    def find(cls, dataset: int | str) -> SoftDataset:
        """The data set of this id or name in ``nnUNet_raw``."""
        return cls(find_dataset(environment_folder("nnUNet_raw"), dataset))

    @property
    def file_ending(self) -> str:
        """Ending of all image files, ``.nii.gz`` or ``.png``."""
        return str(self.dataset_json["file_ending"])

    def cases(self, split: str = "Tr") -> list[str]:
        """Names of the cases with soft labels, sorted."""
        folder = self.folder / f"softLabels{split}"
        if not folder.is_dir():
            return []
        end = len("_0001" + self.file_ending)
        return sorted({path.name[:-end] for path in folder.glob(f"*{self.file_ending}")})

    def image_files(self, case: str, split: str = "Tr") -> list[Path]:
        """Image files of a case, one per channel."""
        pattern = re.compile(re.escape(case) + r"_\d{4}" + re.escape(self.file_ending))
        return sorted(p for p in (self.folder / f"images{split}").iterdir() if pattern.fullmatch(p.name))

    def label_file(self, case: str, split: str = "Tr") -> Path:
        """The hard consensus of a case."""
        return self.folder / f"labels{split}" / f"{case}{self.file_ending}"

    def soft_files(self, case: str, split: str = "Tr") -> list[Path]:
        """One probability map per foreground class or region, in channel order."""
        return soft_files(self.folder / f"softLabels{split}", case, len(self.labels.names), self.file_ending)

    def rater_files(self, case: str, split: str = "Tr") -> dict[str, Path]:
        """What each rater drew: rater -> file, for the raters who marked this case."""
        folder = self.folder / f"raterLabels{split}"
        if not folder.is_dir():
            return {}
        files = {rater.name: rater / f"{case}{self.file_ending}" for rater in sorted(folder.iterdir())}
        return {rater: path for rater, path in files.items() if path.is_file()}

    def read_soft(self, case: str, split: str = "Tr") -> np.ndarray:
        """Foreground probabilities of a case, float32 ``(C, *spatial)``; classes sum to at most 1."""
        return np.stack([read_probability(path)[0] for path in self.soft_files(case, split)])

    def read_hard(self, case: str, split: str = "Tr") -> np.ndarray:
        """The hard consensus of a case, integers ``(*spatial)``."""
        return read_mask(self.label_file(case, split))[0]

    def read_raters(self, case: str, split: str = "Tr") -> dict[str, np.ndarray]:
        """Hard label map of every rater of a case, integers ``(*spatial)`` in the data set's own values."""
        return {rater: read_mask(path)[0] for rater, path in self.rater_files(case, split).items()}


def soft_files(folder: Path, case: str, channels: int, ending: str) -> list[Path]:
    """Probability maps of a case, one per foreground channel: ``CASE_0001``, ``CASE_0002``, ..."""
    return [folder / f"{case}_{channel:04d}{ending}" for channel in range(1, channels + 1)]


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        DatasetError: if the file is missing or no JSON.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: no such file.") from error
    except (ValueError, OSError) as error:
        raise DatasetError(f"{path}: cannot be read as JSON ({error}).") from error
    if not isinstance(content, dict):
        raise DatasetError(f"{path}: holds a {type(content).__name__}, expected an object.")
    return content


def write_json(path: Path, content: Any, temporary: Path | None = None) -> None:
    """Write JSON so that a reader sees the old file or the whole new one, never a part.

    Args:
        path: the file.
        content: what goes into it.
        temporary: where the new file grows, on the same file system; None: beside it, under a name of its
            own.
    """
    write_text(path, json.dumps(content, indent=2) + "\n", temporary)


def write_text(path: Path, text: str, temporary: Path | None = None) -> None:
    """Write a text in the same way; see `write_json`."""
    temporary = temporary or path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def check_case_names(names: Iterable[str]) -> None:
    """Refuse names that cannot be file names, names that nnU-Net would misread, and names given twice.

    Raises:
        DatasetError: naming the case.
    """
    seen: set[str] = set()
    for name in names:
        check_file_name(name, "Case")
        if name.endswith("_seg"):
            raise DatasetError(
                f"Case {name}: nnU-Net takes names that end in _seg for segmentations; rename it."
            )
        if name in seen:
            raise DatasetError(f"Case {name}: given twice; case names must be unique.")
        seen.add(name)


def check_file_name(name: str, what: str) -> None:
    """Refuse a name of a case or rater that cannot be the name of a file.

    Raises:
        DatasetError: naming it.
    """
    if not name or "/" in name or "\\" in name or "\0" in name or name.startswith("."):
        raise DatasetError(
            f"{what} {name!r}: a name cannot be empty, begin with a dot or hold a path separator; rename it."
        )
