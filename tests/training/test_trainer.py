"""The trainers in nnU-Net's plain modes, in process."""

import csv
import pickle
import re
import shutil
from multiprocessing.context import ForkContext, SpawnContext
from pathlib import Path

import numpy as np
import pytest
import torch
from batchgenerators.dataloading import nondet_multi_threaded_augmenter
from nnunetv2.run.run_training import maybe_load_checkpoint

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.files import read_json, write_json
from nnunet_softlabel.training import loss_trainer, recipes
from nnunet_softlabel.training.foreground import foreground_share
from nnunet_softlabel.training.recipes import nnUNetTrainerAPL, nnUNetTrainerHardAPL
from nnunet_softlabel.training.trainer import SCORES_FILE, SoftLabelTrainer
from tests.training.conftest import batches, in_fresh_process, log_text, make_trainer

SOFT = ["nnUNetTrainerAPL", "nnUNetTrainerAPLExpectation", "nnUNetTrainerAPLNoDice", "nnUNetTrainerSoftCE"]
HARD = ["nnUNetTrainerHardAPL", "nnUNetTrainerHardAPLNoCE", "nnUNetTrainerHardBCE"]


def scores(trainer):
    with open(f"{trainer.output_folder}/{SCORES_FILE}") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
@pytest.mark.parametrize("name", SOFT + HARD)
def test_trainer_trains_two_epochs(trainer_factory, planned_dataset, name, configuration):
    trainer = trainer_factory(getattr(recipes, name), planned_dataset, configuration)
    trainer.initialize()
    before = [p.detach().clone() for p in trainer.network.parameters()]
    trainer.run_training()
    losses = trainer.logger.get_checkpoint()["train_losses"]
    assert len(losses) == 2
    assert np.isfinite(losses).all()
    assert any((a != b).any() for a, b in zip(before, trainer.network.parameters(), strict=True))
    checkpoint = torch.load(f"{trainer.output_folder}/checkpoint_final.pth", weights_only=False)
    assert checkpoint["trainer_name"] == name


@pytest.mark.parametrize("name", ["nnUNetTrainerAPL", "nnUNetTrainerHardBCE"])
def test_trainer_trains_and_validates_lowres(trainer_factory, planned_unanimous_dataset, name):
    trainer = trainer_factory(getattr(recipes, name), planned_unanimous_dataset, "3d_lowres")
    trainer.run_training()
    trainer.perform_actual_validation(True)
    summary = read_json(Path(trainer.output_folder) / "validation/summary.json")
    assert len(summary["metric_per_case"]) == 2


def test_validation_writes_probabilities_without_soft_labels(
    trained_model, trainer_factory, tmp_path, monkeypatch
):
    """``--val --npz`` reads the images only, as prediction does."""
    dataset, results = trained_model
    copied = dataset.copy_to(tmp_path, monkeypatch)
    shutil.copytree(results, tmp_path / "results")
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    shutil.rmtree(copied.preprocessed / "nnUNetPlans_3d_fullres" / "soft_labels")
    shutil.rmtree(copied.raw)
    trainer = trainer_factory(nnUNetTrainerAPL, copied)
    validation = Path(trainer.output_folder) / "validation"
    written = {path.name: path.read_bytes() for path in validation.glob("*.nii.gz")}
    shutil.rmtree(validation)
    maybe_load_checkpoint(trainer, continue_training=False, validation_only=True)
    trainer.perform_actual_validation(True)
    assert len(list(validation.glob("*.npz"))) == len(written) == 2
    assert {path.name: path.read_bytes() for path in validation.glob("*.nii.gz")} == written


def test_soft_scores_are_written_beside_nnunets_log(trainer_factory, planned_dataset):
    trainer = trainer_factory(nnUNetTrainerAPL, planned_dataset)
    trainer.run_training()
    rows = scores(trainer)
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert all(0 <= float(row["soft_dice_1"]) <= 1 and 0 <= float(row["brier"]) <= 2 for row in rows)
    assert "Pseudo soft dice" in log_text(trainer)


def test_log_names_loss_raters_fusion_and_soft_voxels(trainer_factory, planned_dataset):
    trainer = trainer_factory(nnUNetTrainerAPL, planned_dataset)
    batches(trainer, 1)
    text = log_text(trainer)
    assert "loss 1.0 DML + 1.0 CE + 1.0 NKL + 1.0 TV, after a start with" in text
    assert "raters 1, 2, 3" in text
    assert "'method': 'mean'" in text
    assert "soft voxels in 6 cases" in text
    assert "oversampling of disputed voxels on" in text


class StoppedTrainer(nnUNetTrainerAPL):
    """Stopped by hand after its first epoch."""

    def on_epoch_end(self):
        super().on_epoch_end()
        if self.current_epoch == 1:
            raise KeyboardInterrupt


StoppedTrainer.__name__ = nnUNetTrainerAPL.__name__  # the folder is that of the trainer


def test_trainer_continues_where_it_stopped(trainer_factory, planned_dataset):
    """``--c``: epoch, soft scores and learning curves go on."""

    first = trainer_factory(StoppedTrainer, planned_dataset)
    first.save_every = 1
    with pytest.raises(KeyboardInterrupt):
        first.run_training()
    second = trainer_factory(nnUNetTrainerAPL, planned_dataset)
    maybe_load_checkpoint(second, continue_training=True, validation_only=False)
    assert second.current_epoch == 1
    second.run_training()
    assert [row["epoch"] for row in scores(second)] == ["0", "1"]
    assert len(second.logger.get_checkpoint()["train_losses"]) == 2


def test_missing_soft_labels_are_made_when_training_starts(
    trainer_factory, planned_dataset, tmp_path, monkeypatch
):
    copied = planned_dataset.copy_to(tmp_path, monkeypatch)
    folder = copied.preprocessed / "nnUNetPlans_3d_fullres" / "soft_labels"
    shutil.rmtree(folder)
    trainer = trainer_factory(nnUNetTrainerAPL, copied)
    batches(trainer, 1)
    assert len(list(folder.glob("*.b2nd"))) == 6
    assert "Preprocessing soft labels" in log_text(trainer)


def test_hard_trainers_need_no_soft_labels(trainer_factory, planned_dataset, tmp_path, monkeypatch):
    copied = planned_dataset.copy_to(tmp_path, monkeypatch)
    shutil.rmtree(copied.preprocessed / "nnUNetPlans_3d_fullres" / "soft_labels")
    shutil.rmtree(copied.raw)
    batches(trainer_factory(nnUNetTrainerHardAPL, copied), 1)


def test_data_set_without_soft_labels_names_the_command_that_makes_them(
    trainer_factory, planned_dataset, tmp_path, monkeypatch
):
    copied = planned_dataset.copy_to(tmp_path, monkeypatch)
    shutil.rmtree(copied.preprocessed / "nnUNetPlans_3d_fullres" / "soft_labels")
    for path in (copied.raw / "dataset.json", copied.preprocessed / "dataset.json"):
        content = read_json(path)
        del content["soft_labels"]
        write_json(path, content)
    trainer = trainer_factory(nnUNetTrainerAPL, copied)
    trainer.initialize()
    with pytest.raises(DatasetError, match=r"holds no soft labels.*convert.*--into"):
        trainer.get_dataloaders()


def test_soft_labels_of_other_channels_are_refused(trainer_factory, planned_dataset, tmp_path, monkeypatch):
    copied = planned_dataset.copy_to(tmp_path, monkeypatch)
    monkeypatch.delenv("nnUNet_raw")
    path = copied.preprocessed / "nnUNetPlans_3d_fullres" / "soft_labels" / "manifest.json"
    trainer = trainer_factory(nnUNetTrainerAPL, copied)
    trainer.initialize()
    trainer.dataset_json["labels"] = {"background": 0, "a": 1, "b": 2}
    trainer.label_manager = trainer.plans_manager.get_label_manager(trainer.dataset_json)
    assert path.is_file()
    with pytest.raises(DatasetError, match=r"1 channel\(s\).*2 labels.*plan_and_preprocess"):
        trainer.get_dataloaders()


def test_recipe_without_a_loss_says_what_to_define(trainer_factory, planned_dataset):
    with pytest.raises(NotImplementedError, match=r"SoftLabelTrainer must define build_soft_loss"):
        trainer_factory(SoftLabelTrainer, planned_dataset).initialize()


def test_what_workers_receive_can_be_pickled(trainer_factory, planned_dataset):
    trainer = trainer_factory(nnUNetTrainerAPL, planned_dataset)
    trainer.initialize()
    train, _ = trainer.get_dataloaders()
    loader = pickle.loads(pickle.dumps(train.data_loader))
    assert next(loader)["target"][0].dtype == torch.int16


def _draw_from_a_worker(context_class, dataset, answer):
    for name in ("Process", "Queue", "Event"):
        setattr(nondet_multi_threaded_augmenter, name, getattr(context_class(), name))
    trainer = make_trainer(nnUNetTrainerAPL, dataset)
    trainer.initialize()
    train, val = trainer.get_dataloaders()
    try:
        answer.write_text(f"{next(train)['target'][0].dtype}, {next(val)['target'][0].shape[1]} channels")
    finally:
        train._finish()
        val._finish()


@pytest.mark.parametrize("context", [ForkContext, pytest.param(SpawnContext, marks=pytest.mark.slow)])
def test_background_worker_draws_batches(trainer_factory, planned_dataset, tmp_path, monkeypatch, context):
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    process = in_fresh_process(_draw_from_a_worker, context, planned_dataset, tmp_path / "answer.txt")
    process.join(300)
    process.kill()
    assert (tmp_path / "answer.txt").read_text(encoding="utf-8") == "torch.int16, 2 channels"
    assert process.exitcode == 0


def phases_of(trainer) -> list[tuple[int, bool]]:
    """Epoch and phase of every training step, filled while the trainer trains."""
    phases, step = [], trainer.train_step

    def watched(batch):
        phases.append((trainer.current_epoch, trainer.balanced_start.is_starting))
        return step(batch)

    trainer.train_step = watched
    return phases


@pytest.mark.parametrize("dataset", ["planned_dataset", "planned_regions_dataset"])
def test_first_quarter_of_the_epochs_at_most_is_class_balanced(
    trainer_factory, request, dataset, monkeypatch
):
    monkeypatch.setattr(loss_trainer, "PLENTY", 1.0)
    trainer = trainer_factory(nnUNetTrainerAPL, request.getfixturevalue(dataset))
    trainer.num_epochs = 4
    phases = phases_of(trainer)
    trainer.run_training()
    assert sorted(set(phases)) == [(0, True), (1, False), (2, False), (3, False)]
    assert np.isfinite(trainer.logger.get_checkpoint()["train_losses"]).all()
    assert "after a start with" in log_text(trainer)
    assert "start with 1.0 DML + class-balanced (1.0 CE + 1.0 NKL + 1.0 TV)" in log_text(trainer)
    assert "less than 100%" in log_text(trainer)
    assert "The balanced start ended after 2 iterations, its bound" in log_text(trainer)


@pytest.mark.parametrize("recipe", [nnUNetTrainerAPL, nnUNetTrainerHardAPL])
def test_no_balanced_start_where_foreground_is_plenty(trainer_factory, planned_dataset, monkeypatch, recipe):
    monkeypatch.setattr(loss_trainer, "PLENTY", 0.0001)
    trainer = trainer_factory(recipe, planned_dataset)
    trainer.num_epochs = 4
    phases = phases_of(trainer)
    trainer.run_training()
    assert {starting for _, starting in phases} == {False}
    assert re.search(
        r"No balanced start: foreground is \d+\.\d\d% of the voxels of 4 training cases", log_text(trainer)
    )


def test_share_of_foreground_counts_labels_and_not_ignored_voxels():
    class Cases:
        identifiers = ("b", "a")

        def load_case(self, name):
            labels = {"a": [[1, 0, 0, 0]], "b": [[2, 9, 9, -1]]}[name]
            return None, np.array(labels), None, {}

    # a: 1 of 4; b: 1 of the 2 that count
    assert foreground_share(Cases(), ignore_label=9) == (pytest.approx(2 / 6), 2)
    assert foreground_share(Cases()) == (pytest.approx(4 / 8), 2)


def test_balanced_start_goes_on_after_a_stop_in_its_midst(trainer_factory, planned_dataset, monkeypatch):
    monkeypatch.setattr(loss_trainer, "PLENTY", 1.0)

    first = trainer_factory(StoppedTrainer, planned_dataset)
    first.save_every, first.num_epochs = 1, 12  # so 6 iterations at most
    with pytest.raises(KeyboardInterrupt):
        first.run_training()
    second = trainer_factory(nnUNetTrainerAPL, planned_dataset)
    second.num_epochs = 12
    maybe_load_checkpoint(second, continue_training=True, validation_only=False)
    assert second.balanced_start.progress() == first.balanced_start.progress()
    assert second.balanced_start.progress()["batches"] == 2
    phases = phases_of(second)
    second.run_training()
    assert [epoch for epoch, starting in phases if starting] == [1, 1, 2, 2]


def test_a_checkpoint_of_before_resumes_past_its_start(trainer_factory, planned_dataset):
    trainer = trainer_factory(nnUNetTrainerAPL, planned_dataset)
    trainer.run_training()
    path = f"{trainer.output_folder}/checkpoint_final.pth"
    checkpoint = torch.load(path, weights_only=False)
    del checkpoint["init_args"]["balanced_start"]
    torch.save(checkpoint, path)
    second = trainer_factory(nnUNetTrainerAPL, planned_dataset)
    maybe_load_checkpoint(second, continue_training=True, validation_only=False)
    assert second.balanced_start.iteration == 4
