"""Do probabilities mean what they say? Proper scores and calibration of one class or region.

The reference may be hard or soft: where it is soft, a voxel counts as foreground with its probability. With
several classes each one is judged against the rest. ``counts`` says how many voxels each entry stands for
(None: one); ``far`` are further voxels of which sums are known, see `nnunet_softlabel.metrics.far`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma, xlogy

from nnunet_softlabel.metrics.far import (
    NOTHING,
    SMALLEST_PROBABILITY,
    FarVoxels,
    adaptive_edges,
    chunks,
    equal_bins,
    table_of,
)
from nnunet_softlabel.metrics.overlap import NAN, counted, total, voxels_that_count

BINS = 15
PLACES = 1 << 14  # voxels worked on at a time, in many temporary arrays


def brier(
    reference: NDArray[Any],
    prediction: NDArray[Any],
    *,
    mask: NDArray[Any] | None = None,
    counts: NDArray[Any] | None = None,
    far: FarVoxels = NOTHING,
) -> float:
    """Mean of ``(p - r)^2`` over the voxels. NaN if none counts.

    >>> reference, prediction = np.array([0.0, 0.5, 1.0]), np.array([0.0, 0.5, 0.5])
    >>> round(brier(reference, prediction), 4)
    0.0833
    """
    reference, prediction = voxels_that_count(reference, prediction, mask)
    counts = counted(mask, counts)
    voxels = _number(reference, counts) + far.count
    squares = np.square(np.subtract(prediction, reference, dtype=np.float32))
    return (total(squares, counts) + far.squares) / voxels if voxels else NAN


def _number(array: NDArray[Any], counts: NDArray[Any] | None) -> int:
    return array.size if counts is None else int(counts.sum())


def nll_above_entropy(
    reference: NDArray[Any],
    prediction: NDArray[Any],
    *,
    mask: NDArray[Any] | None = None,
    counts: NDArray[Any] | None = None,
    far: FarVoxels = NOTHING,
) -> float:
    """Mean of ``CE(r, p) - H(r)``, in nats: the cross entropy that a better map could save; 0 only for p = r.

    p is clipped to [1e-6, 1 - 1e-6]. NaN if no voxel counts.

    >>> reference, prediction = np.array([0.0, 0.5, 1.0]), np.array([0.0, 0.5, 0.5])
    >>> round(nll_above_entropy(reference, prediction), 4)
    0.231
    """
    reference, prediction = voxels_that_count(reference, prediction, mask)
    counts = counted(mask, counts)
    voxels = _number(reference, counts) + far.count
    pieces = chunks(reference, prediction) if counts is None else chunks(reference, prediction, counts)
    return (sum(_nll_sum(*piece) for piece in pieces) + far.nll) / voxels if voxels else NAN


def _nll_sum(reference: NDArray[Any], prediction: NDArray[Any], counts: NDArray[Any] | None = None) -> float:
    found = np.empty(reference.shape)
    for into, r, p in chunks(found, reference, prediction, size=PLACES):
        into[...] = _nll(r, p)
    return total(found, counts)


def _nll(reference: NDArray[Any], prediction: NDArray[Any]) -> NDArray[Any]:
    r = reference.astype(np.float64)
    p = np.clip(prediction.astype(np.float64), SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    per_voxel = xlogy(r, r) - r * np.log(p) + xlogy(1 - r, 1 - r) - (1 - r) * np.log1p(-p)
    # p = r in {0, 1} leaves -log(1 - 1e-6), and rounding may fall below 0: neither is an error of the map
    return np.where(prediction == reference, 0, np.maximum(per_voxel, 0))


def reliability(
    reference: NDArray[Any],
    prediction: NDArray[Any],
    *,
    bins: int = BINS,
    mask: NDArray[Any] | None = None,
    counts: NDArray[Any] | None = None,
    far: FarVoxels = NOTHING,
) -> NDArray[Any]:
    """What a reliability diagram shows, ready to be summed over cases.

    >>> reliability(np.array([0.0, 1.0, 1.0]), np.array([0.1, 0.6, 0.9]), bins=2)
    array([[1. , 0.1, 0. ],
           [2. , 1.5, 2. ]])

    Returns:
        ``(bins, 3)``: per bin of equal width the number of voxels, the sum of p and the sum of r.
    """
    reference, prediction = voxels_that_count(reference, prediction, mask)
    counts = counted(mask, counts)
    table = np.zeros((bins, 3))
    for r, p, *n in chunks(reference, prediction, *([] if counts is None else [counts])):
        table += table_of(equal_bins(p, bins), p, r, bins=bins, counts=n[0] if n else None)
    return table + far.reliability


def calibration_error(table: NDArray[Any]) -> float:
    """Mean over voxels of ``|mean p - mean r|`` of their bin, from `reliability`. NaN if there are none."""
    total = table[:, 0].sum()
    return float(np.abs(table[:, 1] - table[:, 2]).sum() / total) if total > 0 else NAN


def expected_calibration_error(
    reference: NDArray[Any], prediction: NDArray[Any], *, bins: int = BINS, mask: NDArray[Any] | None = None
) -> float:
    """ECE of the foreground probability, bins of equal width. NaN if no voxel counts.

    In a whole image the easy background decides it; see `nnunet_softlabel.metrics.near`.
    """
    return calibration_error(reliability(reference, prediction, bins=bins, mask=mask))


def average_calibration_error(
    reference: NDArray[Any], prediction: NDArray[Any], *, bins: int = BINS, mask: NDArray[Any] | None = None
) -> float:
    """ACE: mean over the bins of equal width that hold voxels of ``|mean p - mean r|``, all bins alike [1].

    A bin of few voxels counts as much as the background. NaN if no voxel counts.

    References:
        [1] Neumann et al., "Relaxed Softmax: Efficient Confidence Auto-Calibration for Safe Pedestrian
            Detection", NeurIPS workshops 2018.
    """
    return average_bin_error(reliability(reference, prediction, bins=bins, mask=mask))


def average_bin_error(table: NDArray[Any]) -> float:
    """Mean over bins of ``|mean p - mean r|``, from `reliability`, without empty bins. NaN if all are."""
    table = table[table[:, 0] > 0]
    return float((np.abs(table[:, 1] - table[:, 2]) / table[:, 0]).mean()) if len(table) else NAN


def top_label_calibration_error(
    reference: NDArray[Any],
    prediction: NDArray[Any],
    *,
    bins: int = BINS,
    mask: NDArray[Any] | None = None,
    counts: NDArray[Any] | None = None,
    far: FarVoxels = NOTHING,
) -> float:
    """ECE of the likelier of the two answers: confidence ``max(p, 1 - p)`` against how often it is right.

    CURVAS takes this over classes and background together; here each class is judged against the rest. NaN
    if no voxel counts.

    Args:
        reference: mask.
        prediction: probabilities.
        bins: of equal width over [0, 1].
        mask: True where a voxel counts.
        counts: voxels that each entry stands for.
        far: further voxels.
    """
    reference, prediction = voxels_that_count(reference, prediction, mask)
    is_right = (prediction > 0.5) == (reference > 0.5)
    certain = np.maximum(prediction, 1 - prediction)
    table = reliability(is_right, certain, bins=bins, counts=counted(mask, counts))
    return calibration_error(table + far.top_label)


def area_under_risk_coverage(
    reference: NDArray[Any],
    prediction: NDArray[Any],
    *,
    mask: NDArray[Any] | None = None,
    counts: NDArray[Any] | None = None,
) -> float:
    """AURC: mean over k of the share of errors among the k most certain voxels [1].

    Certainty is ``max(p, 1 - p)``. 0: no errors; near 0: errors only among the least certain voxels.
    Voxels of equal certainty come in random order, in expectation. NaN if no voxel counts.

    Args:
        reference: mask.
        prediction: probabilities, cut at 0.5.
        mask: True where a voxel counts.
        counts: voxels that each entry stands for.

    References:
        [1] Geifman et al., "Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers", ICLR 2019.
    """
    reference, prediction = voxels_that_count(reference, prediction, mask)
    if prediction.size == 0:
        return NAN
    is_wrong = ((prediction > 0.5) != (reference > 0.5)).ravel()
    doubt = (1 - prediction).ravel()
    np.minimum(prediction.ravel(), doubt, out=doubt)
    counts = counted(mask, counts)
    del reference, prediction  # copies, if there is a mask
    if counts is not None:
        return _risk_of_counted(doubt, is_wrong, counts)
    values, errors = np.unique(doubt[is_wrong], return_counts=True)
    doubt.sort()
    # among equal doubts, errors come evenly: the k-th of n has errors / n
    before: NDArray[Any] = np.asarray(np.searchsorted(doubt, values, side="left"))
    after = np.searchsorted(doubt, values, side="right")
    sizes = after - before
    number = doubt.size
    del doubt, is_wrong
    ends: NDArray[Any] = np.cumsum(sizes)
    rates = errors / sizes
    starts = ends - sizes
    within = np.empty(int(sizes.sum()))  # of voxels with one of these doubts
    for start in range(0, len(within), PLACES):
        index = np.arange(start, min(start + PLACES, len(within)))
        which = np.searchsorted(ends, index, side="right")
        place = index + 1 - starts[which]
        within[index] = rates[which] * place / (before[which] + place)
    # every further k adds errors / k
    beyond = errors * (digamma(number + 1) - digamma(after + 1))
    return float((within.sum() + beyond.sum()) / number)


def _risk_of_counted(doubt: NDArray[Any], is_wrong: NDArray[Any], counts: NDArray[Any]) -> float:
    _, which = np.unique(doubt, return_inverse=True)
    count = np.bincount(which.ravel(), weights=counts).astype(np.intp)
    rate = np.bincount(which.ravel(), weights=is_wrong * counts) / count
    if len(rate) == 1:
        return float(rate[0])
    ends, risk, errors = np.cumsum(count), np.empty(int(count.sum())), 0.0
    for start in range(0, len(risk), PLACES):
        index = np.arange(start, min(start + PLACES, len(risk)))
        of_each = rate[np.searchsorted(ends, index, side="right")]
        of_each[0] += errors
        found = np.cumsum(of_each)
        errors = float(found[-1])
        risk[index] = found / (index + 1)
    return float(risk.mean())


def adaptive_expected_calibration_error(
    reference: NDArray[Any],
    prediction: NDArray[Any],
    *,
    bins: int = BINS,
    mask: NDArray[Any] | None = None,
    counts: NDArray[Any] | None = None,
    far: FarVoxels = NOTHING,
) -> float:
    """As ECE, with bins of equal mass (quantiles of p), weighted by mass where ties make them unequal.

    Probabilities that fill a bin alone (the zeros of the background) have that bin to themselves. NaN if no
    voxel counts.

    References:
        Nixon et al., "Measuring Calibration in Deep Learning", CVPR workshops 2019.
    """
    reference, prediction = voxels_that_count(reference, prediction, mask)
    counts = counted(mask, counts)
    edges = far.edges
    if edges is None:
        edges = adaptive_edges([prediction.reshape(-1)], bins=bins, counts=counts)
    table = np.zeros((len(edges) + 1, 3))
    for r, p, *n in chunks(reference, prediction, *([] if counts is None else [counts])):
        which = np.searchsorted(edges, p, side="right")
        table += table_of(which, p, r, bins=len(table), counts=n[0] if n else None)
    return calibration_error(table + far.adaptive)
