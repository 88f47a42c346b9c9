"""The order of axes that nnU-Net's reader gives: that of probabilities in ``CASE.npz``, not the file's.

Most readers keep the axes of the file. ``NibabelIOWithReorient`` and ``SimpleITKIOWithReorient`` turn them.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.files import Json, read_json
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.images import write_image
from nnunet_softlabel.formats.nnunet_folders import file_of_model

KEEPING = ("SimpleITKIO", "NibabelIO", "NaturalImage2DIO", "Tiff3DIO")  # readers of nnU-Net that turn nothing
PROBE = (2, 3, 4)  # all sides differ, so that a turn shows


@dataclass(frozen=True)
class Orientation:
    """How a reader turns the axes of one file.

    Attributes:
        axes: for each axis of the reader's array, the axis of the file's array ``(z, y, x)``.
        flipped: for each axis of the reader's array, whether it runs backwards.
    """

    axes: tuple[int, ...]
    flipped: tuple[bool, ...]

    @property
    def is_kept(self) -> bool:
        """True if the reader gives the file's own order."""
        return self.axes == tuple(range(len(self.axes))) and not any(self.flipped)

    def turn(self, array: NDArray[Any]) -> NDArray[Any]:
        """From the file's order to the reader's; axes before the spatial ones stay.

        >>> Orientation((1, 0), (False, True)).turn(np.array([[1, 2], [3, 4]])).tolist()
        [[3, 1], [4, 2]]
        """
        before = array.ndim - len(self.axes)
        turned = array.transpose(*range(before), *(before + axis for axis in self.axes))
        return np.flip(turned, [before + i for i, flips in enumerate(self.flipped) if flips])

    def turn_back(self, array: NDArray[Any]) -> NDArray[Any]:
        """From the reader's order to the file's."""
        before = array.ndim - len(self.axes)
        flipped = np.flip(array, [before + i for i, flips in enumerate(self.flipped) if flips])
        return flipped.transpose(*range(before), *(before + axis for axis in np.argsort(self.axes)))

    def turn_grid(self, grid: Grid) -> Grid:
        """The grid of what `turn` gives."""
        if self.is_kept:
            return grid
        n = len(self.axes)
        axes = [n - 1 - axis for axis in reversed(self.axes)]  # Grid counts x first
        flips = np.array(self.flipped[::-1])
        direction = np.reshape(grid.direction, (n, n))[:, axes]
        size, spacing = np.array(grid.size)[axes], np.array(grid.spacing_mm)[axes]
        origin = np.array(grid.origin) + direction @ np.where(flips, spacing * (size - 1), 0)
        return replace(
            grid,
            size=tuple(int(s) for s in size),
            spacing_mm=tuple(float(s) for s in spacing),
            origin=tuple(float(o) for o in origin),
            direction=tuple(float(d) for d in np.where(flips, -direction, direction).ravel()),
        )


def orientation_of(reader: str | None, grid: Grid, ending: str) -> Orientation:
    """How a reader of nnU-Net turns the axes of a file with this grid.

    Args:
        reader: class name, or None for one that keeps the axes.
        grid: of the file.
        ending: of the file.

    Raises:
        DatasetError: if nnU-Net has no such reader, or if it does more than turn axes.
    """
    kept = Orientation(tuple(range(len(grid.size))), (False,) * len(grid.size))
    if reader is None or reader in KEEPING or not grid.has_geometry or len(grid.size) != len(PROBE):
        return kept
    return _probed(reader, grid.direction, ending)


@lru_cache(maxsize=4096)
def _probed(reader: str, direction: tuple[float, ...], ending: str) -> Orientation:
    """Let the reader read a small image whose voxels are numbered."""
    numbered = np.arange(np.prod(PROBE), dtype=np.int16).reshape(PROBE)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"probe{ending}"
        write_image(path, numbered, Grid(PROBE[::-1], (1.0,) * 3, (0.0,) * 3, direction))
        found = np.asarray(_reader_class(reader)().read_images([str(path)])[0])[0]
    for axes in permutations(range(3)):
        for flipped in product((False, True), repeat=3):
            orientation = Orientation(axes, flipped)
            if np.array_equal(orientation.turn(numbered), found):
                return orientation
    raise DatasetError(
        f"nnU-Net's reader {reader} does more than turn axes; its probabilities cannot be held against "
        f"files. Choose another overwrite_image_reader_writer in dataset.json."
    )


def _reader_class(name: str) -> Any:
    from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name

    try:
        return recursive_find_reader_writer_by_name(name)
    except RuntimeError as error:
        raise DatasetError(
            f"overwrite_image_reader_writer {name}: nnU-Net has no such reader; mend dataset.json."
        ) from error


def reader_of_dataset(dataset_json: Json) -> str | None:
    """The reader that ``dataset.json`` names, or None for nnU-Net's choice, which keeps the axes."""
    name = dataset_json.get("overwrite_image_reader_writer")
    return None if name in (None, "None") else str(name)


def reader_of_predictions(folder: Path) -> str | None:
    """The reader of the plans beside predictions, or beside the model of a ``fold_X/validation`` folder."""
    plans = file_of_model(folder, "plans.json")
    name = None if plans is None else read_json(plans).get("image_reader_writer")
    return name if isinstance(name, str) else None
