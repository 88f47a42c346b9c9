"""Parts of the LIDC's DICOM and XML files, and the voxels inside a contour, for `convert_lidc_idri.py`."""

from __future__ import annotations

import locale
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
import SimpleITK as sitk
from skimage.draw import polygon

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.grid import Grid

NAMESPACE = {"": "http://www.nih.gov"}
Voxel = tuple[int, int, int]


class Outline(NamedTuple):
    """A closed contour on one slice; an exclusion cuts a hole."""

    z: int
    is_inclusion: bool
    rows: tuple[int, ...]
    columns: tuple[int, ...]


@contextmanager
def kept_locale() -> Iterator[None]:
    """GDCM, which reads DICOM, sets the C locale; in it Python reads and writes text as ASCII."""
    before = locale.setlocale(locale.LC_ALL)
    try:
        yield
    finally:
        locale.setlocale(locale.LC_ALL, before)


@kept_locale()
def tag(path: Path | str, key: str) -> str:
    """A DICOM header entry, without reading the pixels."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        return str(reader.GetMetaData(key)).strip("\0 ")
    except RuntimeError as error:
        raise DatasetError(f"{path}: no DICOM file with the entry {key}; download it again.") from error


def read_outline(roi: ElementTree.Element, slice_of: dict[str, int]) -> Outline:
    uid = roi.findtext("imageSOP_UID", "", NAMESPACE).strip()
    if uid not in slice_of:
        raise DatasetError(f"Image {uid} of a contour is not in its series; download the series again.")
    points = roi.findall("edgeMap", NAMESPACE)
    rows, columns = (tuple(int(p.findtext(k, "", NAMESPACE)) for p in points) for k in ("yCoord", "xCoord"))
    return Outline(slice_of[uid], roi.findtext("inclusion", "", NAMESPACE).strip() == "TRUE", rows, columns)


def fill(outlines: Sequence[Outline]) -> set[Voxel]:
    """Voxels of a nodule: inside the inclusions, then without the exclusions.

    A contour never belongs to the nodule: that of an inclusion runs outside it, that of an exclusion is cut
    out with its inside.
    """
    voxels: set[Voxel] = set()
    for outline in sorted(outlines, key=lambda outline: not outline.is_inclusion):
        rows, columns = polygon(outline.rows, outline.columns)
        inside = set(zip(repeat(outline.z), rows.tolist(), columns.tolist()))
        contour = set(zip(repeat(outline.z), outline.rows, outline.columns))
        voxels = voxels | (inside - contour) if outline.is_inclusion else voxels - inside - contour
    return voxels


def draw(nodules: Sequence[Sequence[Outline]], box: tuple[slice, ...]) -> np.ndarray:
    """The mask of one session in the crop; empty if it drew nothing there."""
    mask = np.zeros([axis.stop - axis.start for axis in box], dtype=np.uint8)
    for outlines in nodules:
        points = np.array(sorted(fill(outlines))) - [axis.start for axis in box]
        mask[tuple(points.T)] = 1
    return mask


@kept_locale()
def read_crop(files: Sequence[str], box: tuple[slice, ...]) -> tuple[np.ndarray, Grid]:
    """The crop of the scan in Hounsfield units, as GDCM rescales it."""
    image = sitk.ReadImage(files)[box[2], box[1], :]
    grid = Grid(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    return sitk.GetArrayFromImage(image), grid
