"""Intervals and tests on plain arrays: bootstrap by scipy, Wilcoxon by scipy, Holm."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from nnunet_softlabel.cases.groups import FEWEST_GROUPS
from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.metrics.overlap import NAN, mean_of_defined

CONFIDENCE = 0.95
RESAMPLES = 5000
SEED = 12345
T_BELOW = 20  # groups; with fewer, the bootstrap misses the truth too often (docs/evaluation.md)


@dataclass(frozen=True)
class Interval:
    """Mean with its confidence interval; ``method`` is bca, percentile, t, or why there is none."""

    mean: float
    low: float
    high: float
    n: int
    n_groups: int
    method: str


def interval_of_mean(
    values: Sequence[float] | NDArray[Any],
    groups: Sequence[str] | None = None,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
) -> Interval:
    """Mean over cases with the interval that suits the number of groups.

    Fewer than `FEWEST_GROUPS` have none, fewer than `T_BELOW` a t interval, others that of `mean_interval`.
    The t interval takes the sums of whole groups, for the mean is a ratio of sums.
    """
    array, total, count = _by_group(values, groups)
    if not FEWEST_GROUPS <= len(count) < T_BELOW or np.ptp(array) == 0:
        return mean_interval(values, groups, confidence=confidence, resamples=resamples)
    mean, n = mean_of_defined(array), len(count)
    error = float(np.sqrt(n / (n - 1) * ((total - mean * count) ** 2).sum())) / len(array)
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * error
    return Interval(mean, mean - half, mean + half, len(array), n, "t")


def mean_interval(
    values: Sequence[float] | NDArray[Any],
    groups: Sequence[str] | None = None,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
) -> Interval:
    """Mean over cases with a BCa bootstrap interval; whole groups are drawn where cases share one.

    NaN are left out. The interval is NaN with fewer than `FEWEST_GROUPS` groups; where BCa is not defined
    (degenerate values), percentiles stand in, and ``method`` says so. The generator has a fixed seed.
    """
    array, total, count = _by_group(values, groups)
    mean = mean_of_defined(array)
    if len(count) < FEWEST_GROUPS:
        return Interval(mean, NAN, NAN, len(array), len(count), f"fewer than {FEWEST_GROUPS}: no interval")
    if np.ptp(array) == 0:
        return Interval(mean, mean, mean, len(array), len(count), "all values are equal")
    for method in ("bca", "percentile"):
        with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
            warnings.simplefilter("ignore", stats.DegenerateDataWarning)
            interval = stats.bootstrap(
                (total, count), _ratio_of_sums, paired=True, vectorized=True, batch=500, method=method,
                n_resamples=resamples, confidence_level=confidence, rng=np.random.default_rng(SEED),
            ).confidence_interval  # fmt: skip
        if np.isfinite(interval).all():
            break
    return Interval(mean, float(interval.low), float(interval.high), len(array), len(count), method)


def _by_group(
    values: Sequence[float] | NDArray[Any], groups: Sequence[str] | None
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Defined values; their sum and their number in each group."""
    array = np.asarray(values, dtype=np.float64)
    labels = np.arange(len(array)) if groups is None else np.asarray(groups, dtype=object).astype(str)
    labels, array = labels[~np.isnan(array)], array[~np.isnan(array)]
    _, index = np.unique(labels, return_inverse=True)
    return array, np.bincount(index, weights=array), np.bincount(index)


def _ratio_of_sums(total: NDArray[Any], count: NDArray[Any], axis: int = -1) -> NDArray[Any]:
    """Mean over cases of resampled groups."""
    return np.asarray(total.sum(axis=axis) / count.sum(axis=axis))


def group_means(values: NDArray[Any], groups: Sequence[str]) -> NDArray[Any]:
    """One value per group, in the order of the groups' names."""
    if len(values) == 0:
        return values
    _, index = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    return np.asarray(np.bincount(index, weights=values) / np.bincount(index))


def rank_test(differences: NDArray[Any]) -> tuple[float, float, str]:
    """Wilcoxon signed rank test and the rank-biserial correlation that goes with it.

    Returns:
        Two-sided p (zeros are dropped, as Wilcoxon did), effect size, and why they are NaN (else "").
    """
    if len(differences) < 2:
        return NAN, NAN, f"{len(differences)} pairs; a test needs at least two"
    nonzero = differences[differences != 0]
    if len(nonzero) == 0:
        return 1.0, 0.0, ""
    ranks = stats.rankdata(np.abs(nonzero))
    effect_size = float((ranks * np.sign(nonzero)).sum() / ranks.sum())
    return float(stats.wilcoxon(nonzero).pvalue), effect_size, ""


def smallest_rank_p(pairs: int) -> float:
    """The smallest two-sided p of Wilcoxon's signed rank test, ``2 / 2^n``: all pairs on one side."""
    return min(1.0, 2.0 ** (1 - pairs))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given; NaN are no tests and stay NaN.

    References:
        Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scand. J. Statistics 1979.
    """
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(p.shape, NAN)
    order = np.argsort(p)[: int((~np.isnan(p)).sum())]  # NaN sort last
    steps = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps * p[order]), 1)
    return [float(value) for value in adjusted]


def patient_of(case: str, names: tuple[str, str], groups: tuple[str, str]) -> str:
    """The group that either run knows: cases of one patient are not independent whoever says so.

    Raises:
        DatasetError: if the runs name two patients.
    """
    known = sorted(set(groups) - {"", case})
    if len(known) > 1:
        raise DatasetError(
            f"case {case}: is of patient {groups[0]} in the scores of {names[0]}, and of patient {groups[1]} "
            f"in those of {names[1]}; score both against the same data set."
        )
    return known[0] if known else case
