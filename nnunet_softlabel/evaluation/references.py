"""What a case is held against: soft label, consensus, raters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.evaluation.consistency import exhaust
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.images import voxels_in
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from nnunet_softlabel.memory import LargestCase, largest_of, processes_that_fit


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
        # map keeps no channel, so that who takes one may let it go
        yield from map(self._fitting, self.dataset.soft_channels(self.case, self.split))

    def _fitting(self, channel: NDArray[Any]) -> NDArray[Any]:
        self._check_shape("consensus", self.hard.shape, channel.shape)
        return channel

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


def check_references(dataset: SoftDataset, case: str, *, split: str) -> Grid:
    """Read all that a case is held against, and keep nothing; returns the grid.

    Raises:
        DatasetError: naming the case, if one is missing or lies on another grid.
    """
    references = References.of(dataset, case, split=split)
    exhaust(references.soft())
    exhaust(references.raters())
    return references.grid


def processes_for_references(
    dataset: SoftDataset, cases: Sequence[str], num_processes: int, *, split: str
) -> int:
    """At most ``num_processes``, fewer where memory is short for `check_references` of the largest case."""
    largest = LargestCase(*largest_of({c: dataset.label_file(c, split) for c in cases}, voxels_in))
    return processes_that_fit(num_processes, len(cases), largest, "references")
