"""How far the raters of one case agree: pure functions of their votes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.cases.rater_maps import RaterMaps, VotesInChunk
from nnunet_softlabel.fusion import RaterVotes
from nnunet_softlabel.fusion.voting import pair_overlaps
from nnunet_softlabel.metrics.overlap import NAN, mean_of_defined
from nnunet_softlabel.public import public

Pair = tuple[str, str]


@dataclass(frozen=True)
class CaseMeasures:
    """Agreement of the raters of one case on one class or region.

    Attributes:
        dice: pair of raters -> Dice over the voxels that both answered; NaN if both drew nothing.
        volume_mm3: rater -> what was drawn.
        volume_answered_mm3: rater and another -> what the rater drew where the other answered, too.
        marked_mm3: what any rater marked.
        disputed_mm3: what the answering raters disagree on.
        coincidences: of `fleiss_kappa`; add them up over cases.
    """

    dice: Mapping[Pair, float]
    volume_mm3: Mapping[str, float]
    volume_answered_mm3: Mapping[Pair, float]
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

    def found_nothing(self, rater: str) -> bool:
        """True if a rater drew nothing where another, of what the rater answered, drew something."""
        answered = (mm3 for (_, other), mm3 in self.volume_answered_mm3.items() if other == rater)
        return self.volume_mm3[rater] == 0 and any(answered)

    def volume_ratio(self, rater: str) -> float:
        """Volume over the median of the others'; NaN if most of the others drew nothing.

        With each of the others it is that of the voxels which both answered.
        """
        others = [name for name in self.volume_mm3 if name != rater]
        own = [self.volume_answered_mm3[rater, other] for other in others]
        theirs = [self.volume_answered_mm3[other, rater] for other in others]
        if len(set(own)) > 1:
            theirs = [there / here for here, there in zip(own, theirs, strict=True) if here > 0]
            own = [1.0]
        median = float(np.median(theirs)) if theirs else 0.0
        return own[0] / median if median > 0 else NAN


@public
def measure_case(raters: RaterVotes) -> list[CaseMeasures]:
    """Compare all raters of a case, one `CaseMeasures` per channel.

    >>> votes = np.array([[[[0, 1, 1]]], [[[0, 0, 1]]]], bool)  # (raters, channels, y, x)
    >>> raters = ns.fusion.RaterVotes(votes, ("ann", "bob"), spacing_mm=(1.0, 1.0))
    >>> round(ns.measure_case(raters)[0].mean_dice, 2)
    0.67
    """
    totals = [_Numbers.of(raters, channel) for channel in range(raters.n_channels)]
    return [numbers.measures(raters.names, raters.spacing_mm) for numbers in totals]


def compare_raters(raters: RaterMaps) -> tuple[list[CaseMeasures], list[Pair]]:
    """`measure_case` of packed raters, chunk by chunk; and the pairs whose masks are the same, not empty."""
    n_raters, everybody = len(raters.names), list(combinations(raters.names, 2))
    totals = [_Numbers.nothing(n_raters) for _ in range(raters.n_channels)]
    same = set(everybody)
    rest = int(np.prod(raters.shape))
    for chunk in raters.chunks():
        rest -= chunk.votes.shape[-1]
        of_channel = {}
        if chunk.channels:
            votes = raters.raters_in(chunk)
            of_channel = {c: _Numbers.of(votes, row) for row, c in enumerate(chunk.channels)}
        unmarked = _Numbers.unmarked(n_raters, chunk.votes.shape[-1], chunk.answered)
        for channel in range(raters.n_channels):
            totals[channel] += of_channel.get(channel, unmarked)
        for pair, (one, other) in zip(everybody, combinations(range(n_raters), 2), strict=True):
            if not _is_same(chunk, one, other):
                same.discard(pair)
    unmarked = _Numbers.unmarked(n_raters, rest, None)
    measures = [(total + unmarked).measures(raters.names, raters.spacing_mm) for total in totals]
    drawn = {name for name in raters.names if any(m.volume_mm3[name] > 0 for m in measures)}
    return measures, [pair for pair in everybody if pair in same and pair[0] in drawn]


def _is_same(chunk: VotesInChunk, one: int, other: int) -> bool:
    """True if two raters say the same in a chunk."""
    answered = chunk.answered
    return np.array_equal(chunk.votes[one], chunk.votes[other]) and (
        answered is None or np.array_equal(answered[one], answered[other])
    )


@dataclass(frozen=True)
class _Numbers:
    """What is counted on one channel of a part of an image; parts are added up.

    Attributes:
        overlaps: ``(R, R, 2)``, see `pair_overlaps`.
        volumes: ``(R, R)`` voxels that each marked where another, or itself, answered.
        marked: voxels that any rater marked.
        disputed: voxels on which those who answered disagree.
        votes: ``((R + 1) ** 2,)`` voxels by answers and votes, answers first.
    """

    overlaps: NDArray[Any]
    volumes: NDArray[Any]
    marked: int
    disputed: int
    votes: NDArray[Any]

    def __add__(self, other: _Numbers) -> _Numbers:
        return _Numbers(
            self.overlaps + other.overlaps,
            self.volumes + other.volumes,
            self.marked + other.marked,
            self.disputed + other.disputed,
            self.votes + other.votes,
        )

    @classmethod
    def nothing(cls, n_raters: int) -> _Numbers:
        """Of no voxel."""
        return cls.unmarked(n_raters, 0, None)

    @classmethod
    def unmarked(cls, n_raters: int, n: int, answered: NDArray[Any] | None) -> _Numbers:
        """Of ``n`` voxels that nobody marked."""
        votes = np.zeros((n_raters + 1) ** 2, np.int64)
        if answered is None:
            votes[n_raters * (n_raters + 1)] = n
        else:
            votes[:: n_raters + 1] += np.bincount(answered.sum(axis=0), minlength=n_raters + 1)
        nothing = np.zeros((n_raters, n_raters, 2), np.int64)
        return cls(nothing, nothing[..., 0], 0, 0, votes)

    @classmethod
    def of(cls, raters: RaterVotes, channel: int) -> _Numbers:
        """Of one channel of the votes."""
        own = replace(raters, votes=raters.votes[:, channel : channel + 1], exclusive=False)
        (count,), answers = own.n_votes(), own.n_answers()
        n_raters = own.n_raters
        code = count.astype(np.int64) + np.multiply(answers, n_raters + 1, dtype=np.int64)
        return cls(
            pair_overlaps(own),
            np.array([_volumes_where_answered(votes, own) for votes in own.counted_votes()]),
            int(np.count_nonzero(count)),
            int(np.count_nonzero((count > 0) & (count < answers))),
            np.bincount(code.ravel(), minlength=(n_raters + 1) ** 2),
        )

    def measures(self, names: tuple[str, ...], spacing_mm: tuple[float, ...]) -> CaseMeasures:
        """In mm and shares."""
        voxel_mm3 = float(np.prod(spacing_mm))
        dice = {}
        for first, second in combinations(range(len(names)), 2):
            both, total = self.overlaps[first, second].tolist()
            dice[names[first], names[second]] = 2 * both / total if total else NAN
        return CaseMeasures(
            dice,
            {name: float(n) * voxel_mm3 for name, n in zip(names, self.volumes.diagonal(), strict=True)},
            {
                (name, other): float(self.volumes[i, j]) * voxel_mm3
                for i, name in enumerate(names)
                for j, other in enumerate(names)
                if i != j
            },
            self.marked * voxel_mm3,
            self.disputed * voxel_mm3,
            _coincidences(self.votes, len(names)),
        )


def _volumes_where_answered(votes: NDArray[Any], raters: RaterVotes) -> list[int]:
    """``(R,)`` voxels of a rater's votes ``(1, *spatial)`` that each rater answered."""
    if raters.answered is None:
        return [int(np.count_nonzero(votes))] * raters.n_raters
    return [int(np.count_nonzero(votes & answered)) for answered in raters.answered]


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


def _coincidences(votes: NDArray[Any], n_raters: int) -> NDArray[Any]:
    """Weighted pairs (no-no, no-yes; yes-no, yes-yes) of voxels by answers and votes, see `_Numbers`."""
    numbers = votes.astype(np.float64)
    n, yes = np.divmod(np.arange(numbers.size), n_raters + 1)
    no = n - yes
    weight = np.where(n > 1, numbers / np.maximum(n - 1, 1), 0)
    mixed = (weight * yes * no).sum()
    return np.array([[(weight * no * (no - 1)).sum(), mixed], [mixed, (weight * yes * (yes - 1)).sum()]])
