from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nnunet_softlabel.cases.rater_datasets import read_rater_datasets
from nnunet_softlabel.errors import DatasetError, UsageError


def make_dataset(raw: Path, name: str, labels: dict, cases: str = "ab", channel: str = "CT") -> Path:
    folder = raw / name
    for case in cases:
        for file in (f"imagesTr/{case}_0000.png", f"labelsTr/{case}.png"):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).touch()
    (folder / "imagesTr").mkdir(parents=True, exist_ok=True)
    (folder / "imagesTr" / "._a_0000.png").touch()
    content = {"channel_names": {"0": channel}, "labels": {"background": 0, **labels}, "file_ending": ".png"}
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_labels_are_matched_by_name_and_cases_may_be_missing(tmp_path: Path) -> None:
    first = make_dataset(tmp_path, "Dataset001_anna", {"whole": [1, 2], "core": 2, "ignore": 3}, "ab")
    second = make_dataset(tmp_path, "Dataset002_bob", {"core": 1, "whole": [2, 1], "ignore": 9}, "bc")
    found = read_rater_datasets([first, second])
    assert [(case.name, sorted(case.raters)) for case in found.cases] == [
        ("a", ["anna"]),
        ("b", ["anna", "bob"]),
        ("c", ["bob"]),
    ]
    assert found.cases[1].images == [first / "imagesTr" / "b_0000.png"]
    assert found.labels == ["whole=1,2", "core=2", "ignore=3"]
    assert found.rater_labels == ["bob:core=1", "bob:whole=2,1", "bob:ignore=9"]
    assert found.channel_names == ["CT"]


def test_raters_with_the_same_numbers_need_no_labels_of_their_own(tmp_path: Path) -> None:
    folders = [make_dataset(tmp_path, f"Dataset00{i}_Set", {"lesion": 1}) for i in (1, 2)]
    found = read_rater_datasets(folders)
    assert found.rater_labels == []
    assert sorted(found.cases[0].raters) == ["Dataset001_Set", "Dataset002_Set"]  # one name twice


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"labels": {"tumour": 1}}, "its labels are tumour, those of Dataset001_a are lesion; give them the"),
        (
            {"labels": {"lesion": 1}, "channel": "MR"},
            "its channel_names are MR, those of Dataset001_a",
        ),
        ({"labels": {"lesion": 1}, "cases": ""}, "its imagesTr holds no .png"),
    ],
)
def test_data_sets_that_do_not_belong_together(tmp_path: Path, other: dict, message: str) -> None:
    first = make_dataset(tmp_path, "Dataset001_a", {"lesion": 1})
    with pytest.raises(DatasetError, match=message):
        read_rater_datasets([first, make_dataset(tmp_path, "Dataset002_b", **other)])


def test_one_data_set_and_a_missing_label_are_refused(tmp_path: Path) -> None:
    first = make_dataset(tmp_path, "Dataset001_a", {"lesion": 1})
    with pytest.raises(UsageError, match="give two data sets or more"):
        read_rater_datasets([first])
    second = make_dataset(tmp_path, "Dataset002_b", {"lesion": 1})
    (second / "labelsTr" / "a.png").unlink()
    with pytest.raises(DatasetError, match=r"Case a: Dataset002_b has its image but no .*labelsTr/a.png"):
        read_rater_datasets([first, second])


def test_a_data_set_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    first = make_dataset(tmp_path, "Dataset001_a", {"lesion": 1})
    with pytest.raises(UsageError, match="Dataset001_a is given twice; give each rater once"):
        read_rater_datasets([first, first])


def test_channels_are_taken_by_their_numbers(tmp_path: Path) -> None:
    folders = [make_dataset(tmp_path, f"Dataset00{i}_{i}", {"lesion": 1}) for i in (1, 2)]
    content = json.loads((folders[0] / "dataset.json").read_text(encoding="utf-8"))
    for folder, names in zip(folders, ({"1": "PET", "0": "CT"}, {"0": "CT", "1": "PET"}), strict=True):
        (folder / "dataset.json").write_text(json.dumps({**content, "channel_names": names}))
    assert read_rater_datasets(folders).channel_names == ["CT", "PET"]


def test_other_images_of_a_case_are_said(tmp_path: Path) -> None:
    first, second = (make_dataset(tmp_path, name, {"a": 1}) for name in ("Dataset001_a", "Dataset002_b"))
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for folder, level in ((first, 9), (second, 1)):  # the same voxels in other bytes
        for case in "ab":
            Image.fromarray(image).save(folder / f"imagesTr/{case}_0000.png", compress_level=level)
    assert read_rater_datasets([first, second]).notes == []
    Image.fromarray(image + 1).save(second / "imagesTr/b_0000.png")
    assert read_rater_datasets([first, second]).notes == [
        "WARNING: 1 cases have another image in Dataset002_b than in Dataset001_a, as b; the image of "
        "Dataset001_a is taken. Do these names stand for the same patients?"
    ]
    (second / "imagesTr/a_0001.png").touch()
    (note,) = read_rater_datasets([first, second]).notes
    assert "2 cases have another image in Dataset002_b than in Dataset001_a, as a;" in note
