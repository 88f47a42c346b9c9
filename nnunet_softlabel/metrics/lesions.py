"""Lesion by lesion: components by cc3d, matching by scipy; and the detection of diseased cases.

A lesion is a connected component (26 neighbours in volumes, 8 in flat images). Predicted and reference
lesions are matched one to one so that the sum of IoU is largest; a match needs at least `MINIMUM_IOU`, low as
in PI-CAI, since raters agree on where a lesion is sooner than on its outline. panoptica's bipartite matching
gives the same counts (a test compares them), but importing it imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import cc3d
import numpy as np
import scipy  # its parts load when used: every worker of `evaluate` would wait for them
from numpy.typing import NDArray

from nnunet_softlabel.metrics.overlap import NAN, check_same_shape, ratio

MINIMUM_IOU = 0.1


class LesionCounts(NamedTuple):
    """Lesions of one case: matched ones, those of the reference, those predicted."""

    matched: int
    reference: int
    predicted: int


class Components(NamedTuple):
    """Connected components of a mask: ``(*spatial)`` numbers from 1, and how many voxels each number has."""

    numbers: NDArray[Any]
    sizes: NDArray[Any]

    @property
    def number(self) -> int:
        """How many there are."""
        return len(self.sizes) - 1


def components_of(mask: NDArray[Any]) -> Components:
    """The lesions of a mask."""
    if not mask.any():
        return Components(np.zeros(mask.shape, np.uint8), np.array([mask.size]))
    # a whole array, and a flat image as one slice: cc3d 3.29 loses voxels of flat images with odd sizes, and
    # of parts of an array
    volume = np.ascontiguousarray(mask if mask.ndim == 3 else mask[np.newaxis])
    numbers, count = cc3d.connected_components(volume, connectivity=26, return_N=True)
    numbers = numbers.reshape(mask.shape).astype(np.min_scalar_type(count), copy=False)
    return Components(numbers, np.bincount(numbers[mask], minlength=count + 1))


def count_lesions(
    reference: NDArray[Any], prediction: NDArray[Any], *, minimum_iou: float = MINIMUM_IOU
) -> LesionCounts:
    """Match the components of two masks, one to one.

    >>> count_lesions(np.array([[1, 0, 1, 0]]) > 0, np.array([[1, 0, 0, 0]]) > 0)
    LesionCounts(matched=1, reference=2, predicted=1)

    Raises:
        ValueError: if ``minimum_iou`` is outside (0, 1].
    """
    check_same_shape(reference=reference, prediction=prediction)
    return count_components(components_of(reference), components_of(prediction), minimum_iou=minimum_iou)


def count_components(
    reference: Components, prediction: Components, *, minimum_iou: float = MINIMUM_IOU
) -> LesionCounts:
    """`count_lesions` of masks whose components are known."""
    is_matched = matched_components(reference, prediction, minimum_iou=minimum_iou)
    return LesionCounts(int(is_matched.sum()), reference.number, prediction.number)


def matched_components(
    reference: Components, prediction: Components, *, minimum_iou: float = MINIMUM_IOU
) -> NDArray[Any]:
    """Which predicted components match one of the reference; bool, one per component.

    Raises:
        ValueError: if ``minimum_iou`` is outside (0, 1].
    """
    if not 0 < minimum_iou <= 1:
        raise ValueError(f"minimum_iou must lie in (0, 1], got {minimum_iou}")
    is_matched = np.zeros(prediction.number, bool)
    if reference.number == 0 or prediction.number == 0:
        return is_matched
    both = (reference.numbers > 0) & (prediction.numbers > 0)
    pair = reference.numbers[both].astype(np.int64) * (prediction.number + 1) + prediction.numbers[both]
    overlap = np.bincount(pair, minlength=(reference.number + 1) * (prediction.number + 1))
    overlap = overlap.reshape(reference.number + 1, prediction.number + 1)[1:, 1:]
    iou = overlap / (reference.sizes[1:, None] + prediction.sizes[1:] - overlap)
    iou[iou < minimum_iou] = 0
    rows, columns = scipy.optimize.linear_sum_assignment(iou, maximize=True)
    is_matched[columns[iou[rows, columns] > 0]] = True
    return is_matched


def lesion_precision(counts: LesionCounts) -> float:
    """Share of the predicted lesions that match one of the reference. NaN if none is predicted."""
    return ratio(counts.matched, counts.predicted)


def lesion_recall(counts: LesionCounts) -> float:
    """Share of the reference's lesions that are found. NaN if it has none."""
    return ratio(counts.matched, counts.reference)


def lesion_f1(counts: LesionCounts) -> float:
    """``2 matched / (reference + predicted)``. NaN if there are no lesions in either."""
    return ratio(2 * counts.matched, counts.reference + counts.predicted)


def case_score(prediction: NDArray[Any], *, mask: NDArray[Any] | None = None) -> float:
    """How sure a map is of a lesion: the highest probability of any voxel. NaN if none counts."""
    voxels = prediction if mask is None else prediction[mask]
    return float(voxels.max()) if voxels.size else NAN


def detection_auc(positive: Sequence[bool], scores: Sequence[float]) -> float:
    """Area under the ROC curve: P(score of a positive case > that of a negative one), ties 1/2.

    NaN unless there are positive and negative cases.

    >>> detection_auc([False, True, True], [0.2, 0.1, 0.9])
    0.5
    """
    is_positive = np.asarray(positive, dtype=bool)
    n_positive, n_negative = int(is_positive.sum()), int((~is_positive).sum())
    if n_positive == 0 or n_negative == 0 or np.isnan(scores).any():
        return NAN
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2  # equal scores share their mean rank
    rank_sum = ranks[places][is_positive].sum()
    return float((rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))
