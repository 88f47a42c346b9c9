"""The soft-label format: names and places of everything a soft-label data set holds.

`SoftDataset` says where the files are; what is in them is in `nnunet_softlabel.formats.encoding`.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Sequence
from numbers import Integral
from os import PathLike
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.arguments import described
from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.dataset_json import check_dataset_json
from nnunet_softlabel.formats.exchange_state import check_is_settled
from nnunet_softlabel.formats.files import hash_files, read_json, visible
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.images import read_mask
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.formats.model_labels import check_labels_of_model
from nnunet_softlabel.formats.nnunet_folders import environment_folder, find_dataset
from nnunet_softlabel.formats.orientation import orientation_of, reader_of_dataset, reader_of_predictions
from nnunet_softlabel.formats.probability_maps import read_probability
from nnunet_softlabel.formats.soft_labels import SoftLabels
from nnunet_softlabel.public import public

FORMAT_VERSION = 1


@public
class SoftDataset:
    """A soft-label data set in ``nnUNet_raw``: where its files are and what they mean.

    Arrays come in the order of axes that nnU-Net's reader gives, as the probabilities it stores.

    Attributes:
        about: how its soft labels were made.
        reader: nnU-Net's reader of the images, or None for one that keeps the order of the file's axes.

    Raises:
        DatasetError: if the folder is no data set, or has no soft labels.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        check_is_settled(folder)
        self.dataset_json = read_json(folder / "dataset.json")
        about = self.dataset_json.get("soft_labels")
        if about is None:
            raise DatasetError(
                f"{folder}: holds no soft labels; make them with `nnunet_softlabel convert` "
                f"(`--into` adds them here)."
            )
        if not isinstance(about, dict) or about.get("format_version") == FORMAT_VERSION:
            check_dataset_json(folder, self.dataset_json)
        if about.get("format_version") != FORMAT_VERSION:
            raise DatasetError(
                f"{folder}: soft-label format {about.get('format_version')}, this version reads "
                f"{FORMAT_VERSION}; convert the data set again."
            )
        self.about = cast(SoftLabels, about)
        self.labels = Labels.from_dataset_json(self.dataset_json)
        self.reader = reader_of_dataset(self.dataset_json)

    @classmethod
    def from_argument(cls, value: Any, argument: str) -> SoftDataset:
        """The data set of a folder, a name or an id."""
        if isinstance(value, str | PathLike) and Path(value).is_dir():
            return cls(Path(value))
        if isinstance(value, bool) or not isinstance(value, str | Integral):
            raise TypeError(
                f"{argument}: expected a SoftDataset or its folder, name or id, got {described(value)}."
            )
        return cls.find(value if isinstance(value, str) else int(value))

    @classmethod
    def find(cls, dataset: int | str) -> SoftDataset:
        """The data set of this id or name in ``nnUNet_raw``."""
        return cls(find_dataset(environment_folder("nnUNet_raw"), dataset))

    @property
    def file_ending(self) -> str:
        """Ending of all image files, ``.nii.gz`` or ``.png``."""
        return str(self.dataset_json["file_ending"])

    @property
    def soft_ending(self) -> str:
        """Ending of the probability maps; BMP holds 8 bit only."""
        return soft_ending(self.file_ending)

    def cases(self, split: str = "Tr") -> list[str]:
        """Names of the cases with soft labels, sorted."""
        folder = self.folder / f"softLabels{split}"
        if not folder.is_dir():
            return []
        end = len("_0001" + self.soft_ending)
        return sorted({path.name[:-end] for path in visible(folder, f"*{self.soft_ending}")})

    def image_files(self, case: str, split: str = "Tr") -> list[Path]:
        """Image files of a case, one per channel."""
        pattern = re.compile(re.escape(case) + r"_\d{4}" + re.escape(self.file_ending))
        return sorted(p for p in (self.folder / f"images{split}").iterdir() if pattern.fullmatch(p.name))

    def label_file(self, case: str, split: str = "Tr") -> Path:
        """The hard consensus of a case."""
        return self.folder / f"labels{split}" / f"{case}{self.file_ending}"

    def soft_files(self, case: str, split: str = "Tr") -> list[Path]:
        """One probability map per foreground class or region, in channel order."""
        return soft_files(self.folder / f"softLabels{split}", case, len(self.labels.names), self.soft_ending)

    def rater_files(self, case: str, split: str = "Tr") -> dict[str, Path]:
        """What each rater drew: rater -> file, for the raters who marked this case.

        Without the folder of the raters there are none.

        Raises:
            DatasetError: if a file is missing that the conversion wrote, or is no file.
        """
        folder = self.folder / f"raterLabels{split}"
        if not folder.is_dir():
            return {}
        name = f"{case}{self.file_ending}"
        files = {rater.name: rater / name for rater in sorted(folder.iterdir()) if rater.is_dir()}
        recorded = set((self.about.get("raters_of_case") or {}).get(case, ()))
        there = {rater: path for rater, path in files.items() if path.exists() or path.is_symlink()}
        for rater in sorted(recorded | set(there)):
            path = folder / rater / name
            if not path.is_file():
                raise DatasetError(
                    f"Case {case}: {path} of rater {rater} is missing or cannot be opened; "
                    f"convert the data set again."
                )
        return there

    def for_predictions(self, folders: Sequence[Path]) -> SoftDataset:
        """The same data set, read with the reader of the plans that these predictions were made with.

        Raises:
            DatasetError: if they are of a model with other labels; see `check_labels_of_model`.
        """
        check_labels_of_model(folders, self.labels)
        reader = reader_of_predictions(folders[0])
        if reader is None or reader == self.reader:
            return self
        other = copy.copy(self)
        other.reader = reader
        return other

    def read(
        self, path: Path, how: Callable[[Path], tuple[NDArray[Any], Grid]] = read_mask
    ) -> tuple[NDArray[Any], Grid]:
        """Read one file of this data set, or one that lies on the same grid, as nnU-Net's reader turns it."""
        array, grid = how(path)
        orientation = orientation_of(self.reader, grid, self.file_ending)
        if orientation.is_kept:
            return array, grid
        return np.ascontiguousarray(orientation.turn(array)), orientation.turn_grid(grid)

    def read_soft(self, case: str, split: str = "Tr") -> NDArray[Any]:
        """Foreground probabilities of a case, float32 ``(C, *spatial)``; classes sum to at most 1.

        Raises:
            DatasetError: if a file cannot be read, or is not the one that `convert` wrote.
        """
        return np.stack(list(self.soft_channels(case, split)))

    def soft_channels(self, case: str, split: str = "Tr") -> Iterator[NDArray[Any]]:
        """What `read_soft` gives, channel by channel ``(*spatial)``.

        Raises:
            DatasetError: as `read_soft`; that a file is not the one of `convert` after the last channel.
        """
        files = self.soft_files(case, split)
        for path in files:
            yield self.read(path, read_probability)[0]
        self.check_digest(case, hash_files(files), split)

    def check_digest(self, case: str, digest: str, split: str = "Tr") -> None:
        """Refuse a soft label that is not the one `convert` wrote.

        Args:
            case: its name.
            digest: `hash_files` of its soft files.
            split: of the case.

        Raises:
            DatasetError: naming it.
        """
        digests = self.about.get("digests")  # data sets of earlier versions have none
        if digests is not None and digests.get(case) != digest:
            raise DatasetError(
                f"Case {case}: soft label {self.soft_files(case, split)[0]} is not the one that was "
                f"converted (digests in dataset.json): it is damaged or of another case; convert the data "
                f"set again."
            )

    def read_hard(self, case: str, split: str = "Tr") -> NDArray[Any]:
        """The hard consensus of a case, integers ``(*spatial)``."""
        return self.read(self.label_file(case, split))[0]

    def read_raters(self, case: str, split: str = "Tr") -> dict[str, NDArray[Any]]:
        """Hard label map of every rater of a case, integers ``(*spatial)`` in the data set's own values."""
        return {rater: self.read(path)[0] for rater, path in self.rater_files(case, split).items()}


def soft_ending(ending: str) -> str:
    """Ending of the probability maps of a data set whose images have this one."""
    return ".png" if ending == ".bmp" else ending


def soft_files(folder: Path, case: str, channels: int, ending: str) -> list[Path]:
    """Probability maps of a case, one per foreground channel: ``CASE_0001``, ``CASE_0002``, ..."""
    return [folder / f"{case}_{channel:04d}{ending}" for channel in range(1, channels + 1)]
