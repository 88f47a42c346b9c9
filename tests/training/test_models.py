"""What nnU-Net does with trained models: best configuration, ensembles, sharing, pretraining."""

import pytest
import torch
from nnunetv2.run.run_training import maybe_load_checkpoint

from nnunet_softlabel.training.recipes import nnUNetTrainerAPL, nnUNetTrainerSoftCE
from nnunet_softlabel.training.trainer_path import trainer_path
from tests.training.conftest import REDUCED, in_fresh_process, make_trainer, seed_everything
from tests.training.test_stock_model import assert_same_prediction, model_and_image, predict


@pytest.fixture
def results_copy(trained_model, trainer_factory, tmp_path, monkeypatch):
    """The trained models where a test may add to them."""
    from shutil import copytree

    dataset, results = trained_model
    copytree(results, tmp_path / "results")
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    monkeypatch.setenv("nnUNet_extTrainer", trainer_path())
    return dataset


def test_best_configuration_and_ensemble_are_found(results_copy):
    from nnunetv2.evaluation.find_best_configuration import find_best_configuration

    models = [
        {"plans": REDUCED, "configuration": configuration, "trainer": "nnUNetTrainerAPL"}
        for configuration in ("2d", "3d_fullres")
    ]
    found = find_best_configuration(results_copy.id, models, num_processes=1, folds=(0,))
    single = {f"nnUNetTrainerAPL__{REDUCED}__{model['configuration']}" for model in models}
    (ensemble,) = set(found["all_results"]) - single
    assert ensemble.startswith("ensemble___nnUNetTrainerAPL")
    assert single < set(found["all_results"])


def test_model_travels_as_a_zip(results_copy, trained_model, tmp_path, monkeypatch):
    """``nnUNetv2_export_model_to_zip`` here, ``nnUNetv2_install_pretrained_model_from_zip`` there."""
    from nnunetv2.model_sharing.model_export import export_pretrained_model
    from nnunetv2.model_sharing.model_import import install_model_from_zip_file

    model, image = model_and_image(trained_model, "3d_fullres")
    archive = tmp_path / "model.zip"
    export_pretrained_model(
        results_copy.id, str(archive), ("3d_fullres",), "nnUNetTrainerAPL", REDUCED, folds=(0,)
    )
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "elsewhere"))
    install_model_from_zip_file(str(archive))
    installed = tmp_path / "elsewhere" / results_copy.name / model.name
    assert_same_prediction(predict(model, image, tmp_path / "a"), predict(installed, image, tmp_path / "b"))


def test_pretrained_weights_are_taken_but_for_the_last_layers(
    trained_model, trainer_factory, tmp_path, monkeypatch
):
    dataset, _ = trained_model
    model, _ = model_and_image(trained_model, "3d_fullres")
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    trainer = trainer_factory(nnUNetTrainerSoftCE, dataset)
    checkpoint = model / "fold_0/checkpoint_final.pth"
    maybe_load_checkpoint(trainer, False, False, str(checkpoint))
    pretrained = torch.load(checkpoint, weights_only=False)["network_weights"]
    weights = trainer.network.state_dict()
    assert all(torch.equal(weights[key], pretrained[key]) for key in weights if ".seg_layers." not in key)
    assert any(not torch.equal(weights[key], pretrained[key]) for key in weights if ".seg_layers." in key)
    trainer.num_epochs = 1
    trainer.run_training()


class _Reseeding(nnUNetTrainerAPL):
    """nnU-Net stores no random state: begin every epoch from a seed of its own."""

    def on_epoch_start(self):
        super().on_epoch_start()
        seed_everything(100 + self.current_epoch)


class _Killed(_Reseeding):
    def on_epoch_end(self):
        import os

        super().on_epoch_end()
        if self.current_epoch == 2:
            os._exit(9)


_Killed.__name__ = _Reseeding.__name__


def _train_seeded(trainer_class, dataset, *, continues=False):
    seed_everything(7)
    trainer = make_trainer(trainer_class, dataset)
    trainer.num_epochs, trainer.save_every = 4, 1
    maybe_load_checkpoint(trainer, continues, False)
    trainer.run_training()
    return trainer.logger.get_checkpoint()


def test_training_goes_on_after_a_kill_as_if_uninterrupted(
    trainer_factory, planned_dataset, tmp_path, monkeypatch
):
    whole = _train_seeded(_Reseeding, planned_dataset)
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "killed"))
    process = in_fresh_process(_train_seeded, _Killed, planned_dataset)
    process.join(300)
    assert process.exitcode == 9
    resumed = _train_seeded(_Reseeding, planned_dataset, continues=True)
    for curve in ("train_losses", "val_losses"):
        assert resumed[curve] == pytest.approx(whole[curve], rel=1e-3)
    assert resumed["mean_fg_dice"] == pytest.approx(whole["mean_fg_dice"], rel=1e-2)
