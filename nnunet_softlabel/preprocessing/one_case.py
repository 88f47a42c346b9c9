"""One soft label through nnU-Net's own crop and resampling, onto disk."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from numpy.typing import NDArray

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.encoding import quantise
from nnunet_softlabel.formats.files import Json
from nnunet_softlabel.formats.images import is_flat, read_mask
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.formats.packed import PackedMap, is_zero_in_all, stacked
from nnunet_softlabel.formats.probability_maps import PNG_ONE, read_probability
from nnunet_softlabel.preprocessing.case_file import is_made_from, write_case
from nnunet_softlabel.preprocessing.case_plan import CasePlan
from nnunet_softlabel.preprocessing.disputed import disputed_locations
from nnunet_softlabel.preprocessing.records import MadeFrom
from nnunet_softlabel.preprocessing.unanswered import Answered, filled

RESAMPLED_FROM = 2  # voxels: linear resampling looks at the next one, a cubic one at two


@dataclass(frozen=True)
class Configuration:
    """What is the same for all cases of a configuration.

    Attributes:
        labels: what the channels mean.
        images: folder of the preprocessed images.
        dataset_class: nnU-Net's, that reads them.
        folder: of the files to write, ``CASE.b2nd``.
        plan: nnU-Net's, as far as a case needs it.
        reuse: False makes the files again in any case.
    """

    labels: Labels
    images: Path
    dataset_class: Any
    folder: Path
    plan: CasePlan
    reuse: bool = True


@dataclass(frozen=True)
class CaseFiles:
    """What was converted of a case.

    Attributes:
        soft: one probability map per foreground channel.
        label: its hard label; read where labels know an ignore value and the case is resampled.
    """

    soft: Sequence[Path]
    label: Path


def make_case(case: str, files: CaseFiles, made_from: MadeFrom, configuration: Configuration) -> str:
    """Preprocess the soft label of one case unless its file says that it was made from the same.

    Args:
        case: its name.
        files: in the data set.
        made_from: what decides the result; goes into the file.
        configuration: what is the same for all.

    Returns:
        The case's name.

    Raises:
        DatasetError: for a file that cannot be read or does not have the image's size.
    """
    target, labels = configuration.folder / f"{case}.b2nd", configuration.labels
    if configuration.reuse and is_made_from(target, made_from):
        return case
    image, hard, _, properties = load_preprocessed(configuration.images, case, configuration.dataset_class)
    soft = _SoftFiles(files.soft, configuration.plan.reader_class)
    answered = answered_voxels(files.label, hard, properties, configuration)
    try:
        quantised = preprocess_case(
            soft,
            properties,
            configuration.plan,
            shape=image.shape[1:],
            is_exclusive=not labels.has_regions,
            answered=answered,
        )
    except DatasetError as error:
        what = "" if str(error).startswith(str(files.soft[0].parent)) else f"{files.soft[0]} "
        raise DatasetError(f"Case {case}: soft label {what}{error}") from error
    locations: NDArray[Any] = np.empty((0, image.ndim), dtype=np.int16)
    if soft.is_disputed:  # resampling blurs unanimous labels too, which disputes nothing
        locations = disputed_locations(
            (packed.whole() for packed in quantised),
            np.asarray(hard[0]),
            list(labels.values.values()),
            ignore=labels.ignore,
        )
    patch_size = configuration.plan.patch_size
    write_case(target, quantised, locations, patch_size=patch_size, made_from=made_from)
    return case


def preprocess_case(
    soft: Iterable[NDArray[Any]],
    properties: Json,
    plan: CasePlan,
    *,
    shape: Sequence[int],
    is_exclusive: bool = True,
    answered: Answered | None = None,
) -> list[PackedMap]:
    """Transpose, crop and resample foreground probabilities as nnU-Net did the image, channel by channel.

    Args:
        soft: each channel ``(z, y, x)`` as read.
        properties: nnU-Net's, of the preprocessed image.
        plan: nnU-Net's, as far as a case needs it.
        shape: spatial shape of the preprocessed image.
        is_exclusive: channels are classes and sum to at most 1.
        answered: voxels that somebody answered, None for all. The others get the value of a neighbour.

    Returns:
        A map ``shape`` of int16 per channel, see `quantise`.

    Raises:
        DatasetError: if the soft label does not have the image's size.
    """
    axes = plan.transpose_forward
    spacing = [properties["spacing"][axis] for axis in axes]
    target_spacing = list(plan.spacing)
    if len(target_spacing) < len(spacing):  # a 2d configuration leaves the distance of slices alone
        target_spacing = [spacing[0], *target_spacing]
    resample = partial(plan.resample, shape=shape, spacing=spacing, new_spacing=target_spacing)
    before = None
    if answered is not None and answered.before is not None:
        before = _cropped(answered.before.transpose(axes), properties)
    channels = []
    for channel in soft:
        cropped = _cropped(channel.transpose(axes), properties)
        if before is not None and cropped.any():
            cropped = filled(cropped, before, steps=RESAMPLED_FROM)
        channels.append(_resampled(cropped, shape, resample, None if answered is None else answered.after))
        del channel, cropped  # before the next one is read
    return _quantised(channels, is_exclusive=is_exclusive)


def _resampled(
    cropped: NDArray[Any],
    shape: Sequence[int],
    resample: Callable[[NDArray[Any]], Any],
    is_answered: NDArray[Any] | None,
) -> PackedMap:
    """A channel on the voxels of the preprocessed image; an empty one is empty there, too."""
    if not cropped.any():
        return PackedMap(shape, np.float32)
    found = cropped if cropped.shape == tuple(shape) else np.asarray(resample(cropped))
    found = np.clip(found, 0, 1, out=None if found is cropped else found)
    if is_answered is not None:
        found = filled(found, is_answered)
    return PackedMap.of(found.astype(np.float32, copy=False))


def answered_voxels(
    label_file: Path, hard: Any, properties: Json, configuration: Configuration
) -> Answered | None:
    """Which voxels are not ignored, by the hard label; None if labels know no ignore value.

    Raises:
        DatasetError: if the hard label is missing or damaged.
    """
    ignore = configuration.labels.ignore
    if ignore is None:
        return None
    after = np.asarray(hard[0]) != ignore
    before = None
    if tuple(properties["shape_after_cropping_and_before_resampling"]) != after.shape:
        try:
            read_mask(label_file)  # nnU-Net's reader fills what is cut off with zeros
            label, _ = configuration.plan.reader_class().read_seg(str(label_file))
        except (DatasetError, RuntimeError, OSError, ValueError) as error:
            raise DatasetError(f"{label_file}: cannot be read; convert the data set again.") from error
        before = label[0] != ignore
    return Answered(before, after)


def _cropped(channel: NDArray[Any], properties: Json) -> NDArray[Any]:
    """What nnU-Net left of the image, a view."""
    if channel.shape != tuple(properties["shape_before_cropping"]):
        raise DatasetError(
            f"has the size {channel.shape}, its image {tuple(properties['shape_before_cropping'])}; "
            f"run nnUNetv2_plan_and_preprocess again."
        )
    return channel[tuple(slice(*bounds) for bounds in properties["bbox_used_for_cropping"])]


def _quantised(channels: Sequence[PackedMap], *, is_exclusive: bool) -> list[PackedMap]:
    quantised = [PackedMap(packed.shape, np.int16) for packed in channels]
    kept = np.empty((len(channels), channels[0].part(0).stop), np.float32)  # one array for all chunks
    for index in range(channels[0].n_chunks):
        if is_zero_in_all(channels, index):
            continue
        marked = [c for c, packed in enumerate(channels) if not packed.is_zero(index)]
        soft = stacked([channels[c] for c in marked], index, kept)
        if is_exclusive and len(soft) > 1:
            soft /= np.maximum(soft.sum(axis=0), 1)
        for c, values in zip(marked, soft, strict=True):  # one by one: all at once need twice the memory
            quantised[c].put(index, quantise(values))
    return quantised


def image_shape(images: Path, case: str, dataset_class: Any) -> tuple[int, ...]:
    """Spatial shape of a preprocessed image.

    Raises:
        DatasetError: if it is damaged.
    """
    path = images / f"{case}.b2nd"
    if not path.is_file():
        return tuple(load_preprocessed(images, case, dataset_class)[0].shape[1:])
    try:  # without the properties, which are slow to read
        return tuple(blosc2.open(str(path), mode="r").shape[1:])
    except (RuntimeError, OSError, ValueError, KeyError) as error:
        raise DatasetError(f"{path}: is damaged ({error}); run nnUNetv2_preprocess again.") from error


def load_preprocessed(images: Path, case: str, dataset_class: Any) -> Any:
    """What nnU-Net preprocessed of a case: image, hard label, the cascade's, properties.

    Raises:
        DatasetError: if a file is damaged.
    """
    try:
        return dataset_class(str(images), [case]).load_case(case)
    except (RuntimeError, OSError, ValueError, KeyError, EOFError, pickle.UnpicklingError) as error:
        raise DatasetError(
            f"{images / case}: nnU-Net's preprocessed files of it are damaged ({error}); "
            f"run nnUNetv2_preprocess again."
        ) from error


class _SoftFiles:
    """The channels of a soft label through the plan's own reader, as nnU-Net reads the images: ``(z, y, x)``.

    Attributes:
        is_disputed: True if any channel that was read holds a probability between 0 and 1.
    """

    def __init__(self, files: Sequence[Path], reader_class: type[Any]) -> None:
        self.files = files
        self.reader = reader_class()
        self.is_disputed = False

    def __iter__(self) -> Iterator[NDArray[Any]]:
        """Read one file after the other.

        Raises:
            DatasetError: if a file is damaged, or holds no probabilities.
        """
        spacing: Any = None
        for path in self.files:
            read = self._read(path)
            found = read.pop()
            spacing = spacing or found
            if list(found) != list(spacing):
                raise DatasetError("cannot be read; convert the data set again.")
            yield self._probability(path, read)

    def _read(self, path: Path) -> list[Any]:
        """Channel, and spacing ``(z, y, x)``, as the plan's reader gives them."""
        # nnU-Net's reader fills what is cut off with zeros, and takes any value
        probability, grid = read_probability(path)
        if type(self.reader) is SimpleITKIO and probability.ndim == 3 and not is_flat(path):
            return [probability, list(grid.spacing_of_axes_mm)]  # the same; no need to read twice
        del probability
        try:
            (channel,), about = self.reader.read_images([str(path)])
        except (RuntimeError, OSError, ValueError) as error:
            raise DatasetError("cannot be read; convert the data set again.") from error
        return [channel, about["spacing"]]

    def _probability(self, path: Path, read: list[NDArray[Any]]) -> NDArray[Any]:
        """The channel that was read, taken out of the list, so that the caller alone has it."""
        channel = read.pop()
        if is_flat(path):
            channel = channel / np.float32(PNG_ONE)
        self.is_disputed = self.is_disputed or bool(((channel > 0) & (channel < 1)).any())
        return channel
