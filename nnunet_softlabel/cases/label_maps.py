"""What a rater drew, whatever the file: a label map in the data set's values, on the grid of the image.

The one reader of raters' files: `convert`, `inspect` and ``evaluate --truth`` share it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.arguments import as_label_texts
from nnunet_softlabel.cases.case import Source, source_name
from nnunet_softlabel.cases.recode import recoded
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.formats.channels import Channel, ChannelAxis, class_masks
from nnunet_softlabel.formats.dicom_seg import is_dicom_file, read_dicom_segments
from nnunet_softlabel.formats.file_checks import value_step
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.grid_words import difference_in_words
from nnunet_softlabel.formats.images import SeveralChannelsError, read_mask
from nnunet_softlabel.formats.labels import Labels, Values, parse_labels, parse_rater_labels
from nnunet_softlabel.formats.probability_maps import as_probability, read_probability
from nnunet_softlabel.formats.regrid import (
    MISSES,
    NO_SPACING,
    GridError,
    Moved,
    Regrid,
    overlap,
    placed,
    resampled,
    share_outside,
    shift_mm,
    spread,
    turned,
)
from nnunet_softlabel.formats.segments import Segments, label_map_of
from nnunet_softlabel.formats.slicer import is_slicer_file, read_segments
from nnunet_softlabel.public import public


@dataclass(frozen=True)
class Reading:
    """How raters' files are read.

    Attributes:
        values: label value, or name of a segment, in the files -> label value in the data set.
        of_rater: the same for raters who use other values.
        regrid: how masks on another grid are put on that of the image; None: they are refused.
        class_axis: axis of a channel per class, if files have one; channels count from 1.
        soft_scale: value of a probability map that stands for 1; None: 1, or full scale in flat images.
    """

    values: Values
    of_rater: Mapping[str, Values] = field(default_factory=dict)
    regrid: Regrid | None = None
    class_axis: ChannelAxis | None = None
    soft_scale: float | None = None

    @classmethod
    def of(cls, labels: Labels) -> Reading:
        """For files that hold the values of the data set."""
        return cls(labels.own_values)


@public
@dataclass(frozen=True)
class FileOptions:
    """How files are read, and images taken over.

    Attributes:
        rater_labels: ``["r2:lesion=3"]`` for raters who use other values.
        regrid: "nearest" or "linear" puts masks on another grid on that of the image.
        class_axis: "first" or "last": files hold a channel per class, channels count from 1.
        soft_scale: value of a probability map that stands for 1.
        links_images: image files are linked instead of copied, where they need no change.
    """

    rater_labels: Sequence[str] = ()
    regrid: Regrid | None = None
    class_axis: ChannelAxis | None = None
    soft_scale: float | None = None
    links_images: bool = False

    def reading(self, labels: Labels, values: Values) -> Reading:
        """The same with the labels of the data set.

        Raises:
            UsageError: for a wrong option.
        """
        for flag, value, known in (
            ("--regrid", self.regrid, get_args(Regrid)),
            ("--class-axis", self.class_axis, get_args(ChannelAxis)),
        ):
            if value is not None and value not in known:
                raise UsageError(f"{flag} {value}: choose {' or '.join(known)}.")
        if self.soft_scale is not None and not (0 < self.soft_scale < float("inf")):
            raise UsageError(f"--soft-scale {self.soft_scale:g}: give the value that means 1, as 255 or 100.")
        of_rater = parse_rater_labels(self.rater_labels, labels, values)
        return Reading(values, of_rater, self.regrid, self.class_axis, self.soft_scale)


def labels_and_reading(
    labels: Sequence[str] | Mapping[str, int | Sequence[int]] | Labels, how: Reading | FileOptions | None
) -> tuple[Labels, Reading]:
    """Labels of the data set, and how files are read; for `Labels`, files hold the values of the data set.

    >>> labels_and_reading({"nodule": 255}, None)[1].values
    {0: 0, 255: 1}
    """
    if isinstance(labels, Labels):
        values = Reading.of(labels).values
    else:
        labels, values = parse_labels(as_label_texts(labels))
    if isinstance(how, Reading):
        return labels, how
    return labels, (how or FileOptions()).reading(labels, values)


@dataclass(frozen=True)
class LabelMap:
    """A label map in the data set's values.

    Attributes:
        array: integers ``(*spatial)``.
        grid: where its voxels lie; None for arrays in memory.
        is_cropped: what is outside is background, as in Slicer's files.
        has_slice_spacing: else it is not known how many slices lie between, as in some DICOM-SEG.
    """

    array: NDArray[Any]
    grid: Grid | None
    is_cropped: bool = False
    has_slice_spacing: bool = True


def read_label_map(
    source: Source, labels: Labels, reading: Reading, *, what: str, rater: str = ""
) -> LabelMap:
    """Read what a rater drew.

    Args:
        source: the file, or what stands for it.
        labels: of the data set.
        reading: how.
        what: for messages.
        rater: whose values count, if of_rater has them.

    Raises:
        DatasetError: for a file that cannot be read, or holds what no label names.
    """
    values = reading.of_rater.get(rater, reading.values)
    if isinstance(source, Path) and is_dicom_file(source):
        segments = read_dicom_segments(source)
    elif isinstance(source, Path) and is_slicer_file(source):
        segments = read_segments(source)
    elif reading.class_axis is not None and isinstance(source, Path):
        channels, grid = class_masks(source, reading.class_axis)
        absent = [v for v in values if isinstance(v, int) and v > len(channels)]
        if absent:
            raise DatasetError(
                f"{what}: has {len(channels)} channels, but --labels names channel {absent[0]}."
            )
        segments = Segments(dict(enumerate(channels, start=1)), grid, is_cropped=False)
    elif reading.class_axis is not None and isinstance(source, Channel):
        raise UsageError(
            f"{what}: is one channel of a file, which has no classes apart; leave out --class-axis."
        )
    else:
        array, own = read_source(source, read_label_file, what)
        return LabelMap(recoded(array, values, what, step=_step_of(source, array)), own)
    array = label_map_of(segments, labels, values, what)
    return LabelMap(array, segments.grid, segments.is_cropped, segments.has_slice_spacing)


def read_label_file(path: Path) -> tuple[NDArray[Any], Grid]:
    """As `read_mask`; of several channels in one file it says which flag reads them.

    Raises:
        DatasetError: as `read_mask`.
    """
    try:
        return read_mask(path)
    except SeveralChannelsError as error:
        raise DatasetError(
            f"{path}: several channels in one file; a channel per rater needs --rater-axis, a channel per "
            f"class --class-axis."
        ) from error


def read_region(source: Source, what: str) -> tuple[NDArray[Any], Grid | None]:
    """A mask of a ROI, or of what is ignored: bool, True where the file is not 0.

    Raises:
        DatasetError: for fractions, which interpolation leaves in the background, too.
    """
    array, grid = read_source(source, read_mask, what)
    step = _step_of(source, array)
    if array.dtype.kind == "f":
        fractions = array[np.abs(array - np.rint(array)) > step / 2]
        if fractions.size:
            raise DatasetError(
                f"{what}: holds fractions such as {fractions.flat[0]:.3g}, as interpolation leaves them; "
                f"resample the mask with nearest neighbours, or cut it at 0.5."
            )
    return (np.abs(array) > step / 2 if step else array != 0), grid


def read_probability_map(source: Source, scale: float | None, *, what: str) -> LabelMap:
    """A ready map of one label, float32 in [0, 1].

    Args:
        source: the file, or what stands for it.
        scale: the value that means 1; None: as `read_probability` takes it.
        what: for messages.

    Raises:
        DatasetError: if it cannot be read, or holds no probabilities.
    """
    array, grid = read_source(source, partial(read_probability, scale=scale), what)
    if not isinstance(source, Path):
        array = as_probability(array, source_name(source), scale)
    return LabelMap(array.astype(np.float32, copy=False), grid)


def read_source(
    source: Source, reader: Callable[[Path], tuple[NDArray[Any], Grid]], what: str
) -> tuple[NDArray[Any], Grid | None]:
    """An array from a file, from memory, or from a function; arrays without geometry have no grid.

    Raises:
        DatasetError: if it cannot be read, or holds NaN or infinite values.
    """
    if isinstance(source, Path):
        return reader(source)
    if isinstance(source, Channel):
        return source.read()
    result = source if isinstance(source, np.ndarray) else source()
    array, grid = result if isinstance(result, tuple) else (result, None)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DatasetError(f"{what}: holds NaN or infinite values; they must be finite numbers.")
    return array, grid


def on_grid(label_map: LabelMap, grid: Grid, regrid: Regrid | None) -> tuple[NDArray[Any], Moved | None]:
    """The array on the grid of its image, and what was done for that.

    Axes in another order or direction are turned, boxes of formats that store boxes are placed: both without
    loss. Everything else needs ``regrid``.

    Raises:
        GridError: saying how the grids differ; the caller says of which file.
    """
    array, own = label_map.array, label_map.grid
    if own is None:
        if array.shape != grid.shape:
            raise GridError(f"shape {array.shape} instead of {grid.shape}")
        return array, None
    if not label_map.has_slice_spacing:
        array, own = spread(array, own, grid)
    if grid.difference(own) is None:
        return array, None
    words = difference_in_words(grid, own)
    upright = turned(array, own, grid)
    if upright is not None and grid.difference(upright[1]) is None:
        return upright[0], Moved("turned", words)
    if label_map.is_cropped and upright is not None:
        box = _placed(*upright, grid, may_cut=regrid is not None)
        if box is not None:
            return box, Moved("placed", words)
    if not label_map.has_slice_spacing:
        raise GridError(f"{words}, and {NO_SPACING}", is_hopeless=True)
    if regrid is None:
        raise GridError(words, is_hopeless=MISSES in words or len(own.size) != len(grid.size))
    outside = share_outside(array, own, grid)
    return resampled(array, own, grid, regrid), Moved(regrid, words, shift_mm(own, grid), outside)


def _placed(array: NDArray[Any], own: Grid, grid: Grid, *, may_cut: bool) -> NDArray[Any] | None:
    """See `placed`; None too if marks would be cut off and that is asked for, which is told elsewhere."""
    try:
        return placed(array, own, grid)
    except GridError as error:
        if may_cut:
            return None
        is_hopeless = not overlap(own, grid)
        raise GridError(MISSES if is_hopeless else str(error), is_hopeless=is_hopeless) from error


def _step_of(source: Source, array: NDArray[Any]) -> float:
    """Distance of two neighbouring values that the file can hold, if it scales integers; else 0."""
    path = source.path if isinstance(source, Channel) else source
    return value_step(path) if isinstance(path, Path) and array.dtype.kind == "f" else 0.0
