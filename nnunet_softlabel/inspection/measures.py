"""How far the raters of one case agree: pure functions of their votes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.fusion import RaterVotes
from nnunet_softlabel.fusion.rater_votes import marked_box
from nnunet_softlabel.metrics.overlap import NAN, mean_of_defined
from nnunet_softlabel.public import public

Pair = tuple[str, str]


@dataclass(frozen=True)
class CaseMeasures:
    """Agreement of the raters of one case on one class or region.

    Attributes:
        dice: pair of raters -> Dice over the voxels that both answered; NaN if both drew nothing.
        volume_mm3: rater -> what was drawn.
        marked_mm3: what any rater marked.
        disputed_mm3: what the answering raters disagree on.
        coincidences: of `fleiss_kappa`; add them up over cases.
    """

    dice: Mapping[Pair, float]
    volume_mm3: Mapping[str, float]
    marked_mm3: float
    disputed_mm3: float
    coincidences: NDArray[Any]

    @property
    def mean_dice(self) -> float:
        """Mean over the pairs, NaN if no pair drew anything."""
        return mean_of_defined(self.dice.values())

    @property
    def lowest_pair(self) -> Pair | None:
        """The two who agree least, None if no pair drew anything."""
        defined = {pair: value for pair, value in self.dice.items() if value == value}
        return min(defined, key=defined.__getitem__) if defined else None

    @property
    def disputed_share(self) -> float:
        """Disputed over marked volume, NaN if nothing is marked."""
        return self.disputed_mm3 / self.marked_mm3 if self.marked_mm3 > 0 else NAN

    def with_others(self, rater: str) -> float:
        """Mean Dice of one rater with the others."""
        return mean_of_defined(value for pair, value in self.dice.items() if rater in pair)

    def among_others(self, rater: str) -> float:
        """Mean Dice of the others among themselves."""
        return mean_of_defined(value for pair, value in self.dice.items() if rater not in pair)

    def volume_ratio(self, rater: str) -> float:
        """Volume over the median of the others'; NaN if most of the others drew nothing."""
        others = [value for name, value in self.volume_mm3.items() if name != rater]
        median = float(np.median(others)) if others else 0.0
        return self.volume_mm3[rater] / median if median > 0 else NAN


@public
def measure_case(raters: RaterVotes) -> list[CaseMeasures]:
    """Compare all raters of a case, one `CaseMeasures` per channel.

    >>> votes = np.array([[[[0, 1, 1]]], [[[0, 0, 1]]]], bool)  # (raters, channels, y, x)
    >>> raters = ns.fusion.RaterVotes(votes, ("ann", "bob"), spacing_mm=(1.0, 1.0))
    >>> round(ns.measure_case(raters)[0].mean_dice, 2)
    0.67
    """
    box = marked_box(raters, margin_mm=0)
    voxel_mm3 = float(np.prod(raters.spacing_mm))
    inside = raters if box is None or raters.answered is not None else raters.cropped(box)
    n_outside = int(np.prod(raters.spatial_shape) - np.prod(inside.spatial_shape))
    counts, answers = inside.n_votes(), inside.n_answers()
    pairs = list(combinations(range(raters.n_raters), 2))
    names = [(raters.names[first], raters.names[second]) for first, second in pairs]
    measures = []
    for channel in range(raters.n_channels):
        masks = {
            name: votes[channel] for name, votes in zip(raters.names, inside.counted_votes(), strict=True)
        }
        count = counts[channel]
        measures.append(
            CaseMeasures(
                dict(zip(names, (inside.dice_of_pair(*pair, channel) for pair in pairs), strict=True)),
                {name: float(np.count_nonzero(mask) * voxel_mm3) for name, mask in masks.items()},
                float(np.count_nonzero(count) * voxel_mm3),
                float(np.count_nonzero((count > 0) & (count < answers)) * voxel_mm3),
                _coincidences(count, answers, n_outside, raters.n_raters),
            )
        )
    return measures


def identical_pairs(raters: RaterVotes) -> list[Pair]:
    """Pairs whose masks are the same, voxel by voxel, and not empty."""
    found = []
    for first, second in combinations(range(raters.n_raters), 2):
        one, other = raters.votes[first], raters.votes[second]
        answered = raters.answered
        if answered is not None and not np.array_equal(answered[first], answered[second]):
            continue
        if one.any() and np.array_equal(one, other):
            found.append((raters.names[first], raters.names[second]))
    return found


def fleiss_kappa(coincidences: NDArray[Any]) -> float:
    """Fleiss' kappa: how far agreement exceeds that of raters who mark as often, anywhere [1].

    All ordered pairs of answers to the same voxel form a symmetric table, on which Cohen's kappa (that of
    scikit-learn) is Fleiss' kappa. A voxel with n answers gives each pair the weight 1 / (n - 1), as in
    Krippendorff's coefficient [2], so that raters may be missing; that coefficient differs by a factor
    (N - 1) / N of the disagreement, N answers in all. The table is small and adds up over cases, however many
    voxels they have.

    Args:
        coincidences: ``(2, 2)`` of a case, or the sum over cases.

    Returns:
        1 for perfect agreement, 0 for chance; NaN if all answers are the same, or no voxel has two.

    References:
        [1] Fleiss, "Measuring nominal scale agreement among many raters", Psychological Bulletin 76, 1971.
        [2] Krippendorff, "Content Analysis", 2nd edition, Sage 2004, chapter 11.
    """
    from sklearn.metrics import cohen_kappa_score  # takes seconds to import: not for every worker

    if np.count_nonzero(coincidences.sum(axis=0)) < 2:
        return NAN
    first, second = np.indices(coincidences.shape).reshape(2, -1)
    return float(cohen_kappa_score(first, second, sample_weight=coincidences.ravel()))


def _coincidences(
    count: NDArray[Any], answers: NDArray[Any] | int, n_outside: int, n_raters: int
) -> NDArray[Any]:
    """Weighted pairs (no-no, no-yes; yes-no, yes-yes) of ``count`` votes among ``answers`` per voxel."""
    code = count.astype(np.int64) + np.multiply(answers, n_raters + 1, dtype=np.int64)
    numbers = np.bincount(code.ravel(), minlength=(n_raters + 1) ** 2).astype(np.float64)
    numbers[n_raters * (n_raters + 1)] += n_outside
    n, yes = np.divmod(np.arange(numbers.size), n_raters + 1)
    no = n - yes
    weight = np.where(n > 1, numbers / np.maximum(n - 1, 1), 0)
    mixed = (weight * yes * no).sum()
    return np.array([[(weight * no * (no - 1)).sum(), mixed], [mixed, (weight * yes * (yes - 1)).sum()]])
