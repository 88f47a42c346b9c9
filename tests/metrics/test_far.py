"""Voxels of which sums are kept: the same numbers as from all of them."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_softlabel.metrics import far
from nnunet_softlabel.metrics.calibration import brier, nll_above_entropy, reliability
from nnunet_softlabel.metrics.far import AdaptiveBins, FarVoxels, adaptive_edges, equal_bins, values_at


def background(rng: np.random.Generator, n: int) -> np.ndarray:
    """Probabilities as of a background: many zeros, many tiny ones, few others."""
    p = np.concatenate([np.zeros(n // 3), 1e-8 * rng.random(n // 3), rng.random(n - 2 * (n // 3)) ** 8])
    return rng.permutation(p).astype(np.float32)


@pytest.mark.parametrize("sizes", [(1,), (7, 0, 30), (500, 400, 1)])
@pytest.mark.parametrize("chunk", [3, 1 << 20])
def test_values_at_ranks_are_those_of_the_sorted_parts_however_they_are_found(rng, monkeypatch, sizes, chunk):
    parts = [background(rng, n) for n in sizes]
    ordered = np.sort(np.concatenate(parts))
    ranks = np.unique(rng.integers(0, len(ordered), 20))
    monkeypatch.setattr(far, "CHUNK", chunk)
    for few in (0, 1 << 30):  # by buckets, and by sorting
        monkeypatch.setattr(far, "FEW", few)
        np.testing.assert_array_equal(values_at(parts, ranks), ordered[ranks])


def test_bins_by_buckets_are_those_of_a_search(rng):
    p = np.concatenate([background(rng, 3000), np.array([0.0, 0.25, 0.5, 1.0], np.float32)])
    for edges in ([], [0.25], [0.25, 0.25000003, 0.5], np.sort(rng.random(14))):
        edges = np.array(edges, np.float32)
        near_edges = np.concatenate(
            [edges, np.nextafter(edges, np.float32(2)), np.nextafter(edges, np.float32(-1))]
        )
        voxels = np.concatenate([p, near_edges])
        expected = np.searchsorted(edges, voxels, side="right")
        np.testing.assert_array_equal(AdaptiveBins(edges)(voxels), expected)


def test_edges_of_counted_voxels_are_those_of_repeated_ones(rng):
    p, counts = rng.random(40).astype(np.float32), rng.integers(1, 9, 40)
    for bins in (2, 5, 15):
        expected = adaptive_edges([np.repeat(p, counts)], bins=bins)
        np.testing.assert_array_equal(adaptive_edges([p], bins=bins, counts=counts), expected)
    assert adaptive_edges([np.zeros(0, np.float32)], bins=4).size == 0


def test_edges_by_hand():
    p = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8], np.float32)
    np.testing.assert_array_equal(adaptive_edges([p[4:], p[:4]], bins=4), p[[2, 4, 6]])
    # a value that fills a bin, or begins the range, has a bin to itself: the next number ends it
    after = np.nextafter(np.float32(0.5), np.float32(1))
    many = np.array([0.1] + [0.5] * 6 + [0.9], np.float32)
    np.testing.assert_array_equal(adaptive_edges([many], bins=4), np.array([0.5, after], np.float32))
    first = np.array([0.2, 0.2, 0.2, 0.6, 0.7, 0.8], np.float32)
    after = np.nextafter(np.float32(0.2), np.float32(1))
    np.testing.assert_array_equal(adaptive_edges([first], bins=3), np.array([0.2, after, 0.7], np.float32))


def test_equal_bins_hold_their_lower_edge_and_the_last_one_both():
    assert equal_bins(np.array([0.0, 0.24, 0.25, 0.5, 0.99, 1.0]), 4).tolist() == [0, 0, 1, 2, 3, 3]


@pytest.mark.parametrize("highest", [0.02, 1.0])
def test_sums_of_far_voxels_are_those_of_the_metrics_without_a_reference(rng, highest):
    p = (highest * background(rng, 900)).astype(np.float32)
    nothing = np.zeros_like(p)
    found = FarVoxels.of(p, bins=15)
    assert (found.count, found.highest) == (900, float(p.max()))
    assert found.total == pytest.approx(p.sum(dtype=np.float64))
    assert found.squares / 900 == pytest.approx(brier(nothing, p), rel=1e-6)
    assert found.nll / 900 == pytest.approx(nll_above_entropy(nothing, p), rel=1e-6)
    spread = p.astype(np.float64) * (1 - p.astype(np.float64))
    assert found.variance == pytest.approx(spread.sum(), rel=1e-5)
    assert found.variance_squares == pytest.approx((spread**2).sum(), rel=1e-5)
    np.testing.assert_allclose(found.reliability, reliability(nothing, p, bins=15), rtol=1e-6)
    right = reliability((p <= 0.5).astype(np.float32), np.maximum(p, 1 - p), bins=15)
    np.testing.assert_allclose(found.top_label, right, rtol=1e-6)
