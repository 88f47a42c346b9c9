"""How soft labels pass nnU-Net's augmentation: split off before it, merged into the target after it.

Between the two they are batchgeneratorsv2's ``regression_target``, which its spatial transforms interpolate
linearly.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from torch.nn.functional import interpolate

from nnunet_softlabel.soft_labels import IGNORED, SCALE


class SplitSoftLabel(BasicTransform):
    """Move the channels 1..C of the segmentation to ``regression_target``.

    Args:
        num_soft: C, the number of soft channels.
        keeps_hard: keep the hard channel (and a cascade's previous segmentation after it) as segmentation.
            Dropped, it costs no resampling.
        ignore_label: mark voxels of this hard label as `IGNORED` right away. Only where nothing is
            interpolated.
    """

    def __init__(self, num_soft: int, *, keeps_hard: bool, ignore_label: int | None = None) -> None:
        super().__init__()
        self.num_soft, self.keeps_hard, self.ignore_label = num_soft, keeps_hard, ignore_label

    def apply(self, data_dict: dict, **params: object) -> dict:
        """Split one sample."""
        stacked = data_dict.pop("segmentation")
        # padding is -1 in every channel; outside the image is background
        soft = stacked[1 : 1 + self.num_soft].clamp_min(0).float()
        if self.ignore_label is not None:
            soft = torch.where(stacked[:1] == self.ignore_label, IGNORED, soft)
        data_dict["regression_target"] = soft
        if self.keeps_hard:
            data_dict["segmentation"] = torch.cat([stacked[:1], stacked[1 + self.num_soft :]])
        return data_dict


class MergeSoftLabel(BasicTransform):
    """Make the training target of ``regression_target``: int16 multiples of 1 / `SCALE`, a tensor per scale.

    Mass that interpolation lost belongs to the background, which is 1 - sum and does not travel. Lower scales
    of deep supervision are area averages over the voxels that are not ignored.

    Args:
        scales: nnU-Net's deep supervision scales, or None.
        ignore_label: voxels of this label in the segmentation become `IGNORED`.
        keeps_hard: put the segmentation's channels before the soft ones, in the first tensor only.
        is_exclusive: channels are classes and sum to at most 1.
    """

    def __init__(
        self,
        scales: Sequence[Sequence[float]] | None,
        *,
        ignore_label: int | None = None,
        keeps_hard: bool = False,
        is_exclusive: bool = True,
    ) -> None:
        super().__init__()
        self.scales, self.ignore_label = scales, ignore_label
        self.keeps_hard, self.is_exclusive = keeps_hard, is_exclusive

    def apply(self, data_dict: dict, **params: object) -> dict:
        """Merge one sample."""
        soft = data_dict.pop("regression_target")
        hard = data_dict.pop("segmentation", None)
        is_valid = None
        if self.ignore_label is not None and hard is not None:
            is_valid = hard[:1] != self.ignore_label
        elif bool((soft[:1] < 0).any()):
            is_valid = soft[:1] >= 0
        soft = soft.clamp(0, SCALE)
        if self.is_exclusive and soft.shape[0] > 1:
            soft = soft * (SCALE / soft.sum(dim=0, keepdim=True).clamp_min(SCALE))
        if self.scales is None:
            targets = [quantised(soft, is_valid)]
        else:
            targets = [quantised(*area_average(soft, is_valid, scale)) for scale in self.scales]
        if self.keeps_hard:
            assert hard is not None
            targets[0] = torch.cat([hard.to(torch.int16), targets[0]])
        data_dict["segmentation"] = targets if self.scales is not None else targets[0]
        return data_dict


def area_average(
    soft: torch.Tensor, is_valid: torch.Tensor | None, scale: Sequence[float]
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Average ``(C, *spatial)`` over the voxels that fall into each voxel of a coarser grid, valid ones only.

    The coarse shape is nnU-Net's: ``round(size * scale)`` per axis.
    """
    shape = [round(size * factor) for size, factor in zip(soft.shape[1:], scale, strict=True)]
    if list(soft.shape[1:]) == shape:
        return soft, is_valid
    if is_valid is None:
        return _pool(soft, shape), None
    weight = _pool(is_valid.float(), shape)
    return _pool(soft * is_valid, shape) / weight.clamp_min(1e-6), weight > 0


def _pool(values: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    factors = [size // new for size, new in zip(values.shape[1:], shape, strict=True)]
    if all(new * factor == size for size, new, factor in zip(values.shape[1:], shape, factors, strict=True)):
        # whole factors, the usual case: averaging axis by axis over views is much faster
        for axis, factor in enumerate(factors, start=1):
            if factor > 1:
                values = values.unflatten(axis, (-1, factor)).mean(dim=axis + 1)
        return values
    return interpolate(values[None], list(shape), mode="area")[0]


def quantised(soft: torch.Tensor, is_valid: torch.Tensor | None) -> torch.Tensor:
    """Round to int16; invalid voxels are `IGNORED` in every channel."""
    result = soft.round().to(torch.int16)
    return result if is_valid is None else torch.where(is_valid, result, IGNORED)
