"""Images and masks on disk: SimpleITK for volumes, scikit-image for flat images, as nnU-Net reads them.

Arrays are in numpy order, ``(z, y, x)`` or ``(y, x)``; geometry stays in SimpleITK's order, ``(x, y, z)``.
"""

from __future__ import annotations

import errno
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from PIL import Image

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.file_checks import (
    check_is_file,
    check_nifti_content,
    check_size,
    check_volume_before_reading,
    is_nifti,
)
from nnunet_softlabel.formats.grid import Grid

FLAT_ENDINGS = (".png", ".bmp", ".tif", ".tiff")
VOLUME_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".gipl")
PNG_ONE = 65535  # a probability of 1 in a 16 bit flat image
# What ITK, Pillow and tifffile raise on broken files; the first of each row stand for many.
UNREADABLE: tuple[type[Exception], ...] = (
    *(RuntimeError, OSError, EOFError, ValueError),
    *(SyntaxError, zlib.error, struct.error, TypeError, LookupError),
    *(MemoryError, Image.DecompressionBombError),
)
NOT_WHOLE: tuple[type[Exception], ...] = (*UNREADABLE, DatasetError)


def file_ending(path: Path) -> str:
    """The ending of an image file, ``.nii.gz`` in one piece.

    Raises:
        DatasetError: if it is not the ending of an image format that is read here.
    """
    name = path.name.lower()
    for ending in (*VOLUME_ENDINGS, *FLAT_ENDINGS):
        if name.endswith(ending):
            return ending
    raise DatasetError(
        f"{path}: not an image format that can be read; "
        f"use one of {', '.join(VOLUME_ENDINGS + FLAT_ENDINGS)}."
    )


def is_flat(path: Path) -> bool:
    """True for formats without geometry (png, bmp, tif)."""
    return file_ending(path) in FLAT_ENDINGS


def read_image(path: Path) -> tuple[np.ndarray, Grid]:
    """Read an image as stored.

    Returns:
        The array, ``(z, y, x)``, ``(y, x)`` or, for colour images, ``(y, x, 3 or 4)``; and its grid.

    Raises:
        DatasetError: if the file is missing or unreadable, or holds NaN or infinite values.
    """
    check_is_file(path)
    flat = is_flat(path)
    try:
        if flat:
            array, is_stack = _read_flat(path)
        else:
            check_volume_before_reading(path)
            # naming NIfTI's reader saves asking every other format
            image = sitk.ReadImage(str(path), imageIO="NiftiImageIO" if is_nifti(path) else "")
            array, is_stack = sitk.GetArrayFromImage(image), False
            if is_nifti(path):
                check_nifti_content(path)
    except UNREADABLE as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]
        raise DatasetError(
            f"{path}: cannot be read as an image ({reason}); replace or convert the file."
        ) from error
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DatasetError(f"{path}: holds NaN or infinite values; they must be finite numbers.")
    if array.dtype.kind == "c":
        raise DatasetError(f"{path}: holds complex numbers; store the magnitude.")
    if flat:
        if array.ndim == 3 and array.shape[-1] == 2 and not is_stack:
            raise DatasetError(f"{path}: a grey image with transparency; store it as grey alone.")
        if array.ndim != 2 and (array.ndim != 3 or is_stack or array.shape[-1] not in (3, 4)):
            raise DatasetError(
                f"{path}: a stack of {array.shape[0]} flat images; convert it to .nii.gz first."
            )
        return array, Grid.flat(array.shape)
    if image.GetNumberOfComponentsPerPixel() > 1 or array.ndim > 3:
        raise DatasetError(f"{path}: several channels in one file; store one file per channel.")
    return array, Grid(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())


# scikit-image takes longer to import than many a volume to read


def read_flat(path: Path) -> np.ndarray:
    """A flat image as it is stored: ``(y, x)``, ``(y, x, channel)`` or, a stack, ``(page, y, x)``."""
    return _read_flat(path)[0]


def _read_flat(path: Path) -> tuple[np.ndarray, bool]:
    """A flat image ``(y, x)`` or ``(y, x, colours)``, or a stack ``(pages, y, x)``; and whether it is one."""
    if path.suffix.lower() not in (".tif", ".tiff"):
        from skimage import io  # type: ignore[attr-defined]

        array = np.asarray(io.imread(path))
        return array, array.ndim > 3  # an animation
    import tifffile

    with tifffile.TiffFile(path) as file:
        check_size(path, math.prod(file.series[0].shape) * file.series[0].dtype.itemsize)
        array, axes = file.series[0].asarray(), file.series[0].axes
        is_stack = len(file.pages) > 1
    # colours may be stored one plane after the other; scikit-image takes three pages for colours, too
    return (np.moveaxis(array, 0, -1) if axes == "SYX" else array), is_stack


def _write_flat(path: Path, array: np.ndarray) -> None:
    if path.suffix in (".tif", ".tiff"):
        import tifffile

        # scikit-image takes an image of three or four rows for a colour image
        photometric = "minisblack" if array.ndim == 2 else "rgb"
        tifffile.imwrite(path, array, photometric=photometric, compression="zlib")
        return
    from skimage import io  # type: ignore[attr-defined]

    io.imsave(path, array, check_contrast=False)


def read_mask(path: Path) -> tuple[np.ndarray, Grid]:
    """Read a label map or probability map: one value per voxel.

    Colour images whose channels are equal, and 1-bit images, are reduced to one channel.

    Raises:
        DatasetError: as `read_image`, and for colours.
    """
    array, grid = _read_grey(path)
    return (array.astype(np.uint8) if array.dtype == bool else array), grid


def _read_grey(path: Path) -> tuple[np.ndarray, Grid]:
    array, grid = read_image(path)
    if array.ndim == 3 and is_flat(path):
        colours = array[..., :3]
        if not (colours == colours[..., :1]).all():
            raise DatasetError(f"{path}: a colour image is no label map; store one grey value per label.")
        array = colours[..., 0]
    return array, grid


def read_probability(path: Path) -> tuple[np.ndarray, Grid]:
    """Read a probability map as float32 in [0, 1].

    The type says which value is 1, never the values: 1 for volumes, floats and 1-bit images, 255 and 65535
    for flat images of 8 and 16 bit.

    Raises:
        DatasetError: as `read_mask`, for values outside [0, 1], and for flat integers of other types.
    """
    array, grid = _read_grey(path)
    scale = full_scale(path, array.dtype)
    array = array.astype(np.float32, copy=False)
    array = array if scale == 1 else array / np.float32(scale)
    if array.size and (array.min() < -1e-4 or array.max() > 1 + 1e-4):
        raise DatasetError(
            f"{path}: values from {array.min():.4g} to {array.max():.4g} are no probabilities; "
            f"rescale to [0, 1]."
        )
    return np.clip(array, 0, 1), grid


def full_scale(path: Path, dtype: np.dtype) -> float:
    """The value that stands for a probability of 1 in a file of this type.

    Raises:
        DatasetError: for flat integers that are neither 8 nor 16 bit without sign.
    """
    if not is_flat(path) or dtype.kind in "bf":
        return 1.0
    if dtype not in (np.uint8, np.uint16):
        raise DatasetError(
            f"{path}: a probability map of {dtype}; store 8 or 16 bit without sign, or floating point."
        )
    return float(np.iinfo(dtype).max)


def write_image(path: Path, array: np.ndarray, grid: Grid) -> None:
    """Write an array, ``(z, y, x)``, ``(y, x)`` or flat colour, under the name and in the format of ``path``.

    Types that image formats do not have are widened: bool, half and extended precision. What was written is
    read again, since ITK's NIfTI writer does not say that the disk is full.

    Raises:
        DatasetError: for complex numbers.
        OSError: if it cannot be written, or is not what it should be afterwards.
    """
    array = _storable(path, array)
    if is_flat(path):
        _write_flat(path, array)
        return
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(grid.spacing_mm)
    image.SetOrigin(grid.origin)
    image.SetDirection(grid.direction)
    try:
        # level 1: soft labels are mostly zeros, higher levels cost time and gain little
        sitk.WriteImage(image, str(path), useCompression=True, compressionLevel=1)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1][:200]
        raise OSError(errno.EIO, f"cannot be written ({reason})", str(path)) from error
    _check_written(path, array)


def _storable(path: Path, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "c":
        raise DatasetError(f"{path}: complex numbers cannot be stored; give the magnitude.")
    wider: dict[Any, Any] = {np.dtype(bool): np.uint8, np.dtype(np.float16): np.float32}
    wider |= {np.dtype(np.longdouble): np.float64}
    native = array.dtype.newbyteorder("=")
    return array.astype(wider.get(native, native), copy=False)


def _check_written(path: Path, array: np.ndarray) -> None:
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


def write_probability(path: Path, array: np.ndarray, grid: Grid) -> None:
    """Write a probability map: float32, or 16 bit with 65535 = 1 where the format is flat."""
    if is_flat(path):
        array = np.rint(np.clip(array, 0, 1) * PNG_ONE).astype(np.uint16)
    else:
        array = array.astype(np.float32, copy=False)
    write_image(path, array, grid)
