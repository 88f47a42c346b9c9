"""Predictions of a model whose channels mean something else are refused."""

from __future__ import annotations

import json
import shutil

import pytest

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.evaluation.apply_threshold import ImageFiles, apply_threshold
from nnunet_softlabel.evaluation.average import average
from nnunet_softlabel.evaluation.calibrate import calibrate
from nnunet_softlabel.evaluation.maps import write_maps
from nnunet_softlabel.evaluation.run import evaluate
from nnunet_softlabel.evaluation.tuning import tune_threshold
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.formats.model_labels import check_labels_of_model
from tests.scored_dataset import build_at

__all__ = ["build_at"]
CLASSES = Labels({"rim": (1,), "core": (2,)})
REGIONS = Labels({"whole": (1, 2), "core": (2,)})
READERS = {
    "evaluate": lambda d, folders, out: evaluate(d, folders, out, num_processes=1),
    "calibrate": lambda d, folders, out: calibrate(d, folders, out, num_processes=1),
    "tune-threshold": lambda d, folders, out: tune_threshold(d, folders, out, num_processes=1),
    "average": lambda d, folders, out: average(d, folders, out, num_processes=1),
    "maps": lambda d, folders, out: write_maps(d, folders, out, num_processes=1),
    "apply-threshold": lambda d, folders, out: apply_threshold(
        folders, out, 0.4, d.labels, files=ImageFiles(".nii.gz"), num_processes=1
    ),
}


def write_labels(folder, labels):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps(labels))


@pytest.mark.parametrize("command", READERS)
def test_every_command_refuses_channels_in_another_order(build_at, tmp_path, command):
    data = build_at(tmp_path, CLASSES, cases=2)
    other = tmp_path / "other"
    shutil.copytree(data.predictions, other)
    write_labels(data.predictions, CLASSES.to_dataset_json())
    write_labels(other, {"labels": {"background": 0, "core": 1, "rim": 2}})
    with pytest.raises(DatasetError, match=r"labels core=1 rim=2, says .* the data set has rim=1 core=2"):
        READERS[command](data.dataset, [data.predictions, other], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_validation_cases_are_of_the_model_above_the_fold(tmp_path):
    write_labels(tmp_path / "model", {"labels": {"background": 0, "core": 1, "rim": 2}})
    (tmp_path / "model" / "fold_0" / "validation").mkdir(parents=True)
    (tmp_path / "model" / "runs" / "out").mkdir(parents=True)
    with pytest.raises(DatasetError, match="core=1 rim=2"):
        check_labels_of_model([tmp_path / "model" / "fold_0" / "validation"], CLASSES)
    check_labels_of_model([tmp_path / "model" / "runs" / "out"], CLASSES)  # of another model, for all we know


@pytest.mark.parametrize(
    ("own", "asked"),
    [
        ({"labels": {"core": 2, "background": 0, "rim": 1}}, CLASSES),  # classes go by their values
        ({"labels": {"background": 0, "rim": 1, "core": 2, "ignore": 3}}, CLASSES),  # it has no channel
        ({"labels": {"background": 0, "whole": [2, 1], "core": 2}, "regions_class_order": [1, 2]}, REGIONS),
    ],
)
def test_the_same_channels_in_other_words_are_taken(tmp_path, own, asked):
    write_labels(tmp_path, own)
    check_labels_of_model([tmp_path], asked)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (
            {"labels": {"background": 0, "core": 2, "whole": [1, 2]}, "regions_class_order": [2, 1]},
            "core=2 whole",
        ),
        (
            {"labels": {"background": 0, "whole": [1, 2], "core": 2}, "regions_class_order": [2, 1]},
            "order 2 1",
        ),
        ({"labels": {"background": 0, "whole": 1, "core": 2}}, "whole=1 core=2"),
        ({"labels": {}}, "has no labels"),
    ],
)
def test_other_regions_and_damaged_files_are_refused(tmp_path, own, message):
    write_labels(tmp_path, own)
    with pytest.raises(DatasetError, match=message):
        check_labels_of_model([tmp_path], REGIONS)
