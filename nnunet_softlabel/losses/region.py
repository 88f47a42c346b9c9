"""Region terms: ratios of sums over the whole patch, per channel.

``logits``, ``target``, ``mask`` and the result are those of ``active.py``. Further arguments of all three:

- ``sums``: over what voxels are summed, a `RegionSums`.
- ``include_background``: with softmax, count channel 0; with sigmoid every channel is foreground and counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .inputs import Activation, check_inputs, probabilities


@dataclass(frozen=True)
class RegionSums:
    """Over what a region term sums its voxels, as nnU-Net's Dice loss does.

    >>> RegionSums(batch_dice=True).ddp
    False

    Attributes:
        batch_dice: over the batch too, as nnU-Net does where its plan says so.
        smooth: added to the denominator (and, in the usual Dice, to the numerator).
        ddp: with ``batch_dice``, over the processes of ``torch.distributed`` too.
    """

    batch_dice: bool = False
    smooth: float = 1e-5
    ddp: bool = False


PER_SAMPLE = RegionSums()


def dice_semimetric_loss(
    logits: Tensor,
    target: Tensor,
    *,
    sums: RegionSums = PER_SAMPLE,
    include_background: bool = False,
    mask: Tensor | None = None,
    activation: Activation = "softmax",
) -> Tensor:
    """DML: mean over channels of ``sum |p - q| / (sum p + sum q + smooth)``, in ``[0, 1]`` [1].

    On one-hot targets it is 1 plus nnU-Net's ``MemoryEfficientSoftDiceLoss``; it is 0 only at ``p = q``,
    where the usual soft Dice prefers a thresholded q. Over raters drawn at random it leans to the median.

    >>> logits, target = torch.tensor([[[0.8], [0.2]]]).log(), torch.tensor([[[0.75], [0.25]]])
    >>> round(dice_semimetric_loss(logits, target).item(), 4)
    0.1111

    References:
        [1] Wang et al., "Dice Semimetric Losses: Optimizing the Dice Score with Soft Labels", MICCAI 2023.
    """
    p, q = _foreground(logits, target, mask, activation=activation, include_background=include_background)
    distance = (p - q).abs()
    distance_sum, total = _region_sums([distance, p + q], mask, sums)
    return (distance_sum / (total + sums.smooth).clamp_min(1e-8)).mean()


def noise_robust_dice_loss(
    logits: Tensor,
    target: Tensor,
    *,
    gamma: float = 1.5,
    sums: RegionSums = PER_SAMPLE,
    include_background: bool = False,
    mask: Tensor | None = None,
    activation: Activation = "softmax",
) -> Tensor:
    """Mean over channels of ``sum |p - q|**gamma / (sum p + sum q + smooth)``, in ``[0, 1]`` [1].

    ``gamma = 1`` is ``dice_semimetric_loss``; larger values, up to 2, weigh small differences less.

    >>> logits, target = torch.tensor([[[0.8], [0.2]]]).log(), torch.tensor([[[0.75], [0.25]]])
    >>> round(noise_robust_dice_loss(logits, target).item(), 4)
    0.0248

    References:
        [1] Wang et al., "A Noise-Robust Framework for Automatic Segmentation of COVID-19 Pneumonia Lesions
            From CT Images", IEEE TMI 2020 (COPLE-Net; the denominator as in its code, PyMIC).
    """
    if not 1 <= gamma <= 2:
        raise ValueError(f"gamma must lie in [1, 2], got {gamma}.")
    p, q = _foreground(logits, target, mask, activation=activation, include_background=include_background)
    distance = (p - q).abs().pow(gamma)
    distance_sum, total = _region_sums([distance, p + q], mask, sums)
    return (distance_sum / (total + sums.smooth).clamp_min(1e-8)).mean()


def soft_dice_loss(
    logits: Tensor,
    target: Tensor,
    *,
    sums: RegionSums = PER_SAMPLE,
    include_background: bool = False,
    mask: Tensor | None = None,
    activation: Activation = "softmax",
) -> Tensor:
    """The usual soft Dice loss, ``1 - (2 sum pq + smooth) / (sum p + sum q + smooth)``, for comparison [1].

    1 plus nnU-Net's Dice loss for any target. Not for soft targets: its minimiser thresholds them.

    >>> logits, target = torch.tensor([[[0.8], [0.2]]]).log(), torch.tensor([[[0.75], [0.25]]])
    >>> round(soft_dice_loss(logits, target).item(), 4)
    0.7778

    References:
        [1] Milletari et al., "V-Net", 3DV 2016; smoothing as in nnU-Net.
    """
    p, q = _foreground(logits, target, mask, activation=activation, include_background=include_background)
    overlap, total = _region_sums([p * q, p + q], mask, sums)
    return 1 - ((2 * overlap + sums.smooth) / (total + sums.smooth).clamp_min(1e-8)).mean()


def _foreground(
    logits: Tensor, target: Tensor, mask: Tensor | None, *, activation: Activation, include_background: bool
) -> tuple[Tensor, Tensor]:
    """Probabilities and target of the channels that count."""
    check_inputs(logits, target, mask, activation)
    p = probabilities(logits, activation)
    first = 0 if include_background or activation == "sigmoid" else 1
    return p[:, first:], target[:, first:].to(p.dtype)


def _region_sums(per_voxel: Sequence[Tensor], mask: Tensor | None, over: RegionSums) -> list[Tensor]:
    """Sum each ``(B, C, *spatial)`` over space to ``(B, C)``, or over batch and processes too to ``(C,)``."""
    sums = [(x if mask is None else torch.where(mask, x, 0.0)).flatten(2).sum(dim=2) for x in per_voxel]
    if not over.batch_dice:
        return sums
    sums = [x.sum(dim=0) for x in sums]
    return [_sum_over_processes(x) for x in sums] if over.ddp else sums


@torch.compiler.disable  # communication ends a graph, so end it here
def _sum_over_processes(local: Tensor) -> Tensor:
    from nnunetv2.utilities.ddp_allgather import AllGatherGrad  # nnU-Net is needed here only

    return AllGatherGrad.apply(local).sum(dim=0)
