"""Soft edges for labels of a single rater."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy  # its parts load when used: every worker of `convert` would wait for them
from numpy.typing import NDArray

from nnunet_softlabel.fusion.rater_votes import RaterVotes, marked_box
from nnunet_softlabel.fusion.voting import mean_vote

VOXELS_OF_SLAB = 1 << 20


def spatially_varying_label_smoothing(raters: RaterVotes, *, sigma_voxels: float = 1.0) -> NDArray[Any]:
    """Half the voxel's own label, half its neighbours': ``(y + sum_n g_n y_n / sum_n g_n) / 2`` [1].

    The neighbours are the other voxels of the 3 x 3 (x 3) block around it, with Gaussian weights ``g``; edge
    voxels are repeated beyond the image. Meant for a single rater; of several, the mean is smoothed. By
    design not exact on unanimous raters beside an outline: a voxel keeps at least half of its mean vote, its
    unmarked neighbours get the rest. Voxels that nobody answered do not count as neighbours.

    >>> votes = np.array([[[0, 1, 1]], [[0, 0, 1]], [[0, 1, 1]]], bool)  # (raters, channels, voxels)
    >>> raters = RaterVotes(votes, ("ann", "bob", "eve"), spacing_mm=(1.0,))
    >>> spatially_varying_label_smoothing(raters).round(2)
    array([[0.17, 0.58, 0.92]], dtype=float32)

    Args:
        raters: the votes of one case.
        sigma_voxels: of the Gaussian weights.

    Returns:
        ``(C, *spatial)`` float32; 0 where nobody answered.

    References:
        [1] Islam and Glocker, "Spatially Varying Label Smoothing: Capturing Uncertainty from Expert
            Annotations", IPMI 2021.
    """
    check_sigma(sigma_voxels)
    soft = mean_vote(raters)
    box = marked_box(raters, margin_mm=margin_of_smoothing(raters.spacing_mm))
    if box is None:
        return soft
    answered = None if raters.answered is None else np.asarray(raters.cropped(box).n_answers() > 0)
    for channel in soft:
        channel[box] = smoothed_channel(channel[box], answered, sigma_voxels=sigma_voxels)
    return soft


def margin_of_smoothing(spacing_mm: Sequence[float]) -> float:
    """How far around everything marked the neighbours of all voxels lie that the smoothing changes.

    One voxel further than the change itself: whether those neighbours were answered counts.
    """
    return 2 * max(spacing_mm)


def check_sigma(sigma_voxels: float) -> None:
    """Refuse a width that is none."""
    if not 0 < sigma_voxels < np.inf:
        raise ValueError(f"sigma_voxels must be positive, got {sigma_voxels}")


def smoothed_channel(
    mean: NDArray[Any], answered: NDArray[Any] | None, *, sigma_voxels: float = 1.0
) -> NDArray[Any]:
    """One channel of `spatially_varying_label_smoothing`, slab by slab.

    Args:
        mean: vote, float32 ``(*spatial)``.
        answered: bool ``(*spatial)``, where anybody did; None: everywhere.
        sigma_voxels: of the Gaussian weights.

    Returns:
        ``(*spatial)`` float32.
    """
    result = np.empty_like(mean)
    thickness = max(1, VOXELS_OF_SLAB // math.prod(mean.shape[1:]))
    for start in range(0, len(mean), thickness):
        stop = min(start + thickness, len(mean))
        first = max(start - 1, 0)  # neighbours of the slab
        around = slice(first, stop + 1)
        smooth = _smoothed(mean[around], None if answered is None else answered[around], sigma_voxels)
        result[start:stop] = smooth[start - first : stop - first]
    return result


def _smoothed(own: NDArray[Any], answered: NDArray[Any] | None, sigma_voxels: float) -> NDArray[Any]:
    around = _neighbours_mean(own, sigma_voxels)
    if answered is not None:
        weight = _neighbours_mean(answered.astype(np.float32), sigma_voxels)
        # Without an answering neighbour a voxel is all its own.
        around = np.where(weight > 0, around / np.where(weight > 0, weight, 1), own) * answered
    return (own + around) / 2


def _neighbours_mean(values: NDArray[Any], sigma_voxels: float) -> NDArray[Any]:
    """Gaussian mean of the block of 3 voxels a side around each voxel, without the voxel itself."""
    side = np.exp(-0.5 / sigma_voxels**2)
    kernel = np.array([side, 1, side]) / (1 + 2 * side)
    block = values
    for axis in range(values.ndim):
        block = scipy.ndimage.correlate1d(block, kernel, axis=axis, mode="nearest")
    centre = kernel[1] ** values.ndim
    return np.clip((block - np.float32(centre) * values) / np.float32(1 - centre), 0, 1)
