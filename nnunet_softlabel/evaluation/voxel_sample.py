"""Voxels drawn from a case, on which a recalibration map is fitted. Pure functions on arrays.

A drawn voxel stands for so many voxels of its case that all of them count.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.evaluation.recalibration import SMALLEST

EASY = 1e-3  # voxels that nobody marked and where p is below are drawn more sparsely
SHARE_OF_EASY = 0.25  # of the voxels drawn from a case
LOWEST = np.log(SMALLEST)  # log-odds
PIECE = 1 << 18  # numbers that are worked on at a time, over all channels


@dataclass(frozen=True)
class VoxelSample:
    """Voxels drawn from one case.

    Attributes:
        log_odds: ``(C, n)``.
        target: what they should mean, probabilities ``(C, n)``.
        weight: ``(n,)``, how many voxels of the case each stands for.
        volume: expected foreground of the case, in voxels.
    """

    log_odds: NDArray[Any]
    target: NDArray[Any]
    weight: NDArray[Any]
    volume: float


def sample_voxels(
    log_odds: NDArray[Any],
    target: NDArray[Any],
    *,
    most: int,
    rng: np.random.Generator,
    has_regions: bool,
    mask: NDArray[Any] | None = None,
) -> VoxelSample:
    """Draw voxels of a case so that weighted sums over them estimate sums over all voxels, without bias.

    Most voxels are background that nobody marked and that the network knows (p below 0.1 %). A quarter of
    the drawn voxels stands for them, the others come from the rest of the case. Voxels with p = 0 in all
    channels are left out, because no map changes them; their foreground counts in the volume.

    Args:
        log_odds: ``(C, *spatial)``.
        target: probabilities ``(C, *spatial)``.
        most: how many are drawn at most.
        rng: draws them.
        has_regions: channels may overlap.
        mask: voxels that count, None for all.
    """
    channels = len(log_odds)
    x: NDArray[Any] = log_odds.reshape(channels, -1)
    q: NDArray[Any] = target.reshape(channels, -1)
    foreground = q.max(axis=0) if has_regions else q.sum(axis=0)
    counts = np.ones(x.shape[1], bool) if mask is None else mask.reshape(-1)
    is_fixed, is_easy = kinds_of_voxels(x)
    where, weight = choose_voxels(counts & ~is_fixed, (q == 0).all(axis=0) & is_easy, most=most, rng=rng)
    return VoxelSample(
        lifted(x[:, where]), q[:, where].astype(np.float32), weight, volume_of(foreground, mask)
    )


def kinds_of_voxels(log_odds: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Of log-odds ``(C, n)``: p = 0 in all channels, which no map changes; p below `EASY` in all of them."""
    is_fixed = np.logical_and.reduce(np.isneginf(log_odds))
    return np.asarray(is_fixed), np.asarray(
        np.logical_and.reduce(np.maximum(log_odds, LOWEST) < np.log(EASY))
    )


def lifted(log_odds: NDArray[Any]) -> NDArray[Any]:
    """Log-odds of which none is minus infinity."""
    return np.maximum(log_odds, LOWEST).astype(np.float32)


def volume_of(foreground: NDArray[Any], mask: NDArray[Any] | None) -> float:
    """Expected foreground in voxels."""
    counting = foreground.reshape(-1) if mask is None else foreground.reshape(-1)[mask.reshape(-1)]
    return float(counting.sum(dtype=np.float64))


def choose_voxels(
    counts: NDArray[Any], is_easy: NDArray[Any], *, most: int, rng: np.random.Generator
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Places of at most ``most`` voxels, and how many voxels each stands for.

    Args:
        counts: ``(n,)`` bool, voxels that may be drawn.
        is_easy: ``(n,)`` bool, those of which few are drawn.
        most: how many.
        rng: draws them.
    """
    number, number_easy = int(np.count_nonzero(counts)), int(np.count_nonzero(counts & is_easy))
    few = min(number_easy, max(round(SHARE_OF_EASY * most), most - (number - number_easy)))
    drawn, weights = [], []
    for kind, quota in ((~is_easy, most - few), (is_easy, few)):
        stratum = np.flatnonzero(counts & kind)
        chosen = stratum if len(stratum) <= quota else rng.choice(stratum, quota, replace=False)
        drawn.append(chosen)
        weights.append(np.full(len(chosen), len(stratum) / max(len(chosen), 1), dtype=np.float32))
    return np.concatenate(drawn), np.concatenate(weights)


def pieces(channels: int, voxels: int) -> Iterator[slice]:
    """Parts of the voxels, so that temporary arrays over all channels stay small.

    >>> list(pieces(3, 200_000))
    [slice(0, 66666, None), slice(66666, 133333, None), slice(133333, 200000, None)]
    """
    # never one voxel: numpy adds the channels of a single voxel in another order
    number = max(1, min(-(-channels * voxels // PIECE), voxels // 2))
    return (slice(k * voxels // number, (k + 1) * voxels // number) for k in range(number))
