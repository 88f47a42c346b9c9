from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.dataset_json import read_dataset_json
from nnunet_softlabel.formats.files import write_json

GOOD: dict[str, Any] = {
    "channel_names": {"0": "MR"},
    "labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3},
    "regions_class_order": [1, 2],
    "file_ending": ".nii.gz",
}
RECORD = {"digest": "x", "made_hard_labels": True}


def test_good_content_is_returned(tmp_path: Path) -> None:
    write_json(tmp_path / "dataset.json", {**GOOD, "soft_labels": RECORD})
    assert read_dataset_json(tmp_path) == {**GOOD, "soft_labels": RECORD}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channel_names": None, "modality": {"0": "MR"}}, "has no channel_names"),
        ({"channel_names": ["MR"]}, "has no channel_names"),
        ({"file_ending": None}, "has no file_ending"),
        ({"file_ending": 3}, "has no file_ending"),
        ({"labels": None}, "has no labels"),
        ({"labels": {"0": "background", "1": "lesion"}}, "its labels are value: name"),
        ({"labels": {"background": 0}}, "names no foreground label"),
        *(
            ({"labels": {"lesion": value}}, "label lesion")
            for value in (None, -1, "1", 1.5, True, [], [None])
        ),
        ({"labels": {"lesion": 1, "ignore": [2]}}, "label ignore"),
        ({"regions_class_order": 3}, "regions_class_order"),
        *(({"soft_labels": value}, "soft_labels") for value in ([1], "x", {}, {"digest": 1})),
        ({"soft_labels": {**RECORD, "raters_of_case": []}}, "soft_labels.raters_of_case"),
    ],
)
def test_other_shapes_are_one_line_that_names_the_file(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    write_json(tmp_path / "dataset.json", {**GOOD, **change})
    with pytest.raises(DatasetError, match=f"dataset.json: .*{message}"):
        read_dataset_json(tmp_path)
