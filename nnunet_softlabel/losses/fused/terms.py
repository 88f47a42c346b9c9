"""What the two ways to compute the fused loss share: its options, and its region term from sums."""

from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from nnunet_softlabel.losses.inputs import check_weights
from nnunet_softlabel.losses.region import RegionSums


@dataclass(frozen=True)
class TermWeights:
    """What each term of a `FusedSoftLoss` is multiplied with; 0 leaves the term out.

    >>> TermWeights(nkl=0.0, tv=0.0).ce
    1.0

    Attributes:
        dml: of the Dice semimetric loss, over foreground channels.
        ce: of the cross entropy.
        nkl: of the active term, the normalised KL divergence.
        tv: of the passive term, the total variation.

    Raises:
        ValueError: for a weight below 0.
    """

    dml: float = 1.0
    ce: float = 1.0
    nkl: float = 1.0
    tv: float = 1.0

    def __post_init__(self) -> None:
        named = {"dml": self.dml, "ce": self.ce, "nkl": self.nkl, "tv": self.tv}
        check_weights(**{f"weights: {name}": weight for name, weight in named.items()})


@dataclass(frozen=True)
class FusedOptions:
    """The settings of a ``FusedSoftLoss``; see there."""

    weights: TermWeights
    sums: RegionSums
    sigmoid: bool = False
    has_ignore: bool = False
    balanced: bool = False


@dataclass(frozen=True)
class DistanceTerms:
    """DML plus TV, which are made of ``|p - q|``: their value, and their derivative by p.

    That derivative is ``slope * sign(p - q) - shift`` with one slope and one shift per channel, ``(B, G)``:
    DML is a ratio of sums, and these two are all that a voxel has to know of the others.
    """

    value: Tensor
    slope: Tensor
    shift: Tensor


def distance_terms(
    distance: Tensor,
    total: Tensor,
    options: FusedOptions,
    *,
    first: int,
    tv_slope: Tensor | float,
) -> DistanceTerms:
    """DML plus TV from the sums over space.

    Args:
        distance: ``(B, G)``, sum of ``|p - q|``.
        total: ``(B, G)``, sum of ``p + q``.
        options: weights and settings.
        first: the first channel that DML counts; TV counts all.
        tv_slope: what TV multiplies ``|p - q|`` with, the same for all voxels.
    """
    value = tv_slope * distance.sum()
    region_distance, region_total = distance[:, first:], total[:, first:]
    processes = 1
    if options.sums.batch_dice:
        region_distance, region_total = region_distance.sum(0, True), region_total.sum(0, True)
        if options.sums.ddp:
            sums = torch.stack([region_distance, region_total])
            distributed.all_reduce(sums)
            region_distance, region_total = sums
            processes = distributed.get_world_size()
    denominator = (region_total + options.sums.smooth).clamp_min(1e-8)
    ratio = region_distance / denominator
    # The other processes' losses hold our sums too and, with nnU-Net's AllGatherGrad, send their gradient.
    slope = options.weights.dml * processes / (ratio.numel() * denominator)
    slopes, shifts = torch.zeros_like(distance), torch.zeros_like(distance)
    slopes[:, first:], shifts[:, first:] = slope, slope * ratio
    return DistanceTerms(value + options.weights.dml * ratio.mean(), slopes + tv_slope, shifts)
