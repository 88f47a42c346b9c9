from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import rel_entr

from nnunet_softlabel.metrics import calibration
from nnunet_softlabel.metrics.calibration import (
    adaptive_expected_calibration_error,
    area_under_risk_coverage,
    average_calibration_error,
    brier,
    calibration_error,
    expected_calibration_error,
    nll_above_entropy,
    reliability,
    top_label_calibration_error,
)
from nnunet_softlabel.metrics.near import near_object


def test_brier_agrees_with_scikit_learn(rng):
    sklearn = pytest.importorskip("sklearn.metrics")
    reference, prediction = rng.random(500) > 0.7, rng.random(500)
    assert brier(reference, prediction) == pytest.approx(sklearn.brier_score_loss(reference, prediction))


def test_nll_of_a_hard_reference_is_log_loss(rng):
    sklearn = pytest.importorskip("sklearn.metrics")
    reference, prediction = rng.random(500) > 0.7, rng.uniform(0.01, 0.99, 500)
    expected = sklearn.log_loss(reference, prediction)
    assert nll_above_entropy(reference, prediction) == pytest.approx(expected)


def test_nll_above_entropy_is_the_kullback_leibler_divergence(rng):
    q, p = rng.random(300), rng.uniform(0.01, 0.99, 300)
    expected = (rel_entr(q, p) + rel_entr(1 - q, 1 - p)).mean()
    assert nll_above_entropy(q, p) == pytest.approx(expected)


def test_nll_is_zero_only_for_the_reference_itself():
    q = np.array([0.0, 0.3, 1.0])
    assert nll_above_entropy(q, q) == 0
    assert nll_above_entropy(q, np.array([0.0, 0.4, 1.0])) > 0
    assert nll_above_entropy(np.array([1.0]), np.array([0.0])) == pytest.approx(-math.log(1e-6))


def test_ece_agrees_with_torchmetrics(rng):
    classification = pytest.importorskip("torchmetrics.functional.classification")
    torch = pytest.importorskip("torch")
    reference, prediction = rng.random(2000) > 0.6, rng.random(2000).astype(np.float32)
    expected = classification.binary_calibration_error(
        torch.from_numpy(prediction), torch.from_numpy(reference.astype(np.int64)), n_bins=15, norm="l1"
    )
    assert expected_calibration_error(reference, prediction) == pytest.approx(float(expected), abs=1e-6)


def test_hand_worked_ece():
    # two bins: p = .2 .4 against 0 .5, p = .6 1 against 1 1; |.6 - .5| + |1.6 - 2| over 4 voxels
    value = expected_calibration_error(np.array([0, 0.5, 1, 1]), np.array([0.2, 0.4, 0.6, 1.0]), bins=2)
    assert value == pytest.approx((0.1 + 0.4) / 4)


def test_hand_worked_ace():
    # bins of equal mass, two voxels each: p = .1 .2 against 0 1, p = .3 .9 against 0 1
    value = adaptive_expected_calibration_error(
        np.array([0, 1, 0, 1]), np.array([0.1, 0.2, 0.3, 0.9]), bins=2
    )
    assert value == pytest.approx((abs(0.3 - 1) + abs(1.2 - 1)) / 4)


def test_ace_agrees_with_scikit_learns_quantile_curve(rng):
    calibration = pytest.importorskip("sklearn.calibration")
    reference, prediction = rng.random(1500) > 0.5, rng.random(1500)
    observed, predicted = calibration.calibration_curve(reference, prediction, n_bins=15, strategy="quantile")
    assert adaptive_expected_calibration_error(reference, prediction) == pytest.approx(
        np.abs(observed - predicted).mean()
    )


def test_ace_does_not_split_ties():
    assert adaptive_expected_calibration_error(np.array([0, 1, 0, 1]), np.full(4, 0.5), bins=3) == 0


def test_reliability_tables_add_up_over_cases(rng):
    r, p = rng.random(400), rng.random(400)
    parts = reliability(r[:100], p[:100]) + reliability(r[100:], p[100:])
    np.testing.assert_allclose(parts, reliability(r, p))
    assert calibration_error(parts) == pytest.approx(expected_calibration_error(r, p))


def test_a_probability_of_one_is_in_the_last_bin():
    assert reliability(np.ones(1), np.ones(1), bins=4).tolist() == [
        [0, 0, 0],
        [0, 0, 0],
        [0, 0, 0],
        [1, 1, 1],
    ]


@pytest.mark.parametrize(
    "metric", [brier, nll_above_entropy, expected_calibration_error, adaptive_expected_calibration_error]
)
def test_no_voxel_is_nan(metric):
    nothing = np.zeros(4)
    assert math.isnan(metric(nothing, nothing, mask=np.zeros(4, bool)))


def test_near_is_within_millimetres_not_voxels():
    marked = np.zeros((5, 9), bool)
    marked[2, 4] = True
    near = near_object(marked, spacing_mm=(3.0, 1.0), near_mm=3.0)
    assert near[2].tolist() == [False] + 7 * [True] + [False]  # 3 voxels of 1 mm either side
    assert near[:, 4].tolist() == [False, True, True, True, False]  # 1 voxel of 3 mm
    assert near.sum() == 7 + 2  # diagonal neighbours are sqrt(9 + 1) mm away


def test_nothing_is_near_nothing():
    assert not near_object(np.zeros((3, 3), bool), spacing_mm=(1.0, 1.0), near_mm=5).any()


def test_large_arrays_are_worked_on_in_pieces(rng, monkeypatch):
    r, p = rng.random((7, 9)), rng.random((7, 9))
    metrics = (nll_above_entropy, expected_calibration_error, adaptive_expected_calibration_error)
    whole = [metric(r, p) for metric in metrics]
    monkeypatch.setattr("nnunet_softlabel.metrics.far.CHUNK", 5)
    assert [metric(r, p) for metric in metrics] == pytest.approx(whole)


def test_adaptive_ece_of_a_wrong_and_certain_map_is_its_error():
    reference = np.zeros(100, np.float32)
    reference[:5] = 1
    wrong = np.roll(reference, 5)  # 10 of 100 voxels are wrong, with certainty
    assert adaptive_expected_calibration_error(reference, wrong) == pytest.approx(0.1)
    assert adaptive_expected_calibration_error(reference, 1 - reference) == pytest.approx(1)
    assert adaptive_expected_calibration_error(reference, reference) == 0
    assert adaptive_expected_calibration_error(reference, wrong > 0.5) == pytest.approx(0.1)  # a rater's mask


def test_adaptive_ece_keeps_the_zeros_of_the_background_apart():
    # 98 zeros, all right; two voxels of .5 and 1, both wrong: (.5 + 1) / 100
    prediction = np.zeros(100)
    prediction[:2] = 0.5, 1.0
    assert adaptive_expected_calibration_error(np.zeros(100), prediction) == pytest.approx(0.015)


def test_ace_counts_every_bin_alike():
    # bins of width .5: 98 voxels of p = 0 are right, 2 voxels of p = 1 are wrong: (0 + 1) / 2
    prediction = np.zeros(100)
    prediction[:2] = 1
    assert average_calibration_error(np.zeros(100), prediction, bins=2) == pytest.approx(0.5)
    assert expected_calibration_error(np.zeros(100), prediction, bins=2) == pytest.approx(0.02)


def test_ace_agrees_with_scikit_learns_uniform_curve(rng):
    calibration = pytest.importorskip("sklearn.calibration")
    reference, prediction = rng.random(1500) > 0.5, rng.random(1500) * 0.7
    observed, predicted = calibration.calibration_curve(reference, prediction, n_bins=15, strategy="uniform")
    assert average_calibration_error(reference, prediction) == pytest.approx(
        np.abs(observed - predicted).mean()
    )


def test_top_label_ece_agrees_with_torchmetrics_on_two_classes(rng):
    classification = pytest.importorskip("torchmetrics.functional.classification")
    torch = pytest.importorskip("torch")
    reference, prediction = rng.random(2000) > 0.6, rng.random(2000).astype(np.float32)
    both = torch.from_numpy(np.stack([1 - prediction, prediction], axis=1))
    expected = classification.multiclass_calibration_error(
        both, torch.from_numpy(reference.astype(np.int64)), num_classes=2, n_bins=15, norm="l1"
    )
    assert top_label_calibration_error(reference, prediction) == pytest.approx(float(expected), abs=1e-6)


def test_hand_worked_aurc():
    # certain first: right, right, wrong, right; shares of errors 0/1 0/2 1/3 1/4
    value = area_under_risk_coverage(np.array([0, 1, 0, 1]), np.array([0.0, 0.9, 0.8, 0.6]))
    assert value == pytest.approx((1 / 3 + 1 / 4) / 4)


def test_aurc_of_ties_is_the_mean_over_their_orders(rng):
    reference, prediction = rng.random(12) > 0.5, np.repeat([0.2, 0.9, 0.6], 4)
    is_wrong = (prediction > 0.5) != reference
    doubt = np.minimum(prediction, 1 - prediction)
    areas = []
    for _ in range(4000):
        order = np.lexsort((rng.random(12), doubt))
        areas.append((np.cumsum(is_wrong[order]) / np.arange(1, 13)).mean())
    assert area_under_risk_coverage(reference, prediction) == pytest.approx(np.mean(areas), abs=0.01)


@pytest.mark.parametrize("is_counted", [False, True])
def test_aurc_by_pieces_is_to_the_bit_that_of_all_voxels_at_once(rng, monkeypatch, is_counted):
    prediction = rng.choice(np.array([0.05, 0.25, 0.4, 0.5, 0.8, 1.0]), 700)
    reference = rng.random(700) < prediction
    counts = rng.integers(1, 9, 700) if is_counted else None
    whole = area_under_risk_coverage(reference, prediction, counts=counts)
    monkeypatch.setattr(calibration, "PLACES", 13)
    assert area_under_risk_coverage(reference, prediction, counts=counts) == whole
    if is_counted:
        repeated = [np.repeat(values, counts) for values in (reference, prediction)]
        assert area_under_risk_coverage(*repeated) == pytest.approx(whole)
