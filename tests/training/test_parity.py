"""With one-hot soft labels everything nnU-Net sees is what it sees without us."""

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_softlabel.formats.encoding import SCALE
from nnunet_softlabel.training.recipes import nnUNetTrainerAPL, nnUNetTrainerHardAPL
from nnunet_softlabel.training.trainer import SoftLabelTrainer
from tests.training.conftest import batches, seed_everything


@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
def test_images_and_hard_validation_labels_are_bit_equal_to_stock(
    trainer_factory, planned_unanimous_dataset, configuration
):
    stock_train, stock_val = batches(trainer_factory(nnUNetTrainer, planned_unanimous_dataset, configuration))
    ours_train, ours_val = batches(
        trainer_factory(nnUNetTrainerAPL, planned_unanimous_dataset, configuration)
    )
    for stock, ours in zip(stock_train + stock_val, ours_train + ours_val, strict=True):
        assert list(stock["keys"]) == list(ours["keys"])
        assert torch.equal(stock["data"], ours["data"])
    for stock, ours in zip(stock_val, ours_val, strict=True):
        assert torch.equal(stock["target"][0], ours["target"][0][:, :1])


def test_soft_target_is_the_one_hot_label_where_nothing_was_interpolated(
    trainer_factory, planned_unanimous_dataset
):
    stock_train, _ = batches(trainer_factory(nnUNetTrainer, planned_unanimous_dataset), 8)
    ours_train, _ = batches(trainer_factory(nnUNetTrainerAPL, planned_unanimous_dataset), 8)
    compared = 0
    for stock, ours in zip(stock_train, ours_train, strict=True):
        for hard, soft in zip(stock["target"][0], ours["target"][0], strict=True):
            is_one_hot = ((soft == 0) | (soft == SCALE)).all(dim=0)
            classes = torch.arange(1, soft.shape[0] + 1).view(-1, 1, 1, 1)
            expected = (hard == classes).short() * SCALE
            assert torch.equal(soft[:, is_one_hot], expected[:, is_one_hot])
            compared += int((is_one_hot & (hard[0] > 0)).sum())
    assert compared > 1000


def test_soft_target_has_the_volume_of_the_hard_label_after_augmentation(
    trainer_factory, planned_unanimous_dataset
):
    stock_train, _ = batches(trainer_factory(nnUNetTrainer, planned_unanimous_dataset), 8)
    ours_train, _ = batches(trainer_factory(nnUNetTrainerAPL, planned_unanimous_dataset), 8)
    hard = np.array([[(b["target"][0] == c).sum() for c in (1, 2)] for b in stock_train])
    soft = np.array([b["target"][0].sum(dim=(0, 2, 3, 4)).numpy() / SCALE for b in ours_train])
    np.testing.assert_allclose(soft, hard, rtol=0.05, atol=30)


class _StockLossOnSoftLabels(SoftLabelTrainer):
    """Stock's Dice + CE on probabilities; on one-hot targets the same function."""

    def build_soft_loss(self):
        from functools import partial

        from nnunet_softlabel.losses import WeightedSum, cross_entropy, soft_dice_loss

        return WeightedSum((1.0, partial(soft_dice_loss, sums=self.region_sums)), (1.0, cross_entropy))


class _NoSpatial:
    """Leaves out deep supervision, mirroring and the spatial transform, where targets differ by design."""

    def __init__(self, plans, configuration, fold, dataset_json, device):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.enable_deep_supervision = False

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self):  # noqa: N802
        _, dummy, _, axes = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        return (0.0, 0.0), dummy, tuple(self.configuration_manager.patch_size), axes


@pytest.mark.parametrize("ours", [_StockLossOnSoftLabels, nnUNetTrainerHardAPL], ids=["soft", "hard"])
def test_one_step_with_stocks_loss_gives_stocks_weights(
    trainer_factory, planned_unanimous_dataset, monkeypatch, ours
):
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform

    if ours is nnUNetTrainerHardAPL:
        fused = nnUNetTrainerHardAPL.fused_loss
        monkeypatch.setattr(
            nnUNetTrainerHardAPL, "build_soft_loss", lambda self: fused(self, nkl=0.0, tv=0.0)
        )
    unchanged = SpatialTransform.get_parameters

    def identity(self, **data):
        return {**unchanged(self, **data), "grid": None}

    monkeypatch.setattr(SpatialTransform, "get_parameters", identity)
    weights = []
    for base in (nnUNetTrainer, ours):
        trainer_class = type(base.__name__, (_NoSpatial, base), {})
        seed_everything(5)
        trainer = trainer_factory(trainer_class, planned_unanimous_dataset)
        trainer.initialize()
        seed_everything(6)
        train, _ = trainer.get_dataloaders()
        batch = next(train)
        trainer.set_deep_supervision_enabled(False)
        loss = trainer.train_step(batch)["loss"]
        weights.append((loss, [p.detach().clone() for p in trainer.network.parameters()]))
    (stock_loss, stock), (our_loss, mine) = weights
    # soft Dice and DML are 1 minus nnU-Net's negative Dice
    assert our_loss == pytest.approx(stock_loss + 1, abs=1e-4)
    for a, b in zip(stock, mine, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
