"""What nnU-Net leaves in a prediction folder: probabilities in ``CASE.npz``, its segmentation beside them."""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any

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
PIECE = 1 << 20  # bytes that are unpacked at a time
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
    if not cases and segmented:
        raise DatasetError(
            f"{folder}: holds segmentations alone, no .npz probabilities; {remedy}. An ensemble keeps them "
            f"with `nnUNetv2_ensemble ... --save_npz`; `nnUNetv2_evaluate_folder` scores postprocessed masks."
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
            return math.prod(_array_header(array)[0][1:])
    except UNREADABLE:
        return 0


def checksums_of(path: Path) -> list[tuple[str, int, int]]:
    """Name, size and CRC-32 of what is in an archive such as ``.npz``, from its table of contents.

    Raises:
        DatasetError: if it is none.
    """
    check_is_no_pipe(path)
    with _told(path), zipfile.ZipFile(path) as archive:
        return [(info.filename, info.file_size, info.CRC) for info in archive.infolist()]


def read_probabilities(folder: Path, case: str, labels: Labels, shape: tuple[int, ...]) -> NDArray[Any]:
    """Probabilities ``(K, *spatial)`` of a case: with the background first for classes, K = C for regions.

    Raises:
        DatasetError: if the file is unreadable, of another shape, or holds no probabilities.
    """
    path = folder / f"{case}.npz"
    check_is_no_pipe(path)
    with _told(path), np.load(path) as content:
        probabilities = np.asarray(content["probabilities"])
    _check_type(path, probabilities.dtype)
    probabilities = probabilities.astype(np.float32, copy=False)
    if probabilities.ndim == len(shape) + 2 and probabilities.shape[1] == 1:
        probabilities = probabilities[:, 0]  # nnU-Net keeps an axis of one for flat images
    _check_shape(path, probabilities.shape, labels, shape)
    for channel in probabilities:
        _clip_checked(path, channel)
    if not labels.has_regions:
        _check_sums(path, probabilities.sum(axis=0))
    return probabilities


def probability_channels(
    folder: Path, case: str, labels: Labels, shape: tuple[int, ...], *, has_known_sums: bool = False
) -> Iterator[NDArray[Any]]:
    """What `read_probabilities` gives, channel by channel, float32 ``(*spatial)``, of which none is kept.

    Args:
        folder: that holds ``CASE.npz``.
        case: its name.
        labels: what the channels mean.
        shape: of a channel.
        has_known_sums: the sums of this file have been checked before.

    Raises:
        DatasetError: as `read_probabilities`; of sums before the last channel is given.
    """
    path = folder / f"{case}.npz"
    check_is_no_pipe(path)
    sums = None if labels.has_regions or has_known_sums else np.zeros(shape, np.float32)
    with _told(path), zipfile.ZipFile(path) as content, content.open("probabilities.npy") as stored:
        own_shape, is_fortran, dtype = _array_header(stored)
        is_plain = not is_fortran and not dtype.hasobject
    if not is_plain:  # channels do not lie one after the other
        yield from read_probabilities(folder, case, labels, shape)
        return
    _check_type(path, dtype)
    if len(own_shape) == len(shape) + 2 and own_shape[1] == 1:
        own_shape = (own_shape[0], *own_shape[2:])
    _check_shape(path, own_shape, labels, shape)
    with _told(path), zipfile.ZipFile(path) as content, content.open("probabilities.npy") as stored:
        _array_header(stored)
        for left in reversed(range(own_shape[0])):
            held = [_next_array(stored, shape, dtype).astype(np.float32, copy=False)]
            _clip_checked(path, held[0])
            if sums is not None:
                sums += held[0]
            if not left:
                stored.read()  # to the end, where the checksum is compared
                if sums is not None:
                    _check_sums(path, sums)
                    sums = None  # who works on the last channel needs the memory
            yield held.pop()  # what is handed over is not kept: who takes it may let it go


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """What goes wrong while a file is read, as one line that names it."""
    try:
        yield
    except DatasetError:
        raise
    except MemoryError as error:
        raise DatasetError(
            f"{path}: cannot be read: it takes more memory than there is ({str(error) or 'all is in use'}); "
            f"use a smaller -np, or predict again if its header is wrong."
        ) from error
    except UNREADABLE as error:
        raise DatasetError(
            f"{path}: cannot be read as nnU-Net's probabilities ({error}); predict again."
        ) from error


def _array_header(stored: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order of axes and type of a stored array; then its numbers follow."""
    version = np.lib.format.read_magic(stored)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stored)
    return np.lib.format.read_array_header_2_0(stored)


def _next_array(stored: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    array = np.empty(shape, dtype)
    content = array.reshape(-1).view(np.uint8)
    start = 0
    while start < len(content):
        piece = stored.read(min(PIECE, len(content) - start))
        if not piece:
            raise EOFError(f"the array ends after {start} of {len(content)} bytes of a channel")
        content[start : start + len(piece)] = np.frombuffer(piece, np.uint8)
        start += len(piece)
    return array


def _check_type(path: Path, dtype: np.dtype[Any]) -> None:
    if dtype.kind not in "fiub":
        raise DatasetError(f"{path}: holds {dtype}, no probabilities; predict again.")


def _check_shape(path: Path, found: tuple[int, ...], labels: Labels, shape: tuple[int, ...]) -> None:
    expected = (labels.network_channels, *shape)
    if found != expected:
        raise DatasetError(
            f"{path}: probabilities have shape {found}, the reference asks for {expected}; "
            f"is this the data set it was predicted for?"
        )


def _clip_checked(path: Path, channel: NDArray[Any]) -> None:
    """Clip probabilities that are off by rounding, in place."""
    if not channel.size:
        return
    lowest, highest = channel.min(), channel.max()
    if math.isnan(lowest):
        raise DatasetError(
            f"{path}: holds values that are no probabilities (not a number); see in the log of its training "
            f"whether the loss was a number, and train again."
        )
    if not (lowest >= -1e-3 and highest <= 1 + 1e-3):
        raise DatasetError(f"{path}: holds values that are no probabilities; predict again.")
    if lowest < 0 or highest > 1:
        np.clip(channel, 0, 1, out=channel)


def _check_sums(path: Path, sums: NDArray[Any]) -> None:
    if sums.size and not -LARGEST_EXCESS <= sums.min() - 1 <= sums.max() - 1 <= LARGEST_EXCESS:
        raise DatasetError(
            f"{path}: probabilities of its classes sum to {sums.min():.3f} to {sums.max():.3f} instead "
            f"of 1; predict again."
        )


def write_probabilities(path: Path, channels: Iterable[NDArray[Any]], shape: tuple[int, ...]) -> None:
    """Write ``CASE.npz`` as nnU-Net does, ``(K, *spatial)`` float32, while channels come one by one."""
    dtype = np.dtype(np.float32)
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as content,
        content.open("probabilities.npy", "w", force_zip64=True) as stored,
    ):
        np.lib.format.write_array_header_1_0(stored, header)
        for channel in channels:
            numbers = np.ascontiguousarray(channel, dtype).reshape(-1).view(np.uint8)
            for start in range(0, len(numbers), PIECE):
                stored.write(numbers[start : start + PIECE].data)


def foreground_channels(channels: Iterator[NDArray[Any]], labels: Labels) -> Iterator[NDArray[Any]]:
    """Those of a network's channels that have a name, as they come; none is kept."""
    return islice(channels, labels.network_channels - len(labels.names), None)
