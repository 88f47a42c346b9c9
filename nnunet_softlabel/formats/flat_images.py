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
        if _colours_of_deep_png(path):
            return _deep_png(path), False
        from skimage import io  # type: ignore[attr-defined]  # slow to import

        array = np.asarray(io.imread(path))
        return array, array.ndim > 3  # an animation
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            return _pages(path, file)
    except tifffile.TiffFileError as error:  # no ValueError in the versions for Python 3.10
        raise ValueError(str(error)) from error


def _colours_of_deep_png(path: Path) -> int:
    """Values per pixel of a png of 16 bit with several, which its usual reader cuts to 8 bit; else 0."""
    with path.open("rb") as file:
        header = file.read(26)
    is_deep = header[:4] == b"\x89PNG" and header[24:25] == b"\x10"
    return {2: 3, 4: 2, 6: 4}.get(header[25], 0) if is_deep else 0


def _deep_png(path: Path) -> NDArray[Any]:
    import SimpleITK as sitk

    if _colours_of_deep_png(path) == 2:
        raise DatasetError(f"{path}: a grey image of 16 bit with transparency; store it as grey alone.")
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path), imageIO="PNGImageIO"))


def _pages(path: Path, file: Any) -> tuple[NDArray[Any], bool]:
    """All pages of a TIFF, and whether there are several. A program may write each as a series of its own."""
    series = [one for one in file.series if not one.keyframe.is_reduced] or file.series[:1]  # no previews
    first = series[0]
    if any((one.shape, one.dtype) != (first.shape, first.dtype) for one in series):
        raise DatasetError(f"{path}: has pages of several sizes or types; store one image per file.")
    check_size(path, len(series) * math.prod(first.shape) * first.dtype.itemsize)
    is_stack = sum(len(one.pages) for one in series) > 1
    if len(series) > 1:
        return np.stack([one.asarray() for one in series]), is_stack
    array = first.asarray()
    # colours may be stored one plane after the other; scikit-image takes three pages for colours, too
    return (np.moveaxis(array, 0, -1) if first.axes == "SYX" else array), is_stack


def label_indices(path: Path) -> NDArray[Any] | None:
    """The indices ``(y, x)`` of an image with a palette of colours, which stand for labels; else None.

    A palette of greys alone holds grey values, as without palette. Errors are those of the readers.
    """
    if path.suffix.lower() in (".tif", ".tiff"):
        colours = _tif_palette(path)
        if colours is None or _are_grey(colours):
            return None
        array, is_stack = flat_array(path)
        return None if is_stack else array.reshape(array.shape[-2:])
    from PIL import Image

    with Image.open(path) as image:
        if image.mode != "P":
            return None
        colours = np.reshape(image.getpalette("RGB") or [0, 0, 0], (-1, 3))
        return None if _are_grey(colours) else np.asarray(image)


def greys(path: Path, array: NDArray[Any]) -> NDArray[Any]:
    """The grey value of each pixel that is shown, of ``(y, x)`` or ``(y, x, colours)`` as read.

    Raises:
        DatasetError: for colours, and for transparency that differs from what is drawn.
    """
    palette = _tif_palette(path) if path.suffix.lower() in (".tif", ".tiff") else None
    if palette is not None:
        array = palette[array]
    if array.ndim < 3:
        return array
    if not _are_grey(array[..., :3]):
        raise DatasetError(
            f"{path}: a colour image is no label map; store one grey value per label, or one index of a "
            f"palette."
        )
    return (array if array.shape[-1] == 3 else without_alpha(path, array))[..., 0]


def _tif_palette(path: Path) -> NDArray[Any] | None:
    """Colours ``(index, 3)`` of 8 bit, or None."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        is_palette = page.photometric == tifffile.PHOTOMETRIC.PALETTE and page.colormap is not None
        return (np.asarray(page.colormap).T >> 8).astype(np.uint8) if is_palette else None


def _are_grey(colours: NDArray[Any]) -> bool:
    return bool((colours == colours[..., :1]).all())


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
        DatasetError: if anything is transparent, and that differs from what is drawn.
    """
    colours, alpha = array[..., :-1], array[..., -1]
    opaque = np.iinfo(array.dtype).max if array.dtype.kind in "ui" else 1
    is_drawn = (colours != 0).any(axis=-1)
    if (alpha != opaque).any() and not np.array_equal(alpha, is_drawn * np.asarray(opaque, alpha.dtype)):
        raise DatasetError(
            f"{path}: a grey image with transparency, and greys and transparency show different things; "
            f"store it as grey alone."
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
