"""Fusion by shape: averages of signed distances."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.fusion.distance import signed_distance_mm
from nnunet_softlabel.fusion.rater_votes import RaterVotes, marked_box, share_excess


def shape_based_average(
    raters: RaterVotes, *, slope_mm: float = 1.0, max_distance_mm: float = 10.0
) -> NDArray[Any]:
    """Soft label ``1/2 - d / (2 slope_mm)`` of the raters' mean signed distance ``d``, negative inside [1].

    Clipped to [0, 1], so the probability falls from 1 to 0 between ``slope_mm`` inside and ``slope_mm``
    outside the average outline. ``slope_mm -> 0`` gives nearly the hard label of [1] for one class: distances
    here are to the outline between voxels, half a voxel from those of [1], and ties may differ. By design not
    exact on unanimous raters nearer to their outline than ``slope_mm``, nor bound to what any rater marked.
    Classes that add up to more than 1 share 1 in proportion.

    >>> votes = np.array([[[[0, 1, 1]]], [[[0, 0, 1]]], [[[0, 1, 1]]]], bool)  # (raters, channels, y, x)
    >>> raters = RaterVotes(votes, ("ann", "bob", "eve"), spacing_mm=(1.0, 1.0))
    >>> shape_based_average(raters, slope_mm=2.0).round(2)
    array([[[0.29, 0.54, 0.79]]], dtype=float32)

    Args:
        raters: the votes of one case.
        slope_mm: half the width of the soft edge.
        max_distance_mm: each rater's distances are cut at plus and minus this before averaging, so that one
            who missed a structure (no outline: everywhere at ``max_distance_mm``) does not outvote the others
            alone. Must be at least ``slope_mm``; [1] does not cut.

    Returns:
        ``(C, *spatial)`` float32; 0 where nobody answered.

    References:
        [1] Rohlfing and Maurer, "Shape-based averaging", IEEE Transactions on Image Processing 16, 2007.
    """
    soft = np.zeros(raters.votes.shape[1:], dtype=np.float32)
    box = marked_box(raters, margin_mm=margin_of_shape(raters.spacing_mm, slope_mm, max_distance_mm))
    if box is None:
        return soft
    inside = raters.cropped(box)
    answered = [None] * raters.n_raters if inside.answered is None else inside.answered
    for channel in range(raters.n_channels):
        masks = zip(inside.votes[:, channel], answered, strict=True)
        soft[channel][box] = shape_of_channel(
            masks, raters.spacing_mm, slope_mm=slope_mm, max_distance_mm=max_distance_mm
        )
    return share_excess(soft, exclusive=raters.exclusive)


def margin_of_shape(
    spacing_mm: Sequence[float], slope_mm: float = 1.0, max_distance_mm: float = 10.0
) -> float:
    """How far around everything marked the result is not 0: beyond, all distances exceed the slope."""
    if not 0 < slope_mm <= max_distance_mm < np.inf:
        raise ValueError(
            f"slope_mm must be positive and at most max_distance_mm, which must be finite, "
            f"got {slope_mm} and {max_distance_mm}"
        )
    return slope_mm + max(spacing_mm)


def shape_of_channel(
    masks: Iterable[tuple[NDArray[Any], NDArray[Any] | None]],
    spacing_mm: Sequence[float],
    *,
    slope_mm: float = 1.0,
    max_distance_mm: float = 10.0,
) -> NDArray[Any]:
    """One channel of `shape_based_average`, before classes share 1; raters are asked for one by one.

    Args:
        masks: of each rater, bool ``(*spatial)``: what was marked, and where there is an answer (None: all).
        spacing_mm: voxel size in array order.
        slope_mm: see `shape_based_average`, like the argument after it.
        max_distance_mm: see there.

    Returns:
        ``(*spatial)`` float32.
    """
    total: NDArray[Any] | None = None
    answers: Any = np.float32(0)
    for mask, answered in masks:
        distance = signed_distance_mm(mask if answered is None else mask & answered, spacing_mm)
        np.clip(distance, -max_distance_mm, max_distance_mm, out=distance)
        if answered is not None:
            distance *= answered
        total = distance if total is None else np.add(total, distance, out=total)
        answers = answers + (np.float32(1) if answered is None else answered)
    assert total is not None, "there is a rater"
    total /= np.maximum(answers, 1)
    total /= 2 * slope_mm
    np.subtract(0.5, total, out=total)
    np.clip(total, 0, 1, out=total)
    total *= answers > 0
    return total
