from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit, softmax

from nnunet_softlabel.evaluation.recalibration import (
    AffineMap,
    IsotonicMap,
    log_odds_of,
    map_from_json,
    probabilities_of,
    recalibrated,
)


def softmax_with_background(log_odds: np.ndarray) -> np.ndarray:
    return softmax(np.concatenate([np.zeros_like(log_odds[:1]), log_odds]), axis=0)


@pytest.mark.parametrize("has_regions", [False, True])
def test_log_odds_and_probabilities_are_inverse(has_regions):
    log_odds = np.random.default_rng(0).normal(0, 4, (3, 5, 6))
    back = log_odds_of(probabilities_of(log_odds, has_regions=has_regions), has_regions=has_regions)
    np.testing.assert_allclose(back, log_odds, atol=1e-9)


def test_probabilities_are_softmax_of_classes_and_sigmoid_of_regions():
    log_odds = np.random.default_rng(1).normal(0, 4, (2, 7))
    np.testing.assert_allclose(
        probabilities_of(log_odds, has_regions=False), softmax_with_background(log_odds), rtol=1e-12
    )
    np.testing.assert_allclose(probabilities_of(log_odds, has_regions=True), expit(log_odds), rtol=1e-12)


@pytest.mark.parametrize("has_regions", [False, True])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_certain_probabilities_stay_finite_and_keep_their_type(has_regions, dtype):
    certain = np.array([[0, 1, 0.5], [1, 0, 0.5]], dtype=dtype)
    found = recalibrated(certain, AffineMap((2.0, 2.0)[: 1 + has_regions], (0.1, 0.1)[: 1 + has_regions]),
                         has_regions=has_regions)  # fmt: skip
    assert found.dtype == dtype
    assert np.isfinite(found).all()
    assert found.min() >= 0
    assert found.max() <= 1


@pytest.mark.parametrize("has_regions", [False, True])
def test_an_identity_leaves_probabilities_as_they_are(has_regions):
    log_odds = np.random.default_rng(2).normal(0, 3, (2, 50)).astype(np.float32)
    p = probabilities_of(log_odds, has_regions=has_regions)
    same = recalibrated(p, AffineMap((1.0, 1.0), (0.0, 0.0)), has_regions=has_regions)
    np.testing.assert_allclose(same, p, atol=1e-6)


@pytest.mark.parametrize(
    "content", [{}, {"map": "affine"}, {"map": "spline"}, {"map": "isotonic", "curves": 3}]
)
def test_json_that_is_no_map_is_refused(content):
    with pytest.raises(ValueError, match=r"no recalibration map|does not know"):
        map_from_json(content)


def test_an_isotonic_map_of_one_class_keeps_the_shape():
    found = IsotonicMap((((-1.0, 1.0), (0.2, 0.8)),))
    mapped = found(np.array([[[-1.0, 0.0], [1.0, 5.0]]]))
    np.testing.assert_allclose(mapped, [[[logit(0.2), 0.0], [logit(0.8), logit(0.8)]]], atol=1e-12)


@pytest.mark.parametrize("has_regions", [False, True])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_probability_of_exactly_zero_stays_zero(has_regions, channels):
    p = np.zeros((channels + (not has_regions), 3), dtype=np.float32)
    p[0, :] = 0 if has_regions else 1
    curve = ((-3.0, 3.0), (0.2, 0.8))
    maps = (
        AffineMap((0.01,) * channels, (0.3,) * channels),
        IsotonicMap((curve,) * (channels if has_regions or channels == 1 else channels + 1)),
    )
    for recalibration in maps:
        np.testing.assert_array_equal(recalibrated(p, recalibration, has_regions=has_regions), p)


def test_log_odds_of_regions_end_where_float32_ends():
    found = log_odds_of(np.array([[1.0, 0.25, 0.75]], np.float32), has_regions=True)
    # the largest float32 below 1 is 1 - 2^-24: a p of 1 counts as half a step further
    np.testing.assert_allclose(found, [[25 * np.log(2), -np.log(3), np.log(3)]], rtol=1e-6)


def test_classes_are_held_against_the_background_however_sure_the_network_is():
    p = np.array([[1.0, 0.5, 0.0], [1e-30, 0.25, 1.0], [1e-20, 0.25, 0.0]], np.float32)
    found = log_odds_of(p, has_regions=False)
    smallest = np.log(np.finfo(np.float32).tiny)
    expected = [[np.log(1e-30), -np.log(2), -smallest], [np.log(1e-20), -np.log(2), -np.inf]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_isotonic_classes_are_mapped_against_the_rest_and_divided_by_their_sum():
    curves = (((-2.0, 2.0), (0.1, 0.9)), ((-2.0, 2.0), (0.3, 0.4)), ((-2.0, 2.0), (0.05, 0.25)))
    log_odds = np.array([[0.4], [-0.8]])  # of two classes
    odds = np.exp([0.0, 0.4, -0.8])
    against_rest = np.log(odds / (odds.sum() - odds))
    mapped = [np.interp(x, *curve) for x, curve in zip(against_rest, curves, strict=True)]
    p = probabilities_of(IsotonicMap(curves)(log_odds), has_regions=False)
    np.testing.assert_allclose(p[:, 0], np.array(mapped) / np.sum(mapped), rtol=1e-12)


@pytest.mark.parametrize("recalibration", [AffineMap((0.5,), (1.0,)), IsotonicMap((((0.0,), (0.5,)),))])
def test_a_map_is_told_from_the_other_kind_by_its_name(recalibration):
    assert map_from_json(recalibration.to_json()) == recalibration
    assert recalibration.to_json()["map"] == recalibration.method
