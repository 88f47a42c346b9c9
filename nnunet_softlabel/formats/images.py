"""Images and masks on disk: SimpleITK for volumes, scikit-image for flat images, as nnU-Net reads them.

Arrays are in numpy order, ``(z, y, x)`` or ``(y, x)``; geometry stays in SimpleITK's order, ``(x, y, z)``.
"""

from __future__ import annotations

import errno
import math
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from PIL import Image

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.file_checks import (
    check_is_file,
    check_nifti_content,
    check_volume_before_reading,
    reader_of,
)
from nnunet_softlabel.formats.flat_images import flat_array, greys, label_indices, without_alpha, write_flat
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.nifti import is_nifti, read_header
from nnunet_softlabel.formats.nifti_voxels import read_plain_nifti

FLAT_ENDINGS = (".png", ".bmp", ".tif", ".tiff")
VOLUME_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".gipl")
# What ITK, Pillow and tifffile raise on broken files; the first of each row stand for many.
UNREADABLE: tuple[type[Exception], ...] = (
    *(RuntimeError, OSError, EOFError, ValueError),
    *(SyntaxError, zlib.error, struct.error, TypeError, LookupError),
    *(MemoryError, Image.DecompressionBombError),
)
NOT_WHOLE: tuple[type[Exception], ...] = (*UNREADABLE, DatasetError)


class SeveralChannelsError(DatasetError):
    """A volume has several values per voxel, or a fourth axis."""


def file_ending(path: Path) -> str:
    """The ending of an image file, ``.nii.gz`` in one piece.

    Raises:
        DatasetError: if it is not the ending of an image format that is read here.
    """
    name = path.name.lower()
    for ending in (*VOLUME_ENDINGS, *FLAT_ENDINGS):
        if name.endswith(ending):
            return ending
    remedy = f"use one of {', '.join(VOLUME_ENDINGS + FLAT_ENDINGS)}"
    if name.endswith(".dcm"):
        remedy = "make a volume of the DICOM series, as dcm2niix does"
    raise DatasetError(f"{path}: not an image format that can be read; {remedy}.")


def is_flat(path: Path) -> bool:
    """True for formats without geometry (png, bmp, tif)."""
    return file_ending(path) in FLAT_ENDINGS


def read_image(path: Path) -> tuple[NDArray[Any], Grid]:
    """Read an image as stored.

    Returns:
        The array, ``(z, y, x)``, ``(y, x)`` or, for colour images, ``(y, x, 3 or 4)``; and its grid.

    Raises:
        DatasetError: if the file is missing or unreadable, or holds NaN or infinite values.
    """
    check_is_file(path)
    if not is_flat(path):
        plain = _read_plain(path)
        if plain is not None:
            _check_values(path, plain[0])
            return plain
        image = read_volume(path)
        array = sitk.GetArrayFromImage(image)
        _check_values(path, array)
        if image.GetNumberOfComponentsPerPixel() > 1 or array.ndim > 3:
            raise SeveralChannelsError(f"{path}: several channels in one file; store one file per channel.")
        return array, grid_of_image(image)
    array, is_stack = read_flat(path)
    _check_values(path, array)
    if array.ndim == 3 and array.shape[0] == 1:
        array, is_stack = array[0], False  # some programs store (1, y, x)
    if array.ndim == 3 and array.shape[-1] == 2 and not is_stack:
        array = without_alpha(path, array)
    if array.ndim != 2 and (array.ndim != 3 or is_stack or array.shape[-1] not in (3, 4)):
        raise DatasetError(f"{path}: a stack of {array.shape[0]} flat images; convert it to .nii.gz first.")
    return array, Grid.flat(array.shape)


def _read_plain(path: Path) -> tuple[NDArray[Any], Grid] | None:
    """See `read_plain_nifti`; None for other formats, too."""
    try:
        return read_plain_nifti(path) if is_nifti(path) else None
    except UNREADABLE as error:
        raise _unreadable(path, error) from error


def _check_values(path: Path, array: NDArray[Any]) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DatasetError(f"{path}: holds NaN or infinite values; they must be finite numbers.")
    if array.dtype.kind == "c":
        raise DatasetError(f"{path}: holds complex numbers; store the magnitude.")


def read_volume(path: Path) -> sitk.Image:
    """Read a volume, checked before and after its voxels are read.

    Raises:
        DatasetError: if the file is missing, unreadable, cut off or damaged.
    """
    check_is_file(path)
    try:
        check_volume_before_reading(path)
        # naming the reader saves asking every other format; ITK does not know endings in capitals
        image = sitk.ReadImage(str(path), imageIO=reader_of(path))
        if is_nifti(path):
            check_nifti_content(path)
    except UNREADABLE as error:
        raise _unreadable(path, error) from error
    return image


def _unreadable(path: Path, error: BaseException) -> DatasetError:
    if isinstance(error, MemoryError):
        return DatasetError(
            f"{path}: takes more memory than there is ({str(error) or 'all is in use'}); "
            f"use a smaller -np, or replace the file if its header is wrong."
        )
    reason = (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]
    return DatasetError(f"{path}: cannot be read as an image ({reason}); replace or convert the file.")


def grid_of_image(image: sitk.Image) -> Grid:
    """Where the voxels of an image of SimpleITK lie."""
    return Grid(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())


def read_grid(path: Path) -> Grid:
    """Where the voxels of an image lie, from the header of a volume alone.

    Raises:
        DatasetError: if the file is missing or unreadable.
    """
    check_is_file(path)
    if is_flat(path):
        return read_image(path)[1]
    reader = sitk.ImageFileReader()
    reader.SetImageIO(reader_of(path))
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1][:200]
        raise DatasetError(f"{path}: cannot be read ({reason})") from error
    return Grid(reader.GetSize(), reader.GetSpacing(), reader.GetOrigin(), reader.GetDirection())


def voxels_in(path: Path) -> int:
    """Voxels of an image, from its header alone; 0 where it cannot be read: who reads the voxels says why."""
    try:
        if is_nifti(path):
            header = read_header(path)
            return 0 if header is None else math.prod(header.shape)
        if is_flat(path):
            with Image.open(path) as image:
                return math.prod(image.size)
        return math.prod(read_grid(path).shape)
    except NOT_WHOLE:
        return 0


def read_flat(path: Path) -> tuple[NDArray[Any], bool]:
    """A flat image ``(y, x)`` or ``(y, x, colours)``, or a stack ``(pages, y, x)``; and whether it is one.

    Raises:
        DatasetError: if the file is missing or unreadable.
    """
    check_is_file(path)
    try:
        return flat_array(path)
    except UNREADABLE as error:
        raise _unreadable(path, error) from error


def read_mask(path: Path) -> tuple[NDArray[Any], Grid]:
    """Read a label map or probability map: one value per voxel.

    Colour images whose channels are equal, and 1-bit images, are reduced to one channel. In a palette of
    colours the index is the label.

    Raises:
        DatasetError: as `read_image`, and for colours.
    """
    indices = _label_indices(path) if is_flat(path) else None
    if indices is not None:
        return indices, Grid.flat(indices.shape)
    array, grid = read_grey(path)
    return (array.astype(np.uint8) if array.dtype == bool else array), grid


def _label_indices(path: Path) -> NDArray[Any] | None:
    check_is_file(path)
    try:
        return label_indices(path)
    except UNREADABLE as error:
        raise _unreadable(path, error) from error


def read_grey(path: Path) -> tuple[NDArray[Any], Grid]:
    """Read one value per voxel, of a flat image the grey that is shown; see `read_mask`."""
    array, grid = read_image(path)
    return (greys(path, array) if is_flat(path) else array), grid


def write_image(path: Path, array: NDArray[Any], grid: Grid) -> None:
    """Write an array, ``(z, y, x)``, ``(y, x)`` or flat colour, under the name and in the format of ``path``.

    Types that image formats do not have are widened: bool, half and extended precision. What was written is
    read again, since ITK's NIfTI writer does not say that the disk is full.

    Raises:
        DatasetError: for complex numbers.
        OSError: if it cannot be written, or is not what it should be afterwards; then no file is there.
    """
    array = _storable(path, array)
    try:
        _write(path, array, grid)
    except OSError:
        with suppress(OSError):  # a part must not lie there under the name of the whole
            path.unlink(missing_ok=True)
        raise


def _write(path: Path, array: NDArray[Any], grid: Grid) -> None:
    if is_flat(path):
        write_flat(path, array)
        return
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(grid.spacing_mm)
    image.SetOrigin(grid.origin)
    image.SetDirection(grid.direction)
    try:
        # level 1: soft labels are mostly zeros, higher levels cost time and gain little
        writer = "NiftiImageIO" if is_nifti(path) else ""
        sitk.WriteImage(image, str(path), useCompression=True, imageIO=writer, compressionLevel=1)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1][:200]
        raise OSError(errno.EIO, f"cannot be written ({reason})", str(path)) from error
    _check_written(path, array)


def _storable(path: Path, array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.kind == "c":
        raise DatasetError(f"{path}: complex numbers cannot be stored; give the magnitude.")
    wider: dict[Any, Any] = {np.dtype(bool): np.uint8, np.dtype(np.float16): np.float32}
    wider |= {np.dtype(np.longdouble): np.float64}
    native = array.dtype.newbyteorder("=")
    return array.astype(wider.get(native, native), copy=False)


def _check_written(path: Path, array: NDArray[Any]) -> None:
    """Compare a volume on disk with what it was made from.

    Raises:
        OSError: if it is cut off, or differs.
    """
    is_whole = False
    try:
        if is_nifti(path):  # unpacked to its end: length and checksum tell
            check_nifti_content(path, has_finite_values=True)
            is_whole = True
        else:
            is_whole = bool((sitk.GetArrayFromImage(sitk.ReadImage(str(path))) == array).all())
    except NOT_WHOLE as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]
        raise OSError(errno.EIO, f"was not written whole ({reason}); is the disk full?", str(path)) from error
    if not is_whole:
        raise OSError(errno.EIO, "was not written whole; is the disk full?", str(path))
