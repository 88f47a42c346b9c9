"""Where lesions can be: regions of interest as a prior."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.fusion.distance import distance_to_mm


def roi_weights(
    rois: Sequence[NDArray[Any]],
    *,
    spacing_mm: Sequence[float],
    margin_mm: float = 0.0,
    weights: Sequence[float] | None = None,
) -> NDArray[Any]:
    """How possible the foreground is at each voxel: the weight of its ROI, the largest where ROIs overlap.

    Outside an ROI its weight falls as ``(1 + cos(pi d / margin_mm)) / 2`` of the distance ``d``, to 0 at
    ``margin_mm``.

    >>> roi_weights([np.array([[False, False, True]])], spacing_mm=(1.0, 1.0), margin_mm=2.0).round(2)
    array([[0. , 0.5, 1. ]], dtype=float32)

    Args:
        rois: masks ``(*spatial)``, not 0 inside.
        spacing_mm: voxel size in array order.
        margin_mm: width of the soft border outside each ROI.
        weights: in [0, 1], one per ROI. None: 1 each.

    Returns:
        ``(*spatial)`` float32 in [0, 1].
    """
    weights = [1.0] * len(rois) if weights is None else weights
    if not rois or len(weights) != len(rois):
        raise ValueError(
            f"weights must be one per ROI, and one ROI at least: got {len(weights)} for {len(rois)}"
        )
    if not all(0 <= weight <= 1 for weight in weights):
        raise ValueError(f"weights of ROIs must lie in [0, 1], got {list(weights)}")
    if not 0 <= margin_mm < np.inf:
        raise ValueError(f"margin_mm must not be negative, got {margin_mm}")
    possible = np.zeros(rois[0].shape, dtype=np.float32)
    for roi, weight in zip(rois, weights, strict=True):
        check_shape("ROI", roi, possible.shape)
        inside = (roi != 0).astype(np.float32)
        if margin_mm > 0:
            outside = np.minimum(distance_to_mm(roi != 0, spacing_mm) / np.float32(margin_mm), 1)
            inside = (1 + np.cos(np.pi * outside)) / 2
        np.maximum(possible, weight * inside, out=possible)
    return possible


def apply_roi(
    soft: NDArray[Any],
    rois: Sequence[NDArray[Any]],
    *,
    spacing_mm: Sequence[float],
    margin_mm: float = 0.0,
    weights: Sequence[float] | None = None,
) -> NDArray[Any]:
    """Probabilities times :func:`roi_weights`: untouched in ROIs of weight 1, zero beyond the margin.

    >>> apply_roi(np.array([[0.4, 0.8]]), [np.array([False, True])], spacing_mm=(1.0,))
    array([[0. , 0.8]], dtype=float32)

    Args:
        soft: ``(C, *spatial)`` foreground probabilities.
        rois: as for :func:`roi_weights`, like the arguments after it.
        spacing_mm: see there.
        margin_mm: see there.
        weights: see there. A weight below 1 is the one way in which a prior lowers a unanimous voxel for its
            place alone.

    Returns:
        ``(C, *spatial)`` float32.
    """
    possible = roi_weights(rois, spacing_mm=spacing_mm, margin_mm=margin_mm, weights=weights)
    check_shape("ROI", possible, soft.shape[1:])
    return soft.astype(np.float32) * possible


def check_shape(what: str, array: NDArray[Any], shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(f"the {what} has shape {array.shape}, the soft label {shape}")
