"""Flat images (png, bmp, tif): pages, colours, transparency. Their readers are imported when used."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.file_checks import check_size


def flat_array(path: Path) -> tuple[NDArray[Any], bool]:
    """See `images.read_flat`; errors are those of the readers."""
    if path.suffix.lower() not in (".tif", ".tiff"):
        from skimage import io  # type: ignore[attr-defined]  # takes longer to import than many a volume to read

        array = np.asarray(io.imread(path))
        return array, array.ndim > 3  # an animation
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            check_size(path, math.prod(file.series[0].shape) * file.series[0].dtype.itemsize)
            array, axes = file.series[0].asarray(), file.series[0].axes
            is_stack = len(file.pages) > 1
    except tifffile.TiffFileError as error:  # no ValueError in the versions for Python 3.10
        raise ValueError(str(error)) from error
    # colours may be stored one plane after the other; scikit-image takes three pages for colours, too
    return (np.moveaxis(array, 0, -1) if axes == "SYX" else array), is_stack


def label_indices(path: Path) -> NDArray[Any] | None:
    """The indices ``(y, x)`` of a png or bmp with a palette of colours, which stand for labels; else None.

    A palette of greys alone holds grey values, as in a png without palette. Errors are those of the readers.
    """
    if path.suffix.lower() in (".tif", ".tiff"):
        return None  # its reader gives indices anyway
    from PIL import Image

    with Image.open(path) as image:
        if image.mode != "P":
            return None
        colours = np.reshape(image.getpalette("RGB") or [0, 0, 0], (-1, 3))
        if (colours == colours[:, :1]).all():
            return None
        return np.asarray(image)


def write_flat(path: Path, array: NDArray[Any]) -> None:
    """Write ``(y, x)`` or ``(y, x, colours)``."""
    if path.suffix in (".tif", ".tiff"):
        import tifffile

        # scikit-image takes an image of three or four rows for a colour image
        photometric = "minisblack" if array.ndim == 2 else "rgb"
        tifffile.imwrite(path, array, photometric=photometric, compression="zlib")
        return
    from skimage import io  # type: ignore[attr-defined]

    io.imsave(path, array, check_contrast=False)


def without_alpha(path: Path, array: NDArray[Any]) -> NDArray[Any]:
    """The colours of a flat image, without the transparency in its last channel.

    Raises:
        DatasetError: if transparency is not the same everywhere, and differs from what is drawn.
    """
    colours, alpha = array[..., :-1], array[..., -1]
    opaque = np.iinfo(array.dtype).max if array.dtype.kind in "ui" else 1
    is_drawn = (colours != 0).any(axis=-1)
    if (alpha != opaque).any() and not np.array_equal(alpha, is_drawn * np.asarray(opaque, alpha.dtype)):
        raise DatasetError(
            f"{path}: a grey image with transparency, and grey and transparency show different things; store "
            f"it as grey alone."
        )
    return np.ascontiguousarray(colours[..., 0] if colours.shape[-1] == 1 else colours)


def without_opaque_alpha(array: NDArray[Any]) -> NDArray[Any]:
    """``(y, x, channels)`` of a PNG without a last channel that is opaque transparency."""
    has_alpha = array.shape[-1] in (2, 4) and array.dtype.kind in "ui"
    return array[..., :-1] if has_alpha and (array[..., -1] == np.iinfo(array.dtype).max).all() else array


def is_stored_as_read(path: Path, array: NDArray[Any]) -> bool:
    """True if a flat file has the very axes of ``array``, as nnU-Net wants them."""
    if path.suffix.lower() in (".tif", ".tiff"):
        import tifffile

        with tifffile.TiffFile(path) as file:
            return file.series[0].shape == array.shape
    from PIL import Image

    with Image.open(path) as image:
        return image.mode not in ("LA", "La", "PA")
