"""One file with a channel per rater or class: 4D volumes, RGB images, TIFF stacks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.file_checks import reader_of, value_step
from nnunet_softlabel.formats.flat_images import without_opaque_alpha
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.images import grid_of_image, is_flat, read_flat, read_volume
from nnunet_softlabel.public import public

ChannelAxis = Literal["first", "last"]


@public
@dataclass(frozen=True)
class Channel:
    """One channel of a file that holds several.

    Attributes:
        path: the file.
        index: which channel, from 0.
        axis: of the channels as the file stores them, "last" in a 4D NIfTI ``(x, y, z, channel)`` and in an
            RGB image, "first" in a TIFF stack ``(channel, y, x)``.
    """

    path: Path
    index: int
    axis: ChannelAxis = "last"

    def read(self) -> tuple[NDArray[Any], Grid]:
        """The channel, ``(*spatial)``, and its grid.

        Raises:
            DatasetError: if the file cannot be read, or has no such channel.
        """
        channels, grid = read_channels(self.path, self.axis)
        if self.index >= len(channels):
            raise DatasetError(f"{self.path}: has {len(channels)} channels, no channel {self.index + 1}.")
        return np.ascontiguousarray(channels[self.index]), grid


def read_channels(path: Path, axis: ChannelAxis) -> tuple[NDArray[Any], Grid]:
    """All channels of a file, ``(channel, *spatial)``, and the grid of one.

    Raises:
        DatasetError: if the file cannot be read, has no axis of channels, or holds NaN or infinite values.
    """
    if not path.is_file():
        raise DatasetError(f"{path}: no such file.")
    array, grid = _flat_channels(path, axis) if is_flat(path) else _volume_channels(path, axis)
    if array.dtype == bool:
        array = array.astype(np.uint8)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DatasetError(f"{path}: holds NaN or infinite values; they must be finite numbers.")
    return array, grid


def class_masks(path: Path, axis: ChannelAxis) -> tuple[list[NDArray[Any]], Grid]:
    """Channels of classes as bool masks; in each the class is one number, whichever, and the rest is 0.

    Raises:
        DatasetError: as `read_channels`; for fractions, which are probabilities, and for several numbers.
    """
    channels, grid = read_channels(path, axis)
    tolerance = value_step(path) / 2 if channels.dtype.kind == "f" else 0.0
    masks = []
    for number, channel in enumerate(channels, start=1):
        mask = np.abs(channel) > tolerance
        marked = channel[mask]
        lowest, highest = (marked.min(), marked.max()) if marked.size else (1, 1)
        if highest - lowest > 2 * tolerance or 0 < highest < 1 - tolerance:
            raise DatasetError(
                f"{path}: channel {number} holds values from {lowest:g} to {highest:g}; a class is marked by "
                f"one whole number. Probabilities are no label maps; is it a channel per rater?"
            )
        masks.append(mask)
    return masks, grid


def number_of_channels(path: Path, axis: ChannelAxis) -> int:
    """How many channels a file has; reads no more than the header of a volume.

    Raises:
        DatasetError: as `read_channels`.
    """
    if is_flat(path):
        return len(read_channels(path, axis)[0])
    reader = sitk.ImageFileReader()
    reader.SetImageIO(reader_of(path))
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise DatasetError(f"{path}: cannot be read as an image; replace or convert the file.") from error
    _check_volume(path, axis, reader.GetDimension(), reader.GetNumberOfComponents())
    return reader.GetNumberOfComponents() if reader.GetNumberOfComponents() > 1 else reader.GetSize()[-1]


def _flat_channels(path: Path, axis: ChannelAxis) -> tuple[NDArray[Any], Grid]:
    array, _ = read_flat(path)
    if array.ndim > 3:
        raise DatasetError(f"{path}: has pages of colours; store a page, or a colour, per channel.")
    if array.ndim != 3:
        raise DatasetError(f"{path}: has one channel; leave out --rater-axis or --class-axis.")
    if axis == "last" and path.suffix.lower() == ".png":
        array = without_opaque_alpha(array)
    channels = np.moveaxis(array, -1, 0) if axis == "last" else array
    return channels, Grid.flat(channels.shape[1:])


def _check_volume(path: Path, axis: ChannelAxis, dimension: int, components: int) -> None:
    if axis == "first":
        raise DatasetError(
            f"{path}: in a volume the channels are the last axis (x, y, z, channel); give last, or store it "
            f"so, since the header has no place for another order."
        )
    if components == 1 and dimension < 3:
        raise DatasetError(f"{path}: has one channel; leave out --rater-axis or --class-axis.")


def _volume_channels(path: Path, axis: ChannelAxis) -> tuple[NDArray[Any], Grid]:
    image = read_volume(path)
    components, dimension = image.GetNumberOfComponentsPerPixel(), image.GetDimension()
    _check_volume(path, axis, dimension, components)
    array = sitk.GetArrayFromImage(image)
    if components > 1:
        return np.moveaxis(array, -1, 0), grid_of_image(image)
    last = dimension - 1
    direction = np.asarray(image.GetDirection()).reshape(dimension, dimension)[:last, :last]
    grid = Grid(
        image.GetSize()[:last],
        image.GetSpacing()[:last],
        image.GetOrigin()[:last],
        tuple(float(value) for value in direction.ravel()),
    )
    return array, grid
