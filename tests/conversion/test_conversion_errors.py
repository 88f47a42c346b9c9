from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.conversion.one_case import write as case_writer
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.images import read_mask, write_image
from tests.conversion.conversion_helpers import GRID, converted, in_memory_cases, run, tree

Folders = SimpleNamespace


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
    "size": (
        write_rater(lambda a: a[:-1]),
        "rater 2 (RATER) is on another grid than the image: size (16, 16, 7)",
    ),
    "spacing": (
        change_header(Spacing=(1.0, 1.1, 2.5)),
        "(RATER) is on another grid than the image: spacing_mm",
    ),
    "origin": (change_header(Origin=(1.0, 0.0, 0.0)), "(RATER) is on another grid than the image: origin"),
    "direction": (
        change_header(Direction=(0.6, -0.8, 0.0, 0.8, 0.6, 0.0, 0.0, 0.0, 1.0)),
        "(RATER) is on another grid than the image: axes turned by 53.1",
    ),
    "NaN": (write_rater(set_first(np.nan)), "RATER: holds NaN or infinite values; they must be finite"),
    "infinite": (write_rater(set_first(np.inf)), "RATER: holds NaN or infinite values; they must be finite"),
    "fraction": (
        write_rater(set_first(0.5)),
        "rater 2 (RATER): holds fractions such as 0.5; give whole labels",
    ),
    "unnamed": (
        write_rater(set_first(7, np.uint8)),
        "(RATER): holds the value 7, which no --labels entry names",
    ),
    "negative": (
        write_rater(set_first(-1, np.int16)),
        "(RATER): holds the value -1, which no --labels entry",
    ),
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
    "id text": (["-d", "x"], "argument -d: 'x': give a number from 1 to 999"),
    "name": (["-n", "a/b"], "-n a/b: a data set name is made of letters"),
    "processes": (["-np", "0"], "-np take numbers from 1"),
    "raters": (["--min-raters", "0"], "--min-raters and -np take numbers from 1"),
    "unknown flag": (["--rater", "x"], "unrecognized arguments: --rater x; did you mean --raters?"),
    "no rater": (["--raters", "x/{case}.nii.gz"], "needs {rater} where the rater's name stands"),
    "fusion": (["--fusion", "magic"], "--fusion magic: unknown; choose one of"),
    "weights": (["--weights", "1=1"], "--weights belongs to --fusion weighted, not to mean"),
    "weight": (["--fusion", "weighted", "--weights", "1=x"], "--weights 1=x: expected RATER=WEIGHT"),
    "stranger's weight": (
        ["--fusion", "weighted", "--weights", "1=1", "2=1", "3=1", "4=1"],
        "--weights 4: no case has a rater of that name; there is 1, 2, 3",
    ),
    "weight twice": (
        ["--fusion", "weighted", "--weights", "1=1", "1=2"],
        "--weights 1=2: rater 1 has a weight already",
    ),
    "stranger's labels": (["--rater-labels", "R1:lesion=1"], "--rater-labels R1: no case has a rater"),
    "few weights": (["--fusion", "weighted", "--weights", "1=1"], "--fusion weighted: weights lack 2, 3"),
    "min raters": (["--min-raters", "4"], "Case case_00: 3 of at least 4 raters (--min-raters); add"),
    "drops all": (["--min-raters", "4", "--few-raters", "drop"], "4: leaves no case to train on"),
    "covered": (["--labels", "core=1", "whole=1,2"], "every value of region 'core' is in a later region"),
    "groups": (["--groups", "absent.csv"], "--groups absent.csv: no such file"),
    "group column": (["--group-column", "x"], "--group-column: belongs to --groups or --cases-csv; add one"),
    "case column": (["--case-column", "x"], "--case-column: belongs to a table"),
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
    assert (
        "give --raters (annotations to fuse), --soft (ready probability maps) or --cases-csv"
        in capsys.readouterr().err
    )


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
    assert splits.read_text(encoding="utf-8") == "[]"


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
        ({"raters": {"1": np.zeros((2, 3, 5), np.uint8)}}, r"rater 1 \(in memory\) is on another grid"),
        ({"raters": {"1": np.full(GRID.shape, np.nan)}}, r"rater 1 \(in memory\): holds NaN or infinite"),
        ({"images": [np.zeros(GRID.shape)]}, r"a volume in memory needs its Grid; return \(array, Grid\)"),
        ({"group": "p"}, "some cases have a group and some have none"),
        ({"soft": {"b": np.zeros(GRID.shape)}}, "Case c0: no probability map for label a"),
        ({"soft": {"a": np.full(GRID.shape, 1.5)}}, "in memory: values from 1.5 to 1.5 are no probabilities"),
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


def test_classes_of_8_bit_may_sum_to_more_than_one_by_rounding(nnunet_folders: Folders) -> None:
    maps = {name: np.full(GRID.shape, n / 255, np.float32) for name, n in {"a": 86, "b": 85, "c": 85}.items()}
    other = maps | {"b": np.full(GRID.shape, 85.2 / 255, np.float32)}  # no 8 bit: two half steps are left
    with pytest.raises(DatasetError, match=r"Case c: the soft labels of its classes sum to 1.005"):
        converted([Case("c", [lambda: (maps["a"], GRID)], soft=other)], ["a=1", "b=2", "c=3"])
    case = Case("c", [lambda: (maps["a"], GRID)], soft=maps)
    soft = converted([case], ["a=1", "b=2", "c=3"]).read_soft("c")  # 256 / 255, within three half steps
    np.testing.assert_allclose(soft[:, 0, 0, 0], np.array([86, 85, 85]) / 256, rtol=1e-6)


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
