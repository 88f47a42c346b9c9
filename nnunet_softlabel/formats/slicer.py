"""Segmentations of 3D Slicer, ``.seg.nrrd``: segments with names, in one or several layers.

The header says of each segment its name, layer and value; the numbers follow the order of creation, so
only names are compared. Slicer stores the smallest box that holds all segments; the origin of the file is
that of the box: Slicer adds ``Segmentation_ReferenceImageExtentOffset`` to it when it writes [1].

References:
    [1] https://slicer.readthedocs.io/en/latest/developer_guide/modules/segmentations.html, section
        "Segmentations file format".
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.images import grid_of_image, read_volume
from nnunet_softlabel.formats.segments import Segments

FIELD = re.compile(r"Segment(\d+)_(Name|LabelValue|Layer)")


def is_slicer_file(path: Path) -> bool:
    """True for a NRRD file whose header describes segments, whatever its name."""
    if not path.name.lower().endswith((".nrrd", ".nhdr")) or not path.is_file():
        return False
    with path.open("rb") as file:
        header = file.read(1 << 20).split(b"\n\n", 1)[0]
    return re.search(rb"^Segment(ation_|\d+_)\w+:=", header, re.MULTILINE) is not None


def read_segments(path: Path) -> Segments:
    """Read the segments of a file; two of one name are one.

    Raises:
        DatasetError: if it cannot be read, or its header lacks a name.
    """
    image = read_volume(path)
    fields: dict[int, dict[str, str]] = {}
    for key in image.GetMetaDataKeys():
        if match := FIELD.fullmatch(key):
            fields.setdefault(int(match[1]), {})[match[2]] = image.GetMetaData(key).strip()
    array = sitk.GetArrayFromImage(image)
    layers = np.moveaxis(array, -1, 0) if image.GetNumberOfComponentsPerPixel() > 1 else array[np.newaxis]
    masks: dict[int | str, NDArray[Any]] = {}
    for number, about in sorted(fields.items()):
        if "Name" not in about:
            raise DatasetError(
                f"{path}: segment {number} has no name in the header; save it again in Slicer."
            )
        # files of Slicer 4.10 and before have a layer per segment and no values
        layer, value = int(about.get("Layer", number)), int(about.get("LabelValue", 1))
        if layer >= len(layers):
            raise DatasetError(f"{path}: segment {about['Name']} is in layer {layer} of {len(layers)}.")
        mask = layers[layer] == value
        masks[about["Name"]] = masks[about["Name"]] | mask if about["Name"] in masks else mask
    _check_all_named(path, layers, fields)
    return Segments(masks, grid_of_image(image))


def _check_all_named(path: Path, layers: NDArray[Any], fields: dict[int, dict[str, str]]) -> None:
    """Refuse voxels that belong to no segment of the header."""
    for number, layer in enumerate(layers):
        named = {
            int(about.get("LabelValue", 1))
            for i, about in fields.items()
            if int(about.get("Layer", i)) == number
        }
        strangers = set(np.unique(layer).tolist()) - named - {0}
        if strangers:
            raise DatasetError(
                f"{path}: holds the value {min(strangers)}, which no segment of its header has; save it "
                f"again in Slicer."
            )
