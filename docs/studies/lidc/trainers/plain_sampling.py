"""The default without one of its parts; nnU-Net takes it with this folder on ``nnUNet_extTrainer``."""

from nnunet_softlabel.training.recipes import nnUNetTrainerSoftCE


class nnUNetTrainerSoftCEPlainSampling(nnUNetTrainerSoftCE):
    """Patches are drawn at voxels of the consensus only, as by stock nnU-Net."""

    oversamples_disputed = False
