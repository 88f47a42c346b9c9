"""Soft scores of a validation epoch, summed over its patches."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nnunet_softlabel.losses import expand_target
from nnunet_softlabel.losses.inputs import Activation


class SoftScores:
    """Sums from which soft Dice and Brier score of an epoch follow.

    Args:
        num_channels: C, foreground classes or regions.
        activation: ``softmax`` or ``sigmoid``.
    """

    def __init__(self, num_channels: int, activation: Activation) -> None:
        self.activation = activation
        # per channel: sum of min(p, q), sum of p + q; then one column: squared error, voxels
        self._sums = np.zeros((num_channels + 1, 2))

    @torch.no_grad()
    def update(self, logits: Tensor, compact: Tensor) -> None:
        """Add a batch: logits ``(B, K, *spatial)`` and compact target ``(B, C, *spatial)``."""
        target, mask = expand_target(compact, activation=self.activation, has_ignore=True)
        assert mask is not None
        logits = logits.float()
        prediction = torch.softmax(logits, dim=1) if self.activation == "softmax" else torch.sigmoid(logits)
        axes = [0, *range(2, logits.ndim)]
        squared = ((prediction - target) ** 2 * mask).sum()
        first = int(self.activation == "softmax")
        p, q = prediction[:, first:] * mask, target[:, first:] * mask
        overlap, total = torch.minimum(p, q).sum(axes), (p + q).sum(axes)
        self._sums[:-1, 0] += overlap.double().cpu().numpy()
        self._sums[:-1, 1] += total.double().cpu().numpy()
        self._sums[-1] += float(squared), float(mask.sum())

    def sums(self) -> NDArray[Any]:
        """The sums, float64 ``(C + 1, 2)``; those of several processes may be added."""
        return self._sums

    @staticmethod
    def results(sums: NDArray[Any]) -> tuple[NDArray[Any], float]:
        """Soft Dice per channel, ``2 sum min(p, q) / sum (p + q)``, and mean Brier score; NaN where empty."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return 2 * sums[:-1, 0] / sums[:-1, 1], float(sums[-1, 0] / sums[-1, 1])
