"""The voxels of a plain NIfTI file in one pass, which unpacks them and compares the checksum.

ITK would unpack the file a second time. ITK still says where the voxels lie, and reads what is not plain.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nnunet_softlabel.formats.file_checks import check_has_no_twin, check_header
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.nifti import NiftiHeader, unpacked

# NIfTI's code -> numpy's
PLAIN_TYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
}  # fmt: skip
HEADER_1 = 348  # bytes of the header of NIfTI 1
FIRST_VOXEL = 352
MAGIC = slice(344, 348)
TYPE_OF_VOXEL = slice(70, 74)  # tells nothing about the grid
MOST_GRIDS = 256


@dataclass(frozen=True)
class _Reading:
    """What ITK says of a header: the grid, and the values per voxel."""

    grid: Grid
    components: int


# header without type of voxel -> what ITK says of it; the files of a case mostly share one
_readings: dict[bytes, _Reading] = {}


def read_plain_nifti(path: Path) -> tuple[NDArray[Any], Grid] | None:
    """The voxels, ``(z, y, x)`` or ``(y, x)``, and their grid; None for what ITK must read itself.

    Plain are three axes at most, one number per voxel as this machine stores it, and no rescaling.

    Raises:
        DatasetError: see `check_header`.
        EOFError: if the file ends early.
        zlib.error: if a gzip file is damaged.
        RuntimeError: if ITK cannot read the header.
    """
    check_has_no_twin(path)
    pieces = unpacked(path)
    first = next(pieces, b"")
    header = NiftiHeader.parse(first)
    if header is None:
        return None
    check_header(path, header)
    if not _is_plain(header, first):
        return None
    reading = _reading_of(path, first[:HEADER_1])
    if (reading.grid.size, reading.components) != (header.shape, 1):
        return None
    content = _filled(first, pieces, header)
    voxels = np.frombuffer(content, PLAIN_TYPES[header.datatype], offset=header.start)
    return voxels.reshape(header.shape[::-1]), reading.grid


def _is_plain(header: NiftiHeader, first: bytes) -> bool:
    return (
        (header.version, header.order, sys.byteorder) == (1, "<", "little")
        and first[MAGIC] == b"n+1\0"
        and header.datatype in PLAIN_TYPES
        and header.bits == 8 * np.dtype(PLAIN_TYPES[header.datatype]).itemsize
        and header.start >= FIRST_VOXEL
        and header.start % 16 == 0
        and header.slope in (0, 1)
        and header.intercept == 0
        and 2 <= len(header.shape) <= 3
        and min(header.shape) > 0
    )


def _filled(first: bytes, pieces: Iterator[bytes], header: NiftiHeader) -> bytearray:
    """Header and voxels, all of them; what follows is unpacked too, for its checksum, and dropped."""
    expected = header.start + header.voxel_bytes
    content = bytearray(expected)
    end = min(len(first), expected)
    content[:end] = first[:end]
    length = len(first)
    for piece in pieces:
        end = min(length + len(piece), expected)
        if length < end:
            content[length:end] = piece[: end - length]
        length += len(piece)
    if length < expected:
        raise EOFError(f"the file ends after {length} of {expected} bytes")
    return content


def _reading_of(path: Path, header: bytes) -> _Reading:
    """What ITK says, which asks the header alone."""
    key = header[: TYPE_OF_VOXEL.start] + header[TYPE_OF_VOXEL.stop :]
    if key not in _readings:
        if len(_readings) >= MOST_GRIDS:
            _readings.clear()
        reader = sitk.ImageFileReader()
        reader.SetImageIO("NiftiImageIO")
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        grid = Grid(reader.GetSize(), reader.GetSpacing(), reader.GetOrigin(), reader.GetDirection())
        _readings[key] = _Reading(grid, reader.GetNumberOfComponents())
    return _readings[key]
