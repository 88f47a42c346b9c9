"""The trainers: each states its loss, nothing else. nnU-Net names result folders after the class."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from nnunet_softlabel.losses import WeightedSum, active_passive_loss, cross_entropy, dice_semimetric_loss
from nnunet_softlabel.training.fine_tuning import StartsFromModel
from nnunet_softlabel.training.loss_trainer import LossTrainer
from nnunet_softlabel.training.trainer import HardLabelTrainer, SoftLabelTrainer


class nnUNetTrainerAPL(SoftLabelTrainer):
    """DML + CE + consistent active-passive loss (NKL + TV), class-balanced at the start.

    Without that start the active-passive terms learn small lesions late or never: docs/losses.md, study.
    """

    def build_soft_loss(self) -> Callable[..., Tensor]:
        """The recipe."""
        return self.with_balanced_start(self.fused_loss())


class nnUNetTrainerAPLExpectation(SoftLabelTrainer):
    """DML + linear active-passive loss (NCE + MAE): keeps the noise tolerance theorem, mode seeking."""

    def build_soft_loss(self) -> Callable[..., Tensor]:
        """The recipe."""
        return WeightedSum(
            (1.0, partial(dice_semimetric_loss, sums=self.region_sums)),
            (1.0, partial(active_passive_loss, mode="expectation")),
        )


class nnUNetTrainerAPLNoDice(SoftLabelTrainer):
    """Consistent active-passive loss alone, after Felfeliyan et al. 2022; may collapse on small lesions."""

    def build_soft_loss(self) -> Callable[..., Tensor]:
        """The recipe."""
        return self.fused_loss(dml=0.0, ce=0.0)


class nnUNetTrainerSoftCE(SoftLabelTrainer):
    """DML + cross entropy on soft targets, class-balanced at the start: soft labels, no noise-robust loss."""

    def build_soft_loss(self) -> Callable[..., Tensor]:
        """The recipe."""
        return self.with_balanced_start(self.fused_loss(nkl=0.0, tv=0.0))


class nnUNetTrainerHardAPL(HardLabelTrainer):
    """The loss of `nnUNetTrainerAPL` on the hard consensus: a noise-robust loss without soft labels."""

    def build_soft_loss(self) -> Callable[..., Tensor]:
        """The recipe."""
        return self.with_balanced_start(self.fused_loss())


class nnUNetTrainerHardAPLNoCE(HardLabelTrainer):
    """DML + NKL + TV on the hard consensus: for one reader who draws lesions that are none.

    Without cross entropy, which fits every wrong voxel in the end. The regime is that of docs/studies/noise.
    """

    def build_soft_loss(self) -> Callable[..., Tensor]:
        """The recipe."""
        return self.with_balanced_start(self.fused_loss(ce=0.0))


class nnUNetTrainerHardBCE(HardLabelTrainer):
    """Cross entropy on the hard consensus: the baseline of Felfeliyan et al. 2022."""

    def build_soft_loss(self) -> Callable[..., Tensor]:
        """The recipe."""
        return cross_entropy


class nnUNetTrainerSoftCEFineTune(StartsFromModel, SoftLabelTrainer):
    """DML + cross entropy on soft targets, from a trained stock model: 300 epochs, a tenth of the rate.

    ``nnUNetv2_train 501 3d_fullres 0 -tr nnUNetTrainerSoftCEFineTune -pretrained_weights CHECKPOINT``, the
    checkpoint of the same fold. No balanced start: the model has left all-background. Rate and length were
    chosen inside nnU-Net (docs/studies/lidc).
    """

    epochs = 300
    learning_rate = 1e-3

    def build_soft_loss(self) -> Callable[..., Tensor]:
        """The recipe."""
        return self.fused_loss(nkl=0.0, tv=0.0)


def _with_epochs(recipe: type[LossTrainer], epochs: int) -> type[LossTrainer]:
    """The recipe for so many epochs, named as nnU-Net names its own: ``nnUNetTrainerSoftCE_5epochs``."""
    name = f"{recipe.__name__}_{epochs}epoch{'' if epochs == 1 else 's'}"
    about = f"`{recipe.__name__}` for {epochs} epochs instead of {recipe.epochs or 1000}."
    return type(name, (recipe,), {"__module__": __name__, "__doc__": about, "epochs": epochs})


# those of nnU-Net's nnUNetTrainer_Xepochs.py
EPOCHS = (1, 5, 10, 20, 50, 100, 250, 500, 750, 2000, 4000, 8000)
RECIPES: tuple[type[LossTrainer], ...] = (
    nnUNetTrainerAPL,
    nnUNetTrainerAPLExpectation,
    nnUNetTrainerAPLNoDice,
    nnUNetTrainerSoftCE,
    nnUNetTrainerSoftCEFineTune,
    nnUNetTrainerHardAPL,
    nnUNetTrainerHardAPLNoCE,
    nnUNetTrainerHardBCE,
)
SHORTENED = {
    trainer.__name__: trainer for trainer in (_with_epochs(recipe, n) for recipe in RECIPES for n in EPOCHS)
}
TRAINERS: dict[str, type[LossTrainer]] = {**{recipe.__name__: recipe for recipe in RECIPES}, **SHORTENED}
globals().update(SHORTENED)  # where pickle looks for them
