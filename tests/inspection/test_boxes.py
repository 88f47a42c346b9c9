"""Masks that are stored as boxes are compared where they lie, with and without images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.cases.label_maps import Reading
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.images import write_image
from nnunet_softlabel.formats.labels import parse_labels
from nnunet_softlabel.inspection.read import ReadCase, read_case

SPACING_MM = (0.5, 1.0, 2.0)


def write_box(
    path: Path, corner: tuple[int, int, int], *, spacing_mm: tuple[float, ...] = SPACING_MM
) -> Path:
    """A full box of 2 x 3 x 4 voxels (x, y, z), as Slicer stores it."""
    image = sitk.GetImageFromArray(np.ones((4, 3, 2), np.uint8))
    image.SetSpacing(spacing_mm)
    image.SetOrigin(np.multiply(corner, SPACING_MM).tolist())
    for key, value in {"Name": "Lesion", "LabelValue": "1", "Layer": "0"}.items():
        image.SetMetaData(f"Segment0_{key}", value)
    sitk.WriteImage(image, str(path))
    return path


def read(case: Case) -> ReadCase:
    labels, values = parse_labels(["lesion=Lesion"])
    return read_case(case, labels, Reading(values))


def overlap(found: ReadCase) -> int:
    assert found.raters is not None
    a, b = (packed.whole() for packed in found.raters.maps.values())
    assert np.count_nonzero(a) == np.count_nonzero(b) == 24
    return np.count_nonzero(a & b)


@pytest.mark.parametrize(("corner", "common"), [((8, 2, 3), 0), ((0, 0, 0), 24), ((1, -1, 1), 1 * 2 * 3)])
def test_boxes_of_one_size_are_compared_where_they_lie(tmp_path: Path, corner, common: int) -> None:
    raters = {
        "a": write_box(tmp_path / "a.seg.nrrd", (0, 0, 0)),
        "b": write_box(tmp_path / "b.seg.nrrd", corner),
    }
    found = read(Case("k", [], raters=raters))
    assert (overlap(found), found.problems) == (common, ())
    grid = replace(Grid.upright((12, 12, 12), SPACING_MM[::-1]), origin=(-1.0, -2.0, -4.0))
    write_image(tmp_path / "i.nii.gz", np.zeros((12, 12, 12), np.int16), grid)
    assert overlap(read(Case("k", [tmp_path / "i.nii.gz"], raters=raters))) == common


def test_a_box_on_other_voxels_is_a_problem_and_not_compared(tmp_path: Path) -> None:
    raters = {
        "a": write_box(tmp_path / "a.seg.nrrd", (0, 0, 0)),
        "b": write_box(tmp_path / "b.seg.nrrd", (0, 0, 0), spacing_mm=(0.5, 1.0, 3.0)),
    }
    found = read(Case("k", [], raters=raters))
    assert found.raters is not None
    assert list(found.raters.maps) == ["a"]
    assert found.problems[0].startswith("rater b: another grid than other raters: ")
    (tmp_path / "i.nii.gz").write_bytes(b"no image")
    found = read(Case("k", [tmp_path / "i.nii.gz"], raters=raters))
    assert found.raters is not None
    assert list(found.raters.maps) == ["a"]


def test_a_whole_mask_beside_boxes_is_the_grid(tmp_path: Path) -> None:
    array = np.zeros((12, 12, 12), np.uint8)
    grid = replace(Grid.upright(array.shape, SPACING_MM[::-1]), origin=(-1.0, -2.0, -4.0))
    array[2:6, 2:5, 2:4] = 1
    write_image(tmp_path / "b.nii.gz", array, grid)
    raters = {"a": write_box(tmp_path / "a.seg.nrrd", (0, 0, 0)), "b": tmp_path / "b.nii.gz"}
    labels, values = parse_labels(["lesion=1"])
    found = read_case(Case("k", [], raters=raters), labels, Reading(values | {"Lesion": 1}))
    assert overlap(found) == 24
