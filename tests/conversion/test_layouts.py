"""Layouts of files as people have them: each gives the data set that plain files give."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_softlabel.cases.find import find_cases
from nnunet_softlabel.cases.label_maps import FileOptions
from nnunet_softlabel.conversion.run import convert
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.formats.files import read_json
from nnunet_softlabel.formats.images import read_mask
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from tests.conversion.conversion_helpers import run
from tests.formats.test_slicer import write_segmentation

Folders = SimpleNamespace


def soft_of(folder: Path) -> dict[str, np.ndarray]:
    dataset = SoftDataset(folder)
    return {case: dataset.read_soft(case) for case in dataset.cases()}


@pytest.fixture
def two_labels(tmp_path: Path, rater_folder_factory) -> Any:
    """Three cases, two raters, two classes."""
    return rater_folder_factory(
        tmp_path / "source", num_cases=3, num_raters=2, num_classes=2, shape=(6, 12, 10)
    )


@pytest.fixture
def expected(two_labels, nnunet_folders: Folders) -> dict[str, np.ndarray]:
    """What plain files give."""
    assert run(*two_labels.arguments(900, "Plain")) == 0
    return soft_of(nnunet_folders.raw / "Dataset900_Plain")


def check(nnunet_folders: Folders, expected: dict[str, np.ndarray], name: str = "Dataset901_Tiny") -> dict:
    found = soft_of(nnunet_folders.raw / name)
    assert sorted(found) == sorted(expected)
    for case, soft in expected.items():
        np.testing.assert_array_equal(found[case], soft)
    return read_json(nnunet_folders.raw / name / "dataset.json")["soft_labels"]


def head(*more: str) -> list[str]:
    return ["convert", "-d", "901", "-n", "Tiny", "-np", "1", *more]


def write_table(folder: Any, path: Path, **more: Any) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(["case", "image:MR", "rater", "mask", *more])
        for case in folder.cases:
            for rater in folder.raters:
                files = [folder.image(case), folder.rater(case, rater)]
                files = [file.relative_to(path.parent) for file in files]
                writer.writerow([case, files[0], rater, files[1], *(value(case) for value in more.values())])
    return path


def test_a_table_gives_the_same_data_set(two_labels, nnunet_folders, expected, capsys) -> None:
    table = write_table(
        two_labels, two_labels.root / "t.csv", group=lambda case: case, test=lambda case: case == "case_02"
    )
    text = table.read_text(encoding="utf-8").replace("True", "1").replace("False", "0")
    table.write_text(text, encoding="utf-8")
    assert run(*head("--cases-csv", str(table), "--labels", *two_labels.labels)) == 0
    test_case = expected.pop("case_02")
    about = check(nnunet_folders, expected)
    assert about["groups"] == {case: case for case in two_labels.cases}
    dataset = SoftDataset.find(901)
    np.testing.assert_array_equal(dataset.read_soft("case_02", "Ts"), test_case)
    assert dataset.dataset_json["channel_names"] == {"0": "MR"}
    capsys.readouterr()
    assert run("inspect", "--cases-csv", str(table), "--labels", *two_labels.labels) == 0
    assert "3 cases" in capsys.readouterr().out


def test_a_table_may_hold_raters_for_a_data_set_that_is_there(two_labels, nnunet_folders, expected) -> None:
    table = write_table(two_labels, two_labels.root / "t.csv")
    text = table.read_text(encoding="utf-8").replace("image:MR", "note")
    table.write_text(text, encoding="utf-8")
    assert run("convert", "--into", "900", "--cases-csv", str(table), "--overwrite", "-np", "1") == 0
    check(nnunet_folders, expected, "Dataset900_Plain")


def test_a_table_beside_patterns_is_refused(two_labels, nnunet_folders, capsys) -> None:
    table = write_table(two_labels, two_labels.root / "t.csv")
    assert run(*two_labels.arguments(), "--cases-csv", str(table)) == 2
    assert "--cases-csv names all files; leave out --images, --raters" in capsys.readouterr().err


def to_slicer(folder: Any, *, crop: bool = False) -> None:
    """Write the raters' files as Slicer does; the second rater made the segments in another order."""
    for case in folder.cases:
        for rater in folder.raters:
            array, grid = read_mask(folder.rater(case, rater))
            order = (1, 2) if rater == "1" else (2, 1)
            named = [(f"Part {value}", 0, number) for number, value in enumerate(order, start=1)]
            layer = sum((array == value) * number for number, value in enumerate(order, start=1))
            box, origin = tuple(slice(0, n) for n in array.shape), grid.origin
            if crop:
                marked = np.argwhere(layer)
                box = tuple(
                    slice(a, b + 1) for a, b in zip(marked.min(axis=0), marked.max(axis=0), strict=True)
                )
                starts = [part.start for part in box][::-1]
                origin = tuple(
                    o + s * mm for o, s, mm in zip(grid.origin, starts, grid.spacing_mm, strict=True)
                )
            path = folder.root / "slicer" / f"{case}_{rater}.seg.nrrd"
            write_segmentation(path, named, layer[box][None].astype(np.uint8), origin)
            image = sitk.ReadImage(str(path))
            image.SetSpacing(grid.spacing_mm)
            sitk.WriteImage(image, str(path))


@pytest.mark.parametrize("crop", [False, True], ids=["whole", "cropped"])
def test_slicer_segments_in_another_order_are_not_mixed_up(
    two_labels, nnunet_folders, expected, capsys, crop: bool
) -> None:
    to_slicer(two_labels, crop=crop)
    raters = ["--raters", str(two_labels.root / "slicer" / "{case}_{rater}.seg.nrrd")]
    labels = ["--labels", "part1=Part 1", "part2=Part 2"]
    assert run(*head("--images", *two_labels.images, "--channel-names", "MR", *raters, *labels)) == 0
    about = check(nnunet_folders, expected)
    assert len(about["moved"]) == (3 if crop else 0)
    assert ("6 files were placed where they belong" in capsys.readouterr().out) == crop
    assert run("inspect", *raters, "--images", *two_labels.images, *labels) == 0
    inspected = capsys.readouterr().out
    assert run("inspect", "--raters", two_labels.rater_pattern, "--labels", *two_labels.labels) == 0
    assert inspected == capsys.readouterr().out


def rewrite(path: Path, change: Any) -> None:
    sitk.WriteImage(change(sitk.ReadImage(str(path))), str(path))


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


def test_a_mask_that_misses_the_image_is_an_error_with_regrid_too(two_labels, nnunet_folders, capsys) -> None:
    def away(image: sitk.Image) -> sitk.Image:
        image.SetOrigin((1000.0, 0.0, 0.0))
        return image

    rewrite(two_labels.rater("case_01", "2"), away)
    assert run(*two_labels.arguments(), "--regrid", "nearest") == 2
    assert "rater 2 (" in (error := capsys.readouterr().err)
    assert "misses the image altogether" in error


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


def test_raters_with_other_values(two_labels, nnunet_folders, expected, capsys) -> None:
    for case in two_labels.cases:
        array, _ = read_mask(two_labels.rater(case, "2"))
        rewrite(two_labels.rater(case, "2"), lambda i, a=array: copied(np.uint8([0, 3, 1])[a], i))
    flags = ["--rater-labels", "2:part1=3", "2:part2=1"]
    assert run(*two_labels.arguments(), *flags) == 0
    about = check(nnunet_folders, expected)
    assert about["label_values_of_rater"] == {"2": {"0": 0, "1": 2, "3": 1}}
    capsys.readouterr()
    assert run("inspect", "--raters", two_labels.rater_pattern, "--labels", *two_labels.labels, *flags) == 0
    inspected = capsys.readouterr().out
    rater_maps = [str(SoftDataset.find(900).folder / "raterLabelsTr" / "{rater}" / "{case}.nii.gz")]
    assert run("inspect", "--raters", *rater_maps, "--labels", *two_labels.labels) == 0
    assert inspected == capsys.readouterr().out


def copied(array: np.ndarray, like: sitk.Image) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.CopyInformation(like)
    return image


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["2:part9=3"], "part9 is none of the labels part1, part2"),
        (["part1=3"], "expected RATER:NAME=VALUE, as in r2:lesion=3"),
        (["2:part1=2"], "value 2 of rater 2 would be part1 and part2; give all labels of this rater"),
        (["2:part1=3", "2:part1=4"], "part1 of rater 2 is given twice"),
    ],
)
def test_wrong_rater_labels(two_labels, nnunet_folders, capsys, flags: list[str], message: str) -> None:
    assert run(*two_labels.arguments(), "--rater-labels", *flags) == 2
    assert message in capsys.readouterr().err


def test_rater_labels_of_regions_keep_their_meaning() -> None:
    from nnunet_softlabel.formats.labels import parse_labels, parse_rater_labels

    labels, values = parse_labels(["whole=1,2", "core=2", "ignore=9"])
    assert parse_rater_labels(["r:whole=5,6", "r:core=6"], labels, values) == {"r": {0: 0, 5: 1, 6: 2, 9: 3}}


def test_labels_with_a_slope_hold_almost_whole_numbers(two_labels, nnunet_folders, expected) -> None:
    nib = pytest.importorskip("nibabel")
    for case in two_labels.cases:
        path = two_labels.rater(case, "1")
        image = nib.load(path)
        floats = nib.Nifti1Image(np.asarray(image.dataobj).astype(np.float64), image.affine)
        floats.set_data_dtype(np.int16)  # nibabel stretches 0..2 over the range of int16
        nib.save(floats, path)
        values = np.unique(read_mask(path)[0])
        assert (values != np.rint(values)).any()
    assert run(*two_labels.arguments()) == 0
    check(nnunet_folders, expected)


def test_an_interpolated_mask_with_a_slope_is_refused(two_labels, nnunet_folders, capsys) -> None:
    nib = pytest.importorskip("nibabel")
    path = two_labels.rater("case_00", "1")
    image = nib.load(path)
    half = nib.Nifti1Image(np.asarray(image.dataobj) * 0.5, image.affine)
    half.set_data_dtype(np.int16)
    nib.save(half, path)
    assert run(*two_labels.arguments()) == 2
    assert "holds fractions such as 0." in capsys.readouterr().err


@pytest.mark.parametrize(("scale", "dtype"), [(255, np.uint8), (100, np.float32)])
def test_probability_maps_of_another_scale(rater_folder, nnunet_folders, capsys, scale: int, dtype) -> None:
    maps = rater_folder.root / "maps"
    maps.mkdir()
    for case in rater_folder.cases:
        image = sitk.ReadImage(str(rater_folder.rater(case, "1")))
        array = sitk.GetArrayFromImage(image) * (scale * 0.6)
        sitk.WriteImage(copied(array.astype(dtype), image), str(maps / f"{case}_lesion.nii.gz"))
    flags = ["--images", *rater_folder.images, "--channel-names", "MR", "--labels", "lesion=1"]
    flags += ["--soft", str(maps / "{case}_{label}.nii.gz")]
    assert run(*head(*flags)) == 2
    assert "are no probabilities; rescale to [0, 1], or say with --soft-scale" in capsys.readouterr().err
    assert run(*head(*flags, "--soft-scale", "7")) == 2
    assert "are no probabilities of 7; rescale" in capsys.readouterr().err
    assert run(*head(*flags, "--soft-scale", str(scale))) == 0
    soft = SoftDataset.find(901).read_soft("case_00")
    assert np.unique(soft).tolist() == pytest.approx([0, 0.6])


@pytest.fixture
def stacked(two_labels) -> Any:
    """All raters of a case in one 4D file."""
    folder = two_labels.root / "stacks"
    folder.mkdir()
    for case in two_labels.cases:
        images = [sitk.ReadImage(str(two_labels.rater(case, rater))) for rater in two_labels.raters]
        sitk.WriteImage(sitk.JoinSeries(images), str(folder / f"{case}.nii.gz"))
    return folder


def test_a_file_with_a_channel_per_rater(two_labels, stacked, nnunet_folders, expected, capsys) -> None:
    flags = ["--raters", str(stacked / "{case}.nii.gz"), "--labels", *two_labels.labels]
    images = ["--images", *two_labels.images, "--channel-names", "MR"]
    assert run(*head(*images, *flags)) == 2
    assert "for a channel per rater in one file --rater-axis" in capsys.readouterr().err
    assert run(*head(*images, *flags, "--rater-axis", "last")) == 0
    assert check(nnunet_folders, expected)["raters"] == ["1", "2"]
    names = ["--rater-axis", "last", "--rater-names", "anna", "bob"]
    assert run(*head(*images, *flags, *names, "--overwrite")) == 0
    assert check(nnunet_folders, expected)["raters"] == ["anna", "bob"]
    assert run(*head(*images, *flags, *names, "eve", "--overwrite")) == 2
    assert "has 2 channels, but --rater-names gives 3 names" in capsys.readouterr().err
    assert run("inspect", *flags, *names) == 0
    assert "anna" in capsys.readouterr().out


def test_files_with_a_channel_per_class(two_labels, nnunet_folders, expected, capsys) -> None:
    folder = two_labels.root / "classes"
    folder.mkdir()
    for case in two_labels.cases:
        for rater in two_labels.raters:
            image = sitk.ReadImage(str(two_labels.rater(case, rater)))
            parts = [sitk.Cast(image == value, sitk.sitkUInt8) for value in (1, 2)]
            sitk.WriteImage(sitk.JoinSeries(parts), str(folder / f"{case}_{rater}.nii.gz"))
    flags = ["--raters", str(folder / "{case}_{rater}.nii.gz"), "--labels", *two_labels.labels]
    images = ["--images", *two_labels.images, "--channel-names", "MR"]
    assert run(*head(*images, *flags, "--class-axis", "last")) == 0
    check(nnunet_folders, expected)
    capsys.readouterr()
    assert run("inspect", *flags, "--class-axis", "last") == 0


def test_maps_in_a_channel_per_class(two_labels, nnunet_folders, expected) -> None:
    dataset, folder = SoftDataset.find(900), two_labels.root / "maps"
    folder.mkdir()
    for case in two_labels.cases:
        parts = [sitk.ReadImage(str(path)) for path in dataset.soft_files(case)]
        background = 1 - parts[0] - parts[1]
        sitk.WriteImage(sitk.JoinSeries([background, *parts]), str(folder / f"{case}.nii.gz"))
    images = ["--images", *two_labels.images, "--channel-names", "MR"]
    labels = ["--labels", "part1=2", "part2=3"]  # channel 1 is the background
    soft = ["--soft", str(folder / "{case}.nii.gz"), "--class-axis", "last"]
    assert run(*head(*images, *labels, *soft)) == 0
    check(nnunet_folders, expected)


def test_flat_stacks_and_colours(tmp_path: Path, nnunet_folders: Folders) -> None:
    """RGB: a rater per colour. TIFF of two pages: a rater per page."""
    import tifffile
    from skimage import io

    for name in ("i", "rgb", "tif"):
        (tmp_path / name).mkdir()
    drawn = np.zeros((8, 9, 3), np.uint8)
    drawn[2:5, 2:5, 0] = drawn[2:5, 2:6, 1] = drawn[2:5, 2:7, 2] = 255
    for case in "ab":
        io.imsave(tmp_path / "i" / f"{case}.png", np.full((8, 9), 7, np.uint8), check_contrast=False)
        io.imsave(tmp_path / "rgb" / f"{case}.png", drawn, check_contrast=False)
        tifffile.imwrite(
            tmp_path / "tif" / f"{case}.tiff", np.moveaxis(drawn, -1, 0), photometric="minisblack"
        )
    images = [
        "--images",
        str(tmp_path / "i" / "{case}.png"),
        "--channel-names",
        "grey",
        "--labels",
        "cell=255",
    ]
    for layout, axis in (("rgb/{case}.png", "last"), ("tif/{case}.tiff", "first")):
        flags = ["--raters", str(tmp_path / layout), "--rater-axis", axis, "--overwrite"]
        assert run(*head(*images, *flags)) == 0
        soft = SoftDataset.find(901).read_soft("a")[0]
        assert soft[3, 2:8].tolist() == pytest.approx([1, 1, 1, 2 / 3, 1 / 3, 0], abs=1e-4)


def remove_raters_of(folder: Any, *cases: str) -> None:
    for case in cases:
        for rater in folder.raters:
            folder.rater(case, rater).unlink()


def test_cases_without_raters_are_refused_dropped_or_filled(rater_folder, nnunet_folders, capsys) -> None:
    assert run(*rater_folder.arguments(900, "Plain")) == 0
    dataset = SoftDataset.find(900)
    before = {case: dataset.read_soft(case) for case in dataset.cases()}
    hard = dataset.read_hard("case_01")
    remove_raters_of(rater_folder, "case_01", "case_03")
    into = ["convert", "--into", "900", "--raters", rater_folder.rater_pattern, "--overwrite", "-np", "1"]
    capsys.readouterr()
    assert run(*into) == 2
    assert "Case case_01: image" in (error := capsys.readouterr().err)
    assert "has no rater's file (as 1 more cases)" in error
    assert run(*into, "--missing-raters", "use-labels") == 0
    out = capsys.readouterr().out
    assert "Filled from the hard label, since no rater has a file: 2 cases (case_01, case_03)." in out
    about = SoftDataset.find(900).about
    assert about is not None
    assert about["cases_from_hard_labels"] == ["case_01", "case_03"]
    assert about["raters_of_case"]["case_01"] == []
    np.testing.assert_array_equal(SoftDataset.find(900).read_soft("case_01")[0], hard == 1)
    np.testing.assert_array_equal(SoftDataset.find(900).read_soft("case_00"), before["case_00"])
    assert run(*into, "--missing-raters", "drop") == 2
    assert run(*rater_folder.arguments(), "--missing-raters", "use-labels") == 2
    assert "--missing-raters use-labels: belongs to --into" in capsys.readouterr().err
    assert run(*rater_folder.arguments(), "--missing-raters", "drop") == 0
    assert "Left out, since no rater has a file: 2 cases (case_01, case_03)." in capsys.readouterr().out
    assert SoftDataset.find(901).cases() == ["case_00", "case_02"]


def test_staple_over_the_data_set_takes_filled_cases_as_they_are(rater_folder, nnunet_folders) -> None:
    assert run(*rater_folder.arguments(900, "Plain")) == 0
    hard = SoftDataset.find(900).read_hard("case_01")
    remove_raters_of(rater_folder, "case_01")
    into = ["convert", "--into", "900", "--raters", rater_folder.rater_pattern, "--overwrite", "-np", "1"]
    flags = ["--fusion", "staple", "--staple-scope", "dataset", "--missing-raters", "use-labels"]
    assert run(*into, *flags) == 0
    np.testing.assert_array_equal(SoftDataset.find(900).read_soft("case_01")[0], hard == 1)


def test_extra_files_are_listed(rater_folder, nnunet_folders, capsys) -> None:
    rater_folder.image("case_01").unlink()
    assert run(*rater_folder.arguments()) == 2
    assert run(*rater_folder.arguments(), "--extra-files", "ignore") == 0
    out = capsys.readouterr().out
    assert "Ignored, since their cases have no image: " in out
    assert str(rater_folder.rater("case_01", "2")) in out


def test_from_python(two_labels, nnunet_folders, expected) -> None:
    for case in two_labels.cases:
        rewrite(two_labels.rater(case, "2"), lambda i: sitk.Expand(i, (2, 2, 2), sitk.sitkNearestNeighbor))
    cases = find_cases(two_labels.images, raters=[two_labels.rater_pattern])
    options: dict[str, Any] = {"dataset_id": 901, "name": "Tiny", "channel_names": ["MR"]}
    convert(cases, labels=two_labels.labels, files=FileOptions(regrid="nearest"), **options)
    check(nnunet_folders, expected)
    for files, message in (
        (FileOptions(regrid="cubic"), "--regrid cubic: choose nearest or linear"),  # type: ignore[arg-type]
        (FileOptions(class_axis="z"), "--class-axis z: choose first or last"),  # type: ignore[arg-type]
        (FileOptions(soft_scale=-1), "--soft-scale -1: give the value that means 1"),
    ):
        with pytest.raises(UsageError, match=message):
            convert(cases, labels=two_labels.labels, files=files, **options, overwrite=True)
    with pytest.raises(DatasetError, match="holds numbers, but --labels gives none"):
        convert(cases, labels=["part1", "part2"], **options, overwrite=True)


def flat_images(folder: Path, ending: str, **options: Any) -> Path:
    """Two images of 8 x 9 and masks of two raters in one flat format."""
    import tifffile
    from skimage import io

    for case in "ab":
        for place in ("i", "1", "2"):
            array = np.full((8, 9), 7, np.uint8)
            if place != "i":
                array = np.zeros((8, 9), np.uint8)
                array[2:5, 2 : 5 + int(place)] = 255
            path = folder / place / f"{case}{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            if ending.startswith(".tif"):
                shape = (1, 8, 9) if options.get("has_axis") else (8, 9)
                tifffile.imwrite(path, array.reshape(shape), photometric="minisblack")
            else:
                io.imsave(path, array, check_contrast=False)
    return folder


@pytest.mark.parametrize(
    ("ending", "has_axis", "written"),
    [(".tif", False, ".tif"), (".tiff", False, ".tif"), (".tif", True, ".tif"), (".bmp", False, ".png")],
)
def test_flat_formats(tmp_path: Path, nnunet_folders, ending: str, has_axis: bool, written: str) -> None:
    from skimage import io

    root = flat_images(tmp_path / "f", ending, has_axis=has_axis)
    flags = ["--images", str(root / f"i/{{case}}{ending}"), "--channel-names", "grey", "--labels", "cell=255"]
    assert run(*head(*flags, "--raters", str(root / f"{{rater:1,2}}/{{case}}{ending}"))) == 0
    dataset = SoftDataset.find(901)
    assert dataset.file_ending == written
    assert io.imread(dataset.image_files("a")[0]).shape == (8, 9)  # as nnU-Net reads it
    soft = dataset.read_soft("a")[0]
    assert soft[3, 2:8].tolist() == pytest.approx([1, 1, 1, 1, 0.5, 0], abs=1e-4)


def test_soft_labels_are_added_to_a_data_set_of_bmp(tmp_path: Path, nnunet_folders) -> None:
    import json

    root = flat_images(tmp_path / "f", ".bmp")
    folder = nnunet_folders.raw / "Dataset905_Bmp"
    for case in "ab":
        for place, name in (("i", f"imagesTr/{case}_0000.bmp"), ("1", f"labelsTr/{case}.bmp")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((root / place / f"{case}.bmp").read_bytes())
    content = {"channel_names": {"0": "grey"}, "labels": {"background": 0, "cell": 1}, "numTraining": 2}
    (folder / "dataset.json").write_text(json.dumps(content | {"file_ending": ".bmp"}), encoding="utf-8")
    (folder / "imagesTr" / "._a_0000.bmp").touch()  # of macOS
    raters = ["--raters", str(root / "{rater:1,2}/{case}.bmp"), "--labels", "cell=255"]
    assert run("convert", "--into", "905", *raters, "-np", "1") == 0
    dataset = SoftDataset.find(905)
    (folder / "softLabelsTr" / "._a_0001.png").touch()
    assert dataset.cases() == ["a", "b"]
    assert dataset.soft_files("a")[0].name == "a_0001.png"
    assert dataset.read_soft("a")[0, 3, 2:8].tolist() == pytest.approx([1, 1, 1, 1, 0.5, 0], abs=1e-4)
    assert sorted(np.unique(dataset.read_raters("a")["2"]).tolist()) == [0, 1]
