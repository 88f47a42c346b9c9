"""Voxels far from every mark and prediction: sums of their probabilities are all that metrics ask of them.

The reference is 0 there, whatever it is: soft label, consensus, rater or truth. So one pass over the
probabilities of a class serves all comparisons, and only voxels near marks and predictions are compared one
by one. Sums over both kinds are added in another order than over a whole array: they agree to 1e-12 of their
size, not to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHUNK = 1 << 18  # voxels worked on at a time
SMALLEST_PROBABILITY = 1e-6  # NLL: a certain and wrong voxel costs 13.8, not infinity
FEW = 1 << 16  # values that are sorted as they are


def chunks(*arrays: NDArray[Any], size: int = CHUNK) -> Iterator[tuple[NDArray[Any], ...]]:
    """Arrays of one size, flat and in pieces, so that a large image needs no large temporary arrays."""
    flat = [array.reshape(-1) for array in arrays]
    return (tuple(a[i : i + size] for a in flat) for i in range(0, flat[0].size, size))


@dataclass(frozen=True)
class FarVoxels:
    """Sums over voxels of which the reference is 0.

    Attributes:
        count: how many.
        highest: probability.
        total: of p.
        squares: of p^2, each in single precision, as in `calibration.brier`.
        nll: of ``-log(1 - p)``, as in `calibration.nll_above_entropy`.
        variance: of ``p (1 - p)``.
        variance_squares: of its square.
        reliability: table as `calibration.reliability` gives it; one row of zeros fits any bins.
        top_label: the same of the likelier answer.
        edges: of the adaptive calibration error's bins, over these and the near voxels together.
        adaptive: table of these voxels in those bins.
    """

    count: int = 0
    highest: float = float("-inf")
    total: float = 0.0
    squares: float = 0.0
    nll: float = 0.0
    variance: float = 0.0
    variance_squares: float = 0.0
    reliability: NDArray[Any] = field(default_factory=lambda: np.zeros((1, 3)))
    top_label: NDArray[Any] = field(default_factory=lambda: np.zeros((1, 3)))
    edges: NDArray[Any] | None = None
    adaptive: NDArray[Any] = field(default_factory=lambda: np.zeros((1, 3)))

    @classmethod
    def of(cls, values: NDArray[Any], *, bins: int) -> FarVoxels:
        """Sums of probabilities ``values``, flat; without the bins that they have in common with others."""
        total = squares = nll = variance = variance_squares = 0.0
        reliability, top_label = np.zeros((bins, 3)), np.zeros((bins, 3))
        for (p,) in chunks(values):
            total += float(p.sum(dtype=np.float64))
            squares += float(np.square(p).sum(dtype=np.float64))
            nll += _nll_of_nothing(p)
            spread = p.astype(np.float64)
            spread *= 1 - spread
            variance += float(spread.sum())
            variance_squares += float(np.dot(spread, spread))
            reliability += _table_of_equal_bins(p, None, bins)
            top_label += _table_of_equal_bins(np.maximum(p, 1 - p), p <= 0.5, bins)
        highest = float(values.max(initial=-np.inf))
        return cls(
            values.size, highest, total, squares, nll, variance, variance_squares, reliability, top_label
        )

    def beside(self, near: NDArray[Any], values: NDArray[Any], *, bins: int) -> FarVoxels:
        """The same sums, with bins of equal mass over these ``values`` and those ``near`` together."""
        edges = adaptive_edges((values, near.reshape(-1)), bins=bins)
        which, table = AdaptiveBins(edges), np.zeros((len(edges) + 1, 3))
        for (p,) in chunks(values):
            table += table_of(which(p), p, None, bins=len(table))
        return replace(self, edges=edges, adaptive=table)


NOTHING = FarVoxels()


def _nll_of_nothing(p: NDArray[Any]) -> float:
    """Sum of ``-log(1 - p)``, p clipped to [1e-6, 1 - 1e-6], but 0 for p = 0."""
    p = p[p > 0]
    above = p[p > SMALLEST_PROBABILITY].astype(np.float64)  # few of a background, and a logarithm is dear
    least = (p.size - above.size) * -np.log1p(-SMALLEST_PROBABILITY)
    return float(-np.log1p(-np.minimum(above, 1 - SMALLEST_PROBABILITY)).sum() + least)


def equal_bins(p: NDArray[Any], bins: int) -> NDArray[Any]:
    """Which of the bins of equal width over [0, 1]."""
    return np.minimum((p * bins).astype(np.intp), bins - 1)


def _table_of_equal_bins(p: NDArray[Any], r: NDArray[Any] | None, bins: int) -> NDArray[Any]:
    """`table_of` in bins of equal width; a background lies in one of them."""
    lowest, highest = equal_bins(np.array([p.min(), p.max()], p.dtype), bins)
    if lowest != highest:
        return table_of(equal_bins(p, bins), p, r, bins=bins)
    table = np.zeros((bins, 3))
    table[lowest] = p.size, p.sum(dtype=np.float64), 0 if r is None else np.count_nonzero(r)
    return table


def table_of(
    which: NDArray[Any],
    p: NDArray[Any],
    r: NDArray[Any] | None,
    *,
    bins: int,
    counts: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """``(bins, 3)``: number of voxels, sum of p and sum of r (None: 0) of each bin."""
    table = np.zeros((bins, 3))
    table[:, 0] = np.bincount(which, weights=counts, minlength=bins)
    for column, values in ((1, p), (2, r)):
        if values is not None:
            weights = values if counts is None else values * counts
            table[:, column] = np.bincount(which, weights=weights, minlength=bins)
    return table


def adaptive_edges(
    parts: Sequence[NDArray[Any]], *, bins: int, counts: NDArray[Any] | None = None
) -> NDArray[Any]:
    """Edges of bins of equal mass over the values of all parts; a value that fills a bin has it to itself.

    Args:
        parts: flat probabilities or masks.
        bins: how many.
        counts: voxels that each value stands for, of a single part.
    """
    size = int(sum(part.size for part in parts) if counts is None else counts.sum())
    dtype = np.result_type(np.float32, *parts)  # a rater's mask is a map, too
    if size == 0:
        return np.zeros(0, dtype)
    ranks = (np.arange(1, bins) * size) // bins
    if counts is None:
        found = values_at(parts, ranks)
    else:
        order = np.argsort(parts[0])
        found = parts[0][order][np.searchsorted(np.cumsum(counts[order]), ranks, side="right")]
    edges, repeats = np.unique(found, return_counts=True)
    # an edge that repeats, or begins the range, is a value of many voxels: they have a bin to themselves
    lowest = min(part.min() for part in parts if part.size)
    alone = edges[(repeats > 1) | (edges == lowest)].astype(dtype)
    return np.asarray(np.union1d(edges, np.nextafter(alone, alone.dtype.type(np.inf))))


def values_at(parts: Sequence[NDArray[Any]], ranks: NDArray[Any]) -> NDArray[Any]:
    """The values that would stand at these places if all parts were sorted together.

    Large parts are counted by the first 16 bits of their values, so that few values have to be sorted.

    >>> values_at([np.array([3.0, 1.0]), np.array([2.0])], np.array([0, 2])).tolist()
    [1.0, 3.0]
    """
    if sum(part.size for part in parts) < FEW or any(part.dtype != np.float32 for part in parts):
        values = np.concatenate(parts)
        return np.asarray(np.partition(values, ranks)[ranks])
    count = np.zeros(BUCKETS, np.intp)
    for part in parts:
        for (p,) in chunks(part):
            count += np.bincount(_buckets(p), minlength=BUCKETS)
    ends = np.cumsum(count)
    bucket = np.searchsorted(ends, ranks, side="right")
    is_needed = np.zeros(BUCKETS, bool)
    is_needed[bucket] = True
    needed, filled = np.empty(count[is_needed].sum(), np.float32), 0
    for part in parts:
        for (p,) in chunks(part):
            own = p[is_needed[_buckets(p)]]
            needed[filled : filled + len(own)] = own
            filled += len(own)
    # place among the needed: by as many fewer as there are values in buckets below that are not needed
    places = ranks - np.cumsum(np.where(is_needed, 0, count))[bucket]
    needed.partition(places)
    return np.asarray(needed[places])


BUCKETS = 1 << 16


def _buckets(p: NDArray[Any]) -> NDArray[Any]:
    """Sign, exponent and seven more bits of float32: a larger probability has no smaller bucket."""
    return np.abs(p).view(np.uint32) >> 16


class AdaptiveBins:
    """Which bin a probability is in: ``np.searchsorted(edges, p, side="right")``, but faster."""

    def __init__(self, edges: NDArray[Any]) -> None:
        self.edges = edges
        starts = (np.arange(BUCKETS, dtype=np.uint32) << 16).view(np.float32)
        ends = ((np.arange(BUCKETS, dtype=np.uint32) << 16) | 0xFFFF).view(np.float32)
        self._first = np.searchsorted(edges, starts, side="right")
        self._is_mixed = self._first != np.searchsorted(edges, ends, side="right")

    def __call__(self, p: NDArray[Any]) -> NDArray[Any]:
        """The bin of each of flat float32 probabilities."""
        bucket = _buckets(p)
        found, is_mixed = self._first[bucket], self._is_mixed[bucket]
        found[is_mixed] = np.searchsorted(self.edges, p[is_mixed], side="right")
        return found
