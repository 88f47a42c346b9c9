"""The recipe that goes on from a trained stock model."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from nnunetv2.run.run_training import maybe_load_checkpoint
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.files import write_json
from nnunet_softlabel.training.budget import Budget
from nnunet_softlabel.training.fine_tuning import FoldCases, Origin, bare, check_origin
from nnunet_softlabel.training.recipes import TRAINERS, nnUNetTrainerSoftCEFineTune
from nnunet_softlabel.training.run import train
from nnunet_softlabel.training.starts_from import starts_from
from nnunet_softlabel.training.trainer_path import trainer_path
from tests.training.conftest import REDUCED, log_text


@pytest.fixture
def stock(trainer_factory, planned_dataset):
    """A stock model of fold 0, trained for two epochs, and its checkpoint."""
    trainer = trainer_factory(nnUNetTrainer, planned_dataset)
    trainer.run_training()
    return planned_dataset, Path(trainer.output_folder) / "checkpoint_final.pth"


def fine_tuned(trainer_factory, dataset, checkpoint, fold=0):
    trainer = trainer_factory(nnUNetTrainerSoftCEFineTune, dataset, fold=fold)
    maybe_load_checkpoint(trainer, False, False, str(checkpoint))
    return trainer


def test_fine_tuning_begins_with_the_whole_stock_model(trainer_factory, stock):
    dataset, checkpoint = stock
    trainer = fine_tuned(trainer_factory, dataset, checkpoint)
    trainer.on_train_start()
    saved = torch.load(checkpoint, weights_only=False)["network_weights"]
    weights = bare(trainer.network).state_dict()
    assert all(torch.equal(weights[key], saved[key]) for key in saved)
    assert any(".seg_layers." in key for key in saved)
    assert f"starts from {checkpoint}; its last layers are taken too" in log_text(trainer)


def test_fine_tuning_trains_and_resumes(trainer_factory, stock):
    dataset, checkpoint = stock
    trainer = fine_tuned(trainer_factory, dataset, checkpoint)
    assert trainer.balanced_start is None
    trainer.run_training()
    again = trainer_factory(nnUNetTrainerSoftCEFineTune, dataset)
    again.num_epochs = 3
    maybe_load_checkpoint(again, True, False)
    again.run_training()
    assert again.current_epoch == 3


def test_fine_tuning_takes_three_tenths_of_the_epochs_at_a_lower_rate(trainer_factory, planned_dataset):
    trainer = trainer_factory(nnUNetTrainerSoftCEFineTune, planned_dataset)
    assert trainer.epochs == 300
    assert trainer.initial_lr == 1e-3
    assert trainer_factory(nnUNetTrainer, planned_dataset).initial_lr == 1e-2


def test_fine_tuning_without_a_model_names_the_flag(trainer_factory, planned_dataset):
    trainer = trainer_factory(nnUNetTrainerSoftCEFineTune, planned_dataset)
    wanted = (
        r"given none; add -pretrained_weights .*nnUNetTrainer__nnUNetPlansReduced__3d_fullres.fold_0.check"
    )
    with pytest.raises(DatasetError, match=wanted):
        trainer.run_training()


def test_a_model_of_a_fold_that_saw_the_validation_cases_is_refused(trainer_factory, stock):
    dataset, checkpoint = stock
    trainer = fine_tuned(trainer_factory, dataset, checkpoint, fold=1)
    wanted = r"has seen \d of the cases that fold 1 validates on \(.*start fold 1 from"
    with pytest.raises(DatasetError, match=wanted):
        trainer.run_training()


def test_a_model_of_another_fold_with_the_same_cases_is_taken(trainer_factory, stock):
    dataset, checkpoint = stock
    splits = dataset.preprocessed / "splits_final.json"
    before = json.loads(splits.read_text(encoding="utf-8"))
    write_json(splits, [before[0], before[0], *before[2:]])
    try:
        trainer = fine_tuned(trainer_factory, dataset, checkpoint, fold=1)
        trainer.on_train_start()
    finally:
        write_json(splits, before)
    assert "its last layers are taken too" in log_text(trainer)


def validates(checkpoint, cases, *, is_whole=True):
    """Leave what nnU-Net's validation leaves."""
    folder = checkpoint.parent / "validation"
    folder.mkdir()
    for case in cases:
        (folder / f"{case}.nii.gz").touch()
    if is_whole:
        (folder / "summary.json").write_text("{}", encoding="utf-8")


def folds_of(dataset):
    return json.loads((dataset.preprocessed / "splits_final.json").read_text(encoding="utf-8"))


@pytest.fixture
def changed_splits(stock):
    """The stock model of fold 0, whose cases are fold 1 by now."""
    dataset, checkpoint = stock
    splits, before = dataset.preprocessed / "splits_final.json", folds_of(dataset)
    write_json(splits, [before[1], before[0], *before[2:]])
    yield dataset, checkpoint, before[0]["val"]
    write_json(splits, before)


def test_the_same_fold_of_other_splits_is_refused(trainer_factory, changed_splits):
    dataset, checkpoint, validated = changed_splits
    validates(checkpoint, validated)
    trainer = fine_tuned(trainer_factory, dataset, checkpoint)
    seen = folds_of(dataset)[0]["val"]
    wanted = rf"has seen 2 of the cases that fold 0 validates on \({', '.join(seen)}\); .*put back the one of"
    with pytest.raises(DatasetError, match=wanted):
        trainer.run_training()


def test_a_fold_that_has_another_number_by_now_is_taken(trainer_factory, changed_splits):
    dataset, checkpoint, validated = changed_splits
    validates(checkpoint, validated)
    trainer = fine_tuned(trainer_factory, dataset, checkpoint, fold=1)
    trainer.on_train_start()
    assert "its last layers are taken too" in log_text(trainer)
    assert "could not be checked" not in log_text(trainer)


def test_a_validation_of_both_splits_is_no_proof(trainer_factory, changed_splits):
    """``--val`` after the splits were changed: the model has seen what it predicts."""
    dataset, checkpoint, validated = changed_splits
    validates(checkpoint, [*validated, *folds_of(dataset)[0]["val"]])
    trainer = fine_tuned(trainer_factory, dataset, checkpoint)
    with pytest.raises(DatasetError, match=rf"was not trained on {validated[0]}, which fold 0 trains on; "):
        trainer.run_training()


@pytest.mark.parametrize("cases", [0, 1])
def test_splits_that_cannot_be_checked_are_told(trainer_factory, stock, cases):
    """Without its validation, or when the validation ended half-way."""
    dataset, checkpoint = stock
    validates(checkpoint, folds_of(dataset)[0]["val"][:cases], is_whole=False)
    trainer = fine_tuned(trainer_factory, dataset, checkpoint)
    trainer.on_train_start()
    assert "could not be checked whether splits_final.json is still the one" in log_text(trainer)


def test_splits_of_the_training_leave_no_doubt(trainer_factory, stock):
    dataset, checkpoint = stock
    validates(checkpoint, folds_of(dataset)[0]["val"])
    trainer = fine_tuned(trainer_factory, dataset, checkpoint)
    trainer.on_train_start()
    assert "could not be checked" not in log_text(trainer)


FOLDS = [{"train": ["c", "d"], "val": ["a", "b"]}, {"train": ["a", "b"], "val": ["c", "d"]}]


@pytest.mark.parametrize(
    ("folder", "validated", "is_whole", "message"),
    [
        ("fold_0", "ab", True, ""),
        ("fold_0", "ab", False, ""),
        ("fold_0", "a", False, "could not be checked"),
        ("fold_0", "a", True, r"seen 1 of the cases that fold 0 validates on \(b\); .* is not that of its"),
        ("fold_0", "ac", False, r"seen 1 .*\(b\)"),
        ("fold_0", "ax", True, r"seen 1 .*\(b\)"),
        ("fold_0", "abx", True, ""),  # a case that was taken out
        ("fold_1", "cd", True, r"seen 2 .*\(a, b\); start fold 0 from the checkpoint of fold 0"),
        ("fold_1", "", False, r"seen 2 .*\(a, b\); start fold 0 from the checkpoint of fold 0"),
        ("fold_1", "ab", True, ""),
        ("fold_2", "ab", True, r"has no fold 2; start fold 0"),
        ("fold_0_old", "ab", True, ""),
        ("fold_0_old", "cd", True, r"seen 2 .*\(a, b\)"),
        ("fold_0_old", "", False, "could not be checked"),
    ],
)
def test_what_a_model_has_not_seen_is_what_it_validated(tmp_path, folder, validated, is_whole, message):
    checkpoint, splits = tmp_path / folder / "checkpoint_final.pth", tmp_path / "splits_final.json"
    checkpoint.parent.mkdir()
    write_json(splits, FOLDS)
    validates(checkpoint, validated, is_whole=is_whole)
    now = FoldCases(0, FOLDS[0]["train"], FOLDS[0]["val"])
    try:
        found = check_origin(Origin(checkpoint, {}), now, splits, file_ending=".nii.gz")
    except DatasetError as error:
        found = str(error)
    assert re.search(message, found)
    assert bool(found) == bool(message)


def test_a_model_of_all_cases_is_refused(trainer_factory, stock):
    dataset, checkpoint = stock
    folder = checkpoint.parents[1] / "fold_all"
    checkpoint.parent.rename(folder)
    trainer = fine_tuned(trainer_factory, dataset, folder / checkpoint.name)
    with pytest.raises(DatasetError, match=r"fold all has seen every case.*start fold 0 from"):
        trainer.run_training()


def test_a_model_from_elsewhere_is_taken_and_the_doubt_is_said(trainer_factory, stock, tmp_path):
    dataset, checkpoint = stock
    elsewhere = shutil.move(checkpoint, tmp_path / "model.pth")
    for other in checkpoint.parent.glob("checkpoint_*.pth"):
        other.unlink()
    trainer = fine_tuned(trainer_factory, dataset, elsewhere)
    trainer.on_train_start()
    assert "not known whether it has seen cases" in log_text(trainer)


def test_what_a_trainer_starts_from_is_known_by_its_name():
    assert {name for name in TRAINERS if starts_from(name)} == {
        name for name, trainer in TRAINERS.items() if issubclass(trainer, nnUNetTrainerSoftCEFineTune)
    }


OPTIONS = {"plans": REDUCED, "budget": Budget(10, 1, "cpu")}
FINE_TUNE = "nnUNetTrainerSoftCEFineTune"


def test_a_benchmarks_row_starts_from_the_stock_model_of_its_fold(trainer_factory, stock, monkeypatch):
    dataset, checkpoint = stock
    monkeypatch.setenv("nnUNet_extTrainer", trainer_path())
    result = train(dataset.id, "3d_fullres", 0, FINE_TUNE, continues=True, **OPTIONS)
    assert result["epochs"] == 3  # three tenths of ten
    log = next(Path(result["folder"]).glob("training_log*.txt")).read_text(encoding="utf-8")
    assert f"starts from {checkpoint}" in log
    again = train(dataset.id, "3d_fullres", 0, FINE_TUNE, continues=True, **OPTIONS)
    assert again["curves"]["train_losses"] == result["curves"]["train_losses"]


def test_a_benchmarks_row_without_the_stock_model_is_refused(trainer_factory, stock, monkeypatch):
    dataset, _ = stock
    monkeypatch.setenv("nnUNet_extTrainer", trainer_path())
    with pytest.raises(DatasetError, match=r"fold_1.*is not there; train nnUNetTrainer on this fold first"):
        train(dataset.id, "3d_fullres", 1, FINE_TUNE, **OPTIONS)
