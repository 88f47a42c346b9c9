"""The label map that a threshold makes of probabilities, channel by channel; see `thresholds.decide`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.formats.labels import Labels

if TYPE_CHECKING:
    from nnunet_softlabel.evaluation.thresholds import Threshold

CHUNK = 1 << 20  # voxels worked on at a time


class Decision:
    """A decision that grows with every channel, in the order in which nnU-Net stores them.

    Attributes:
        label_map: uint8 (or uint16 beyond 255 labels) ``(*spatial)``; final when all channels were taken.
    """

    def __init__(self, labels: Labels, threshold: Threshold, shape: tuple[int, ...]) -> None:
        highest = max(max(values) for values in labels.values.values())
        self.label_map = np.zeros(shape, np.uint8 if highest < 256 else np.uint16)
        self._values = labels.region_order if labels.has_regions else [v[0] for v in labels.values.values()]
        self._limits = [threshold.values[name] for name in labels.names]
        self._has_regions, self._is_stock = labels.has_regions, threshold.is_stock
        self._is_single = threshold.is_single
        self._taken = 0
        self._best: NDArray[Any] | None = None  # score of the class that leads
        self._is_foreground: NDArray[Any] | None = None  # as one threshold for all classes says

    def take(self, channel: NDArray[Any]) -> NDArray[Any]:
        """Take the next channel ``(*spatial)`` and hand it on: the background first, but for regions."""
        index = self._taken - (not self._has_regions)
        self._taken += 1
        if self._has_regions:
            self.label_map[channel > self._limits[index]] = self._values[index]
        elif index < 0:
            self._take_background(channel)
        else:
            self._take_class(channel, index)
        return channel

    def settled(self) -> NDArray[Any]:
        """The label map, when all channels were taken; no other can be taken afterwards."""
        self._best = self._is_foreground = None
        return self.label_map

    def _take_background(self, channel: NDArray[Any]) -> None:
        if self._is_stock:
            self._best = channel.copy()
        elif self._is_single and len(self._limits) > 1:
            self._is_foreground = 1 - channel > self._limits[0]

    def _take_class(self, channel: NDArray[Any], index: int) -> None:
        if self._best is None:
            self._best = np.full(channel.shape, -np.inf, channel.dtype)
        limit = np.asarray(self._limits[index], channel.dtype)
        parts = (self.label_map, self._best, channel, self._is_foreground)
        flat = [None if part is None else part.reshape(-1) for part in parts]
        for start in range(0, channel.size, CHUNK):
            hard, best, p, is_foreground = (f if f is None else f[start : start + CHUNK] for f in flat)
            assert hard is not None, "always there"
            assert best is not None, "always there"
            assert p is not None, "always there"
            if self._is_stock or self._is_single:
                wins, score = p > best, p
            else:
                score = p / np.maximum(limit, 1e-6)
                wins = (p > limit) & (score > best)
            np.copyto(best, score, where=wins)
            if is_foreground is not None:
                wins &= is_foreground
            elif self._is_single and not self._is_stock:
                wins &= p > self._limits[index]  # the only class
            hard[wins] = self._values[index]
