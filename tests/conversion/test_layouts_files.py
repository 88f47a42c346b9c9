"""Tables, Slicer, cases without raters: each gives the data set that plain files give."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_softlabel.cases.splits import read_splits
from nnunet_softlabel.formats.files import write_json
from nnunet_softlabel.formats.images import read_mask
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from tests.conversion.conversion_helpers import run
from tests.conversion.layout_helpers import check, head
from tests.formats.test_slicer import write_segmentation

Folders = SimpleNamespace


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


def test_a_column_of_a_table_may_hold_the_groups(two_labels, nnunet_folders) -> None:
    patient = {"case_00": "p", "case_01": "p", "case_02": "q"}
    table = write_table(two_labels, two_labels.root / "t.csv", patient=patient.get)
    flags = ["--cases-csv", str(table), "--labels", *two_labels.labels, "--group-column", "patient"]
    assert run(*head(*flags)) == 0
    assert SoftDataset.find(901).about["groups"] == patient
    folds = read_splits(nnunet_folders.preprocessed / "Dataset901_Tiny" / "splits_final.json")
    assert sorted(sorted(fold["val"]) for fold in folds) == [["case_00", "case_01"], ["case_02"]]


def test_channel_names_that_exchange_columns_of_a_table_are_refused(
    rater_folder_factory, nnunet_folders, tmp_path: Path, capsys
) -> None:
    folder = rater_folder_factory(tmp_path / "s", num_cases=2, num_raters=1)
    table = write_table(folder, folder.root / "t.csv")
    lines = table.read_text(encoding="utf-8").replace("image:MR;", "image:T2;image:T1;").splitlines()
    rows = [line.replace(";", f";{line.split(';')[1]};", 1) for line in lines[1:]]
    table.write_text("\n".join([lines[0], *rows]), encoding="utf-8")
    flags = ["--cases-csv", str(table), "--labels", *folder.labels]
    assert run(*head(*flags, "--channel-names", "T1", "T2")) == 2
    assert "the columns of the table are in another order, image:T2, image:T1;" in capsys.readouterr().err
    assert run(*head(*flags, "--channel-names", "T2", "MR")) == 0
    assert "Channel MR: column image:T1 of the table." in capsys.readouterr().out
    assert SoftDataset.find(901).dataset_json["channel_names"] == {"0": "T2", "1": "MR"}


def test_a_table_with_a_group_on_both_sides_is_refused(two_labels, nnunet_folders, capsys) -> None:
    group = {"case_00": "p", "case_01": "p", "case_02": "q"}
    for tests in (("case_00",), tuple(two_labels.cases)):
        table = write_table(
            two_labels, two_labels.root / "t.csv", group=group.get, test=lambda case, t=tests: int(case in t)
        )
        assert run(*head("--cases-csv", str(table), "--labels", *two_labels.labels)) == 2
    error = capsys.readouterr().err
    assert "group p has case case_01 in training and others in the test set" in error
    assert "nothing is left to train on" in error


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
    assert run(*into, "--few-raters", "drop") == 2
    assert run(*rater_folder.arguments(), "--missing-raters", "use-labels") == 2
    assert "--missing-raters use-labels: belongs to --into" in capsys.readouterr().err
    assert run(*rater_folder.arguments(), "--missing-raters", "drop") == 0
    assert "Left out, since no rater has a file: 2 cases (case_01, case_03)." in capsys.readouterr().out
    assert SoftDataset.find(901).cases() == ["case_00", "case_02"]
    assert SoftDataset.find(901).about["dropped_cases"] == ["case_01", "case_03"]


def test_cases_of_a_data_set_are_left_out_of_training(rater_folder, nnunet_folders, capsys) -> None:
    assert run(*rater_folder.arguments(900, "Plain")) == 0
    dataset = SoftDataset.find(900)
    remove_raters_of(rater_folder, "case_01")
    into = ["convert", "--into", "900", "--raters", rater_folder.rater_pattern, "--missing-raters", "drop"]
    assert run(*into, "--overwrite") == 0
    out = capsys.readouterr().out
    assert "Left out, since no rater has a file: 1 cases (case_01)." in out
    assert "1 cases stay in the data set and are not trained on" in out
    about = SoftDataset.find(900).about
    assert about is not None
    assert about["dropped_cases"] == ["case_01"]
    assert SoftDataset.find(900).cases() == ["case_00", "case_02", "case_03"]
    assert dataset.label_file("case_01").is_file()
    assert len(dataset.image_files("case_01")) == 1
    splits = nnunet_folders.preprocessed / "Dataset900_Plain" / "splits_final.json"
    folds = read_splits(splits)
    assert len(folds) == 3
    assert all(sorted(f["train"] + f["val"]) == ["case_00", "case_02", "case_03"] for f in folds)
    # splits that are there keep their folds, and are changed only when told to
    write_json(splits, [{"train": ["case_00", "case_01"], "val": ["case_02", "case_03"]}])
    about_before = SoftDataset.find(900).about
    flags = ["--fusion", "majority"]
    capsys.readouterr()
    assert run(*into, *flags) == 2
    assert "add --overwrite to take the cases without raters out of its folds" in capsys.readouterr().err
    assert SoftDataset.find(900).about == about_before
    assert run(*into, *flags, "--overwrite") == 0
    assert read_splits(splits) == [{"train": ["case_00"], "val": ["case_02", "case_03"]}]
    # a fold without validation cases is refused before anything is written
    write_json(splits, [{"train": ["case_00", "case_02", "case_03"], "val": ["case_01"]}])
    assert run(*into, "--overwrite") == 2
    assert "fold 0 would have no case left" in capsys.readouterr().err


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
