"""Soft labels are current, stale or broken; the command that makes them."""

from __future__ import annotations

import gzip
import os
import shutil

import blosc2
import numpy as np
import pytest
from batchgenerators.utilities.file_and_folder_operations import load_pickle, write_pickle
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.formats.files import read_json, write_json
from nnunet_softlabel.formats.images import read_image, write_image
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from nnunet_softlabel.preprocessing.case_file import TEMPORARY
from nnunet_softlabel.preprocessing.preparation import Preparation
from nnunet_softlabel.preprocessing.run import preprocess
from tests.conversion.conversion_helpers import run, tree
from tests.preprocessing.preparations import preparation, remade, soft_files


def test_copied_data_are_current(own) -> None:
    for path in own.preprocessed.rglob("*"):
        os.utime(path, (1, 1))
    assert remade(own) == ""


def test_nothing_is_read_from_raw_where_it_is_absent(own, monkeypatch) -> None:
    shutil.rmtree(own.raw)
    assert remade(own) == ""
    monkeypatch.delenv("nnUNet_raw")
    assert remade(own) == ""


def test_read_only_folder_is_enough_for_training(own) -> None:
    made = preparation(own)
    (made.folder / "preparation.lock").unlink()
    before = tree(made.folder)
    made.ensure()
    assert tree(made.folder) == before


def test_missing_labels_without_raw_are_refused(own) -> None:
    shutil.rmtree(own.raw)
    (preparation(own).folder / "manifest.json").unlink()
    with pytest.raises(
        DatasetError, match=r"not usable \(not done yet\), and Dataset911_Tiny is not in nnUNet_raw"
    ):
        preparation(own).ensure()


def test_cases_that_are_not_trained_on_need_no_soft_label(own, monkeypatch) -> None:
    content = read_json(own.raw / "dataset.json")
    content["soft_labels"]["dropped_cases"] = ["case_01"]
    write_json(own.raw / "dataset.json", content)
    for path in SoftDataset(own.raw).soft_files("case_01"):
        path.unlink()
    made = preparation(own)
    manifest = made.ensure()
    assert "case_01" not in manifest["cases"]
    assert "case_01" in made.dataset_class.get_identifiers(str(made.images))
    shutil.rmtree(own.raw)  # as on a training node: the manifest says it
    assert "case_01" not in made.identifiers()
    assert made.ensure() == manifest


def test_changed_plan_makes_them_again(own) -> None:
    plans = read_json(own.preprocessed / "nnUNetPlans.json")
    plans["configurations"]["3d_fullres"]["resampling_fn_probabilities_kwargs"]["order"] = 0
    write_json(own.preprocessed / "nnUNetPlans.json", plans)
    before = soft_files(preparation(own).folder)
    assert remade(own) == "the plan or the labels changed"
    assert soft_files(preparation(own).folder) != before
    assert remade(own) == ""


def test_reduced_plan_shares_them(own) -> None:
    manager = PlansManager(read_json(own.preprocessed / "nnUNetPlansReduced.json"))
    lines: list[str] = []
    Preparation(own.preprocessed, manager, manager.get_configuration("3d_fullres")).ensure(log=lines.append)
    assert lines == []


def test_changed_soft_label_is_made_again_alone(own) -> None:
    dataset = SoftDataset(own.raw)
    source, target = dataset.soft_files("case_01")[0], dataset.soft_files("case_00")[0]
    shutil.copyfile(source, target)
    content = read_json(own.raw / "dataset.json")  # as a conversion would write it
    content["soft_labels"]["digests"]["case_00"] = content["soft_labels"]["digests"]["case_01"]
    write_json(own.raw / "dataset.json", content)
    folder = preparation(own).folder
    before = {path: path.stat().st_ino for path in folder.glob("*.b2nd")}
    assert remade(own) == "the soft label of case_00 changed"
    changed = {path.stem for path, inode in before.items() if path.stat().st_ino != inode}
    assert changed == {"case_00"}
    assert remade(own) == ""


@pytest.mark.parametrize("damage", ["cut off", "gzip of half", "NaN", "values of 2", "another case's"])
@pytest.mark.parametrize("has_digests", [True, False])
def test_damaged_soft_label_is_refused_and_the_good_one_stays(own, damage: str, has_digests: bool) -> None:
    dataset = SoftDataset(own.raw)
    path = dataset.soft_files("case_01")[0]
    if damage == "cut off":
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    elif damage == "gzip of half":
        content = gzip.decompress(path.read_bytes())
        path.write_bytes(gzip.compress(content[: len(content) // 2]))
    elif damage == "another case's":
        shutil.copyfile(dataset.soft_files("case_00")[0], path)
    else:
        array, grid = read_image(path)
        write_image(path, np.where(array > 0, np.nan, array) if damage == "NaN" else array * 2, grid)
    if not has_digests:  # a data set of an earlier version: what can be seen in the file is seen
        if damage == "another case's":
            pytest.skip("nothing tells")
        content = read_json(own.raw / "dataset.json")
        del content["soft_labels"]["digests"]
        write_json(own.raw / "dataset.json", content)
    before = tree(preparation(own).folder)
    with pytest.raises(DatasetError, match=r"Case case_01: soft label .*case_01_0001.nii.gz"):
        preparation(own).ensure()
    after = tree(preparation(own).folder)
    assert {name: content for name, content in after.items() if ".lock" not in name} == {
        name: content for name, content in before.items() if ".lock" not in name
    }


@pytest.mark.parametrize("damage", ["cut off", "empty", "swapped", "disputed gone", "disputed swapped"])
def test_damaged_preprocessed_soft_label_is_noticed_and_made_again(own, damage: str) -> None:
    folder = preparation(own).folder
    complete = soft_files(folder)
    one, other = folder / "case_01.b2nd", folder / "case_02.b2nd"
    disputed = [folder / "case_01_disputed.npy", folder / "case_02_disputed.npy"]
    if damage in ("cut off", "empty"):
        one.write_bytes(one.read_bytes()[: one.stat().st_size * 6 // 10 if damage == "cut off" else 0])
    elif damage == "swapped":
        shutil.copyfile(other, one)
    elif damage == "disputed gone":
        disputed[0].unlink()
    else:
        shutil.copyfile(disputed[1], disputed[0])
    assert remade(own) == "the preprocessed soft label of case_01 is damaged or of another case"
    assert soft_files(folder) == complete


def test_damaged_soft_label_without_raw_is_refused(own) -> None:
    shutil.rmtree(own.raw)
    path = preparation(own).folder / "case_01.b2nd"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DatasetError, match=r"not usable \(the preprocessed soft label of case_01 is damaged"):
        preparation(own).ensure()


def test_damaged_image_of_nnunet_leaves_the_manifest(own) -> None:
    made = preparation(own)
    before = tree(made.folder)
    path = made.images / "case_03.b2nd"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DatasetError, match=r"case_03.*damaged .*; run nnUNetv2_preprocess again"):
        made.ensure(reuse=False)
    assert tree(made.folder) == before


def test_manifest_of_another_shape_is_said(own, capsys) -> None:
    write_json(preparation(own).folder / "manifest.json", {"plan": {}})
    with pytest.raises(DatasetError, match=r"manifest.json: is not of the expected shape \(key 'cases' is"):
        preparation(own).ensure()


@pytest.mark.parametrize("key", ["configurations", "transpose_forward", "image_reader_writer"])
@pytest.mark.parametrize("command", [["preprocess", "-np", "1"], ["reduce-plans", "-o", "New"]])
def test_plans_without_a_key_are_said(own, capsys, key: str, command: list[str]) -> None:
    path = own.preprocessed / "nnUNetPlans.json"
    plans = read_json(path)
    del plans[key]
    write_json(path, plans)
    assert run(command[0], "-d", "911", *command[1:]) == 2
    assert (
        f"nnUNetPlans.json: is not of the expected shape (key '{key}' is missing)" in capsys.readouterr().err
    )


@pytest.mark.parametrize("key", ["spacing", "patch_size", "architecture"])
@pytest.mark.parametrize("value", [None, "x", {}])
def test_configuration_of_another_shape_is_said(own, capsys, key: str, value: object) -> None:
    path = own.preprocessed / "nnUNetPlans.json"
    plans = read_json(path)
    plans["configurations"]["3d_fullres"][key] = value
    write_json(path, plans)
    assert run("reduce-plans", "-d", "911", "-o", "New") == 2
    assert "nnUNetPlans.json: is not of the expected shape" in capsys.readouterr().err
    assert not (own.preprocessed / "New.json").exists()


@pytest.mark.parametrize("kind", ["shape", "crop"])
def test_changed_image_makes_its_label_again(own, kind: str) -> None:
    images = preparation(own).images
    if kind == "shape":
        for name in ("case_00.b2nd", "case_00_seg.b2nd"):
            array = np.asarray(blosc2.open(str(images / name), mode="r")[:])[:, :-1]
            blosc2.asarray(np.ascontiguousarray(array), urlpath=str(images / name), mode="w")
    else:
        props = load_pickle(str(images / "case_00.pkl"))
        props["bbox_used_for_cropping"][0] = [1, 20]
        write_pickle(props, str(images / "case_00.pkl"))
    assert remade(own) == "the preprocessed image of case_00 changed"
    assert remade(own) == ""


def test_new_and_missing_files_are_noticed(own) -> None:
    made = preparation(own)
    complete = soft_files(made.folder)
    (made.folder / "case_03.b2nd").unlink()
    assert remade(own) == "case_03.b2nd is missing"
    assert soft_files(made.folder) == complete
    for path in made.images.glob("case_05*"):
        path.unlink()
    assert remade(own) == "the preprocessed cases changed"


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9])
def test_file_written_in_part_is_made_again(own, share: float) -> None:
    made = preparation(own)
    complete = soft_files(made.folder)
    (made.folder / "manifest.json").unlink()
    path = made.folder / "case_02.b2nd"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    (made.folder / f"{TEMPORARY}abc.b2nd").write_bytes(b"left by a kill")
    assert remade(own) == "not done yet"
    assert soft_files(made.folder) == complete


def test_conversion_after_planning_is_refused(own) -> None:
    about = read_json(own.raw / "dataset.json")
    about["soft_labels"]["digest"] = "another"
    write_json(own.raw / "dataset.json", about)
    with pytest.raises(
        DatasetError, match=r"Dataset911_Tiny: was converted again after nnU-Net preprocessed it"
    ):
        preparation(own).ensure()


def test_soft_labels_added_again_are_preprocessed_again(own) -> None:
    raters = str(own.raw / "raterLabelsTr" / "{rater}" / "{case}.nii.gz")
    shutil.copytree(own.raw / "raterLabelsTr", own.raw.parent / "raters")
    raters = str(own.raw.parent / "raters" / "{rater}" / "{case}.nii.gz")
    into = ["convert", "--into", "911", "--raters", raters, "-np", "1", "--overwrite"]
    assert run(*into, "--fusion", "majority") == 0
    assert "changed" in remade(own)
    assert set(np.unique(SoftDataset(own.raw).read_soft("case_00"))) == {0, 1}


def test_lost_soft_label_is_named(own) -> None:
    SoftDataset(own.raw).soft_files("case_00")[0].unlink()
    with pytest.raises(DatasetError, match=r"Case case_00: has no soft label .*case_00_0001.nii.gz; convert"):
        preparation(own).ensure()


def test_unreadable_soft_label_is_named(own) -> None:
    SoftDataset(own.raw).soft_files("case_00")[0].write_bytes(b"x")
    with pytest.raises(
        DatasetError, match=r"Case case_00: soft label .*case_00_0001.nii.gz is not the one .*; convert"
    ):
        preparation(own).ensure()


def test_command_preprocesses_several_configurations(own, capsys) -> None:
    assert run("preprocess", "-d", "911", "-c", "3d_fullres", "2d", "--overwrite") == 0
    out = capsys.readouterr().out
    assert "Soft labels of 3d_fullres are in" in out
    assert "Soft labels of 2d are in" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-d", "3"], "-d 3: no such data set in"),
        (["-d", "911", "-p", "Other"], "-p Other: .*Other.json is not there; choose one of nnUNetPlans"),
        (["-d", "911", "-c", "4d"], "-c 4d: nnUNetPlans has no such configuration; it has 2d"),
        (["-d", "911", "-np", "0"], "-np 0: takes a number from 1"),
    ],
)  # fmt: skip
def test_command_refuses(planned_dataset, capsys, arguments: list[str], message: str) -> None:
    import re

    assert run("preprocess", *arguments) == 2
    assert re.search(message, capsys.readouterr().err)


def test_configuration_that_nnunet_did_not_preprocess(own) -> None:
    shutil.rmtree(own.preprocessed / "nnUNetPlans_2d")
    with pytest.raises(
        DatasetError,
        match="_2d: is not there; run nnUNetv2_preprocess -d 911 -plans_name nnUNetPlans -c 2d first",
    ):
        preprocess(911, "2d")


def test_number_of_processes_is_checked() -> None:
    with pytest.raises(UsageError, match="num_processes 0"):
        preprocess(911, "2d", num_processes=0)
