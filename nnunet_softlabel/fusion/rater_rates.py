"""How often raters are right, estimated over a whole data set without knowing the truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.fusion.rater_votes import RaterVotes

# The rates of raters who cannot be told apart go under this name.
ANYONE = "*"
# Rates stay inside (0, 1), and 0.5 where nothing is known, by this many imagined voxels of either kind.
IMAGINED_VOXELS = 1e-3
# 3**39 is the last power of 3 in an int64.
MOST_RATERS = 39

# For one channel, the voters and their votes as (name, vote) pairs, in the order of the names.
VotePattern = tuple[tuple[str, bool], ...]


class CountsJson(TypedDict):
    """`RaterCounts` as JSON keeps it: for each channel, votes as text -> number of voxels."""

    names: list[str]
    channels: list[dict[str, int]]


@dataclass(frozen=True)
class RaterRates:
    """Rates per rater and foreground channel; plain numbers, so that JSON can keep them.

    Attributes:
        sensitivity: rater -> for each channel, the probability to mark a voxel that lies in it.
        specificity: rater -> for each channel, the probability not to mark one that does not.
        prevalence: for each channel, the share of voxels that lie in it.
    """

    sensitivity: Mapping[str, tuple[float, ...]]
    specificity: Mapping[str, tuple[float, ...]]
    prevalence: tuple[float, ...]

    @classmethod
    def from_arrays(
        cls,
        names: Iterable[str],
        sensitivity: NDArray[Any],
        specificity: NDArray[Any],
        prevalence: NDArray[Any],
    ) -> RaterRates:
        """From ``(R, C)``, ``(R, C)`` and ``(C,)``."""
        names = tuple(names)
        return cls(
            dict(zip(names, map(tuple, sensitivity.tolist()), strict=True)),
            dict(zip(names, map(tuple, specificity.tolist()), strict=True)),
            tuple(prevalence.tolist()),
        )

    def has(self, name: str) -> bool:
        """True if the rater's rates are known."""
        return name in self.sensitivity or ANYONE in self.sensitivity

    def of_channels(self, channels: Sequence[int]) -> RaterRates:
        """The rates on some channels alone."""

        def chosen(values: tuple[float, ...]) -> tuple[float, ...]:
            return tuple(values[channel] for channel in channels)

        return RaterRates(
            {name: chosen(values) for name, values in self.sensitivity.items()},
            {name: chosen(values) for name, values in self.specificity.items()},
            chosen(self.prevalence),
        )

    def of(self, name: str, channel: int) -> tuple[float, float]:
        """Sensitivity and specificity of a rater, or of anyone if the rates are shared."""
        known = ANYONE if ANYONE in self.sensitivity else name
        if not self.has(name):
            raise ValueError(
                f"rates lack rater {name}: estimate them over all cases that are fused with them"
            )
        return self.sensitivity[known][channel], self.specificity[known][channel]


@dataclass(frozen=True)
class RaterCounts:
    """How many voxels got which votes: all that rates need to know of a case; add cases up with ``+``.

    Attributes:
        names: of the raters.
        channels: for each channel, votes -> number of voxels.
    """

    names: tuple[str, ...]
    channels: tuple[Mapping[VotePattern, int], ...]

    @classmethod
    def of(cls, raters: RaterVotes) -> RaterCounts:
        """Count the votes of one case."""
        return cls(raters.names, tuple(dict(_patterns(raters, c)) for c in range(raters.n_channels)))

    def __add__(self, other: RaterCounts) -> RaterCounts:
        if len(self.channels) != len(other.channels):
            raise ValueError(f"cases differ in channels: {len(self.channels)} and {len(other.channels)}")
        return RaterCounts(
            tuple(dict.fromkeys(self.names + other.names)),
            tuple(
                Counter(one) + Counter(two) for one, two in zip(self.channels, other.channels, strict=True)
            ),
        )

    def estimate(
        self,
        *,
        shared: bool = False,
        has_fixed_prevalence: bool = False,
        max_iterations: int = 5000,
        tolerance: float = 1e-7,
    ) -> RaterRates:
        """Rates by EM, the same to the last bit in whatever order cases were added.

        Args:
            shared: as for :func:`estimate_rater_rates`, like the arguments after it.
            has_fixed_prevalence: see there.
            max_iterations: see there.
            tolerance: see there.
        """
        known = [ANYONE] if shared else sorted(self.names)
        fits = [
            _fit(
                *_as_arrays(counted, known, shared),
                has_fixed_prevalence=has_fixed_prevalence,
                max_iterations=max_iterations,
                tolerance=tolerance,
            )
            for counted in self.channels
        ]
        sensitivity, specificity, prevalence = (np.stack(part, axis=-1) for part in zip(*fits, strict=True))
        return RaterRates.from_arrays(known, sensitivity, specificity, prevalence)

    def to_json(self) -> CountsJson:
        """Plain numbers; a pattern is one letter per rater: 1 yes, 0 no, - no answer."""

        def text(pattern: VotePattern) -> str:
            votes = dict(pattern)
            return "".join("-" if name not in votes else str(int(votes[name])) for name in self.names)

        channels = [{text(pattern): number for pattern, number in c.items()} for c in self.channels]
        return {"names": list(self.names), "channels": channels}

    @classmethod
    def from_json(cls, content: CountsJson) -> RaterCounts:
        """Inverse of `to_json`."""
        names = tuple(content["names"])

        def pattern(text: str) -> VotePattern:
            pairs = zip(names, text, strict=True)
            return tuple(sorted((name, letter == "1") for name, letter in pairs if letter != "-"))

        return cls(names, tuple({pattern(t): n for t, n in c.items()} for c in content["channels"]))


def estimate_rater_rates(
    cases: Iterable[RaterVotes],
    *,
    shared: bool = False,
    has_fixed_prevalence: bool = False,
    max_iterations: int = 5000,
    tolerance: float = 1e-7,
) -> RaterRates:
    """Dawid and Skene's EM [1] over the voxels of all cases, each foreground channel by itself.

    Voxels with the same votes are counted once per case and then treated as one, so the cases are read once,
    one at a time. One image holds too few lesions to tell a blind rater from a healthy knee; a data set does.
    Starts from the mean vote and assumes that raters err independently, given the truth. Fewer than three
    raters per voxel do not identify the rates: the result is then one of many that fit alike.

    >>> votes = np.array([[[0, 1, 1]], [[0, 0, 1]], [[0, 1, 1]]], bool)  # (raters, channels, voxels)
    >>> raters = RaterVotes(votes, ("ann", "bob", "eve"), spacing_mm=(1.0,))
    >>> {name: round(rates[0], 2) for name, rates in estimate_rater_rates([raters]).sensitivity.items()}
    {'ann': 1.0, 'bob': 0.5, 'eve': 1.0}

    Args:
        cases: the votes of each case; raters may be missing from some.
        shared: raters are anonymous and share one pair of rates.
        has_fixed_prevalence: the prevalence stays the mean share of marked voxels, as in STAPLE.
        max_iterations: of EM; patterns are few, so many are cheap.
        tolerance: stop when no rate changes by more.

    Returns:
        The rates; of :data:`ANYONE` if shared.

    References:
        [1] Dawid and Skene, "Maximum likelihood estimation of observer error-rates using the EM algorithm",
            Applied Statistics 28, 1979.
    """
    counts = [RaterCounts.of(raters) for raters in cases]
    if not counts:
        raise ValueError("cases must hold at least one case to estimate rates from")
    return reduce(add, counts).estimate(
        shared=shared,
        has_fixed_prevalence=has_fixed_prevalence,
        max_iterations=max_iterations,
        tolerance=tolerance,
    )


def _patterns(raters: RaterVotes, channel: int) -> Iterator[tuple[VotePattern, int]]:
    """The different votes on one channel and how many voxels got them."""
    if raters.n_raters > MOST_RATERS:
        raise ValueError(
            f"rates can be estimated for at most {MOST_RATERS} raters a case, got {raters.n_raters}"
        )
    votes, answered = raters.votes[:, channel], raters.answered
    # Voxels on which all agree, nearly all as a rule, are only counted.
    agreed = votes.all(axis=0)
    special = votes.any(axis=0) & ~agreed
    if answered is not None:
        all_answered = answered.all(axis=0)
        agreed &= all_answered
        special |= ~all_answered
    n_inside = np.count_nonzero(agreed)
    # One digit of base 3 per rater: 0 no, 1 yes, 2 unanswered.
    codes = np.zeros(np.count_nonzero(special), dtype=np.int64)
    for rater in range(raters.n_raters):
        digit = votes[rater][special].astype(np.int64)
        if answered is not None:
            digit[~answered[rater][special]] = 2
        codes += digit * 3**rater
    different, numbers = np.unique(codes, return_counts=True)
    said = different[:, None] // 3 ** np.arange(raters.n_raters) % 3
    yield from _named_patterns(raters.names, said, numbers)
    unanimous = np.array([[0], [1]]).repeat(raters.n_raters, axis=1)
    n_unanimous = np.array([special.size - codes.size - n_inside, n_inside])
    yield from _named_patterns(raters.names, unanimous, n_unanimous)


def _named_patterns(
    names: tuple[str, ...], said: NDArray[Any], numbers: NDArray[Any]
) -> Iterator[tuple[VotePattern, int]]:
    for row, number in zip(said, numbers.tolist(), strict=True):
        pattern = tuple(sorted((n, bool(vote)) for n, vote in zip(names, row, strict=True) if vote != 2))
        if number and pattern:
            yield pattern, number


def _as_arrays(
    counted: Mapping[VotePattern, int], names: list[str], shared: bool
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """``(P, R)`` numbers of yes and of no, ``(P,)`` voxels, in an order that hangs on the patterns alone."""
    index = {name: rater for rater, name in enumerate(names)}
    rows: Counter[tuple[tuple[int, ...], tuple[int, ...]]] = Counter()
    for pattern, number in counted.items():
        yes, no = ([0] * len(names) for _ in range(2))
        for name, vote in pattern:
            (yes if vote else no)[0 if shared else index[name]] += 1
        rows[tuple(yes), tuple(no)] += number
    ordered = sorted(rows)
    said = np.array(ordered, dtype=float).reshape(-1, 2, len(names))
    return said[:, 0], said[:, 1], np.array([rows[row] for row in ordered], dtype=float)


def _fit(
    yes: NDArray[Any],
    no: NDArray[Any],
    voxels: NDArray[Any],
    *,
    has_fixed_prevalence: bool,
    max_iterations: int,
    tolerance: float,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """EM for one channel: sensitivity ``(R,)``, specificity ``(R,)``, prevalence."""
    posterior = yes.sum(axis=1) / (yes + no).sum(axis=1)
    marked = _share((voxels @ yes).sum(), (voxels @ no).sum())
    before: NDArray[Any] = np.full(2 * yes.shape[1] + 1, np.inf)
    for _ in range(max_iterations):
        inside, outside = voxels * posterior, voxels * (1 - posterior)
        sensitivity = _share(inside @ yes, inside @ no)
        specificity = _share(outside @ no, outside @ yes)
        prevalence = marked if has_fixed_prevalence else _share(inside.sum(), outside.sum())
        now = np.array([*sensitivity, *specificity, prevalence])
        if np.abs(now - before).max() < tolerance:
            break
        before = now
        log_odds = np.log(prevalence / (1 - prevalence))
        log_odds = log_odds + yes @ np.log(sensitivity / (1 - specificity))
        log_odds = log_odds + no @ np.log((1 - sensitivity) / specificity)
        posterior = 1 / (1 + np.exp(-np.clip(log_odds, -500, 500)))
    return sensitivity, specificity, prevalence


def _share(part: NDArray[Any], rest: NDArray[Any]) -> NDArray[Any]:
    return (part + IMAGINED_VOXELS) / (part + rest + 2 * IMAGINED_VOXELS)
