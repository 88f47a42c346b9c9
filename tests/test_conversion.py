from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from nnunet_softlabel import case_writer
from nnunet_softlabel.cases import Case, find_cases
from nnunet_softlabel.cli import main
from nnunet_softlabel.conversion import add_soft_labels, convert
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.image_io import Grid, read_image, read_mask, write_image
from nnunet_softlabel.soft_labels import SoftDataset, read_json, write_json

GRID = Grid((4, 3, 2), (1.0, 1.0, 2.0), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
Folders = SimpleNamespace


def tree(*folders: Path) -> dict[str, bytes]:
    """Every file below, hidden ones too, with its content."""
    return {str(path): path.read_bytes() for base in folders for path in base.rglob("*") if path.is_file()}


def run(*arguments: str) -> int:
    try:
        return main(arguments)
    except SystemExit as stopped:
        return int(stopped.code or 0)


def in_memory_cases(*rater_values: list[int], num_cases: int = 2, **options: Any) -> list[Case]:
    """Cases of 2 x 3 x 4 voxels; each rater gives the first voxels the values listed."""
    raters = {}
    for i, values in enumerate(rater_values, start=1):
        array = np.zeros(GRID.shape, np.uint8)
        array.flat[: len(values)] = values
        raters[str(i)] = array
    image = np.arange(24, dtype=np.int16).reshape(GRID.shape)
    return [Case(f"c{i}", [lambda: (image, GRID)], raters, **options) for i in range(num_cases)]


def converted(cases: list[Case], labels: list[str], **options: Any) -> SoftDataset:
    folder = convert(cases, dataset_id=901, name="T", labels=labels, channel_names=["MR"], **options)
    return SoftDataset(folder)


# ---------------------------------------------------------------- what is written


def test_data_set_has_the_documented_layout(rater_folder, nnunet_folders: Folders) -> None:
    assert run(*rater_folder.arguments()) == 0
    folder = nnunet_folders.raw / "Dataset901_Tiny"
    case = rater_folder.cases[0]
    expected = {f"imagesTr/{case}_0000.nii.gz", f"labelsTr/{case}.nii.gz", f"softLabelsTr/{case}_0001.nii.gz"}
    expected |= {f"raterLabelsTr/{rater}/{case}.nii.gz" for rater in rater_folder.raters} | {"dataset.json"}
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {name for name in found if case in name or "/" not in name} == expected
    assert (folder / f"imagesTr/{case}_0000.nii.gz").read_bytes() == rater_folder.image(case).read_bytes()
    assert not list(nnunet_folders.raw.glob(".*"))


def test_soft_label_is_the_mean_and_hard_label_its_consensus(rater_folder, nnunet_folders: Folders) -> None:
    assert run(*rater_folder.arguments()) == 0
    dataset = SoftDataset.find(901)
    case = rater_folder.cases[1]
    masks = [read_mask(rater_folder.rater(case, rater))[0] for rater in rater_folder.raters]
    np.testing.assert_allclose(dataset.read_soft(case)[0], np.mean(masks, axis=0), atol=1e-6)
    np.testing.assert_array_equal(dataset.read_hard(case), np.mean(masks, axis=0) > 0.5)
    for rater, mask in zip(rater_folder.raters, masks, strict=True):
        np.testing.assert_array_equal(dataset.read_raters(case)[rater], mask)
    image_grid = read_image(rater_folder.image(case))[1]
    for path in (dataset.label_file(case), *dataset.soft_files(case), *dataset.rater_files(case).values()):
        assert image_grid.difference(read_image(path)[1]) is None


def test_dataset_json_is_nnunets_plus_one_key(rater_folder, nnunet_folders: Folders) -> None:
    assert run(*rater_folder.arguments()) == 0
    content = read_json(nnunet_folders.raw / "Dataset901_Tiny" / "dataset.json")
    about = content.pop("soft_labels")
    assert content == {
        "name": "Dataset901_Tiny",
        "channel_names": {"0": "MR"},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": 4,
        "file_ending": ".nii.gz",
    }
    assert about["raters"] == ["1", "2", "3"]
    assert about["fusion"] == {"method": "mean"}
    assert set(about["disputed_share"]) == set(rater_folder.cases)


def test_fusions_by_hand(nnunet_folders: Folders) -> None:
    cases = in_memory_cases([1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0])
    expected = {
        "mean": ({}, [1, 2 / 3, 1 / 3, 0]),
        "majority": ({}, [1, 1, 0, 0]),
        "weighted": ({"weights": {"1": 2.0, "2": 1.0, "3": 1.0}}, [1, 3 / 4, 1 / 2, 0]),
    }
    for fusion, (options, values) in expected.items():
        dataset = converted(cases, ["a=1"], fusion=fusion, fusion_options=options, overwrite=True)
        np.testing.assert_allclose(dataset.read_soft("c0")[0].flat[:4], values, atol=1e-6)


def test_several_classes_by_hand(nnunet_folders: Folders) -> None:
    # values 10 and 20 in the files become 1 and 2; a tie of the two classes goes to the first, as in argmax
    dataset = converted(in_memory_cases([10, 10, 20, 20], [10, 20, 20, 0]), ["b=20", "a=10"])
    soft = dataset.read_soft("c0").reshape(2, -1)[:, :4]
    np.testing.assert_allclose(soft, [[1, 0.5, 0, 0], [0, 0.5, 1, 0.5]])
    np.testing.assert_array_equal(dataset.read_hard("c0").flat[:4], [1, 1, 2, 0])
    assert dataset.labels.names == ("a", "b")


def test_regions_are_shares_of_raters_in_the_region(nnunet_folders: Folders) -> None:
    dataset = converted(in_memory_cases([1, 2, 2, 0], [1, 2, 1, 0], [0, 2, 1, 1]), ["whole=1,2", "core=2"])
    soft = dataset.read_soft("c0").reshape(2, -1)[:, :4]
    np.testing.assert_allclose(soft, [[2 / 3, 1, 1, 1 / 3], [0, 1, 1 / 3, 0]], atol=1e-6)
    np.testing.assert_array_equal(dataset.read_hard("c0").flat[:4], [1, 2, 1, 0])
    assert dataset.dataset_json["labels"] == {"background": 0, "whole": [1, 2], "core": 2}
    assert dataset.dataset_json["regions_class_order"] == [1, 2]


def test_voxel_is_ignored_only_where_nobody_answered(nnunet_folders: Folders) -> None:
    dataset = converted(in_memory_cases([1, 9, 9, 0], [1, 1, 9, 9]), ["a=1", "ignore=9"])
    np.testing.assert_allclose(dataset.read_soft("c0")[0].flat[:4], [1, 1, 0, 0])
    np.testing.assert_array_equal(dataset.read_hard("c0").flat[:4], [1, 1, 2, 0])
    assert dataset.dataset_json["labels"] == {"background": 0, "a": 1, "ignore": 2}


def test_ignored_areas_are_ignored_whatever_raters_say(nnunet_folders: Folders) -> None:
    mask = np.zeros(GRID.shape, np.uint8)
    mask.flat[0] = 1
    dataset = converted(in_memory_cases([1, 1], [1, 1], ignore=mask), ["a=1"])
    np.testing.assert_allclose(dataset.read_soft("c0")[0].flat[:2], [0, 1])
    np.testing.assert_array_equal(dataset.read_hard("c0").flat[:2], [2, 1])


def test_ready_soft_labels_are_taken_over(nnunet_folders: Folders) -> None:
    soft = np.random.default_rng(0).random(GRID.shape, dtype=np.float32)
    cases = [Case("c0", [lambda: (soft, GRID)], soft={"a": soft})]
    dataset = converted(cases, ["a=1"])
    np.testing.assert_array_equal(dataset.read_soft("c0")[0], soft)
    np.testing.assert_array_equal(dataset.read_hard("c0"), soft > 0.5)
    assert dataset.about["source"] == "probability maps"
    assert dataset.about["fusion"] is None


def test_flags_for_soft_labels(rater_folder, nnunet_folders: Folders, tmp_path: Path) -> None:
    for case in rater_folder.cases:
        mask, grid = read_mask(rater_folder.rater(case, "1"))
        (tmp_path / "prob").mkdir(exist_ok=True)
        write_image(tmp_path / "prob" / f"{case}_lesion.nii.gz", mask * np.float32(0.7), grid)
    arguments = rater_folder.arguments()
    start = arguments.index("--raters")
    arguments[start : start + 2] = ["--soft", str(tmp_path / "prob" / "{case}_{label}.nii.gz")]
    assert run(*arguments) == 0
    assert SoftDataset.find(901).read_soft(rater_folder.cases[0]).max() == np.float32(0.7)
    assert SoftDataset.find(901).rater_files(rater_folder.cases[0]) == {}


@pytest.mark.parametrize("ending", [".png", ".tif", ".bmp"])
def test_flat_images(tmp_path: Path, nnunet_folders: Folders, rater_folder_factory, ending: str) -> None:
    folder = rater_folder_factory(tmp_path / "flat", num_cases=2, shape=(24, 30), spacing_mm=(1.0, 1.0), ending=".png")
    for path in folder.root.rglob("*.png"):
        array, grid = read_image(path)
        if path.parent.name == "raters":
            write_image(path, array * 255, grid)
        elif ending != ".png":
            write_image(path.with_suffix(ending), array, grid)
            path.unlink()
    arguments = [text.replace("lesion=1", "lesion=255") for text in folder.arguments()]
    arguments[arguments.index("--images") + 1] = folder.images[0].replace(".png", ending)
    assert run(*arguments) == 0
    dataset = SoftDataset.find(901)
    assert dataset.file_ending == (".tif" if ending == ".tif" else ".png")
    case = folder.cases[0]
    masks = np.stack([read_mask(folder.rater(case, rater))[0] for rater in folder.raters]) / 255
    np.testing.assert_allclose(dataset.read_soft(case)[0], masks.mean(axis=0), atol=1 / 65535)
    np.testing.assert_array_equal(dataset.read_hard(case), masks.mean(axis=0) > 0.5)
    source = folder.image(case).with_suffix(ending)
    np.testing.assert_array_equal(read_image(dataset.image_files(case)[0])[0], read_image(source)[0])


def test_several_channels_and_other_formats(tmp_path: Path, nnunet_folders: Folders, rater_folder_factory) -> None:
    folder = rater_folder_factory(tmp_path / "s", num_cases=2, num_channels=2, shape=(6, 8, 9), ending=".nrrd")
    assert run(*folder.arguments()) == 0
    dataset = SoftDataset.find(901)
    assert dataset.dataset_json["channel_names"] == {"0": "MR", "1": "noNorm"}
    for channel, path in enumerate(dataset.image_files("case_00")):
        assert path.name == f"case_00_000{channel}.nii.gz"
        np.testing.assert_array_equal(read_image(path)[0], read_image(folder.image("case_00", channel))[0])


def test_missing_raters_are_left_out_of_the_mean(rater_folder, nnunet_folders: Folders) -> None:
    case = rater_folder.cases[0]
    rater_folder.rater(case, "2").unlink()
    assert run(*rater_folder.arguments()) == 0
    masks = [read_mask(rater_folder.rater(case, rater))[0] for rater in ("1", "3")]
    np.testing.assert_allclose(SoftDataset.find(901).read_soft(case)[0], np.mean(masks, axis=0))
    assert SoftDataset.find(901).about["raters_of_case"][case] == ["1", "3"]


def test_cases_with_few_raters_are_dropped_from_everything(rater_folder, nnunet_folders: Folders) -> None:
    rater_folder.rater("case_00", "2").unlink()
    groups = ["--groups", str(rater_folder.root / "cases.csv"), "--group-column", "case"]
    assert run(*rater_folder.arguments(), *groups, "--min-raters", "3", "--few-raters", "drop") == 0
    dataset = SoftDataset.find(901)
    assert dataset.cases() == ["case_01", "case_02", "case_03"]
    assert dataset.dataset_json["numTraining"] == 3
    assert dataset.about["dropped_cases"] == ["case_00"]
    splits = json.loads((nnunet_folders.preprocessed / "Dataset901_Tiny" / "splits_final.json").read_text())
    assert sorted(name for fold in splits for name in fold["val"]) == dataset.cases()


def test_splits_keep_groups_together(tmp_path: Path, nnunet_folders: Folders, rater_folder_factory) -> None:
    folder = rater_folder_factory(tmp_path / "s", num_cases=12, num_raters=1, shape=(4, 6, 6))
    groups = ["--groups", str(folder.root / "cases.csv"), "--group-column", "patient"]
    assert run(*folder.arguments(), *groups, "--test-cases", "case_10", "case_11") == 0
    patient = {case: int(case[-2:]) // 2 for case in folder.cases}
    splits = json.loads((nnunet_folders.preprocessed / "Dataset901_Tiny" / "splits_final.json").read_text())
    assert len(splits) == 5
    for fold in splits:
        assert not {patient[c] for c in fold["train"]} & {patient[c] for c in fold["val"]}
        assert sorted(fold["train"] + fold["val"]) == list(folder.cases[:10])
    assert sorted(c for fold in splits for c in fold["val"]) == list(folder.cases[:10])
    dataset = SoftDataset.find(901)
    assert dataset.cases("Ts") == ["case_10", "case_11"]
    assert {path.name for path in dataset.folder.iterdir() if path.is_dir()} == {
        f"{kind}{split}" for kind in ("images", "labels", "softLabels", "raterLabels") for split in ("Tr", "Ts")
    }


def test_test_cases_from_a_file(rater_folder, nnunet_folders: Folders, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("case_00\n\ncase_02\n")
    assert run(*rater_folder.arguments(), "--test-cases", str(tmp_path / "names.txt")) == 0
    assert SoftDataset.find(901).cases("Ts") == ["case_00", "case_02"]


def test_processes_change_nothing(rater_folder, nnunet_folders: Folders) -> None:
    assert run(*rater_folder.arguments()) == 0
    before = tree(nnunet_folders.raw)
    assert run(*rater_folder.arguments(), "-np", "2", "--overwrite") == 0
    assert tree(nnunet_folders.raw) == before


def test_old_splits_of_other_cases_go_with_the_old_data_set(rater_folder, nnunet_folders: Folders) -> None:
    groups = ["--groups", str(rater_folder.root / "cases.csv"), "--group-column", "case"]
    splits = nnunet_folders.preprocessed / "Dataset901_Tiny" / "splits_final.json"
    assert run(*rater_folder.arguments(), *groups) == 0
    assert run(*rater_folder.arguments(), "--overwrite") == 0
    assert splits.is_file()  # of the same cases: they still hold
    assert run(*rater_folder.arguments(), "--overwrite", "--test-cases", "case_00") == 0
    assert not splits.exists()


# ---------------------------------------------------------------- into a data set that is there


@pytest.fixture
def plain_dataset(rater_folder, nnunet_folders: Folders) -> Path:
    """A converted data set whose soft labels were taken away."""
    assert run(*rater_folder.arguments()) == 0
    folder = nnunet_folders.raw / "Dataset901_Tiny"
    content = read_json(folder / "dataset.json")
    del content["soft_labels"]
    write_json(folder / "dataset.json", content)
    shutil.rmtree(folder / "softLabelsTr")
    shutil.rmtree(folder / "raterLabelsTr")
    return folder


def test_soft_labels_are_added_and_nothing_else_changes(plain_dataset: Path, rater_folder) -> None:
    before = tree(plain_dataset / "imagesTr", plain_dataset / "labelsTr")
    assert run("convert", "--into", "901", "--raters", rater_folder.rater_pattern, "-np", "1") == 0
    assert tree(plain_dataset / "imagesTr", plain_dataset / "labelsTr") == before
    dataset = SoftDataset(plain_dataset)
    masks = [read_mask(rater_folder.rater("case_00", rater))[0] for rater in rater_folder.raters]
    np.testing.assert_allclose(dataset.read_soft("case_00")[0], np.mean(masks, axis=0), atol=1e-6)
    assert dataset.about["made_hard_labels"] is False
    assert {path.name for path in plain_dataset.iterdir()} == {
        "dataset.json", "imagesTr", "labelsTr", "softLabelsTr", "raterLabelsTr"
    }  # fmt: skip


def test_added_soft_labels_are_replaced_only_when_asked(plain_dataset: Path, rater_folder, capsys) -> None:
    into = ["convert", "--into", "Dataset901_Tiny", "--raters", rater_folder.rater_pattern, "-np", "1"]
    assert run(*into) == 0
    assert run(*into) == 2
    assert "has soft labels already; add --overwrite" in capsys.readouterr().err
    assert run(*into, "--fusion", "majority", "--overwrite") == 0
    assert set(np.unique(SoftDataset(plain_dataset).read_soft("case_00"))) == {0, 1}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--labels", "other=1"], "--labels: names other, but Dataset901_Tiny has lesion"),
        (["--labels", "lesion=1,2"], "--labels: regions"),
        (["--labels", "lesion=1", "ignore=2"], "--labels: names lesion"),
        (["-n", "X"], "--into takes images and cases from the data set; leave out -n"),
        (["--groups", "x.csv"], "leave out --groups"),
        (["--few-raters", "drop"], "--into cannot drop cases"),
        (["--ignore", "x/{case}.nii.gz"], "--ignore: Dataset901_Tiny has no ignore label"),
    ],
)
def test_into_refuses(plain_dataset: Path, rater_folder, capsys, arguments: list[str], message: str) -> None:
    before = tree(plain_dataset)
    assert run("convert", "--into", "901", "--raters", rater_folder.rater_pattern, *arguments) == 2
    assert message in capsys.readouterr().err
    assert tree(plain_dataset) == before


def test_into_needs_every_training_case(plain_dataset: Path, rater_folder) -> None:
    cases = find_cases([f"{plain_dataset}/imagesTr/{{case}}_0000.nii.gz"], raters=[rater_folder.rater_pattern])
    with pytest.raises(DatasetError, match="Case case_00: is a training case of Dataset901_Tiny but has no rater"):
        add_soft_labels(cases[1:], plain_dataset)
    stranger = Case("new", cases[0].images, cases[0].raters)
    with pytest.raises(DatasetError, match="Case new: is no training case of Dataset901_Tiny; remove it"):
        add_soft_labels([*cases, stranger], plain_dataset)


def test_into_maps_the_raters_values_by_name(nnunet_folders: Folders) -> None:
    dataset = converted(in_memory_cases([1, 2, 0]), ["a=1", "b=2"])
    cases = in_memory_cases([20, 10, 0])
    add_soft_labels(cases, dataset.folder, labels=["a=20", "b=10"], overwrite=True)
    soft = SoftDataset(dataset.folder).read_soft("c0").reshape(2, -1)[:, :3]
    np.testing.assert_array_equal(soft, [[1, 0, 0], [0, 1, 0]])


def test_into_refuses_unanswered_voxels_that_have_a_label(nnunet_folders: Folders) -> None:
    dataset = converted(in_memory_cases([1, 2, 0]), ["a=1", "ignore=2"])
    with pytest.raises(DatasetError, match="c0.nii.gz: 1 voxels that no rater answered have a label; give them"):
        add_soft_labels(in_memory_cases([1, 2, 2]), dataset.folder, overwrite=True)


# ---------------------------------------------------------------- bad input: one line, exit code 2, nothing written


def change_header(**geometry: Any) -> Callable[[Any], None]:
    def change(folder: Any) -> None:
        path = folder.rater("case_02", "2")
        image = sitk.ReadImage(str(path))
        for name, value in geometry.items():
            getattr(image, f"Set{name}")(value)
        sitk.WriteImage(image, str(path))

    return change


def write_rater(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Any], None]:
    def write(folder: Any) -> None:
        path = folder.rater("case_02", "2")
        array, grid = read_mask(path)
        array = change(array)
        write_image(path, array, Grid(array.shape[::-1], grid.spacing_mm, grid.origin, grid.direction))

    return write


def set_first(value: float, dtype: type = np.float32) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array = array.astype(dtype)
        array.flat[0] = value
        return array

    return change


def truncate(path_of: Callable[[Any], Path]) -> Callable[[Any], None]:
    return lambda folder: path_of(folder).write_bytes(path_of(folder).read_bytes()[:-40])


BAD_FILES = {
    "size": (write_rater(lambda a: a[:-1]), "rater 2 (RATER) is on another grid than the image: size (16, 16, 7)"),
    "spacing": (change_header(Spacing=(1.0, 1.1, 2.5)), "(RATER) is on another grid than the image: spacing_mm"),
    "origin": (change_header(Origin=(1.0, 0.0, 0.0)), "(RATER) is on another grid than the image: origin"),
    "direction": (
        change_header(Direction=(0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)),
        "(RATER) is on another grid than the image: direction",
    ),
    "NaN": (write_rater(set_first(np.nan)), "RATER: holds NaN or infinite values; they must be finite"),
    "infinite": (write_rater(set_first(np.inf)), "RATER: holds NaN or infinite values; they must be finite"),
    "fraction": (write_rater(set_first(0.5)), "rater 2 (RATER): holds fractions such as 0.5; give whole labels"),
    "unnamed": (write_rater(set_first(7, np.uint8)), "(RATER): holds the value 7, which no --labels entry names"),
    "negative": (write_rater(set_first(-1, np.int16)), "(RATER): holds the value -1, which no --labels entry"),
    "unreadable": (truncate(lambda f: f.rater("case_02", "2")), "RATER: cannot be read as an image"),
    "unreadable image": (truncate(lambda f: f.image("case_02")), "IMAGE: cannot be read as an image"),
    "no raters": (
        lambda f: [f.rater("case_02", r).unlink() for r in f.raters],
        "Case case_02: image IMAGE has no rater's file; add one or remove the image",
    ),
    "no image": (lambda f: f.image("case_02").unlink(), "rater's file of case 'case_02', which has no image"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_file_is_one_line_and_nothing_is_written(
    rater_folder, nnunet_folders: Folders, capsys, kind: str
) -> None:
    spoil, message = BAD_FILES[kind]
    spoil(rater_folder)
    assert run(*rater_folder.arguments()) == 2
    error = capsys.readouterr().err.split("\r")[-1].strip().splitlines()[-1]
    message = message.replace("RATER", str(rater_folder.rater("case_02", "2")))
    assert message.replace("IMAGE", str(rater_folder.image("case_02"))) in error
    assert error.startswith("nnunet_softlabel convert: error: ")
    assert tree(nnunet_folders.raw, nnunet_folders.preprocessed) == {}
    assert not list(nnunet_folders.raw.iterdir())


def test_bad_file_found_by_a_worker_process_is_the_same_line(rater_folder, nnunet_folders, capfd) -> None:
    BAD_FILES["NaN"][0](rater_folder)
    assert run(*rater_folder.arguments(), "-np", "2") == 2
    assert "rater2.nii.gz: holds NaN" in capfd.readouterr().err
    assert not list(nnunet_folders.raw.iterdir())


BAD_FLAGS = {
    "id 0": (["-d", "0"], "-d 0: data set ids are 1 to 999"),
    "id 1000": (["-d", "1000"], "-d 1000: data set ids are 1 to 999"),
    "id text": (["-d", "x"], "argument -d: invalid int value: 'x'"),
    "name": (["-n", "a/b"], "-n a/b: a data set name is made of letters"),
    "processes": (["-np", "0"], "-np take numbers from 1"),
    "raters": (["--min-raters", "0"], "--min-raters and -np take numbers from 1"),
    "unknown flag": (["--rater", "x"], "unrecognized arguments: --rater x"),
    "no rater": (["--raters", "x/{case}.nii.gz"], "needs {rater} where the rater's name stands"),
    "fusion": (["--fusion", "magic"], "--fusion magic: unknown; choose one of"),
    "weights": (["--weights", "1=1"], "--weights belongs to --fusion weighted, not to mean"),
    "weight": (["--fusion", "weighted", "--weights", "1=x"], "--weights 1=x: expected RATER=WEIGHT"),
    "few weights": (["--fusion", "weighted", "--weights", "1=1"], "Case case_00: --fusion weighted: weights lack 2, 3"),
    "min raters": (["--min-raters", "4"], "Case case_00: 3 of at least 4 raters (--min-raters); add raters, or"),
    "drops all": (["--min-raters", "4", "--few-raters", "drop"], "--min-raters 4: leaves no case to train on"),
    "covered": (["--labels", "core=1", "whole=1,2"], "every value of region 'core' is in a later region"),
    "groups": (["--groups", "absent.csv"], "--groups absent.csv: cannot be read"),
    "channels": (["--channel-names", "CT", "PET"], "1 channels in"),
    "test case": (["--test-cases", "nobody"], "--test-cases: no case is named 'nobody'"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_FLAGS)
def test_wrong_flag_is_one_line_and_nothing_is_written(
    rater_folder, nnunet_folders: Folders, capsys, kind: str
) -> None:
    arguments, message = BAD_FLAGS[kind]
    assert run(*rater_folder.arguments(), *arguments) == 2
    error = capsys.readouterr().err.split("\r")[-1].strip().splitlines()
    assert message in error[-1]
    assert "usage" not in "".join(error)
    assert not list(nnunet_folders.raw.iterdir())
    assert not list(nnunet_folders.preprocessed.iterdir())


def test_missing_flags_are_named(nnunet_folders: Folders, capsys) -> None:
    assert run("convert", "--raters", "x/{case}_{rater}.png") == 2
    assert "missing: -d, -n, --images, --channel-names, --labels" in capsys.readouterr().err
    assert run("convert", "-d", "1") == 2
    assert "give --raters (annotations to fuse) or --soft" in capsys.readouterr().err


@pytest.mark.parametrize("variable", ["nnUNet_raw", "nnUNet_preprocessed"])
def test_variable_that_is_not_set(rater_folder, nnunet_folders, monkeypatch, capsys, variable: str) -> None:
    monkeypatch.delenv(variable)
    assert run(*rater_folder.arguments()) == 2
    assert f"{variable} is not set; export it" in capsys.readouterr().err


@pytest.mark.parametrize("base", ["raw", "preprocessed", "results"])
def test_id_that_is_taken(rater_folder, nnunet_folders: Folders, capsys, base: str) -> None:
    (getattr(nnunet_folders, base) / "Dataset901_Other").mkdir()
    assert run(*rater_folder.arguments()) == 2
    assert "-d 901: the id is taken by" in capsys.readouterr().err


def test_data_set_that_is_there_needs_overwrite(rater_folder, nnunet_folders: Folders, capsys) -> None:
    assert run(*rater_folder.arguments()) == 0
    before = tree(nnunet_folders.raw)
    assert run(*rater_folder.arguments(), "--fusion", "majority") == 2
    assert "is already there; add --overwrite to replace it" in capsys.readouterr().err
    assert tree(nnunet_folders.raw) == before
    assert run(*rater_folder.arguments(), "--fusion", "majority", "--overwrite") == 0
    assert tree(nnunet_folders.raw) != before


def test_splits_that_are_there_need_overwrite(rater_folder, nnunet_folders: Folders, capsys) -> None:
    splits = nnunet_folders.preprocessed / "Dataset901_Tiny" / "splits_final.json"
    splits.parent.mkdir()
    splits.write_text("[]")
    groups = ["--groups", str(rater_folder.root / "cases.csv"), "--group-column", "patient"]
    assert run(*rater_folder.arguments(), *groups) == 2
    assert "splits_final.json: is already there; add --overwrite" in capsys.readouterr().err
    assert splits.read_text() == "[]"


def test_failed_overwrite_leaves_the_old_data_set(rater_folder, nnunet_folders: Folders, capsys) -> None:
    assert run(*rater_folder.arguments()) == 0
    before = tree(nnunet_folders.raw)
    BAD_FILES["NaN"][0](rater_folder)
    assert run(*rater_folder.arguments(), "--overwrite") == 2
    assert tree(nnunet_folders.raw) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folder_that_cannot_be_written(rater_folder, nnunet_folders: Folders, capsys) -> None:
    nnunet_folders.raw.chmod(0o500)
    assert run(*rater_folder.arguments()) == 2
    assert f"{nnunet_folders.raw}" in capsys.readouterr().err


def test_error_of_the_file_system_is_one_line(rater_folder, nnunet_folders, monkeypatch, capsys) -> None:
    def refuse(path: Path, *args: Any) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(case_writer, "write_probability", refuse)
    assert run(*rater_folder.arguments()) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.endswith("softLabelsTr/case_00_0001.nii.gz: Permission denied")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "a/b"}, "path separator"),
        ({"name": "c1"}, "Case c1: given twice"),
        ({"images": []}, "Case c0: has no image; add one"),
        ({"raters": {"x/y": np.zeros(GRID.shape, np.uint8)}}, "rater 'x/y': a name cannot be"),
        ({"raters": {}}, "Case c0: 0 of at least 1 raters"),
        ({"raters": {"1": np.zeros((2, 3, 5), np.uint8)}}, r"rater 1 \(in memory\) is on another grid .*: shape"),
        ({"raters": {"1": np.full(GRID.shape, np.nan)}}, "Case c0: rater 1: holds NaN or infinite"),
        ({"images": [np.zeros(GRID.shape)]}, r"a volume in memory needs its Grid; return \(array, Grid\)"),
        ({"group": "p"}, "some cases have a group and some have none"),
        ({"soft": {"b": np.zeros(GRID.shape)}}, "Case c0: no probability map for label a"),
        ({"soft": {"a": np.full(GRID.shape, 1.5)}}, r"soft labels outside \[0, 1\]"),
        ({"ignore": np.zeros((1, 1, 1))}, "ignore mask .* is on another grid"),
    ],
)  # fmt: skip
def test_wrong_case_in_python(nnunet_folders: Folders, change: dict, message: str) -> None:
    from dataclasses import replace

    cases = in_memory_cases([1, 0], [1, 1])
    cases[0] = replace(cases[0], **change)
    with pytest.raises(DatasetError, match=message):
        converted(cases, ["a=1"])
    assert not list(nnunet_folders.raw.iterdir())


def test_classes_that_sum_to_more_than_one(nnunet_folders: Folders) -> None:
    half = np.full(GRID.shape, 0.6, np.float32)
    case = Case("c", [lambda: (half, GRID)], soft={"a": half, "b": half})
    with pytest.raises(DatasetError, match=r"Case c: the soft labels of its classes sum to 1.200"):
        converted([case], ["a=1", "b=2"])
    regions = converted([case], ["a=1,2", "b=2"])
    np.testing.assert_array_equal(regions.read_soft("c"), np.stack([half, half]))


def test_flat_images_and_volumes_do_not_mix(nnunet_folders: Folders, tmp_path: Path) -> None:
    cases = [Case("a", [tmp_path / "a.png"], {"1": tmp_path / "x"}), Case("b", [tmp_path / "b.nii"])]
    with pytest.raises(DatasetError, match="Flat images and volumes are mixed"):
        converted(cases, ["a=1"])


def test_float_image_does_not_fit_into_png(nnunet_folders: Folders) -> None:
    case = Case("a", [np.zeros((3, 4))], {"1": np.zeros((3, 4), np.uint8)})
    with pytest.raises(DatasetError, match="a float64 image does not fit into PNG; store 8 or 16 bit"):
        converted([case], ["a=1"])


def test_single_group_cannot_be_split(nnunet_folders: Folders) -> None:
    with pytest.raises(DatasetError, match="all training cases are in group p; a split needs at least two"):
        converted(in_memory_cases([1], group="p"), ["a=1"])


def test_no_case_at_all(nnunet_folders: Folders) -> None:
    with pytest.raises(UsageError, match="there is no case to convert"):
        converted([], ["a=1"])


# ---------------------------------------------------------------- a kill at any moment


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


def kill_at(step: int, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Let the ``step``-th operation on files be the last, half done."""
    state = SimpleNamespace(count=0)

    def wrap(owner: Any, name: str, half: Callable[..., None]) -> None:
        original = getattr(owner, name)

        def operation(*args: Any, **kwargs: Any) -> Any:
            state.count += 1
            if state.count == step:
                half(*args)
                raise Killed
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, operation)

    def nothing(*args: Any) -> None: ...

    def half_a_file(path: Path, *args: Any) -> None:
        path.write_bytes(b"half a file")

    def half_a_copy(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes()[:50])

    def half_a_folder(folder: Path, **kwargs: Any) -> None:
        for path in sorted(path for path in Path(folder).rglob("*") if path.is_file())[::2]:
            path.unlink()

    wrap(os, "rename", nothing)
    wrap(os, "replace", nothing)
    wrap(Path, "unlink", nothing)
    wrap(Path, "touch", nothing)
    wrap(Path, "mkdir", nothing)
    wrap(shutil, "rmtree", half_a_folder)
    wrap(case_writer, "write_image", half_a_file)
    wrap(case_writer, "write_probability", half_a_file)
    wrap(shutil, "copyfile", half_a_copy)
    return state


def kill_everywhere(arguments: list[str], prepare: Callable[[], None], check: Callable[[], None]) -> int:
    """Kill the command at each of its operations in turn; resume; returns the number of operations."""
    step = 0
    while True:
        step += 1
        prepare()
        with pytest.MonkeyPatch.context() as patch:
            state = kill_at(step, patch)
            try:
                assert run(*arguments) == 0
            except Killed:
                pass
        if state.count < step:
            return state.count
        check()
        assert run(*arguments, "--resume") == 0, f"killed at step {step}"
        check()


@pytest.fixture
def small_folder(tmp_path: Path, rater_folder_factory):
    return rater_folder_factory(tmp_path / "small", num_cases=2, num_raters=2, shape=(3, 5, 6))


def test_kill_leaves_nothing_or_what_resume_completes(small_folder, nnunet_folders: Folders, capsys) -> None:
    groups = ["--groups", str(small_folder.root / "cases.csv"), "--group-column", "case"]
    arguments = [*small_folder.arguments(), *groups]
    assert run(*arguments) == 0
    complete = tree(nnunet_folders.raw, nnunet_folders.preprocessed)

    def empty() -> None:
        for folder in (nnunet_folders.raw, nnunet_folders.preprocessed):
            shutil.rmtree(folder)
            folder.mkdir()

    def check() -> None:
        final = nnunet_folders.raw / "Dataset901_Tiny"
        expected = {name: content for name, content in complete.items() if name.startswith(str(final))}
        assert tree(final) in ({}, expected)

    assert kill_everywhere(arguments, empty, check) > 20
    assert tree(nnunet_folders.raw, nnunet_folders.preprocessed) == complete


def test_kill_while_overwriting_leaves_the_old_or_the_new(small_folder, nnunet_folders: Folders, capsys) -> None:
    arguments = small_folder.arguments()
    final = nnunet_folders.raw / "Dataset901_Tiny"
    assert run(*arguments, "--fusion", "majority") == 0
    old = tree(nnunet_folders.raw)
    assert run(*arguments, "--overwrite") == 0
    new = tree(nnunet_folders.raw)

    def prepare() -> None:
        shutil.rmtree(nnunet_folders.raw)
        for name, content in old.items():
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_bytes(content)

    assert kill_everywhere([*arguments, "--overwrite"], prepare, lambda: check_final()) > 20

    def check_final() -> None:
        assert tree(final) in ({}, old, new)

    assert tree(nnunet_folders.raw) == new


def test_kill_while_adding_leaves_no_mixture(plain_dataset: Path, rater_folder, capsys) -> None:
    plain = tree(plain_dataset)
    into = ["convert", "--into", "901", "--raters", rater_folder.rater_pattern, "-np", "1"]
    assert run(*into) == 0
    complete = tree(plain_dataset)

    def prepare() -> None:
        shutil.rmtree(plain_dataset)
        for name, content in plain.items():
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_bytes(content)

    def check() -> None:
        if "soft_labels" in read_json(plain_dataset / "dataset.json"):
            found = {name: content for name, content in tree(plain_dataset).items() if ".unfinished_" not in name}
            assert found == complete

    assert kill_everywhere(into, prepare, check) > 20
    assert tree(plain_dataset) == complete


@pytest.mark.parametrize("cases_done", [0, 3, 7])
def test_real_kill_is_resumed_to_the_same_bytes(
    tmp_path: Path, nnunet_folders: Folders, rater_folder_factory, cases_done: int
) -> None:
    folder = rater_folder_factory(tmp_path / "s", num_cases=10, shape=(12, 40, 40))
    arguments = [*folder.arguments(), "-np", "2"]
    assert run(*folder.arguments()) == 0
    complete = tree(nnunet_folders.raw)
    shutil.rmtree(nnunet_folders.raw / "Dataset901_Tiny")
    process = subprocess.Popen([sys.executable, "-m", "nnunet_softlabel.cli", *arguments], stderr=subprocess.DEVNULL)
    records = nnunet_folders.raw / ".unfinished_Dataset901_Tiny" / "cases"
    while process.poll() is None and len(list(records.glob("*.json"))) <= cases_done:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (nnunet_folders.raw / "Dataset901_Tiny").exists()
    time.sleep(0.3)  # workers end with their parent
    assert run(*folder.arguments(), "--resume") == 0
    assert tree(nnunet_folders.raw) == complete


def test_interrupted_conversion_must_be_resumed_or_overwritten(
    small_folder, nnunet_folders: Folders, monkeypatch, capsys
) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        kill_at(12, patch)
        run(*small_folder.arguments())
    assert run(*small_folder.arguments()) == 2
    assert "was interrupted; add --resume to complete it, or --overwrite" in capsys.readouterr().err
    assert run(*small_folder.arguments(), "--resume", "--fusion", "majority") == 2
    assert "was started with other options or files; add --overwrite" in capsys.readouterr().err
    mask, grid = read_mask(small_folder.rater("case_00", "1"))
    write_image(small_folder.rater("case_00", "1"), mask * 0, grid)
    assert run(*small_folder.arguments(), "--resume") == 2
    assert "was started with other options or files" in capsys.readouterr().err
    assert run(*small_folder.arguments(), "--overwrite") == 0


def test_resume_of_a_complete_data_set_does_nothing(small_folder, nnunet_folders: Folders, capsys) -> None:
    assert run(*small_folder.arguments(), "--resume") == 0  # nothing there yet: an ordinary conversion
    before = tree(nnunet_folders.raw)
    assert run(*small_folder.arguments(), "--resume") == 0
    assert tree(nnunet_folders.raw) == before
    assert run(*small_folder.arguments(), "--resume", "--fusion", "majority") == 2
    assert "is already there; add --overwrite" in capsys.readouterr().err


def test_two_conversions_at_once_do_not_mix(small_folder, nnunet_folders: Folders, capsys) -> None:
    from filelock import FileLock

    work = nnunet_folders.raw / ".unfinished_Dataset901_Tiny"
    work.mkdir()
    with FileLock(work / "lock"):
        assert run(*small_folder.arguments(), "--overwrite") == 2
    assert "another process is converting into it; wait" in capsys.readouterr().err


def test_killed_worker_can_be_resumed(rater_folder, nnunet_folders: Folders, monkeypatch, capsys) -> None:
    from nnunet_softlabel import unfinished
    from nnunet_softlabel.errors import WorkerError

    def run_jobs(*args: Any) -> None:
        raise WorkerError("a worker process was killed")

    with monkeypatch.context() as patch:
        patch.setattr(unfinished, "run_jobs", run_jobs)
        assert run(*rater_folder.arguments()) == 2
    assert "a worker process was killed" in capsys.readouterr().err
    assert run(*rater_folder.arguments(), "--resume") == 0


# ---------------------------------------------------------------- real data, real commands


@pytest.mark.shared_data
@pytest.mark.slow
def test_nnunet_accepts_the_data_set(shared_data: Path, nnunet_folders: Folders, tmp_path: Path) -> None:
    source = shared_data / "lidc_nodules"
    chosen = sorted((source / "images").glob("*.nii.gz"))[:6]
    (tmp_path / "images").mkdir()
    (tmp_path / "raters").mkdir()
    for image in chosen:
        (tmp_path / "images" / image.name).symlink_to(image)
        for rater in (source / "raters").glob(f"{image.name[:-7]}_rater*.nii.gz"):
            (tmp_path / "raters" / rater.name).symlink_to(rater)
    command = ["convert", "-d", "902", "-n", "LIDC", "-np", "1", "--images", f"{tmp_path}/images/{{case}}.nii.gz"]
    command += ["--channel-names", "CT", "--raters", f"{tmp_path}/raters/{{case}}_rater{{rater}}.nii.gz"]
    command += ["--labels", "nodule=1", "--groups", f"{source}/cases.csv", "--group-column", "patient"]
    assert run(*command) == 0
    plan = [Path(sys.executable).with_name("nnUNetv2_plan_and_preprocess"), "-d", "902", "-c", "3d_fullres", "2d"]
    plan += ["--verify_dataset_integrity", "-np", "1", "-npfp", "1", "--no_pbar"]
    environment = {**os.environ, "nnUNet_n_proc_DA": "1"}
    done = subprocess.run(plan, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "verify_dataset_integrity Done." in done.stdout
    assert run("preprocess", "-d", "902", "-c", "3d_fullres", "2d") == 0
    for configuration in ("3d_fullres", "2d"):
        folder = nnunet_folders.preprocessed / "Dataset902_LIDC" / f"nnUNetPlans_{configuration}" / "soft_labels"
        assert len(list(folder.glob("*.b2nd"))) == 6
