"""What a NIfTI file says of itself. ITK passes over much of it, and opens the file anew for each question."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ENDINGS = (".nii", ".nii.gz")
FLOATS = {16: "f4", 64: "f8"}  # NIfTI's code -> numpy's
COMPLEX = (32, 1792, 2048)
CHUNK = 1 << 20
GZIP = 16 + zlib.MAX_WBITS  # zlib's word for a gzip stream, whose checksum it compares
HEADER_BYTES = 540  # of NIfTI 2; NIfTI 1 has 348


def is_nifti(path: Path) -> bool:
    """True for names that ITK's NIfTI reader takes."""
    return path.name.lower().endswith(ENDINGS)


@dataclass(frozen=True)
class NiftiHeader:
    """What a header says.

    Attributes:
        version: 1 or 2.
        order: byte order as numpy and struct write it, ``<`` or ``>``.
        shape: voxels per axis.
        datatype: NIfTI's code.
        bits: of a voxel.
        start: first byte of the voxels.
        slope: of a rescaling (``scl_slope``); 0 means that nothing is rescaled.
        intercept: of a rescaling (``scl_inter``).
    """

    version: int
    order: str
    shape: tuple[int, ...]
    datatype: int
    bits: int
    start: int
    slope: float
    intercept: float

    @property
    def voxel_bytes(self) -> int:
        """Bytes of all voxels."""
        return math.prod(self.shape) * self.bits // 8

    @classmethod
    def parse(cls, content: bytes) -> NiftiHeader | None:
        """Read a header from the first bytes of a file (unpacked); None if there is none.

        References:
            nifti1.h and nifti2.h, https://nifti.nimh.nih.gov.
        """
        for version, size in ((1, 348), (2, 540)):
            for order in "<>":
                if len(content) < size or struct.unpack_from(order + "i", content)[0] != size:
                    continue
                if version == 1:
                    ndim, *dims = struct.unpack_from(order + "8h", content, 40)
                    datatype, bits = struct.unpack_from(order + "2h", content, 70)
                    start, slope, intercept = struct.unpack_from(order + "3f", content, 108)
                else:
                    datatype, bits = struct.unpack_from(order + "2h", content, 12)
                    ndim, *dims = struct.unpack_from(order + "8q", content, 16)
                    (start,) = struct.unpack_from(order + "q", content, 168)
                    slope, intercept = struct.unpack_from(order + "2d", content, 176)
                if not 1 <= ndim <= 7 or not math.isfinite(start):
                    return None
                return cls(
                    version,
                    order,
                    tuple(dims[:ndim]),
                    datatype,
                    bits,
                    int(start),
                    float(slope),
                    float(intercept),
                )
        return None


def read_header(path: Path) -> NiftiHeader | None:
    """The header of a file; None if it has none."""
    for content in unpacked(path, chunk=HEADER_BYTES):
        return NiftiHeader.parse(content)
    return None


def unpacked(path: Path, *, chunk: int = CHUNK) -> Iterator[bytes]:
    """The content of a file, piece by piece; a gzip file is unpacked, and its checksum compared at the end.

    Raises:
        EOFError: if a gzip file ends early.
        zlib.error: if it is damaged, or none.
    """
    with path.open("rb") as file:
        if not path.name.lower().endswith(".gz"):
            while piece := file.read(chunk):
                yield piece
            return
        decoder, packed = zlib.decompressobj(GZIP), file.read(CHUNK)
        while packed:
            piece = decoder.decompress(packed, chunk)
            if piece:
                yield piece
            if decoder.eof:  # another stream may follow, or zeros that fill a block
                packed = decoder.unused_data.lstrip(b"\0") or file.read(CHUNK).lstrip(b"\0")
                if packed:
                    decoder = zlib.decompressobj(GZIP)
            else:
                packed = decoder.unconsumed_tail or file.read(CHUNK)
        if not decoder.eof:
            raise EOFError("the gzip stream ends before its end-of-stream marker")
