"""The losses by name; tests and the table in docs/losses.md read these dicts."""

from collections.abc import Callable
from functools import partial

from torch import Tensor

from .active import normalized_cross_entropy, normalized_focal_loss, normalized_kl_divergence
from .entropy import brier_score, cross_entropy, generalized_cross_entropy, symmetric_cross_entropy
from .passive import (
    mean_absolute_error,
    normalized_negative_cross_entropy,
    reverse_cross_entropy,
    total_variation,
)
from .region import dice_semimetric_loss, noise_robust_dice_loss, soft_dice_loss

Loss = Callable[..., Tensor]

ACTIVE: dict[str, Loss] = {
    "nce": normalized_cross_entropy,
    "nfl": normalized_focal_loss,
    "nfl_detached": partial(normalized_focal_loss, detach_weight=True),
    "nkl": normalized_kl_divergence,
}
PASSIVE: dict[str, Loss] = {
    "mae": mean_absolute_error,
    "rce": reverse_cross_entropy,
    "tv": total_variation,
    "nnce": normalized_negative_cross_entropy,
}
VOXEL_TERMS: dict[str, Loss] = {
    **ACTIVE,
    **PASSIVE,
    "ce": cross_entropy,
    "sce": symmetric_cross_entropy,
    "gce": generalized_cross_entropy,
    "brier": brier_score,
}
REGION_TERMS: dict[str, Loss] = {
    "dml": dice_semimetric_loss,
    "nr_dice": noise_robust_dice_loss,
    "soft_dice": soft_dice_loss,
}
LOSSES: dict[str, Loss] = {**VOXEL_TERMS, **REGION_TERMS}


def get_loss(name: str) -> Loss:
    """The loss of that name.

    >>> get_loss("gce").__name__
    'generalized_cross_entropy'
    """
    if name not in LOSSES:
        raise ValueError(f"Unknown loss {name!r}; choose from {sorted(LOSSES)}.")
    return LOSSES[name]
