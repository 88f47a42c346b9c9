"""The control of the recipe; nnU-Net takes both with this folder on ``nnUNet_extTrainer``."""

from collections.abc import Callable

from torch import Tensor

from nnunet_softlabel.training.recipes import nnUNetTrainerHardAPLNoCE


class nnUNetTrainerHardDMLCE(nnUNetTrainerHardAPLNoCE):
    """Cross entropy in place of the active-passive terms; region term, start and label are the recipe's."""

    def build_soft_loss(self) -> Callable[..., Tensor]:
        """DML + CE with the balanced start."""
        return self.with_balanced_start(self.fused_loss(nkl=0.0, tv=0.0))
