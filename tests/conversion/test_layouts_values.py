"""Other values and scales, channels in one file, flat formats."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_softlabel.formats.images import read_mask
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from tests.conversion.conversion_helpers import run
from tests.conversion.layout_helpers import check, copied, head, rewrite

Folders = SimpleNamespace


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


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_a_scale_of_probability_maps_without_any_is_refused(
    rater_folder, nnunet_folders, capsys, dry
) -> None:
    flags = ["--images", *rater_folder.images, "--channel-names", "MR", "--labels", "lesion=1"]
    flags += ["--raters", rater_folder.rater_pattern, *dry]
    assert run(*head(*flags, "--soft-scale", "255")) == 2
    assert "--soft-scale: belongs to ready probability maps" in capsys.readouterr().err


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


def test_a_table_of_files_with_a_channel_per_rater(
    two_labels, stacked, nnunet_folders, expected, capsys
) -> None:
    table = two_labels.root / "t.csv"
    rows = [f"{case},{two_labels.image(case)},{stacked / case}.nii.gz" for case in two_labels.cases]
    table.write_text("\n".join(["case,image:MR,mask", *rows]), encoding="utf-8")
    flags = ["--cases-csv", str(table), "--labels", *two_labels.labels]
    assert run(*head(*flags)) == 2
    assert "several channels in one file" in capsys.readouterr().err
    flags += ["--rater-axis", "last", "--rater-names", "anna", "bob"]
    assert run(*head(*flags)) == 0
    assert check(nnunet_folders, expected)["raters"] == ["anna", "bob"]
    capsys.readouterr()
    assert run("inspect", *flags) == 0
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


def write_classes(folder: Any, change: Any) -> list[str]:
    """Files with a channel per class, changed; the flags that read them."""
    place = folder.root / "changed"
    place.mkdir(exist_ok=True)
    for case in folder.cases:
        for rater in folder.raters:
            image = sitk.ReadImage(str(folder.rater(case, rater)))
            array = sitk.GetArrayFromImage(image)
            parts = [copied(change((array == value).astype(np.uint8)), image) for value in (1, 2)]
            sitk.WriteImage(sitk.JoinSeries(parts), str(place / f"{case}_{rater}.nii.gz"))
    raters = ["--raters", str(place / "{case}_{rater}.nii.gz")]
    return ["--images", *folder.images, "--channel-names", "MR", *raters, "--class-axis", "last"]


@pytest.mark.parametrize(
    ("change", "labels", "message"),
    [
        (
            lambda a: a * np.float32(0.3),
            [],
            "channel 1 holds values from 0.3 to 0.3; a class is",
        ),
        (
            lambda a: a * np.uint8(1 + np.indices(a.shape)[2] % 3),
            [],
            "channel 1 holds values from 1 to 3",
        ),
        (lambda a: a, ["other=3"], "has 2 channels, but --labels names channel 3"),
    ],
)
def test_channels_that_are_no_classes_are_refused(
    two_labels, nnunet_folders, capsys, change: Any, labels: list[str], message: str
) -> None:
    assert run(*head(*write_classes(two_labels, change), "--labels", *two_labels.labels, *labels)) == 2
    assert message in capsys.readouterr().err


def test_a_class_may_be_marked_by_any_number(two_labels, nnunet_folders, expected, capsys) -> None:
    flags = [*write_classes(two_labels, lambda a: a * np.float32(255)), "--labels", *two_labels.labels]
    assert run(*head(*flags)) == 0
    check(nnunet_folders, expected)
    assert run(*head(*flags, "--rater-axis", "last", "--overwrite")) == 2
    assert "a file has one axis of channels; give one of them" in capsys.readouterr().err
    assert run(*head(*[flag for flag in flags if flag not in ("--class-axis", "last")], "--overwrite")) == 2
    assert "needs --rater-axis, a channel per class --class-axis" in capsys.readouterr().err


def test_raters_on_the_first_axis_of_a_volume(two_labels, stacked, nnunet_folders, capsys) -> None:
    nib = pytest.importorskip("nibabel")
    flags = ["--images", *two_labels.images, "--channel-names", "MR", "--labels", *two_labels.labels]
    flags += ["--raters", str(stacked / "{case}.nii.gz"), "--rater-axis"]
    for case in two_labels.cases:
        array = np.asarray(nib.load(stacked / f"{case}.nii.gz").dataobj)
        nib.save(nib.Nifti1Image(np.moveaxis(array, -1, 0), np.eye(4)), stacked / f"{case}.nii.gz")
    assert run(*head(*flags, "first")) == 2
    assert "in a volume the channels are the last axis (x, y, z, channel)" in capsys.readouterr().err
    assert run(*head(*flags, "last")) == 2
    assert "is on another grid than the image" in capsys.readouterr().err


@pytest.mark.parametrize("ending", [".MHA", ".NRRD", ".NII.GZ", ".Nii"])
def test_endings_in_capitals(two_labels, nnunet_folders, expected, ending: str) -> None:
    for path in [p for p in two_labels.root.rglob("*.nii.gz") if "nnUNet" not in str(p)]:
        small = path.with_name(f"copy{ending.lower()}")
        sitk.WriteImage(sitk.ReadImage(str(path)), str(small))
        path.unlink()
        small.rename(str(path).replace(".nii.gz", ending))
    images = [pattern.replace(".nii.gz", ending) for pattern in two_labels.images]
    raters = two_labels.rater_pattern.replace(".nii.gz", ending)
    flags = ["--images", *images, "--channel-names", "MR", "--raters", raters, "--labels", *two_labels.labels]
    assert run(*head(*flags)) == 0
    check(nnunet_folders, expected)


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


def test_regions_have_a_channel_each_in_their_order(nnunet_folders: Folders, tmp_path: Path, capsys) -> None:
    """BraTS: the tumour core has the labels 1 and 3, and is channel 2."""
    whole, core, enhancing = (np.full((2, 3, 4), p, np.float32) for p in (0.9, 0.5, 0.2))
    (tmp_path / "p").mkdir()
    for case in "ab":
        sitk.WriteImage(sitk.GetImageFromArray(whole), str(tmp_path / f"{case}.nii.gz"))
        maps = sitk.GetImageFromArray(np.stack([whole, core, enhancing]), isVector=False)
        sitk.WriteImage(maps, str(tmp_path / "p" / f"{case}.nii.gz"))
    images = ["--images", str(tmp_path / "{case}.nii.gz"), "--channel-names", "MR"]
    soft = ["--soft", str(tmp_path / "p" / "{case}.nii.gz"), "--class-axis", "last", "--labels"]
    assert run(*head(*images, *soft, "WT=1,2,3", "TC=1,3", "ET=3")) == 0
    assert "{case}.nii.gz: WT 1, TC 2, ET 3." in capsys.readouterr().out
    found = SoftDataset.find(901).read_soft("a")
    np.testing.assert_array_equal(found, [whole, core, enhancing])
    assert run(*head(*images, *soft, "WT=1,2,3", "ET=3", "--overwrite")) == 2
    assert "has 3 channels for 2 regions" in capsys.readouterr().err


def test_flat_stacks_and_colours(tmp_path: Path, nnunet_folders: Folders) -> None:
    """RGB: a rater per colour; opaque transparency is none. TIFF of two pages: a rater per page."""
    import tifffile
    from skimage import io

    for name in ("i", "rgb", "rgba", "tif"):
        (tmp_path / name).mkdir()
    drawn = np.zeros((8, 9, 3), np.uint8)
    drawn[2:5, 2:5, 0] = drawn[2:5, 2:6, 1] = drawn[2:5, 2:7, 2] = 255
    for case in "ab":
        io.imsave(tmp_path / "i" / f"{case}.png", np.full((8, 9), 7, np.uint8), check_contrast=False)
        io.imsave(tmp_path / "rgb" / f"{case}.png", drawn, check_contrast=False)
        opaque = np.dstack([drawn, np.full((8, 9), 255, np.uint8)])
        io.imsave(tmp_path / "rgba" / f"{case}.png", opaque, check_contrast=False)
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
    for layout, axis in (
        ("rgb/{case}.png", "last"),
        ("rgba/{case}.png", "last"),
        ("tif/{case}.tiff", "first"),
    ):
        flags = ["--raters", str(tmp_path / layout), "--rater-axis", axis, "--overwrite"]
        assert run(*head(*images, *flags)) == 0
        soft = SoftDataset.find(901).read_soft("a")[0]
        assert soft[3, 2:8].tolist() == pytest.approx([1, 1, 1, 2 / 3, 1 / 3, 0], abs=1e-4)


@pytest.mark.parametrize("alpha", [False, True])
def test_colours_of_a_png_are_classes(tmp_path: Path, nnunet_folders: Folders, alpha: bool) -> None:
    from skimage import io

    for name in ("i", "1", "2"):
        (tmp_path / name).mkdir()
    for case in "ab":
        io.imsave(tmp_path / "i" / f"{case}.PNG", np.full((8, 9), 7, np.uint8), check_contrast=False)
        for rater in "12":
            drawn = np.zeros((8, 9, 4 if alpha else 3), np.uint8)
            drawn[2:5, 2 : 3 + int(rater), 0] = 255
            drawn[5:7, 2:5, 1] = 255
            drawn[..., 3:] = 255
            io.imsave(tmp_path / rater / f"{case}.PNG", drawn, check_contrast=False)
    flags = [
        "--images",
        str(tmp_path / "i" / "{case}.PNG"),
        "--channel-names",
        "grey",
        "--labels",
        "cell=1",
        "wall=2",
    ]
    raters = ["--raters", str(tmp_path / "{rater:1,2}" / "{case}.PNG"), "--class-axis", "last"]
    assert run(*head(*flags, *raters)) == 0
    cell, wall = SoftDataset.find(901).read_soft("a")
    assert cell[3, 2:6].tolist() == pytest.approx([1, 1, 0.5, 0], abs=1e-4)
    assert wall[6, 1:6].tolist() == pytest.approx([0, 1, 1, 1, 0], abs=1e-4)


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
