"""The default with another ending; nnU-Net takes it with this folder on ``nnUNet_extTrainer``."""

from nnunet_softlabel.training.recipes import nnUNetTrainerSoftCE


class nnUNetTrainerSoftCELastFifth(nnUNetTrainerSoftCE):
    """Cross entropy alone in the last fifth of the epochs."""

    def on_epoch_start(self) -> None:
        """Swap the loss when the last fifth begins, or goes on after a stop."""
        super().on_epoch_start()
        start = self.balanced_start
        if self.current_epoch >= 0.8 * self.num_epochs and start is not None:
            start.settled = self.fused_loss(dml=0.0, nkl=0.0, tv=0.0)
