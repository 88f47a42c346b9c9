"""Overlap and volume: pure functions of one reference and one prediction of one class or region.

Masks are boolean, probability maps float in [0, 1], all of one shape. ``mask`` is True where a voxel counts.
``counts`` says how many voxels each entry stands for (None: one), so that equal voxels are computed once.
``far`` are further voxels, without a reference, of which sums are known; see `nnunet_softlabel.metrics.far`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.metrics.far import NOTHING, FarVoxels

Direction = Literal["higher", "lower", "zero"]  # which way is better

NAN = float("nan")
QUBIQ_THRESHOLDS = tuple(k / 10 for k in range(1, 10))


def check_same_shape(**arrays: NDArray[Any] | None) -> None:
    """Refuse arrays of different shapes; None is skipped."""
    shapes = {name: array.shape for name, array in arrays.items() if array is not None}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"arrays differ in shape: {shapes}")


def voxels_that_count(
    reference: NDArray[Any], prediction: NDArray[Any], mask: NDArray[Any] | None
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Both arrays, reduced to the voxels of the mask."""
    check_same_shape(reference=reference, prediction=prediction, mask=mask)
    return (reference, prediction) if mask is None else (reference[mask], prediction[mask])


def number(mask: NDArray[Any], counts: NDArray[Any] | None = None) -> int:
    """Voxels in which a mask is True."""
    return int(np.count_nonzero(mask) if counts is None else counts[mask].sum())


def total(values: NDArray[Any], counts: NDArray[Any] | None = None) -> float:
    """Sum over voxels, in double precision."""
    return float(
        values.sum(dtype=np.float64) if counts is None else (values.astype(np.float64) * counts).sum()
    )


def counted(mask: NDArray[Any] | None, counts: NDArray[Any] | None) -> NDArray[Any] | None:
    """The counts of the voxels of a mask."""
    return counts if counts is None or mask is None else counts[mask]


def ratio(numerator: float, denominator: float) -> float:
    """``numerator / denominator``, NaN where that is undefined."""
    return float(numerator / denominator) if denominator > 0 else NAN


def mean_of_defined(values: Iterable[float]) -> float:
    """Mean, NaN left out; NaN of nothing.

    >>> mean_of_defined([1.0, float("nan"), 2.0])
    1.5
    """
    defined = [value for value in values if value == value]
    return float(np.mean(defined)) if defined else NAN


def dice(
    reference: NDArray[Any],
    prediction: NDArray[Any],
    *,
    mask: NDArray[Any] | None = None,
    counts: NDArray[Any] | None = None,
) -> float:
    """Overlap of two masks, ``2 |r & p| / (|r| + |p|)``. NaN if both are empty, as in nnU-Net.

    >>> reference, prediction = np.array([0, 1, 1, 1]) > 0, np.array([0, 0, 1, 1]) > 0
    >>> round(dice(reference, prediction), 3)
    0.8
    """
    reference, prediction = voxels_that_count(reference, prediction, mask)
    counts = counted(mask, counts)
    both = number(reference & prediction, counts)
    return ratio(2 * both, number(reference, counts) + number(prediction, counts))


def iou(reference: NDArray[Any], prediction: NDArray[Any], *, mask: NDArray[Any] | None = None) -> float:
    """Intersection over union (Jaccard). NaN if both masks are empty.

    >>> reference, prediction = np.array([0, 1, 1, 1]) > 0, np.array([0, 0, 1, 1]) > 0
    >>> round(iou(reference, prediction), 3)
    0.667
    """
    reference, prediction = voxels_that_count(reference, prediction, mask)
    return ratio(np.count_nonzero(reference & prediction), np.count_nonzero(reference | prediction))


def precision(
    reference: NDArray[Any], prediction: NDArray[Any], *, mask: NDArray[Any] | None = None
) -> float:
    """Share of the predicted voxels that are right. NaN if nothing is predicted.

    >>> reference, prediction = np.array([0, 1, 1, 1]) > 0, np.array([0, 0, 1, 1]) > 0
    >>> round(precision(reference, prediction), 3)
    1.0
    """
    reference, prediction = voxels_that_count(reference, prediction, mask)
    return ratio(np.count_nonzero(reference & prediction), np.count_nonzero(prediction))


def recall(reference: NDArray[Any], prediction: NDArray[Any], *, mask: NDArray[Any] | None = None) -> float:
    """Share of the reference's voxels that are found. NaN if the reference is empty.

    >>> reference, prediction = np.array([0, 1, 1, 1]) > 0, np.array([0, 0, 1, 1]) > 0
    >>> round(recall(reference, prediction), 3)
    0.667
    """
    return precision(prediction, reference, mask=mask)


def f_beta(
    reference: NDArray[Any], prediction: NDArray[Any], *, beta: float, mask: NDArray[Any] | None = None
) -> float:
    """``(1 + b^2) tp / ((1 + b^2) tp + b^2 fn + fp)``: beta > 1 favours recall. NaN if both are empty.

    >>> reference, prediction = np.array([0, 1, 1, 1]) > 0, np.array([0, 0, 1, 1]) > 0
    >>> round(f_beta(reference, prediction, beta=2), 3)
    0.714
    """
    reference, prediction = voxels_that_count(reference, prediction, mask)
    both = np.count_nonzero(reference & prediction)
    missed = np.count_nonzero(reference) - both
    excess = np.count_nonzero(prediction) - both
    hits = (1 + beta**2) * both
    return ratio(hits, hits + beta**2 * missed + excess)


def soft_dice(
    reference: NDArray[Any],
    prediction: NDArray[Any],
    *,
    mask: NDArray[Any] | None = None,
    counts: NDArray[Any] | None = None,
    far: FarVoxels = NOTHING,
) -> float:
    """Overlap of two probability maps, ``2 * sum(min(r, p)) / sum(r + p)``, which is 1 - DML.

    The usual Dice on binary masks; 1 exactly when the maps are equal. NaN if both are empty.

    >>> reference, prediction = np.array([0.0, 0.5, 1.0]), np.array([0.0, 0.5, 0.5])
    >>> soft_dice(reference, prediction)
    0.8
    """
    reference, prediction = voxels_that_count(reference, prediction, mask)
    counts = counted(mask, counts)
    both = total(np.minimum(reference, prediction), counts)
    return ratio(2 * both, total(reference, counts) + total(prediction, counts) + far.total)


def qubiq_dice(
    reference: NDArray[Any],
    prediction: NDArray[Any],
    *,
    mask: NDArray[Any] | None = None,
    counts: NDArray[Any] | None = None,
    far: FarVoxels = NOTHING,
    thresholds: Sequence[float] = QUBIQ_THRESHOLDS,
    empty_level: float | None = None,
) -> float:
    """Mean Dice of the maps cut at 0.1, 0.2, ..., 0.9 (``>``), as in the QUBIQ challenge.

    Args:
        reference: probabilities.
        prediction: probabilities.
        mask: True where a voxel counts.
        counts: voxels that each entry stands for.
        far: further voxels, all below the levels.
        thresholds: the levels.
        empty_level: what a level counts at which both maps are empty. None: such levels are left out. 1: as
            published code has it, which raises the mean of faint maps that disagree.

    Returns:
        The mean; NaN if no level counts.
    """
    reference, prediction = voxels_that_count(reference, prediction, mask)
    if reference.size == 0 and far.count == 0:
        return NAN
    occupied = (reference > min(thresholds)) | (prediction > min(thresholds))
    reference, prediction = reference[occupied], prediction[occupied]
    counts = counted(occupied, counted(mask, counts))
    levels = [dice(reference > t, prediction > t, counts=counts) for t in thresholds]
    if empty_level is not None:
        levels = [empty_level if np.isnan(value) else value for value in levels]
    return mean_of_defined(levels)


def volume_error_ml(
    reference: NDArray[Any],
    prediction: NDArray[Any],
    *,
    voxel_volume_mm3: float,
    mask: NDArray[Any] | None = None,
    counts: NDArray[Any] | None = None,
    far: FarVoxels = NOTHING,
) -> float:
    """Expected volume of the prediction, ``sum(p)``, minus that of the reference, in millilitres.

    Positive if the prediction is too large; 0 if both are empty. Flat images: voxels are pixels 1 mm thick.
    """
    reference, prediction = voxels_that_count(reference, prediction, mask)
    counts = counted(mask, counts)
    excess = total(prediction, counts) + far.total - total(reference, counts)
    return float(excess * voxel_volume_mm3 / 1000)


def relative_volume_error(
    reference: NDArray[Any],
    prediction: NDArray[Any],
    *,
    mask: NDArray[Any] | None = None,
    counts: NDArray[Any] | None = None,
    far: FarVoxels = NOTHING,
) -> float:
    """Expected volume error over the expected reference volume, signed. NaN if the reference is empty."""
    reference, prediction = voxels_that_count(reference, prediction, mask)
    counts = counted(mask, counts)
    volume = total(reference, counts)
    return ratio(total(prediction, counts) + far.total - volume, volume)
