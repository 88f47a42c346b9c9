"""Do probabilities mean what they say? Proper scores and calibration of one class or region.

The reference may be hard or soft: where it is soft, a voxel counts as foreground with its probability. With
several classes each one is judged against the rest.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import xlogy

from nnunet_softlabel.metrics.overlap import NAN, voxels_that_count

BINS = 15
CHUNK = 1 << 20  # voxels worked on at a time
SMALLEST_PROBABILITY = 1e-6  # NLL: a certain and wrong voxel costs 13.8, not infinity


def brier(reference: NDArray[Any], prediction: NDArray[Any], *, mask: NDArray[Any] | None = None) -> float:
    """Mean of ``(p - r)^2`` over the voxels. NaN if none counts.

    >>> reference, prediction = np.array([0.0, 0.5, 1.0]), np.array([0.0, 0.5, 0.5])
    >>> round(brier(reference, prediction), 4)
    0.0833
    """
    reference, prediction = voxels_that_count(reference, prediction, mask)
    if reference.size == 0:
        return NAN
    return float(np.square(np.subtract(prediction, reference, dtype=np.float32)).mean(dtype=np.float64))


def nll_above_entropy(
    reference: NDArray[Any], prediction: NDArray[Any], *, mask: NDArray[Any] | None = None
) -> float:
    """Mean of ``CE(r, p) - H(r)``, in nats: the cross entropy that a better map could save; 0 only for p = r.

    p is clipped to [1e-6, 1 - 1e-6]. NaN if no voxel counts.

    >>> reference, prediction = np.array([0.0, 0.5, 1.0]), np.array([0.0, 0.5, 0.5])
    >>> round(nll_above_entropy(reference, prediction), 4)
    0.231
    """
    reference, prediction = voxels_that_count(reference, prediction, mask)
    if reference.size == 0:
        return NAN
    return sum(map(_nll_sum, *_chunks(reference, prediction))) / reference.size


def _nll_sum(reference: NDArray[Any], prediction: NDArray[Any]) -> float:
    r = reference.astype(np.float64)
    p = np.clip(prediction.astype(np.float64), SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    per_voxel = xlogy(r, r) - r * np.log(p) + xlogy(1 - r, 1 - r) - (1 - r) * np.log1p(-p)
    # p = r in {0, 1} leaves -log(1 - 1e-6), and rounding may fall below 0: neither is an error of the map
    return float(np.where(prediction == reference, 0, np.maximum(per_voxel, 0)).sum())


def _chunks(*arrays: NDArray[Any]) -> list[list[NDArray[Any]]]:
    """Each array flat and in pieces, so that a large image needs no large temporary arrays."""
    return [[a.ravel()[i : i + CHUNK] for i in range(0, a.size, CHUNK)] for a in arrays]


def reliability(
    reference: NDArray[Any], prediction: NDArray[Any], *, bins: int = BINS, mask: NDArray[Any] | None = None
) -> NDArray[Any]:
    """What a reliability diagram shows, ready to be summed over cases.

    >>> reliability(np.array([0.0, 1.0, 1.0]), np.array([0.1, 0.6, 0.9]), bins=2)
    array([[1. , 0.1, 0. ],
           [2. , 1.5, 2. ]])

    Returns:
        ``(bins, 3)``: per bin of equal width the number of voxels, the sum of p and the sum of r.
    """
    reference, prediction = voxels_that_count(reference, prediction, mask)
    table = np.zeros((bins, 3))
    for r, p in zip(*_chunks(reference, prediction), strict=True):
        table += _sums(np.minimum((p * bins).astype(np.intp), bins - 1), p, r, bins)
    return table


def calibration_error(table: NDArray[Any]) -> float:
    """Mean over voxels of ``|mean p - mean r|`` of their bin, from `reliability`. NaN if there are none."""
    total = table[:, 0].sum()
    return float(np.abs(table[:, 1] - table[:, 2]).sum() / total) if total > 0 else NAN


def expected_calibration_error(
    reference: NDArray[Any], prediction: NDArray[Any], *, bins: int = BINS, mask: NDArray[Any] | None = None
) -> float:
    """ECE of the foreground probability, bins of equal width. NaN if no voxel counts.

    In a whole image the easy background decides it; see `near_object`.
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
    reference: NDArray[Any], prediction: NDArray[Any], *, bins: int = BINS, mask: NDArray[Any] | None = None
) -> float:
    """ECE of the likelier of the two answers: confidence ``max(p, 1 - p)`` against how often it is right.

    CURVAS takes this over classes and background together; here each class is judged against the rest. NaN
    if no voxel counts.

    Args:
        reference: mask.
        prediction: probabilities.
        bins: of equal width over [0, 1].
        mask: True where a voxel counts.
    """
    reference, prediction = voxels_that_count(reference, prediction, mask)
    is_right = (prediction > 0.5) == (reference > 0.5)
    return expected_calibration_error(is_right, np.maximum(prediction, 1 - prediction), bins=bins)


def area_under_risk_coverage(
    reference: NDArray[Any], prediction: NDArray[Any], *, mask: NDArray[Any] | None = None
) -> float:
    """AURC: mean over k of the share of errors among the k most certain voxels [1].

    Certainty is ``max(p, 1 - p)``. 0: no errors; near 0: errors only among the least certain voxels.
    Voxels of equal certainty come in random order, in expectation. NaN if no voxel counts.

    Args:
        reference: mask.
        prediction: probabilities, cut at 0.5.
        mask: True where a voxel counts.

    References:
        [1] Geifman et al., "Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers", ICLR 2019.
    """
    reference, prediction = voxels_that_count(reference, prediction, mask)
    if prediction.size == 0:
        return NAN
    is_wrong = ((prediction > 0.5) != (reference > 0.5)).ravel().astype(np.float64)
    doubt = np.minimum(prediction, 1 - prediction).ravel()
    _, which, count = np.unique(doubt, return_inverse=True, return_counts=True)
    rate = np.bincount(which.ravel(), weights=is_wrong) / count  # ties share their errors evenly
    return float((np.cumsum(np.repeat(rate, count)) / np.arange(1, doubt.size + 1)).mean())


def adaptive_expected_calibration_error(
    reference: NDArray[Any], prediction: NDArray[Any], *, bins: int = BINS, mask: NDArray[Any] | None = None
) -> float:
    """As ECE, with bins of equal mass (quantiles of p), weighted by mass where ties make them unequal.

    Probabilities that fill a bin alone (the zeros of the background) have that bin to themselves. NaN if no
    voxel counts.

    References:
        Nixon et al., "Measuring Calibration in Deep Learning", CVPR workshops 2019.
    """
    reference, prediction = voxels_that_count(reference, prediction, mask)
    if prediction.size == 0:
        return NAN
    ranks = (np.arange(1, bins) * prediction.size) // bins
    edges, repeats = np.unique(np.partition(prediction, ranks, axis=None)[ranks], return_counts=True)
    # an edge that repeats, or begins the range, is a value of many voxels: they have a bin to themselves
    alone = edges[(repeats > 1) | (edges == prediction.min())]
    alone = alone.astype(np.result_type(prediction, np.float32))  # a rater's mask is a map, too
    edges = np.union1d(edges, np.nextafter(alone, alone.dtype.type(np.inf)))
    table = np.zeros((len(edges) + 1, 3))
    for r, p in zip(*_chunks(reference, prediction), strict=True):
        table += _sums(np.searchsorted(edges, p, side="right"), p, r, len(table))
    return calibration_error(table)


def _sums(which: NDArray[Any], p: NDArray[Any], r: NDArray[Any], bins: int) -> NDArray[Any]:
    weights = (None, p, r)
    return np.stack([np.bincount(which, weights=w, minlength=bins) for w in weights], axis=1).astype(
        np.float64
    )


def near_object(marked: NDArray[Any], *, spacing_mm: tuple[float, ...], near_mm: float) -> NDArray[Any]:
    """Voxels no further than ``near_mm`` from a voxel that is marked; none if nothing is.

    Mark what any rater drew (soft label > 0) and never the prediction: every model is then judged on the same
    voxels.
    """
    near = np.zeros_like(marked, dtype=bool)
    if not marked.any():
        return near
    box = ndimage.find_objects(marked.astype(np.uint8))[0]
    reach = [int(np.ceil(near_mm / spacing)) for spacing in spacing_mm]
    box = tuple(slice(max(b.start - n, 0), b.stop + n) for b, n in zip(box, reach, strict=True))
    near[box] = ndimage.distance_transform_edt(~marked[box], sampling=spacing_mm) <= near_mm
    return near
