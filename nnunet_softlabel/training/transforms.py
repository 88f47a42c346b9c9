"""How soft labels pass nnU-Net's augmentation: split off before it, merged into the target after it.

Between the two they are batchgeneratorsv2's ``regression_target``, which its spatial transforms interpolate
linearly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from torch.nn.functional import interpolate

from nnunet_softlabel.formats.encoding import IGNORED, SCALE
from nnunet_softlabel.training.records import OfNnunet


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

    def apply(self, data_dict: OfNnunet, **params: object) -> OfNnunet:
        """Split one sample."""
        stacked = data_dict.pop("segmentation")
        # padding is -1 in every channel, next to nothing: `MergeSoftLabel` makes it 0, background
        soft = stacked[1 : 1 + self.num_soft].float()
        if self.ignore_label is not None:
            soft = torch.where(stacked[:1] == self.ignore_label, IGNORED, soft.clamp_(min=0))
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
        is_marked: ignored voxels are marked in the regression target, as `SplitSoftLabel` does without
            interpolation.
        keeps_hard: put the segmentation's channels before the soft ones, in the first tensor only.
        is_exclusive: channels are classes and sum to at most 1.
    """

    def __init__(
        self,
        scales: Sequence[Sequence[float]] | None,
        *,
        ignore_label: int | None = None,
        is_marked: bool = False,
        keeps_hard: bool = False,
        is_exclusive: bool = True,
    ) -> None:
        super().__init__()
        self.scales, self.ignore_label, self.is_marked = scales, ignore_label, is_marked
        self.keeps_hard, self.is_exclusive = keeps_hard, is_exclusive

    def apply(self, data_dict: OfNnunet, **params: object) -> OfNnunet:
        """Merge one sample."""
        soft = data_dict.pop("regression_target")
        hard = data_dict.pop("segmentation", None)
        is_valid = None
        if self.ignore_label is not None and hard is not None:
            is_valid = hard[:1] != self.ignore_label
        elif self.is_marked:
            is_valid = soft[:1] >= 0
        soft = soft.clamp_(0, SCALE)
        if self.is_exclusive and soft.shape[0] > 1:
            # linear interpolation keeps the sum below 1; other transforms need not
            total = soft.sum(dim=0, keepdim=True)
            if total.max() > SCALE + 1:
                soft *= SCALE / total.clamp_min(SCALE)
        targets = [quantised(*scaled) for scaled in area_averages(soft, is_valid, self.scales or [None])]
        if self.keeps_hard:
            assert hard is not None
            targets[0] = torch.cat([hard.to(torch.int16), targets[0]])
        data_dict["segmentation"] = targets if self.scales is not None else targets[0]
        return data_dict


def area_averages(
    soft: torch.Tensor, is_valid: torch.Tensor | None, scales: Sequence[Sequence[float] | None]
) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
    """Average ``(C, *spatial)`` over the voxels that fall into each voxel of coarser grids, valid ones only.

    The coarse shapes are nnU-Net's: ``round(size * scale)`` per axis; a scale of None is the full grid.
    """
    finer = soft
    for scale in scales:
        factors = scale or [1] * (soft.ndim - 1)
        shape = [round(size * factor) for size, factor in zip(soft.shape[1:], factors, strict=True)]
        if list(soft.shape[1:]) == shape:
            yield soft, is_valid
        elif is_valid is not None:
            weight = _pool(is_valid.float(), shape)
            yield _pool(soft * is_valid, shape) / weight.clamp_min(1e-6), weight > 0
        else:
            # an average of averages over equally many voxels is their average, and the finer grid is smaller
            is_nested = all(size % new == 0 for size, new in zip(finer.shape[1:], shape, strict=True))
            finer = _pool(finer if is_nested else soft, shape)
            yield finer, None


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
