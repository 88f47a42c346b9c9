"""A truth in any layout is the same truth."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.evaluation.references import read_references
from nnunet_softlabel.evaluation.truth import Truth, read_truth, truth_of_flags, truth_values
from nnunet_softlabel.formats.images import read_mask
from tests.formats.dicom_files import write_dicom
from tests.formats.test_slicer import write_segmentation


@pytest.fixture
def data(build, tmp_path):
    """A data set; its consensus is the truth, in ``truth``."""
    made = build(cases=2)
    shutil.copytree(made.dataset.folder / "labelsTr", tmp_path / "truth")
    return made.dataset


def read(dataset, truth, case="case1"):
    _, hard, _, grid = read_references(dataset, case, split="Tr")
    values = truth_values(dataset, truth, ["case0", "case1"])
    return read_truth(dataset, truth, case, grid=grid, values=values), hard


def test_a_folder_a_pattern_and_a_table(data, tmp_path):
    (tmp_path / "t.csv").write_text("case;mask\ncase0;truth/case0.nii.gz\ncase1;truth/case1.nii.gz\n")
    for place in (tmp_path / "truth", tmp_path / "tr*" / "{case}.nii.gz", tmp_path / "t.csv"):
        found, hard = read(data, place)
        np.testing.assert_array_equal(found, hard)


@pytest.mark.parametrize(("name", "labels"), [("lesion", None), ("Lesion", ["lesion=Lesion"])])
def test_segments_of_slicer_by_name(data, tmp_path, name, labels):
    for case in ("case0", "case1"):
        path = tmp_path / "truth" / f"{case}.nii.gz"
        array, grid = read_mask(path)
        path.unlink()
        segmentation = path.with_name(f"{case}.seg.nrrd")
        write_segmentation(segmentation, [(name, 0, 5)], (5 * array)[None].astype(np.uint8))
        image = sitk.ReadImage(str(segmentation))
        image.SetSpacing(grid.spacing_mm)
        image.SetOrigin(grid.origin)
        image.SetDirection(grid.direction)
        sitk.WriteImage(image, str(segmentation))
    found, hard = read(data, Truth(tmp_path / "truth", labels))
    np.testing.assert_array_equal(found, hard)


@pytest.mark.parametrize(("labels", "place"), [(None, 0), (["lesion=2"], 1)])
def test_a_channel_per_class(data, tmp_path, labels, place):
    for path in sorted((tmp_path / "truth").glob("*.nii.gz")):
        mask = sitk.ReadImage(str(path), sitk.sitkUInt8)
        channels = [mask * 0, mask * 0]
        channels[place] = mask * 255
        sitk.WriteImage(sitk.JoinSeries(channels), str(path))
    found, hard = read(data, Truth(tmp_path / "truth", labels, class_axis="last"))
    np.testing.assert_array_equal(found, hard)


def test_what_no_label_names_is_told_with_the_flag_of_the_truth(data, tmp_path):
    for path in sorted((tmp_path / "truth").glob("*.nii.gz")):
        mask = sitk.ReadImage(str(path), sitk.sitkUInt8)
        sitk.WriteImage(sitk.JoinSeries([mask, mask]), str(path))
    with pytest.raises(DatasetError, match="holds the channel 2, which no --truth-labels entry names"):
        read(data, Truth(tmp_path / "truth", class_axis="last"))
    with pytest.raises(UsageError, match=r"^--truth-labels: names other, but"):
        read(data, Truth(tmp_path / "truth", ["other=1"]))


def test_dicom_segments_by_label(data, tmp_path):
    pytest.importorskip("highdicom")
    for path in sorted((tmp_path / "truth").glob("*.nii.gz")):
        array, grid = read_mask(path)
        path.unlink()
        write_dicom(path.with_name(f"{path.name[:-7]}.dcm"), {"lesion": array > 0}, grid=grid)
    found, hard = read(data, tmp_path / "truth")
    np.testing.assert_array_equal(found, hard)


def test_turned_axes_and_regrid(data, tmp_path):
    path = tmp_path / "truth" / "case1.nii.gz"
    image = sitk.ReadImage(str(path))
    sitk.WriteImage(sitk.PermuteAxes(image, (2, 0, 1)), str(path))
    found, hard = read(data, tmp_path / "truth")
    np.testing.assert_array_equal(found, hard)
    sitk.WriteImage(sitk.Expand(image, (2, 2, 2), sitk.sitkNearestNeighbor), str(path))
    with pytest.raises(DatasetError, match=r"the truth has shape .*spacing_mm .*add --regrid"):
        read(data, tmp_path / "truth")
    found, hard = read(data, Truth(tmp_path / "truth", regrid="nearest"))
    np.testing.assert_array_equal(found, hard)


def test_values_of_its_own(data, tmp_path):
    for path in sorted((tmp_path / "truth").glob("*.nii.gz")):
        sitk.WriteImage(sitk.ReadImage(str(path)) * 7, str(path))
    with pytest.raises(DatasetError, match="the truth holds the value 7, which no label has"):
        read(data, tmp_path / "truth")
    found, hard = read(data, Truth(tmp_path / "truth", ["lesion=7"]))
    np.testing.assert_array_equal(found, hard)


def test_two_files_of_a_case_are_both_named(data, tmp_path):
    shutil.copytree(tmp_path / "truth", tmp_path / "truth2")
    with pytest.raises(DatasetError, match=r"case0: --truth .* holds .*truth/case0.* and .*truth2/case0"):
        read(data, tmp_path / "truth*" / "{case}.nii.gz")


def test_flags_without_truth_are_refused(tmp_path):
    with pytest.raises(UsageError, match="--truth-labels, --regrid and --class-axis belong to --truth"):
        truth_of_flags(None, None, "nearest")
    with pytest.raises(UsageError, match="belong to --truth"):
        truth_of_flags(None, None, None, "last")
    assert truth_of_flags(None, None, None) is None


def test_a_folder_with_files_of_another_format_is_told_to_be_a_pattern(data, tmp_path):
    for path in sorted((tmp_path / "truth").glob("*.nii.gz")):
        sitk.WriteImage(sitk.ReadImage(str(path)), str(path.with_name(f"{path.name[:-7]}.mha")))
        path.unlink()
    with pytest.raises(DatasetError, match=r"holds no case0.nii.gz of it; for other .* give a pattern"):
        read(data, tmp_path / "truth")
    found, hard = read(data, tmp_path / "truth" / "{case}.mha")
    np.testing.assert_array_equal(found, hard)
