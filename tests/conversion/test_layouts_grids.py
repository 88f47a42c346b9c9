"""Masks on another grid, or with other axes: each gives the data set that plain files give."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.cases.find import find_cases
from nnunet_softlabel.cases.label_maps import FileOptions
from nnunet_softlabel.conversion.run import convert
from nnunet_softlabel.conversion.settings import Running
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.formats.channels import Channel
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from tests.conversion.conversion_helpers import run
from tests.conversion.layout_helpers import check, rewrite

Folders = SimpleNamespace


def test_another_order_of_axes_is_turned_and_reported(two_labels, nnunet_folders, expected, capsys) -> None:
    rewrite(two_labels.rater("case_01", "2"), lambda image: sitk.DICOMOrient(image, "RSA"))
    assert run(*two_labels.arguments()) == 0
    about = check(nnunet_folders, expected)
    (move,) = about["moved"]["case_01"].values()
    assert move == {"how": "turned", "difference": move["difference"], "shift_mm": 0.0}
    assert "axes (" in move["difference"]
    out = capsys.readouterr().out
    assert "1 file was turned (axes in another order or direction, no voxel changed)" in out
    assert "case case_01, rater 2" in out
    patterns = ["--raters", two_labels.rater_pattern, "--labels", *two_labels.labels]
    assert run("inspect", *patterns, "--images", *two_labels.images) == 0
    assert "turned: axes (" in capsys.readouterr().out


def crop_and_shift(folder: Any) -> None:
    """One mask is cropped, one moved by 0.25 mm, one has half the spacing; all hold the same marks."""
    rewrite(folder.rater("case_00", "1"), lambda image: sitk.RegionOfInterest(image, (10, 12, 5), (0, 0, 1)))

    def moved(image: sitk.Image) -> sitk.Image:
        image.SetOrigin((0.25, 0.0, 0.0))
        return image

    rewrite(folder.rater("case_01", "2"), moved)
    rewrite(
        folder.rater("case_02", "1"),
        lambda image: sitk.Expand(image, (2, 2, 2), sitk.sitkNearestNeighbor),
    )


def test_another_grid_is_refused_with_the_true_difference_of_every_file(
    two_labels, nnunet_folders, capsys
) -> None:
    crop_and_shift(two_labels)
    assert run(*two_labels.arguments()) == 2
    error = capsys.readouterr().err
    assert "3 files are on another grid than their image" in error
    assert f"Case case_00, rater 1 ({two_labels.rater('case_00', '1')}): size (10, 12, 5)" in error
    assert "crop in voxels: z +1 at the start, +0 at the end" in error
    assert f"Case case_01, rater 2 ({two_labels.rater('case_01', '2')}): origin (0.25, 0.0, 0.0)" in error
    assert f"Case case_02, rater 1 ({two_labels.rater('case_02', '1')}): spacing_mm (0.5, 0.5, " in error
    assert "Add --regrid nearest (or linear)" in error
    assert not list(nnunet_folders.raw.iterdir())


@pytest.mark.parametrize("method", ["nearest", "linear"])
def test_regridding_gives_the_same_label_and_says_how_far(
    two_labels, nnunet_folders, expected, capsys, method: str
) -> None:
    crop_and_shift(two_labels)
    assert run(*two_labels.arguments(), "--regrid", method) == 0
    about = check(nnunet_folders, expected)
    assert about["regrid"] == method
    assert {case: list(files) for case, files in about["moved"].items()} == {
        "case_00": ["rater 1"],
        "case_01": ["rater 2"],
        "case_02": ["rater 1"],
    }
    assert about["moved"]["case_01"]["rater 2"]["shift_mm"] == pytest.approx(0.25)
    assert f"3 files were put on the grid of the image (--regrid {method})" in capsys.readouterr().out


def test_marks_that_are_cut_off_are_told(two_labels, nnunet_folders, capsys) -> None:
    """Half of a mask lies below the image: it is refused, or cut off and told."""

    def lowered(image: sitk.Image) -> sitk.Image:
        marked = np.argwhere(sitk.GetArrayFromImage(image))[:, 0]
        middle = int(np.median(marked))
        image.SetOrigin((0.0, 0.0, -(middle + 0.2) * image.GetSpacing()[2]))
        return image

    rewrite(two_labels.rater("case_01", "2"), lowered)
    assert run(*two_labels.arguments(), "--regrid", "nearest") == 0
    out = capsys.readouterr().out
    assert "1 file marks voxels outside the image, which were cut off: " in out
    assert "at most (case case_01, rater 2)" in out
    about = SoftDataset.find(901).about
    assert about is not None
    assert 0.2 < about["moved"]["case_01"]["rater 2"]["outside"] < 0.8
    patterns = ["--raters", two_labels.rater_pattern, "--labels", *two_labels.labels]
    assert run("inspect", *patterns, "--images", *two_labels.images, "--regrid", "nearest") == 0
    assert "of its marks cut off" in capsys.readouterr().out


def test_a_mask_that_misses_the_image_is_an_error_with_regrid_too(two_labels, nnunet_folders, capsys) -> None:
    def away(image: sitk.Image) -> sitk.Image:
        image.SetOrigin((1000.0, 0.0, 0.0))
        return image

    rewrite(two_labels.rater("case_01", "2"), away)
    assert run(*two_labels.arguments()) == 2
    assert "misses the image altogether. --regrid cannot mend that" in capsys.readouterr().err
    assert run(*two_labels.arguments(), "--regrid", "nearest") == 2
    assert "rater 2 (" in (error := capsys.readouterr().err)
    assert "misses the image altogether" in error
    assert "--regrid cannot mend that: mend its header" in error
    assert "Add --regrid" not in error


def test_rois_and_ignore_masks_are_regridded(rater_folder, nnunet_folders) -> None:
    bones = rater_folder.root / "bones"
    bones.mkdir()
    for case in rater_folder.cases:
        image = sitk.ReadImage(str(rater_folder.image(case)))
        sitk.WriteImage(sitk.Expand(image * 0 + 1, (2, 2, 2)), str(bones / f"{case}.nii.gz"))
    roi = ["--roi", f"bone={bones}/{{case}}.nii.gz", "--ignore", str(bones / "{case}.nii.gz")]
    assert run(*rater_folder.arguments(), *roi) == 2
    assert run(*rater_folder.arguments(), *roi, "--regrid", "nearest") == 0
    about = SoftDataset.find(901).about
    assert about is not None
    assert sorted(about["moved"]["case_00"]) == ["ROI bone", "ignore mask"]


def test_from_python(two_labels, nnunet_folders, expected) -> None:
    for case in two_labels.cases:
        rewrite(two_labels.rater(case, "2"), lambda i: sitk.Expand(i, (2, 2, 2), sitk.sitkNearestNeighbor))
    cases = find_cases(two_labels.images, raters=[two_labels.rater_pattern])
    options: dict[str, Any] = {"dataset": "Dataset901_Tiny", "channel_names": ["MR"]}
    convert(cases, labels=two_labels.labels, files=FileOptions(regrid="nearest"), **options)
    options["running"] = Running(overwrite=True)
    check(nnunet_folders, expected)
    for files, message in (
        ({"regrid": "cubic"}, "regrid: 'cubic' is none of 'nearest', 'linear'"),
        ({"class_axis": "z"}, "class_axis: 'z' is none of 'first', 'last'"),
        ({"soft_scale": -1}, r"FileOptions\(soft_scale=\.\.\.\) -1: give the value that means 1"),
    ):
        with pytest.raises(UsageError, match=message):
            convert(cases, labels=two_labels.labels, files=FileOptions(**files), **options)
    stack = two_labels.root / "stack.nii.gz"
    sitk.WriteImage(sitk.JoinSeries([sitk.ReadImage(str(two_labels.rater("case_00", "1")))] * 2), str(stack))
    channel = Case("case_00", two_labels.image("case_00"), raters={"1": Channel(stack, 0)})
    with pytest.raises(UsageError, match="is one channel of a file, which has no classes apart"):
        convert([channel], labels=two_labels.labels, files=FileOptions(class_axis="last"), **options)
    with pytest.raises(DatasetError, match="holds numbers, but labels gives none"):
        convert(cases, labels=["part1", "part2"], **options)
