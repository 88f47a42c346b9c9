"""Losses on probabilistic targets; usable without nnU-Net. See docs/losses.md."""

from nnunet_softlabel.losses.active import (
    normalized_cross_entropy,
    normalized_focal_loss,
    normalized_kl_divergence,
)
from nnunet_softlabel.losses.balanced_start import BalancedStart
from nnunet_softlabel.losses.combination import (
    ACTIVE_OF_MODE,
    PASSIVE_OF_MODE,
    WeightedSum,
    active_passive_loss,
    class_balanced,
)
from nnunet_softlabel.losses.entropy import (
    brier_score,
    cross_entropy,
    generalized_cross_entropy,
    symmetric_cross_entropy,
)
from nnunet_softlabel.losses.fused.fused_loss import FusedSoftLoss
from nnunet_softlabel.losses.fused.terms import TermWeights
from nnunet_softlabel.losses.inputs import masked_mean, probabilities
from nnunet_softlabel.losses.passive import (
    mean_absolute_error,
    normalized_negative_cross_entropy,
    reverse_cross_entropy,
    total_variation,
)
from nnunet_softlabel.losses.region import (
    RegionSums,
    dice_semimetric_loss,
    noise_robust_dice_loss,
    soft_dice_loss,
)
from nnunet_softlabel.losses.registry import ACTIVE, LOSSES, PASSIVE, REGION_TERMS, VOXEL_TERMS, get_loss
from nnunet_softlabel.losses.targets import CompactTargetLoss, check_target, expand_target

__all__ = [
    "ACTIVE",
    "ACTIVE_OF_MODE",
    "LOSSES",
    "PASSIVE",
    "PASSIVE_OF_MODE",
    "REGION_TERMS",
    "VOXEL_TERMS",
    "BalancedStart",
    "CompactTargetLoss",
    "FusedSoftLoss",
    "RegionSums",
    "TermWeights",
    "WeightedSum",
    "active_passive_loss",
    "brier_score",
    "check_target",
    "class_balanced",
    "cross_entropy",
    "dice_semimetric_loss",
    "expand_target",
    "generalized_cross_entropy",
    "get_loss",
    "masked_mean",
    "mean_absolute_error",
    "noise_robust_dice_loss",
    "normalized_cross_entropy",
    "normalized_focal_loss",
    "normalized_kl_divergence",
    "normalized_negative_cross_entropy",
    "probabilities",
    "reverse_cross_entropy",
    "soft_dice_loss",
    "symmetric_cross_entropy",
    "total_variation",
]
