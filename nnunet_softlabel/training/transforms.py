"""How soft labels pass nnU-Net's augmentation: split off before it, merged into the target after it.

Between the two they are batchgeneratorsv2's ``regression_target``, which its spatial transforms interpolate
linearly.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from torch.nn.functional import interpolate

from nnunet_softlabel.boxes import Box
from nnunet_softlabel.formats.encoding import IGNORED, SCALE
from nnunet_softlabel.training.records import OfNnunet
from nnunet_softlabel.training.sparse_labels import positive_boxes, positive_floats, zeros


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
        soft = positive_floats(stacked[1 : 1 + self.num_soft])  # padding is -1; as a label it is background
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
        scales: Sequence[Sequence[float] | None] = self.scales or [None]
        if is_valid is None:
            targets = sparse_targets(soft, scales, is_exclusive=self.is_exclusive)
        else:
            soft = soft.clamp_(0, SCALE)
            if self.is_exclusive and soft.shape[0] > 1:
                # linear interpolation keeps the sum below 1; other transforms need not
                total = soft.sum(dim=0, keepdim=True)
                if total.max() > SCALE + 1:
                    soft *= SCALE / total.clamp_min(SCALE)
            targets = [quantised(*scaled) for scaled in area_averages(soft, is_valid, scales)]
        if self.keeps_hard:
            assert hard is not None
            targets[0] = torch.cat([hard.to(torch.int16), targets[0]])
        data_dict["segmentation"] = targets if self.scales is not None else targets[0]
        return data_dict


def sparse_targets(
    soft: torch.Tensor, scales: Sequence[Sequence[float] | None], *, is_exclusive: bool
) -> list[torch.Tensor]:
    """The targets of every scale where no voxel is ignored; only the boxes of what is positive are looked at.

    Args:
        soft: ``(C, *spatial)``, in multiples of 1 / `SCALE`.
        scales: nnU-Net's deep supervision scales; None is the full grid.
        is_exclusive: channels are classes and sum to at most 1.

    Returns:
        int16 ``(C, *spatial of the scale)`` per scale.
    """
    shapes = [scaled_shape(soft.shape[1:], scale) for scale in scales]
    found = [
        (channel, box, soft[channel][box][None].clamp(0, SCALE))
        for channel, positive in positive_boxes(soft)
        for box in [aligned(positive, soft.shape[1:], shapes)]
    ]
    total = zeros(soft.shape[1:], torch.float32)
    if is_exclusive and len(found) > 1:
        for _, box, values in found:
            total[box] += values[0]
    # linear interpolation keeps the sum below 1; other transforms need not
    is_above = any(bool(total[box].max() > SCALE + 1) for _, box, _ in found)
    targets = [zeros((soft.shape[0], *shape), torch.int16) for shape in shapes]
    for channel, box, values in found:
        if is_above:
            values = values * (SCALE / total[box].clamp_min(SCALE))
        averages = area_averages(values, None, scales)
        for target, shape, (average, _) in zip(targets, shapes, averages, strict=True):
            target[channel][_scaled_box(box, soft.shape[1:], shape)] = quantised(average[0], None)
    return targets


def scaled_shape(shape: Sequence[int], scale: Sequence[float] | None) -> list[int]:
    """The shape of a deep supervision scale of nnU-Net: ``round(size * scale)``; None is the full grid."""
    return [round(size * factor) for size, factor in zip(shape, scale or [1] * len(shape), strict=True)]


def aligned(box: Box, shape: Sequence[int], coarser: Sequence[Sequence[int]]) -> Box:
    """A box made so large that its area averages are those of the whole grid."""
    sides: list[slice] = []
    for axis, (side, size) in enumerate(zip(box, shape, strict=True)):
        if any(size % new[axis] for new in coarser):
            sides.append(slice(0, size))
            continue
        step = math.lcm(*(size // new[axis] for new in coarser))
        sides.append(slice(side.start // step * step, min(-(-side.stop // step) * step, size)))
    return tuple(sides)


def _scaled_box(box: Box, shape: Sequence[int], new_shape: Sequence[int]) -> Box:
    """Where an `aligned` box lies on a coarser grid."""
    sides = zip(box, shape, new_shape, strict=True)
    return tuple(slice(side.start * new // size, side.stop * new // size) for side, size, new in sides)


def area_averages(
    soft: torch.Tensor, is_valid: torch.Tensor | None, scales: Sequence[Sequence[float] | None]
) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
    """Average ``(C, *spatial)`` over the voxels that fall into each voxel of coarser grids, valid ones only.

    The coarse shapes are those of `scaled_shape`.
    """
    finer = soft
    for scale in scales:
        shape = scaled_shape(soft.shape[1:], scale)
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
