"""Label map, channels, probabilities, int16: how one becomes the other. Pure functions on arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.formats.labels import Labels

# Probabilities travel as int16 multiples of 1 / SCALE. 32760 = 2^3 3^2 5 7 13 keeps k / R exact for up to ten
# raters, and one-hot labels exact always.
SCALE = 32760
TIE = 2e-5  # of probabilities that differ by rounding only; shares of raters differ by far more
IGNORED = -1  # in the first channel of a quantised soft label: nobody answered here


def quantise(soft: NDArray[Any]) -> NDArray[Any]:
    """Probabilities as int16 multiples of 1 / `SCALE` (error <= 1.6e-5; exact for k / R with R <= 10)."""
    return np.rint(soft * np.float32(SCALE)).astype(np.int16)


def dequantise(quantised: NDArray[Any]) -> NDArray[Any]:
    """Inverse of `quantise` as float32; negative values (padding, ignored) become 0."""
    return np.maximum(quantised, 0).astype(np.float32) / np.float32(SCALE)


def with_background(soft: NDArray[Any]) -> NDArray[Any]:
    """Prepend the background, 1 - sum, to foreground probabilities ``(C, *spatial)`` of classes."""
    background = np.clip(1 - soft.sum(axis=0, keepdims=True, dtype=np.float32), 0, 1)
    return np.concatenate([background, soft.astype(np.float32, copy=False)])


def consensus(soft: NDArray[Any], labels: Labels, ignored: NDArray[Any] | None = None) -> NDArray[Any]:
    """The hard label nnU-Net itself would export for a soft label.

    The rule of its ``LabelManager.convert_probabilities_to_segmentation`` (a test compares them): argmax for
    classes, where the background wins ties; for regions > 0.5, later ones over earlier ones. Probabilities
    closer than `TIE` are equal, so that a tie of votes is a tie whatever the rounding.

    Args:
        soft: foreground probabilities ``(C, *spatial)``.
        labels: what the channels mean.
        ignored: bool ``(*spatial)``, True where nobody answered.

    Returns:
        uint8 (or uint16 beyond 255 labels) ``(*spatial)``.
    """
    highest = max(max(values) for values in labels.values.values()) + 1
    hard = np.zeros(soft.shape[1:], dtype=np.uint8 if highest < 256 else np.uint16)
    if labels.has_regions:
        quantised = quantise(soft).astype(np.int32)
        for channel, value in zip(quantised, labels.region_order, strict=True):
            hard[2 * channel > SCALE] = value
    else:
        marked = soft.any(axis=0)  # elsewhere the background wins; marks fill little of a volume
        inside = soft[:, marked].astype(np.float64)
        chosen = np.zeros(inside.shape[1], hard.dtype)
        highest_so_far = 1 - inside.sum(axis=0)
        for probability, (value,) in zip(inside, labels.values.values(), strict=True):
            wins = probability > highest_so_far + TIE
            chosen[wins] = value
            highest_so_far = np.where(wins, probability, highest_so_far)
        hard[marked] = chosen
    if ignored is not None:
        if labels.ignore is None:
            raise ValueError("voxels are ignored, but the labels have no ignore value")
        hard[ignored] = labels.ignore
    return hard


def channels_of(label_map: NDArray[Any], labels: Labels) -> NDArray[Any]:
    """Membership of a hard label map in every foreground channel, bool ``(C, *spatial)``."""
    channels = np.empty((len(labels.values), *label_map.shape), dtype=bool)
    for channel, values in zip(channels, labels.values.values(), strict=True):
        channel[...] = is_member(label_map, values)
    return channels


def is_member(label_map: NDArray[Any], values: Sequence[int]) -> NDArray[Any]:
    """Where a label map has one of a channel's values, bool ``(*spatial)``."""
    return (
        np.isin(label_map, values)
        if len(values) > 3
        else np.logical_or.reduce([label_map == v for v in values])
    )


def channels_of_raters(label_maps: Sequence[NDArray[Any]], labels: Labels) -> NDArray[Any]:
    """`channels_of` of several label maps of one shape, bool ``(R, C, *spatial)``, never held twice."""
    channels = np.empty((len(label_maps), len(labels.values), *label_maps[0].shape), dtype=bool)
    for own, label_map in zip(channels, label_maps, strict=True):
        own[...] = channels_of(label_map, labels)
    return channels
