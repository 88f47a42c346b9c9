from __future__ import annotations

import math

import numpy as np
import pytest

from nnunet_softlabel.metrics.energy_distance import generalised_energy_distance, level_sets


def test_hand_worked_distance():
    # raters {a}, {a, b}: IoU 1/2; one sample {a, b}
    a, ab = np.array([True, False]), np.array([True, True])
    # E d(S, Y) = (1/2 + 0) / 2; E d(S, S') = 0; E d(Y, Y') = (0 + 1/2 + 1/2 + 0) / 4
    assert generalised_energy_distance([a, ab], [ab]) == pytest.approx(2 * 0.25 - 0 - 0.25)


def test_agrees_with_scikit_learns_jaccard_distances(rng):
    pairwise = pytest.importorskip("sklearn.metrics")
    raters, samples = rng.random((4, 200)) > 0.6, rng.random((9, 200)) > 0.5

    def d(x, y):
        return pairwise.pairwise_distances(x, y, metric="jaccard").mean()

    expected = 2 * d(samples, raters) - d(samples, samples) - d(raters, raters)
    assert generalised_energy_distance(list(raters), list(samples)) == pytest.approx(expected, abs=1e-6)


def test_same_distribution_has_distance_zero(rng):
    masks = list(rng.random((3, 50)) > 0.5)
    assert generalised_energy_distance(masks, masks * 2) == pytest.approx(0, abs=1e-6)


def test_nested_raters_are_matched_by_their_own_mean():
    raters = [np.arange(8) < n for n in (2, 4, 6, 8)]
    mean = np.mean(raters, axis=0)
    assert generalised_energy_distance(raters, level_sets(mean, levels=4)) == pytest.approx(0, abs=1e-6)


def test_level_sets_have_the_map_as_their_mean(rng):
    p = rng.random(100)
    np.testing.assert_allclose(np.mean(level_sets(p, levels=64), axis=0), p, atol=1 / 64)


def test_empty_masks_are_equal_and_masked_voxels_do_not_count():
    nothing, one = np.zeros(4, bool), np.array([True, False, False, False])
    assert generalised_energy_distance([nothing], [nothing]) == 0
    assert generalised_energy_distance([nothing], [one]) == 2
    assert generalised_energy_distance([nothing], [one], mask=~one) == 0


def test_nobody_is_nan():
    assert math.isnan(generalised_energy_distance([], [np.ones(2, bool)]))
    assert math.isnan(generalised_energy_distance([np.ones(2, bool)], []))
