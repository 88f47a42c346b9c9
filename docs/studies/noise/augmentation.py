"""All of nnU-Net's training transforms, for the small networks of the study."""

from __future__ import annotations

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor

from docs.studies.shared.small_network import Augmentation


def nnunet_augmentation(size: int, seed: int) -> Augmentation:
    """nnU-Net's transforms of a square 2D patch with hard labels.

    They draw from NumPy's generator, which starts at ``seed``, and from PyTorch's, which a training starts.
    """
    transforms = nnUNetTrainer.get_training_transforms(
        (size, size), rotation_for_DA=(-np.pi, np.pi), deep_supervision_scales=None, mirror_axes=(0, 1),
        do_dummy_2d_data_aug=False, use_mask_for_norm=[False],
    )  # fmt: skip
    np.random.seed(seed)

    def augment(images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        is_object = (target[:, 1:] > 0.5).to(torch.int16)
        done = [
            transforms(image=image, segmentation=mask) for image, mask in zip(images, is_object, strict=True)
        ]
        masks = torch.stack([one["segmentation"] for one in done]).to(target.dtype)
        return torch.stack([one["image"] for one in done]), torch.cat([1 - masks, masks], dim=1)

    return augment
