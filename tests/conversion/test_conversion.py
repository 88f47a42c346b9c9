from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.conversion import Fusion
from nnunet_softlabel.formats.files import read_json
from nnunet_softlabel.formats.images import read_image, read_mask, write_image
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from tests.conversion.conversion_helpers import GRID, converted, in_memory_cases, run, tree

Folders = SimpleNamespace


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
        dataset = converted(cases, ["a=1"], fusion=Fusion(fusion, options), overwrite=True)
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
    folder = rater_folder_factory(
        tmp_path / "flat", num_cases=2, shape=(24, 30), spacing_mm=(1.0, 1.0), ending=".png"
    )
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


def test_several_channels_and_other_formats(
    tmp_path: Path, nnunet_folders: Folders, rater_folder_factory
) -> None:
    folder = rater_folder_factory(
        tmp_path / "s", num_cases=2, num_channels=2, shape=(6, 8, 9), ending=".nrrd"
    )
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


def test_cases_with_few_raters_are_dropped_from_everything(
    rater_folder, nnunet_folders: Folders, capsys
) -> None:
    rater_folder.rater("case_00", "2").unlink()
    groups = ["--groups", str(rater_folder.root / "cases.csv"), "--group-column", "case"]
    assert run(*rater_folder.arguments(), *groups, "--min-raters", "3", "--few-raters", "drop") == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first == "Left out, for fewer than 3 raters: 1 case (case_00); dataset.json lists them."
    assert second == "3 cases: 3 for training, 0 for testing."
    dataset = SoftDataset.find(901)
    assert dataset.cases() == ["case_01", "case_02", "case_03"]
    assert dataset.dataset_json["numTraining"] == 3
    assert dataset.about["dropped_cases"] == ["case_00"]
    splits = json.loads(
        (nnunet_folders.preprocessed / "Dataset901_Tiny" / "splits_final.json").read_text(encoding="utf-8")
    )
    assert sorted(name for fold in splits for name in fold["val"]) == dataset.cases()


def test_splits_keep_groups_together(tmp_path: Path, nnunet_folders: Folders, rater_folder_factory) -> None:
    folder = rater_folder_factory(tmp_path / "s", num_cases=12, num_raters=1, shape=(4, 6, 6))
    groups = ["--groups", str(folder.root / "cases.csv"), "--group-column", "patient"]
    assert run(*folder.arguments(), *groups, "--test-cases", "case_10", "case_11") == 0
    patient = {case: int(case[-2:]) // 2 for case in folder.cases}
    splits = json.loads(
        (nnunet_folders.preprocessed / "Dataset901_Tiny" / "splits_final.json").read_text(encoding="utf-8")
    )
    assert len(splits) == 5
    for fold in splits:
        assert not {patient[c] for c in fold["train"]} & {patient[c] for c in fold["val"]}
        assert sorted(fold["train"] + fold["val"]) == list(folder.cases[:10])
    assert sorted(c for fold in splits for c in fold["val"]) == list(folder.cases[:10])
    dataset = SoftDataset.find(901)
    assert dataset.cases("Ts") == ["case_10", "case_11"]
    assert {path.name for path in dataset.folder.iterdir() if path.is_dir()} == {
        f"{kind}{split}"
        for kind in ("images", "labels", "softLabels", "raterLabels")
        for split in ("Tr", "Ts")
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


def test_splits_are_never_deleted(rater_folder, nnunet_folders: Folders, capsys) -> None:
    groups = ["--groups", str(rater_folder.root / "cases.csv"), "--group-column", "case"]
    splits = nnunet_folders.preprocessed / "Dataset901_Tiny" / "splits_final.json"
    assert run(*rater_folder.arguments(), *groups) == 0
    assert run(*rater_folder.arguments(), "--overwrite") == 0
    assert splits.is_file()  # of the same cases: they still hold
    before = tree(nnunet_folders.raw, nnunet_folders.preprocessed)
    assert run(*rater_folder.arguments(), "--overwrite", "--test-cases", "case_00") == 2
    assert "lists case case_00, which is no training case of this data set" in capsys.readouterr().err
    assert tree(nnunet_folders.raw, nnunet_folders.preprocessed) == before


@pytest.mark.parametrize("flags", [[], ["--overwrite"]])
def test_splits_made_by_hand_stay_and_it_is_said(
    rater_folder, nnunet_folders: Folders, capsys, flags: list[str]
) -> None:
    splits = nnunet_folders.preprocessed / "Dataset901_Tiny" / "splits_final.json"
    splits.parent.mkdir()
    splits.write_text('[{"train": ["case_00", "case_01"], "val": ["case_02"]}]')
    assert run(*rater_folder.arguments(), *flags) == 0
    assert "splits_final.json stays; it leaves out 1 training cases, as case_03" in capsys.readouterr().out
    assert "case_02" in splits.read_text()


@pytest.mark.parametrize("content", ["{", "[[1]]", '[{"train": ["case_00"]}]', "3", '{"a": 1}'])
def test_broken_splits_are_refused_before_any_work(
    rater_folder, nnunet_folders: Folders, capsys, content: str
) -> None:
    splits = nnunet_folders.preprocessed / "Dataset901_Tiny" / "splits_final.json"
    splits.parent.mkdir()
    splits.write_text(content)
    assert run(*rater_folder.arguments()) == 2
    assert "splits_final.json: cannot be read as nnU-Net's splits" in capsys.readouterr().err
    assert list(nnunet_folders.raw.iterdir()) == []


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
    command = [
        "convert",
        "-d",
        "902",
        "-n",
        "LIDC",
        "-np",
        "1",
        "--images",
        f"{tmp_path}/images/{{case}}.nii.gz",
    ]
    command += ["--channel-names", "CT", "--raters", f"{tmp_path}/raters/{{case}}_rater{{rater}}.nii.gz"]
    command += ["--labels", "nodule=1", "--groups", f"{source}/cases.csv", "--group-column", "patient"]
    assert run(*command) == 0
    plan = [
        Path(sys.executable).with_name("nnUNetv2_plan_and_preprocess"),
        "-d",
        "902",
        "-c",
        "3d_fullres",
        "2d",
    ]
    plan += ["--verify_dataset_integrity", "-np", "1", "-npfp", "1", "--no_pbar"]
    environment = {**os.environ, "nnUNet_n_proc_DA": "1"}
    done = subprocess.run(
        plan, env=environment, capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "verify_dataset_integrity Done." in done.stdout
    assert run("preprocess", "-d", "902", "-c", "3d_fullres", "2d") == 0
    for configuration in ("3d_fullres", "2d"):
        folder = (
            nnunet_folders.preprocessed / "Dataset902_LIDC" / f"nnUNetPlans_{configuration}" / "soft_labels"
        )
        assert len(list(folder.glob("*.b2nd"))) == 6
