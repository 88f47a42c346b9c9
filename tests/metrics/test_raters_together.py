from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from nnunet_softlabel.metrics.raters_together import (
    RATERS_METRICS,
    Setting,
    measure_raters,
    unanimous_dice,
    uncertainty_ncc,
    volume_coverage,
    volume_crps_ml,
)

LITRES = Setting(voxel_volume_mm3=1000.0)  # a voxel is 1 ml


def line(length: int, of: int = 20) -> np.ndarray:
    return np.arange(of) < length


def test_crps_is_the_integral_that_curvas_computes():
    raters, prediction = [line(4), line(6), line(11)], line(9).astype(np.float32)
    volumes = np.array([4, 6, 11])
    mean, spread = volumes.mean(), volumes.std()

    def integrand(volume: float) -> float:
        return (norm.cdf(volume, mean, spread) - (volume >= 9)) ** 2

    expected = quad(integrand, -30, 9)[0] + quad(integrand, 9, 60)[0]
    assert volume_crps_ml(raters, prediction, LITRES) == pytest.approx(expected, rel=1e-6)


def test_crps_of_raters_of_one_volume_is_the_absolute_error():
    assert volume_crps_ml([line(5), line(5)], np.full(20, 0.4), LITRES) == pytest.approx(3)


def test_coverage_counts_raters_between_the_outer_level_sets():
    # p > .9 on 4 voxels, p > .1 on 8: of volumes 3, 4, 8, 9 two lie in between
    prediction = np.select([line(4), line(8)], [0.95, 0.5], 0.05)
    raters = [line(3), line(4), line(8), line(9)]
    assert volume_coverage(raters, prediction, LITRES) == pytest.approx(0.5 - 0.8)


def test_ncc_is_the_correlation_of_both_variances(rng):
    raters = [rng.random(50) > 0.5 for _ in range(3)]
    prediction = rng.random(50)
    mean = np.mean(raters, axis=0)
    expected = np.corrcoef(mean * (1 - mean), prediction * (1 - prediction))[0, 1]
    assert uncertainty_ncc(raters, prediction, Setting()) == pytest.approx(expected)
    assert uncertainty_ncc(raters, mean, Setting()) == pytest.approx(1)


def test_ncc_of_raters_who_agree_is_undefined():
    assert math.isnan(uncertainty_ncc([line(3), line(3)], np.linspace(0, 1, 20), Setting()))


def test_dice_where_raters_agree_leaves_disputed_voxels_out():
    # agreed: voxels 0-3 marked, 6-19 not; the prediction marks 0-2 and 10; 2 * 3 / (4 + 4)
    prediction = (line(3) | (np.arange(20) == 10)).astype(float)
    prediction[4:6] = 1  # disputed: does not matter
    assert unanimous_dice([line(4), line(6)], prediction, Setting()) == pytest.approx(6 / 8)


@pytest.mark.parametrize("name", RATERS_METRICS)
def test_masked_voxels_do_not_count(name, rng):
    raters = [rng.random(60) > 0.6 for _ in range(3)]
    prediction = rng.random(60)
    mask = np.arange(60) < 40
    changed = np.where(mask, prediction, 0.99)
    function = RATERS_METRICS[name].function
    setting = Setting(mask=mask)
    assert function(raters, prediction, setting) == pytest.approx(function(raters, changed, setting))


def test_no_rater_is_nan_for_all():
    assert all(math.isnan(value) for value in measure_raters([], np.zeros(4), Setting()).values())
