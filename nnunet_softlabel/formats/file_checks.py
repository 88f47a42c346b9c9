"""What is checked of an image file before and after its voxels are read: readers pass over much of it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.nifti import COMPLEX, FLOATS, NiftiHeader, is_nifti, read_header, unpacked

MOST_EXPANSION = 1032  # of deflate: no file of N bytes holds more than 1032 N
GIPL_HEADER_BYTES = 256
READERS = {
    (".nii", ".nii.gz"): "NiftiImageIO",
    (".nrrd", ".nhdr"): "NrrdImageIO",
    (".mha", ".mhd"): "MetaImageIO",
    (".gipl",): "GiplImageIO",
}
COMPLEX_NUMBERS = "holds complex numbers; store the magnitude."


def check_is_file(path: Path) -> None:
    """Refuse what is missing, and what is there but is no file: a pipe would wait for ever.

    Raises:
        DatasetError: saying which.
    """
    try:
        if path.is_file():
            return
        is_link, is_there = path.is_symlink(), path.exists()
    except (OSError, ValueError) as error:  # a name that is too long, or holds a zero byte
        raise DatasetError(f"{path}: cannot be opened ({error}).") from error
    if is_link and not is_there:
        raise DatasetError(f"{path}: is a link to a file that is not there; fetch the file, or remove it.")
    if is_there:
        raise DatasetError(f"{path}: is a folder or a pipe, no file; replace or remove it.")
    raise DatasetError(f"{path}: no such file.")


def check_has_no_twin(path: Path) -> None:
    """Refuse ``CASE.nii`` beside ``CASE.nii.gz``: ITK takes the header of one and the voxels of the other.

    Raises:
        DatasetError: naming both.
    """
    if not is_nifti(path):
        return
    is_zipped = path.name.lower().endswith(".gz")
    twin = path.with_suffix("") if is_zipped else path.with_name(path.name + ".gz")
    if twin.exists():
        raise DatasetError(
            f"{path}: {twin.name} lies beside it, and readers of NIfTI mix the two up; move one away."
        )


def check_volume_before_reading(path: Path) -> None:
    """Refuse a volume whose header promises more than its file can hold, before memory is asked for.

    Raises:
        DatasetError: for such a header, and for complex numbers.
        EOFError: for an uncompressed file that is cut off.
        RuntimeError: if ITK cannot read the header.
    """
    check_has_no_twin(path)
    header = read_header(path) if is_nifti(path) else None
    if header is not None:
        check_header(path, header)
        return
    is_complex, promised = _promised_to_itk(path)
    if is_complex:
        raise DatasetError(f"{path}: {COMPLEX_NUMBERS}")
    available = check_size(path, promised)
    if path.name.lower().endswith(".gipl") and available < GIPL_HEADER_BYTES + promised:
        raise EOFError(f"the file ends after {available} of {GIPL_HEADER_BYTES + promised} bytes")


def check_header(path: Path, header: NiftiHeader) -> None:
    """Refuse a NIfTI file by its header: see `check_volume_before_reading`.

    Raises:
        DatasetError: saying why.
    """
    if header.slope == 0 and header.intercept != 0 and math.isfinite(header.intercept):
        raise DatasetError(
            f"{path}: its header has scl_slope 0 and scl_inter {header.intercept:g}: readers disagree "
            f"whether {header.intercept:g} is added to all values; set scl_inter to 0, or scl_slope to 1."
        )
    if header.datatype in COMPLEX:
        raise DatasetError(f"{path}: {COMPLEX_NUMBERS}")
    check_size(path, header.voxel_bytes)


def reader_of(path: Path) -> str:
    """ITK's reader of a volume, by its ending; empty: ITK looks for one."""
    name = path.name.lower()
    return next((reader for endings, reader in READERS.items() if name.endswith(endings)), "")


def _promised_to_itk(path: Path) -> tuple[bool, int]:
    """Whether voxels are complex, and the bytes of all, as ITK reads the header."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO(reader_of(path))
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    pixel = sitk.GetPixelIDValueAsString(reader.GetPixelID())
    voxels = math.prod(reader.GetSize()) * reader.GetNumberOfComponents()
    return "complex" in pixel, voxels * _bytes_of(pixel)


def check_size(path: Path, promised: int) -> int:
    """Refuse a header that promises more bytes than the file can hold; returns the bytes that it has.

    Raises:
        DatasetError: for such a header.
    """
    available = sum(file.stat().st_size for file in {path, *_detached(path)})
    if promised > MOST_EXPANSION * available:
        raise DatasetError(
            f"{path}: its header promises {promised:,} bytes of voxels, "
            f"the file has {available:,}; replace the file."
        )
    return available


def _bytes_of(pixel: str) -> int:
    """Bytes of one component of a pixel type as SimpleITK describes it."""
    sizes = {"8-bit": 1, "16-bit": 2, "32-bit": 4, "64-bit": 8}
    return next((size for name, size in sizes.items() if name in pixel), 1)


def _detached(path: Path) -> set[Path]:
    """The file of the voxels, where the header is a file of its own (.mhd, some .nrrd)."""
    if not path.name.lower().endswith((".mhd", ".nrrd", ".mha")):
        return set()
    with path.open("rb") as file:
        lines = file.read(1 << 14).decode("latin-1").splitlines()
    for line in lines:
        key, _, value = line.replace("=", ":", 1).partition(":")
        name = value.strip().replace("\0", "")
        if key.strip().lower() in ("elementdatafile", "data file", "datafile") and name:
            file_of_voxels = path.parent / name
            return {file_of_voxels} if name != "LOCAL" and file_of_voxels.is_file() else set()
    return set()


def check_nifti_content(path: Path, *, has_finite_values: bool = False) -> None:
    """Refuse what ITK reads without a word: a NIfTI file that is cut off or damaged, and NaN.

    A gzip file is unpacked to its end, which compares the checksum.

    Args:
        path: the file.
        has_finite_values: known beforehand, so that values are not looked at.

    Raises:
        EOFError: if the file ends early.
        zlib.error: if the checksum of a gzip file is wrong.
        DatasetError: if it holds NaN or infinite values.
    """
    pieces = unpacked(path)
    content = next(pieces, b"")
    header = NiftiHeader.parse(content)
    if header is None or header.version == 2:  # NIfTI 2: ITK itself finds it cut off
        for _ in pieces:
            pass
        return
    expected = header.start + header.voxel_bytes
    is_float = header.datatype in FLOATS and not has_finite_values
    length = len(content)
    if is_float:
        content += b"".join(pieces)
        length = len(content)
    else:
        length += sum(map(len, pieces))
    if length < expected:
        raise EOFError(f"the file ends after {length} of {expected} bytes")
    if is_float:
        values = np.frombuffer(content[header.start : expected], header.order + FLOATS[header.datatype])
        if not np.isfinite(values).all():
            raise DatasetError(f"{path}: holds NaN or infinite values; they must be finite numbers.")


def value_step(path: Path) -> float:
    """Distance of neighbouring values in a NIfTI file that scales integers (``scl_slope``); 0 for others."""
    header = read_header(path) if is_nifti(path) else None
    if header is None or header.datatype in FLOATS or not math.isfinite(header.slope):
        return 0.0
    return abs(header.slope)
