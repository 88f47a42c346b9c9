"""What nnU-Net leaves in a prediction folder: probabilities in ``CASE.npz``, its segmentation beside them."""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.files import check_is_no_pipe, visible
from nnunet_softlabel.formats.labels import Labels

# what numpy raises on files that are no .npz, or damaged
UNREADABLE: tuple[type[Exception], ...] = (
    *(OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, MemoryError),
    *(
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        RuntimeError,
    ),  # the last: a password
)
LARGEST_EXCESS = 0.01  # of a sum of probabilities over 1, in half precision


def predicted_cases(folder: Path, *, file_ending: str) -> list[str]:
    """Names of the cases with probabilities, sorted.

    Raises:
        DatasetError: if there are none, or if a segmentation lies there without its probabilities.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder; -i names the folder that nnU-Net predicted into.")
    cases = [path.stem for path in visible(folder, "*.npz")]
    segmented = {path.name[: -len(file_ending)] for path in visible(folder, f"*{file_ending}")}
    missing = sorted(segmented.difference(cases))
    remedy = (
        "predict with `nnUNetv2_predict --save_probabilities`; for validation cases run "
        "`nnUNetv2_train ... --val --npz`, which trains nothing"
    )
    if not cases:
        raise DatasetError(f"{folder}: holds no .npz probabilities; {remedy}.")
    if missing:
        raise DatasetError(
            f"{folder}: case {missing[0]} has a segmentation but no {missing[0]}.npz; {remedy}."
        )
    return cases


def predicted_voxels(path: Path) -> int:
    """Voxels of a file of probabilities, from its header alone; 0 where it cannot be read."""
    try:
        with zipfile.ZipFile(path) as content, content.open("probabilities.npy") as array:
            version = np.lib.format.read_magic(array)
            reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else None
            shape, _, _ = (reader or np.lib.format.read_array_header_2_0)(array)
            return math.prod(shape[1:])
    except UNREADABLE:
        return 0


def read_probabilities(folder: Path, case: str, labels: Labels, shape: tuple[int, ...]) -> NDArray[Any]:
    """Probabilities ``(K, *spatial)`` of a case: with the background first for classes, K = C for regions.

    Raises:
        DatasetError: if the file is unreadable, of another shape, or holds no probabilities.
    """
    path = folder / f"{case}.npz"
    check_is_no_pipe(path)
    try:
        with np.load(path) as content:
            probabilities = np.asarray(content["probabilities"])
    except MemoryError as error:
        raise DatasetError(
            f"{path}: cannot be read: it takes more memory than there is ({str(error) or 'all is in use'}); "
            f"use a smaller -np, or predict again if its header is wrong."
        ) from error
    except UNREADABLE as error:
        raise DatasetError(
            f"{path}: cannot be read as nnU-Net's probabilities ({error}); predict again."
        ) from error
    if probabilities.dtype.kind not in "fiub":
        raise DatasetError(f"{path}: holds {probabilities.dtype}, no probabilities; predict again.")
    probabilities = probabilities.astype(np.float32, copy=False)
    if probabilities.ndim == len(shape) + 2 and probabilities.shape[1] == 1:
        probabilities = probabilities[:, 0]  # nnU-Net keeps an axis of one for flat images
    channels = len(labels.names) + (not labels.has_regions)
    if probabilities.shape != (channels, *shape):
        raise DatasetError(
            f"{path}: probabilities have shape {probabilities.shape}, the reference asks for "
            f"{(channels, *shape)}; is this the data set it was predicted for?"
        )
    if not np.isfinite(probabilities).all() or probabilities.min() < -1e-3 or probabilities.max() > 1 + 1e-3:
        raise DatasetError(f"{path}: holds values that are no probabilities; predict again.")
    if not labels.has_regions:
        sums = probabilities.sum(axis=0)
        if sums.size and np.abs(sums - 1).max() > LARGEST_EXCESS:
            raise DatasetError(
                f"{path}: probabilities of its classes sum to {sums.min():.3f} to {sums.max():.3f} instead "
                f"of 1; predict again."
            )
    return np.clip(probabilities, 0, 1)


def foreground(probabilities: NDArray[Any], labels: Labels) -> NDArray[Any]:
    """The foreground channels ``(C, *spatial)`` of what `read_probabilities` gives."""
    return probabilities if labels.has_regions else probabilities[1:]
