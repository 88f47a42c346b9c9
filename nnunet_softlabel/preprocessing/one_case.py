"""One soft label through nnU-Net's own crop and resampling, onto disk."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import blosc2
import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from numpy.typing import NDArray

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.encoding import quantise
from nnunet_softlabel.formats.files import Json
from nnunet_softlabel.formats.images import is_flat
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.formats.probability_maps import PNG_ONE, read_probability
from nnunet_softlabel.preprocessing.disputed import disputed_locations, locations_path
from nnunet_softlabel.preprocessing.records import MadeFrom

META_KEY = "made_from"
DISPUTED_KEY = "disputed"  # digest of the file of disputed voxels, or "none"
TEMPORARY = ".unfinished_"


@dataclass(frozen=True)
class Configuration:
    """What is the same for all cases of a configuration.

    Attributes:
        labels: what the channels mean.
        images: folder of the preprocessed images.
        dataset_class: nnU-Net's, that reads them.
        folder: of the files to write, ``CASE.b2nd``.
        plans_manager: nnU-Net's.
        configuration_manager: nnU-Net's.
        reuse: False makes the files again in any case.
    """

    labels: Labels
    images: Path
    dataset_class: Any
    folder: Path
    plans_manager: PlansManager
    configuration_manager: ConfigurationManager
    reuse: bool = True


def make_case(
    case: str, soft_files: Sequence[Path], made_from: MadeFrom, configuration: Configuration
) -> str:
    """Preprocess the soft label of one case unless its file says that it was made from the same.

    Args:
        case: its name.
        soft_files: one probability map per foreground channel.
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
    try:
        soft = _read(soft_files, configuration.plans_manager)
        quantised = preprocess_case(
            soft,
            properties,
            configuration.plans_manager,
            configuration.configuration_manager,
            shape=image.shape[1:],
            is_exclusive=not labels.has_regions,
        )
    except DatasetError as error:
        what = "" if str(error).startswith(str(soft_files[0].parent)) else f"{soft_files[0]} "
        raise DatasetError(f"Case {case}: soft label {what}{error}") from error
    locations: NDArray[Any] = np.empty((0, soft.ndim), dtype=np.int16)
    if ((soft > 0) & (soft < 1)).any():  # resampling blurs unanimous labels too, which disputes nothing
        values = list(labels.values.values())
        locations = disputed_locations(quantised, np.asarray(hard[0]), values, ignore=labels.ignore)
    patch_size = tuple(configuration.configuration_manager.patch_size)
    _write(target, quantised, locations, patch_size=patch_size, made_from=made_from)
    return case


def preprocess_case(
    soft: NDArray[Any],
    properties: Json,
    plans_manager: PlansManager,
    configuration_manager: ConfigurationManager,
    *,
    shape: Sequence[int],
    is_exclusive: bool = True,
) -> NDArray[Any]:
    """Transpose, crop and resample foreground probabilities as nnU-Net did the image.

    Args:
        soft: ``(C, z, y, x)`` as read.
        properties: nnU-Net's, of the preprocessed image.
        plans_manager: nnU-Net's.
        configuration_manager: nnU-Net's.
        shape: spatial shape of the preprocessed image.
        is_exclusive: channels are classes and sum to at most 1.

    Returns:
        int16 ``(C, *shape)``, see `quantise`.

    Raises:
        DatasetError: if the soft label does not have the image's size.
    """
    axes = plans_manager.transpose_forward
    soft = soft.transpose([0, *(axis + 1 for axis in axes)])
    if tuple(soft.shape[1:]) != tuple(properties["shape_before_cropping"]):
        raise DatasetError(
            f"has the size {soft.shape[1:]}, its image {tuple(properties['shape_before_cropping'])}; "
            f"run nnUNetv2_plan_and_preprocess again."
        )
    box = (slice(None), *(slice(*bounds) for bounds in properties["bbox_used_for_cropping"]))
    soft = soft[box]
    if tuple(soft.shape[1:]) != tuple(shape):
        spacing = [properties["spacing"][axis] for axis in axes]
        target_spacing = list(configuration_manager.spacing)
        if len(target_spacing) < len(spacing):  # a 2d configuration leaves the distance of slices alone
            target_spacing = [spacing[0], *target_spacing]
        resample = configuration_manager.resampling_fn_probabilities
        soft = np.asarray(resample(np.ascontiguousarray(soft), list(shape), spacing, target_spacing))
    soft = np.clip(soft, 0, 1)
    if is_exclusive and len(soft) > 1:
        soft = soft / np.maximum(soft.sum(axis=0), 1)
    return quantise(soft)


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


def is_made_from(target: Path, made_from: MadeFrom) -> bool:
    """True if the file says that it was made from the same, with the disputed voxels that lie beside it."""
    if not target.is_file():
        return False
    try:
        array = blosc2.open(str(target), mode="r")  # named, for its metadata must not outlive it
        meta = array.schunk.vlmeta
        return bool(
            meta[META_KEY] == json.dumps(made_from)
            and meta[DISPUTED_KEY] == disputed_digest(target.parent, target.stem)
        )
    except (RuntimeError, KeyError, ValueError, OSError):
        return False  # written in part by something that does not rename, or not ours: make it again


def disputed_digest(folder: Path, case: str) -> str:
    """One word for the disputed voxels of a case on disk; "none" if there is no file."""
    path = locations_path(folder, case)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "none"


def _read(files: Sequence[Path], plans_manager: PlansManager) -> NDArray[Any]:
    """Soft files through the plan's own reader, as nnU-Net reads the images: ``(C, z, y, x)``.

    Raises:
        DatasetError: if a file is damaged, or holds no probabilities.
    """
    for path in files:  # nnU-Net's reader fills what is cut off with zeros, and takes any value
        read_probability(path)
    try:
        soft, _ = plans_manager.image_reader_writer_class().read_images([str(path) for path in files])
    except (RuntimeError, OSError, ValueError) as error:
        raise DatasetError("cannot be read; convert the data set again.") from error
    return soft / np.float32(PNG_ONE) if is_flat(files[0]) else soft


def _write(
    target: Path,
    quantised: NDArray[Any],
    locations: NDArray[Any],
    *,
    patch_size: tuple[int, ...],
    made_from: MadeFrom,
) -> None:
    # a name of its own on every machine that shares the folder; the case's file comes last
    temporary = target.with_name(f"{TEMPORARY}{uuid4().hex}.b2nd")
    if len(locations):
        with temporary.open("wb") as file:
            np.save(file, locations)
        os.replace(temporary, locations_path(target.parent, target.stem))
    else:
        locations_path(target.parent, target.stem).unlink(missing_ok=True)
    blocks, chunks = comp_blosc2_params(quantised.shape, patch_size, quantised.itemsize)
    cparams = {"codec": blosc2.Codec.LZ4HC, "filters": [blosc2.Filter.SHUFFLE], "nthreads": 1, "clevel": 5}
    try:
        array = blosc2.asarray(
            np.ascontiguousarray(quantised),
            urlpath=str(temporary),
            chunks=chunks,
            blocks=blocks,
            cparams=cparams,
        )
        array.schunk.vlmeta[META_KEY] = json.dumps(made_from)
        array.schunk.vlmeta[DISPUTED_KEY] = disputed_digest(target.parent, target.stem)
        del array
        if not np.array_equal(np.asarray(blosc2.open(str(temporary), mode="r")[:]), quantised):
            raise RuntimeError("other values than were written")
    except RuntimeError as error:  # blosc2 has no OSError
        temporary.unlink(missing_ok=True)
        raise OSError(
            errno.EIO, f"was not written whole ({error}); is the disk full?", str(target)
        ) from error
    os.replace(temporary, target)
