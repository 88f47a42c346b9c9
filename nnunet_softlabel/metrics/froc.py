"""Detection of lesions at every threshold at once: average precision and FROC over a data set.

A predicted lesion is a connected component of ``p > least_probability``; its score is the highest probability
in it. It is a hit if it matches a lesion of the reference, one to one, as in `lesions.number_lesions`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.boxes import bounding_box
from nnunet_softlabel.metrics.lesions import MINIMUM_IOU, components_of, matched_components
from nnunet_softlabel.metrics.overlap import NAN, check_same_shape

LEAST_PROBABILITY = 0.1
# False positives per image at which FROC is read off, as in LUNA16 and CAMELYON16.
FALSE_POSITIVES_PER_IMAGE = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


class ScoredLesions(NamedTuple):
    """Predicted lesions of one case with their scores.

    Attributes:
        hits: scores of those that match a lesion of the reference.
        others: scores of those that match none.
        reference: number of lesions of the reference.
    """

    hits: tuple[float, ...]
    others: tuple[float, ...]
    reference: int


def scored_lesions(
    reference: NDArray[Any],
    prediction: NDArray[Any],
    *,
    least_probability: float = LEAST_PROBABILITY,
    minimum_iou: float = MINIMUM_IOU,
) -> ScoredLesions:
    """Score the predicted lesions of a case.

    >>> reference = np.array([[1, 1, 0, 0, 0]], dtype=bool)
    >>> scored_lesions(reference, np.array([[0.9, 0.2, 0.0, 0.0, 0.4]]))
    ScoredLesions(hits=(0.9,), others=(0.4,), reference=1)

    Args:
        reference: ``(*spatial)`` bool.
        prediction: ``(*spatial)`` probabilities.
        least_probability: what is below belongs to no lesion.
        minimum_iou: of a match.
    """
    check_same_shape(reference=reference, prediction=prediction)
    is_lesion = prediction > least_probability
    box = bounding_box(reference | is_lesion)
    found, lesions = components_of(reference[box]), components_of(is_lesion[box])
    is_hit = matched_components(found, lesions, minimum_iou=minimum_iou)
    scores = np.zeros(lesions.number)
    np.maximum.at(scores, lesions.numbers[is_lesion[box]] - 1, prediction[box][is_lesion[box]])
    hits, others = (tuple(scores[chosen].tolist()) for chosen in (is_hit, ~is_hit))
    return ScoredLesions(hits, others, found.number)


def lesion_average_precision(cases: Sequence[ScoredLesions]) -> float:
    """Area under the lesions' precision over recall: ``sum_k (R_k - R_(k-1)) P_k`` by falling score.

    A lesion without a hit is never found, so that the area ends at the highest recall. Equal scores are one
    step. NaN if no case has a lesion.

    >>> lesion_average_precision([ScoredLesions((0.9,), (0.4,), 2)])
    0.5
    """
    total = sum(case.reference for case in cases)
    if total == 0:
        return NAN
    found, others = _counts_at_scores(cases)
    recall, precision = found / total, found / np.maximum(found + others, 1)
    return float((np.diff(recall, prepend=0.0) * precision).sum())


def froc(
    cases: Sequence[ScoredLesions], *, false_positives: Sequence[float] = FALSE_POSITIVES_PER_IMAGE
) -> dict[float, float]:
    """Share of the lesions found at so many false positives per image, at most; NaN if there is no lesion.

    The lowest threshold that keeps within the number of false positives, without interpolation.

    >>> froc([ScoredLesions((0.9, 0.3), (0.4,), 2)], false_positives=(0.5, 1.0))
    {0.5: 0.5, 1.0: 1.0}
    """
    total = sum(case.reference for case in cases)
    if total == 0:
        return dict.fromkeys(false_positives, NAN)
    found, others = _counts_at_scores(cases)
    return {
        limit: float(found[others <= limit * len(cases)].max(initial=0) / total) for limit in false_positives
    }


def _counts_at_scores(cases: Sequence[ScoredLesions]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Hits and others at or above each different score, by falling score."""
    hits = np.array([s for case in cases for s in case.hits])
    others = np.array([s for case in cases for s in case.others])
    levels = np.unique(np.concatenate([hits, others]))[::-1]
    at_least = [(values[:, None] >= levels).sum(axis=0) for values in (hits, others)]
    return at_least[0], at_least[1]
