"""The fusions on packed raters: voxel by voxel in chunks, or label by label in the box of marks.

Each gives what its function in `FUSIONS` gives of all votes at once (a test compares them), in a fraction of
the memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.cases.rater_maps import RaterMaps
from nnunet_softlabel.formats.packed import PackedMap, marked_chunks, stacked
from nnunet_softlabel.fusion import FUSIONS, RaterRates, RaterVotes
from nnunet_softlabel.fusion.rater_votes import share_excess
from nnunet_softlabel.fusion.shape import margin_of_shape, shape_of_channel
from nnunet_softlabel.fusion.smoothing import check_sigma, margin_of_smoothing, smoothed_channel
from nnunet_softlabel.fusion.voting import pair_overlaps, weights_of_overlaps

FuseChunk = Callable[[RaterVotes, tuple[int, ...]], NDArray[Any]]


def fuse_raters(raters: RaterMaps, method: str, options: Mapping[str, Any]) -> list[PackedMap]:
    """What ``FUSIONS[method]`` makes of the raters, one float32 map per channel.

    Args:
        raters: of one case.
        method: a name of `FUSIONS` but "lesion-wise".
        options: its keyword arguments.

    Raises:
        ValueError: if the fusion cannot work with these raters.
    """
    if method == "sba":
        return _shapes(raters, options)
    if method == "svls":
        return _smoothed(raters, options)
    _check(raters, method, options)
    if method == "staple":
        return _by_chunk(raters, _staple(raters, options))
    if options.get("weights", "agreement") == "agreement" and method == "weighted":
        options = {**options, "weights": _agreement_weights(raters)}
    fuse = FUSIONS[method]
    return _by_chunk(raters, lambda votes, channels: fuse(votes, **options))


def _check(raters: RaterMaps, method: str, options: Mapping[str, Any]) -> None:
    """Refuse wrong options also where nothing is marked."""
    nothing = np.zeros((len(raters.names), raters.n_channels, 1), bool)
    FUSIONS[method](RaterVotes(nothing, raters.names, spacing_mm=(1.0,)), **options)


def _by_chunk(raters: RaterMaps, fuse: FuseChunk) -> list[PackedMap]:
    soft = [PackedMap(raters.shape, np.float32) for _ in range(raters.n_channels)]
    for chunk in raters.chunks():
        if chunk.channels:
            fused = fuse(raters.raters_in(chunk), chunk.channels)
            for channel, values in zip(chunk.channels, fused, strict=True):
                soft[channel].put(chunk.index, values)
    return soft


def _agreement_weights(raters: RaterMaps) -> dict[str, float]:
    overlaps = np.zeros((len(raters.names), len(raters.names), 2), np.int64)
    for chunk in raters.chunks():
        if chunk.channels:
            overlaps += pair_overlaps(raters.raters_in(chunk))
    return weights_of_overlaps(raters.names, overlaps)


def _staple(raters: RaterMaps, options: Mapping[str, Any]) -> FuseChunk:
    """Rates of the case are estimated when a chunk is disputed; then every chunk is fused with them."""
    staple = FUSIONS["staple"]
    margin_mm = options.get("margin_mm", 10.0)
    known: list[RaterRates] = [options["rates"]] if options.get("rates") is not None else []

    def fuse(votes: RaterVotes, channels: tuple[int, ...]) -> NDArray[Any]:
        counts = votes.n_votes()
        if not ((counts > 0) & (counts < votes.n_answers())).any():
            return staple(votes)
        if not known:
            box = raters.marked_box(margin_mm=margin_mm)
            known.append(raters.counts(box=box).estimate(has_fixed_prevalence=True))
        return staple(votes, rates=known[0].of_channels(channels))

    return fuse


def _shapes(raters: RaterMaps, options: Mapping[str, Any]) -> list[PackedMap]:
    box = raters.marked_box(margin_mm=margin_of_shape(raters.spacing_mm, **options))
    soft = []
    for channel in range(raters.n_channels):
        label = np.zeros(raters.shape, np.float32)
        if box is not None:
            label[box] = shape_of_channel(raters.masks(channel, box), raters.spacing_mm, **options)
        soft.append(PackedMap.of(label))
    return shared_to_one(soft, exclusive=not raters.labels.has_regions)


def _smoothed(raters: RaterMaps, options: Mapping[str, Any]) -> list[PackedMap]:
    check_sigma(options.get("sigma_voxels", 1.0))
    soft = _by_chunk(raters, lambda votes, channels: FUSIONS["mean"](votes))
    box = raters.marked_box(margin_mm=margin_of_smoothing(raters.spacing_mm))
    if box is None:
        return soft
    answered = _answered_by_any(raters, box)
    smoothed = []
    for packed in soft:
        label = packed.whole()
        label[box] = smoothed_channel(label[box], answered, **options)
        smoothed.append(PackedMap.of(label))
    return smoothed


def _answered_by_any(raters: RaterMaps, box: tuple[slice, ...]) -> NDArray[Any] | None:
    if raters.labels.ignore is None:
        return None
    answered = np.zeros(raters.shape, bool)[box]
    for _, own in raters.masks(0, box):
        answered |= own if own is not None else True
    return answered


def shared_to_one(soft: Sequence[PackedMap], *, exclusive: bool) -> list[PackedMap]:
    """See `share_excess`; changes the maps."""
    if exclusive and len(soft) > 1:
        for index in marked_chunks(soft):
            values = share_excess(stacked(soft, index), exclusive=True)
            for packed, own in zip(soft, values, strict=True):
                packed.put(index, own)
    return list(soft)
