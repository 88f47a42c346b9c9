"""Images and masks on disk: SimpleITK for volumes, scikit-image for flat images, as nnU-Net reads them.

Arrays are in numpy order, ``(z, y, x)`` or ``(y, x)``; geometry stays in SimpleITK's order, ``(x, y, z)``.
"""

from __future__ import annotations

import errno
import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.grid import Grid

FLAT_ENDINGS = (".png", ".bmp", ".tif", ".tiff")
VOLUME_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".gipl")
NIFTI_FLOATS = {16: "f4", 64: "f8"}  # NIfTI's code -> numpy's
PNG_ONE = 65535  # a probability of 1 in a 16 bit flat image


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
    if not path.is_file():
        raise DatasetError(f"{path}: no such file.")
    flat = is_flat(path)
    try:
        if flat:
            array = _read_flat(path)
        elif path.name.lower().endswith((".nii", ".nii.gz")):
            image = sitk.ReadImage(str(path), imageIO="NiftiImageIO")  # saves asking every other format
            array = sitk.GetArrayFromImage(image)
            _check_nifti(path)
        else:
            image = sitk.ReadImage(str(path))
            array = sitk.GetArrayFromImage(image)
    except (RuntimeError, OSError, EOFError, ValueError, SyntaxError, zlib.error, struct.error) as error:
        # Pillow and tifffile raise the last three on broken files
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]
        raise DatasetError(
            f"{path}: cannot be read as an image ({reason}); replace or convert the file."
        ) from error
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DatasetError(f"{path}: holds NaN or infinite values; they must be finite numbers.")
    if flat:
        if array.ndim == 3 and array.shape[-1] not in (3, 4):
            raise DatasetError(
                f"{path}: a stack of {array.shape[0]} flat images; convert it to .nii.gz first."
            )
        return array, Grid.flat(array.shape)
    if image.GetNumberOfComponentsPerPixel() > 1 or array.ndim > 3:
        raise DatasetError(f"{path}: several channels in one file; store one file per channel.")
    return array, Grid(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())


# scikit-image takes longer to import than many a volume to read


def _read_flat(path: Path) -> np.ndarray:
    from skimage import io  # type: ignore[attr-defined]

    return np.asarray(io.imread(path))


def _write_flat(path: Path, array: np.ndarray) -> None:
    if path.suffix in (".tif", ".tiff"):
        import tifffile

        # scikit-image takes an image of three or four rows for a colour image
        photometric = "minisblack" if array.ndim == 2 else "rgb"
        tifffile.imwrite(path, array, photometric=photometric, compression="zlib")
        return
    from skimage import io  # type: ignore[attr-defined]

    io.imsave(path, array, check_contrast=False)


def _check_nifti(path: Path) -> None:
    """Refuse what ITK reads without a word as zeros: a NIfTI file that was cut off, and NaN.

    Raises:
        EOFError: if the file ends early.
        DatasetError: if it holds NaN or infinite values.
    """
    is_zipped = path.name.lower().endswith(".gz")
    with gzip.open(path) if is_zipped else path.open("rb") as file:
        header = file.read(112)
        order = "<" if header[:4] == struct.pack("<i", 348) else ">"
        is_nifti_1 = struct.unpack_from(order + "i", header)[0] == 348
        ndim, *shape = struct.unpack_from(order + "8h", header, 40)
        datatype, bits = struct.unpack_from(order + "2h", header, 70)
        start = int(struct.unpack_from(order + "f", header, 108)[0])
        expected = start + math.prod(shape[:ndim]) * bits // 8 if is_nifti_1 else 0
        is_float = is_nifti_1 and datatype in NIFTI_FLOATS
        if is_zipped and not is_float and _stated_size(path) == expected % 2**32:
            return
        content = header + file.read()  # zipped in several parts, or cut off: reading it tells
    if len(content) < expected:
        raise EOFError(f"the file ends after {len(content)} of {expected} bytes")
    if not is_float:
        return
    values = np.frombuffer(content[start:expected], order + NIFTI_FLOATS[datatype])
    if not np.isfinite(values).all():
        raise DatasetError(f"{path}: holds NaN or infinite values; they must be finite numbers.")


def _stated_size(path: Path) -> int:
    """Size of the content that the last four bytes of a gzip file state."""
    with path.open("rb") as file:
        file.seek(-4, 2)
        return int(struct.unpack("<I", file.read(4))[0])


def read_mask(path: Path) -> tuple[np.ndarray, Grid]:
    """Read a label map or probability map: one value per voxel.

    Colour images whose channels are equal, and 1-bit images, are reduced to one channel.

    Raises:
        DatasetError: as `read_image`, and for colours.
    """
    array, grid = read_image(path)
    if array.ndim == 3 and is_flat(path):
        colours = array[..., :3]
        if not (colours == colours[..., :1]).all():
            raise DatasetError(f"{path}: a colour image is no label map; store one grey value per label.")
        array = colours[..., 0]
    if array.dtype == bool:
        array = array.astype(np.uint8)
    return array, grid


def read_probability(path: Path) -> tuple[np.ndarray, Grid]:
    """Read a probability map as float32 in [0, 1]; integers of flat images are divided by their full scale.

    Raises:
        DatasetError: as `read_mask`, and for values outside [0, 1].
    """
    array, grid = read_mask(path)
    if is_flat(path) and array.dtype.kind in "ui" and array.max(initial=0) > 1:  # 1-bit files hold 0 and 1
        array = array / np.float32(np.iinfo(array.dtype).max)
    array = array.astype(np.float32, copy=False)
    if array.size and (array.min() < -1e-4 or array.max() > 1 + 1e-4):
        raise DatasetError(
            f"{path}: values from {array.min():.4g} to {array.max():.4g} are no probabilities; "
            f"rescale to [0, 1]."
        )
    return np.clip(array, 0, 1), grid


def write_image(path: Path, array: np.ndarray, grid: Grid) -> None:
    """Write an array, ``(z, y, x)``, ``(y, x)`` or flat colour, under the name and in the format of ``path``.

    Raises:
        OSError: if it cannot be written.
    """
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


def write_probability(path: Path, array: np.ndarray, grid: Grid) -> None:
    """Write a probability map: float32, or 16 bit with 65535 = 1 where the format is flat."""
    if is_flat(path):
        array = np.rint(np.clip(array, 0, 1) * PNG_ONE).astype(np.uint16)
    else:
        array = array.astype(np.float32, copy=False)
    write_image(path, array, grid)
