"""What a case is held against: soft label, consensus, raters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.soft_dataset import SoftDataset


@dataclass(frozen=True)
class References:
    """What a case is held against, read as it is asked for.

    Attributes:
        dataset: that holds the case.
        case: its name.
        split: of the case, Tr or Ts.
        hard: consensus label map ``(*spatial)``.
        grid: of all arrays.
    """

    dataset: SoftDataset
    case: str
    split: str
    hard: NDArray[Any]
    grid: Grid

    @classmethod
    def of(cls, dataset: SoftDataset, case: str, *, split: str) -> References:
        """The references of a case; the consensus is read.

        Raises:
            DatasetError: naming the case, if a file is missing.
        """
        hard_file = dataset.label_file(case, split)
        for path in (hard_file, *dataset.soft_files(case, split)):
            if not path.is_file():
                raise DatasetError(
                    f"Case {case}: its reference {path} is missing; convert the data set again."
                )
        return cls(dataset, case, split, *dataset.read(hard_file))

    def soft(self) -> Iterator[NDArray[Any]]:
        """Foreground probabilities, float32 ``(*spatial)``, channel by channel.

        Raises:
            DatasetError: for a channel of another shape, or a file that `convert` did not write.
        """
        for channel in self.dataset.soft_channels(self.case, self.split):
            self._check_shape("consensus", self.hard.shape, channel.shape)
            yield channel

    def raters(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """Each rater and the label map ``(*spatial)``, one after the other.

        Raises:
            DatasetError: for a label map of another shape.
        """
        for name, path in self.dataset.rater_files(self.case, self.split).items():
            label_map = self.dataset.read(path)[0]
            self._check_shape(name, label_map.shape, self.hard.shape)
            yield name, label_map

    def _check_shape(self, name: str, shape: tuple[int, ...], soft: tuple[int, ...]) -> None:
        if shape != soft:
            raise DatasetError(
                f"Case {self.case}: {name} has shape {shape}, its soft label {soft}; "
                f"convert the data set again."
            )


def read_references(
    dataset: SoftDataset, case: str, *, split: str
) -> tuple[NDArray[Any], NDArray[Any], dict[str, NDArray[Any]], Grid]:
    """Soft label, consensus, raters and grid of a case.

    Raises:
        DatasetError: naming the case, if one is missing or lies on another grid.
    """
    references = References.of(dataset, case, split=split)
    soft = np.stack(list(references.soft()))
    return soft, references.hard, dict(references.raters()), references.grid
