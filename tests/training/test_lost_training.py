"""Losses that are not a number: networks without a resolution to learn from, and trainings that fail."""

from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.files import read_json, write_json
from nnunet_softlabel.training.budget import Budget
from nnunet_softlabel.training.recipes import nnUNetTrainerHardAPL, nnUNetTrainerSoftCE
from nnunet_softlabel.training.run import train
from tests.training.conftest import REDUCED, log_text


def stages_of(dataset, number: int) -> dict:
    """What a plan holds for a network of so many resolution stages."""
    plan = read_json(dataset.preprocessed / f"{REDUCED}.json")["configurations"]["3d_fullres"]
    network = plan["architecture"]["arch_kwargs"]
    network["n_stages"] = number
    for key in ("strides", "kernel_sizes", "features_per_stage", "n_conv_per_stage"):
        network[key] = network[key][:number]
    network["n_conv_per_stage_decoder"] = network["n_conv_per_stage_decoder"][: number - 1]
    return {"architecture": plan["architecture"]}


@pytest.mark.parametrize("recipe", [nnUNetTrainerSoftCE, nnUNetTrainerHardAPL])
def test_our_trainers_learn_with_two_stages(trainer_factory, planned_dataset, recipe):
    """nnU-Net weighs the only output of such a network 0 / 0."""
    trainer = trainer_factory(recipe, planned_dataset, changes=stages_of(planned_dataset, 2))
    trainer.run_training()
    assert np.isfinite(trainer.logger.get_value("train_losses", step=None)).all()
    assert trainer.loss.weight_factors == (1.0,)
    assert "two resolution stages: its only output has the weight 1" in log_text(trainer)


def test_three_stages_keep_the_weights_of_nnunet(trainer_factory, planned_dataset):
    ours, stock = (
        trainer_factory(trainer, planned_dataset, changes=stages_of(planned_dataset, 3))
        for trainer in (nnUNetTrainerSoftCE, nnUNetTrainer)
    )
    ours.initialize()
    stock.initialize()
    assert ours.loss.weight_factors == stock.loss.weight_factors == (1.0, 0.0)


def test_a_network_of_one_stage_is_refused(trainer_factory, planned_dataset):
    trainer = trainer_factory(nnUNetTrainerSoftCE, planned_dataset, changes=stages_of(planned_dataset, 1))
    with pytest.raises(DatasetError, match=r"3d_fullres: a network of one resolution stage has no output"):
        trainer.initialize()


def test_nnunets_own_trainer_is_not_trained_with_two_stages(
    trainer_factory, planned_dataset, tmp_path, monkeypatch
):
    dataset = planned_dataset.copy_to(tmp_path, monkeypatch)
    path = dataset.preprocessed / f"{REDUCED}.json"
    plan = read_json(path)
    plan["configurations"]["3d_fullres"].update(stages_of(dataset, 2))
    write_json(path, plan)
    with (
        pytest.warns(RuntimeWarning, match="invalid value"),
        pytest.raises(
            DatasetError,
            match=r"with two resolution stages the loss of nnUNetTrainer is not a number; .*reduce",
        ),
    ):
        train(dataset.id, "3d_fullres", 0, "nnUNetTrainer", plans=REDUCED, budget=Budget(1, 1, "cpu"))


class NeverFinite(nnUNetTrainerSoftCE):
    def build_soft_loss(self):
        return lambda logits, target, **options: logits.sum() * torch.nan


class LosesItsWeights(nnUNetTrainerSoftCE):
    """The last step of the first epoch spoils the network: its loss was still a number."""

    def on_train_epoch_end(self, train_outputs):
        with torch.no_grad():
            next(self.network.parameters()).fill_(torch.inf)
        super().on_train_epoch_end(train_outputs)


class SkipsAStep(nnUNetTrainerSoftCE):
    """As in mixed precision: no weight follows a gradient that is not finite."""

    def train_step(self, batch):
        is_first = not hasattr(self, "has_skipped")
        self.has_skipped = True
        return {"loss": np.array(np.inf)} if is_first else super().train_step(batch)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (NeverFinite, "NeverFinite, epoch 0: no step has a finite loss.*hold values that are no numbers"),
        (LosesItsWeights, "epoch 0: weights are no longer finite numbers.*lower learning rate"),
    ],
)
def test_a_training_that_is_lost_ends_without_a_checkpoint(trainer_factory, planned_dataset, recipe, message):
    trainer = trainer_factory(recipe, planned_dataset)
    with pytest.raises(DatasetError, match=message):
        trainer.run_training()
    assert not list(Path(trainer.output_folder).glob("checkpoint_*.pth"))


def test_steps_that_mixed_precision_skips_do_no_harm(trainer_factory, planned_dataset):
    trainer = trainer_factory(SkipsAStep, planned_dataset)
    trainer.run_training()
    assert "1 of 2 steps had no finite loss; they changed no weight" in log_text(trainer)
    assert (Path(trainer.output_folder) / "checkpoint_final.pth").is_file()


def test_a_training_of_nnunets_own_that_is_lost_is_told(trainer_factory, planned_dataset, monkeypatch):
    """On a GPU the weights stay the random ones of the start, and predictions look like probabilities."""
    monkeypatch.setattr(nnUNetTrainer, "train_step", lambda self, batch: {"loss": np.array(np.nan)})
    with pytest.raises(DatasetError, match=r"fold_0: nnUNetTrainer has learned nothing"):
        train(planned_dataset.id, "3d_fullres", 0, "nnUNetTrainer", plans=REDUCED, budget=Budget(1, 1, "cpu"))
