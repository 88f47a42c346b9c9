"""The trainers: each states its loss, nothing else. nnU-Net names result folders after the class."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from nnunet_softlabel.losses import WeightedSum, active_passive_loss, cross_entropy, dice_semimetric_loss
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
            (1.0, partial(dice_semimetric_loss, **self.loss_options)),
            (1.0, partial(active_passive_loss, mode="expectation")),
        )


class nnUNetTrainerAPLNoDice(SoftLabelTrainer):
    """Consistent active-passive loss alone, after Felfeliyan et al. 2022; may collapse on small lesions."""

    def build_soft_loss(self) -> Callable[..., Tensor]:
        """The recipe."""
        return self.fused_loss(weight_dml=0.0, weight_ce=0.0)


class nnUNetTrainerSoftCE(SoftLabelTrainer):
    """DML + cross entropy on soft targets, class-balanced at the start: soft labels, no noise-robust loss."""

    def build_soft_loss(self) -> Callable[..., Tensor]:
        """The recipe."""
        return self.with_balanced_start(self.fused_loss(weight_nkl=0.0, weight_tv=0.0))


class nnUNetTrainerHardAPL(HardLabelTrainer):
    """The loss of `nnUNetTrainerAPL` on the hard consensus: a noise-robust loss without soft labels."""

    def build_soft_loss(self) -> Callable[..., Tensor]:
        """The recipe."""
        return self.with_balanced_start(self.fused_loss())


class nnUNetTrainerHardBCE(HardLabelTrainer):
    """Cross entropy on the hard consensus: the baseline of Felfeliyan et al. 2022."""

    def build_soft_loss(self) -> Callable[..., Tensor]:
        """The recipe."""
        return cross_entropy
