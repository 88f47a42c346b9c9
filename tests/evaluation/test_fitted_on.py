"""Maps and thresholds of predictions that changed since, and of cases that only share a name."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.evaluation.apply_threshold import ImageFiles, apply_threshold
from nnunet_softlabel.evaluation.average import apply_calibration
from nnunet_softlabel.evaluation.calibrate import calibrate
from nnunet_softlabel.evaluation.calibration_file import read_calibration
from nnunet_softlabel.evaluation.fitted_on import image_mark
from nnunet_softlabel.evaluation.run import Scoring, evaluate
from nnunet_softlabel.evaluation.thresholds import read_thresholds
from nnunet_softlabel.evaluation.tuning import tune_threshold
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from nnunet_softlabel.training.folding import read_affine_map
from tests.scored_dataset import predict_again


@pytest.fixture
def model(build, tmp_path):
    """A data set and a model of two folds with checkpoints, calibrated and with a tuned threshold."""
    data, folder = build(), tmp_path / "model"
    for index, case in enumerate(data.dataset.cases()):
        validation = folder / f"fold_{index % 2}" / "validation"
        validation.mkdir(parents=True, exist_ok=True)
        predict_again(data, case, unsure(data.dataset, case, 0.4))
        for path in data.predictions.glob(f"{case}.*"):
            shutil.copy(path, validation)
        torch.save({"network_weights": {"w": torch.ones(3)}, "epoch": 1}, checkpoint(folder))
    folders = [folder / "fold_0" / "validation", folder / "fold_1" / "validation"]
    file = folder / "calibration.json"
    found = calibrate(data.dataset, folders, file, method="temperature", num_processes=1)
    assert found["written"]
    tune_threshold(data.dataset, folders, folder / "thresholds.json", num_processes=1)
    return data.dataset, folder


def checkpoint(folder):
    return folder / "fold_0" / "checkpoint_final.pth"


def unsure(dataset, case, spread):
    soft = dataset.read_soft(case)[0]
    return (0.5 - spread / 2 + spread * np.stack([1 - soft, soft])).astype(np.float32)


def train_again(dataset, folder):
    path = folder / "fold_1" / "validation" / "case1.npz"
    np.savez_compressed(path, probabilities=unsure(dataset, "case1", 0.8))


USES = {
    "evaluate": lambda dataset, folder, out: evaluate(
        dataset, folder / "fold_0" / "validation", out, num_processes=1,
        scoring=Scoring(calibration=folder / "calibration.json"),
    ),
    "apply-calibration": lambda dataset, folder, out: apply_calibration(
        dataset, folder / "fold_0" / "validation", out, num_processes=1
    ),
    "export-stock": lambda dataset, folder, _: read_affine_map(folder / "calibration.json", dataset.labels),
    "tuned": lambda dataset, folder, _: read_thresholds(folder / "thresholds.json", dataset.labels.names),
}  # fmt: skip


@pytest.mark.parametrize("use", USES)
def test_what_was_fitted_before_a_model_was_trained_again_is_refused(model, tmp_path, use):
    dataset, folder = model
    USES[use](dataset, folder, tmp_path / "before")
    train_again(dataset, folder)
    command = "tune-threshold" if use == "tuned" else "calibrate"
    with pytest.raises(UsageError, match=f"case1.npz has changed since; run {command} again"):
        USES[use](dataset, folder, tmp_path / "after")
    assert not (tmp_path / "after").exists()


def test_other_weights_are_noticed_where_the_predictions_stayed(model):
    dataset, folder = model
    torch.save({"network_weights": {"w": torch.ones(3)}, "epoch": 2}, checkpoint(folder))  # the same weights
    read_calibration(folder / "calibration.json", dataset.labels)
    torch.save({"network_weights": {"w": torch.zeros(3)}, "epoch": 2}, checkpoint(folder))
    with pytest.raises(UsageError, match=r"fitted on the network in .* has changed since"):
        read_calibration(folder / "calibration.json", dataset.labels)


def test_a_model_may_be_moved_and_predictions_removed(model, tmp_path):
    dataset, folder = model
    shutil.move(folder, tmp_path / "moved")
    file = tmp_path / "moved" / "calibration.json"
    read_calibration(file, dataset.labels)
    shutil.rmtree(tmp_path / "moved" / "fold_0")
    read_calibration(file, dataset.labels)
    train_again(dataset, tmp_path / "moved")
    with pytest.raises(UsageError, match="changed since"):
        read_calibration(file, dataset.labels)


def test_files_of_earlier_versions_are_taken(model):
    dataset, folder = model
    for name, read in (("calibration.json", read_calibration), ("thresholds.json", read_thresholds)):
        content = json.loads((folder / name).read_text())
        for key in ("fitted_on", "images"):
            del content[key]
        (folder / name).write_text(json.dumps(content))
        train_again(dataset, folder)
        read(folder / name, dataset.labels if read is read_calibration else dataset.labels.names)


@pytest.mark.parametrize("damage", [{"fitted_on": 3}, {"images": [1]}])
def test_damaged_records_are_said_in_one_line(model, damage):
    dataset, folder = model
    file = folder / "thresholds.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | damage))
    with pytest.raises(DatasetError, match=r"thresholds.json: is not of the expected shape"):
        read_thresholds(file, dataset.labels.names)


def sister(dataset, name, *, has_other_images):
    """A data set with the same names of cases."""
    folder = dataset.folder.parent / name
    shutil.copytree(dataset.folder, folder)
    if has_other_images:
        for path in (folder / "imagesTr").iterdir():
            path.write_bytes(path.read_bytes() + b"other")
    return SoftDataset(folder)


@pytest.mark.parametrize("has_other_images", [True, False])
def test_cases_are_the_same_if_their_images_are(model, tmp_path, has_other_images):
    dataset, folder = model
    other = sister(dataset, "Dataset901_Other", has_other_images=has_other_images)
    predictions = tmp_path / "outside"
    shutil.copytree(folder / "fold_0" / "validation", predictions)
    found = apply_calibration(
        other, predictions, tmp_path / "o", file=folder / "calibration.json", num_processes=1
    )
    assert found.calibration is not None
    is_new = found.calibration.map_for("case0") == found.calibration.of_all
    assert is_new == has_other_images
    assert ("has not seen" in found.note) != has_other_images
    scoring = Scoring(threshold="tuned", threshold_file=folder / "thresholds.json")
    if has_other_images:
        summary = evaluate(other, predictions, tmp_path / "s", scoring=scoring, num_processes=1)
        assert summary["threshold"]["tuned_on"] == ["case0", "case1", "case2", "case3"]
    else:
        with pytest.raises(UsageError, match="chose it"):
            evaluate(other, predictions, tmp_path / "s", scoring=scoring, num_processes=1)


def test_masks_know_cases_of_another_data_set(model, tmp_path):
    dataset, folder = model
    other = sister(dataset, "Dataset901_Other", has_other_images=True)
    masks = []
    for known in (other, dataset):
        out = tmp_path / known.folder.name
        files = ImageFiles(".nii.gz", dataset=known)
        apply_threshold(
            folder / "fold_0" / "validation", out, 0.42, dataset.labels, files=files,
            calibration=folder / "calibration.json", num_processes=1,
        )  # fmt: skip
        masks.append(json.loads((out / "apply_threshold.json").read_text()))
    assert masks[0]["threshold"] == masks[1]["threshold"]
    assert "origin" not in masks[0]["threshold"]


def test_an_image_is_known_by_its_size_and_both_ends(build):
    dataset = build(cases=2).dataset
    path = dataset.folder / "imagesTr" / "case0_0000.nii.gz"
    mark = image_mark(dataset, "case0")
    assert mark is not None
    assert mark == image_mark(dataset, "case0") != image_mark(dataset, "case1")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert image_mark(dataset, "case0") != mark
    path.unlink()
    assert image_mark(dataset, "case0") is None
