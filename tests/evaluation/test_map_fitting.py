from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import optimize
from scipy.special import expit, softmax
from sklearn.isotonic import IsotonicRegression

from nnunet_softlabel.evaluation import voxel_sample
from nnunet_softlabel.evaluation.map_fitting import (
    METHODS,
    WEIGHTINGS,
    cross_fit,
    fit_map,
    object_weights,
)
from nnunet_softlabel.evaluation.recalibration import (
    AffineMap,
    class_against_rest,
    map_from_json,
    one_against_rest,
    probabilities_of,
)
from nnunet_softlabel.evaluation.voxel_sample import VoxelSample, sample_voxels


def softmax_with_background(log_odds: np.ndarray) -> np.ndarray:
    return softmax(np.concatenate([np.zeros_like(log_odds[:1]), log_odds]), axis=0)


def samples_of(
    seed: int, scale, shift, *, has_regions: bool, cases: int = 4, n: int = 4000
) -> list[VoxelSample]:
    """Cases whose targets are exactly what an affine map of their log-odds says."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(cases):
        x = rng.normal(-1, 3, (len(scale), n))
        mapped = np.asarray(scale)[:, None] * x + np.asarray(shift)[:, None]
        q = expit(mapped) if has_regions else softmax_with_background(mapped)[1:]
        found.append(VoxelSample(x, q, np.ones(n), float(q.sum())))
    return found


@pytest.mark.parametrize("has_regions", [False, True])
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_affine_finds_the_map_that_made_the_targets(has_regions, weighting):
    samples = samples_of(3, (0.5, 1.5), (0.7, -0.4), has_regions=has_regions)
    found = fit_map(samples, method="affine", has_regions=has_regions, weighting=weighting)
    assert found.scale == pytest.approx((0.5, 1.5), abs=1e-3)
    assert found.shift == pytest.approx((0.7, -0.4), abs=1e-3)


@pytest.mark.parametrize("has_regions", [False, True])
def test_temperature_finds_the_one_scale(has_regions):
    samples = samples_of(4, (0.4, 0.4), (0.0, 0.0), has_regions=has_regions)
    found = fit_map(samples, method="temperature", has_regions=has_regions)
    assert found.scale == pytest.approx((0.4, 0.4), abs=1e-4)
    assert found.shift == (0.0, 0.0)


def test_temperature_is_the_minimum_that_a_search_finds():
    rng = np.random.default_rng(5)
    x, q = rng.normal(0, 3, (2, 3000)), rng.dirichlet((1, 1, 1), 3000).T
    sample = VoxelSample(x, q[1:], np.ones(3000), 1.0)
    found = fit_map([sample], method="temperature", has_regions=False).scale[0]

    def loss(scale: float) -> float:
        return float(-(q * np.log(softmax_with_background(scale * x))).sum())

    searched = optimize.minimize_scalar(loss, bounds=(0.001, 3), method="bounded").x
    assert found == pytest.approx(searched, abs=1e-3)


def test_no_recalibration_is_the_identity():
    found = fit_map(samples_of(6, (0.5,), (1.0,), has_regions=True), method="none", has_regions=True)
    assert found == AffineMap((1.0,), (0.0,))


def test_isotonic_of_one_class_is_sklearns_at_the_bins():
    rng = np.random.default_rng(7)
    x = np.repeat(np.arange(-60, 60) * 0.05 + 0.01, 20)[None]  # twenty voxels in each bin, at one place
    q = np.clip(expit(0.5 * x + 0.3) + rng.normal(0, 0.2, x.shape), 0, 1)
    weight = rng.uniform(0.5, 2, x.shape[1])
    found = fit_map([VoxelSample(x, q, weight, 1.0)], method="isotonic", has_regions=False)
    expected = IsotonicRegression().fit(x[0], q[0], sample_weight=weight)
    knots, values = (np.asarray(v) for v in found.curves[0])
    places = expected.predict(x[0])
    for value in np.unique(values):
        run = x[0][np.isclose(places, value, atol=1e-9)]
        assert len(run), value
        ends = np.unique([run.min(), run.max()])  # flat between them, as sklearn's
        np.testing.assert_allclose(knots[values == value], ends, atol=1e-9)
    np.testing.assert_allclose(np.interp(x[0], knots, values), places, atol=1e-9)


@pytest.mark.parametrize("has_regions", [False, True])
def test_isotonic_rises_and_stays_within_its_limits(has_regions):
    rng = np.random.default_rng(8)
    x = rng.normal(0, 4, (2, 5000))
    q = (x > rng.normal(0, 3, x.shape)) * np.array([[0.4], [0.6]])
    found = fit_map([VoxelSample(x, q, np.ones(5000), 1.0)], method="isotonic", has_regions=has_regions)
    assert len(found.curves) == (2 if has_regions else 3)  # classes: the background has a curve, too
    for knots, values in found.curves:
        assert (np.diff(knots) > 0).all()
        assert (np.diff(values) >= 0).all()
        assert values[0] >= 1e-9
        assert values[-1] <= 1 - 1e-6
    p = probabilities_of(found(x), has_regions=has_regions)
    assert np.isfinite(p).all()
    if not has_regions:
        np.testing.assert_allclose(p.sum(axis=0), 1, rtol=1e-9)


def test_isotonic_of_two_voxels_by_hand():
    # -1 has the target 0.8 and 1 has 0.2: out of order, so both get their mean 0.5
    sample = VoxelSample(np.array([[-1.0, 1.0]]), np.array([[0.8, 0.2]]), np.ones(2), 1.0)
    found = fit_map([sample], method="isotonic", has_regions=True)
    assert found.curves == (((-1.0, 1.0), (0.5, 0.5)),)
    np.testing.assert_allclose(found(np.array([[-9.0, 9.0]])), 0, atol=1e-12)


def skewed_cases() -> list[VoxelSample]:
    """A small and a large object whose targets no affine map can meet."""
    rng = np.random.default_rng(9)
    found = []
    for n_object in (30, 3000):
        x = np.concatenate([rng.normal(2, 2, n_object), rng.normal(-6, 2, 5000)])[None]
        q = np.clip(expit(0.3 * x) + 0.2 * np.sin(x), 0, 1)
        found.append(VoxelSample(x, q, np.ones(x.shape[1]), float(q.sum())))
    return found


def excess(found, sample: VoxelSample) -> float:
    return float(expit(found(sample.log_odds)).sum() - sample.target.sum())


def test_with_equal_voxels_the_volumes_are_right_in_sum():
    samples = skewed_cases()
    found = fit_map(samples, method="affine", has_regions=False, weighting="voxels")
    assert sum(excess(found, s) for s in samples) == pytest.approx(0, abs=0.05)


def test_with_equal_objects_the_relative_errors_of_the_volumes_have_the_mean_zero():
    samples = skewed_cases()
    found = fit_map(samples, method="affine", has_regions=False, weighting="objects")
    assert np.mean([excess(found, s) / s.volume for s in samples]) == pytest.approx(0, abs=1e-4)


def test_a_case_without_the_object_counts_as_a_tenth_of_the_median():
    assert object_weights(np.array([0.0, 10.0, 20.0, 1000.0])) == pytest.approx([0.5, 0.1, 0.05, 0.001])
    assert object_weights(np.zeros(3)) == pytest.approx([1, 1, 1])


def test_a_map_never_turns_probabilities_around():
    x = np.random.default_rng(10).normal(0, 2, (1, 500))
    sample = VoxelSample(x, expit(-x), np.ones(500), 1.0)
    for method in ("affine", "temperature"):
        assert fit_map([sample], method=method, has_regions=True).scale[0] > 0


@pytest.mark.parametrize("method", METHODS)
def test_a_map_is_the_same_after_json(method):
    samples = samples_of(11, (0.5, 1.2), (0.2, 0.0), has_regions=False)
    found = fit_map(samples, method=method, has_regions=False)
    assert map_from_json(json.loads(json.dumps(found.to_json()))) == found


@pytest.mark.parametrize("method", METHODS)
def test_a_part_is_recalibrated_by_the_others_alone(method):
    parts = {str(k): samples_of(20 + k, (0.3 + 0.2 * k,), (0.1 * k,), has_regions=True) for k in range(3)}
    before = cross_fit(parts, method=method, has_regions=True)
    rest = [sample for k in ("1", "2") for sample in parts[k]]
    assert before["0"] == fit_map(rest, method=method, has_regions=True)
    parts["0"] = samples_of(99, (3.0,), (-2.0,), has_regions=True)
    after = cross_fit(parts, method=method, has_regions=True)
    assert after["0"] == before["0"]
    if method != "none":
        assert after["1"] != before["1"]


def test_wrong_requests_are_refused():
    samples = samples_of(12, (1.0,), (0.0,), has_regions=True)
    with pytest.raises(ValueError, match="method must be one of affine"):
        fit_map(samples, method="spline", has_regions=True)
    with pytest.raises(ValueError, match="weighting must be one of voxels"):
        fit_map(samples, method="affine", has_regions=True, weighting="near")
    with pytest.raises(ValueError, match="no voxel"):
        fit_map([], method="affine", has_regions=True)
    with pytest.raises(ValueError, match="at least two parts"):
        cross_fit({"0": samples}, method="affine", has_regions=True)


def phantom(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds and targets ``(1, 40, 40)``: a small object in an easy background."""
    rng = np.random.default_rng(seed)
    log_odds = rng.normal(-12, 1, (1, 40, 40))
    log_odds[0, 10:20, 10:20] = rng.normal(1, 3, (10, 10))
    target = np.zeros((1, 40, 40))
    target[0, 11:19, 11:19] = rng.integers(0, 5, (8, 8)) / 4
    return log_odds, target


def test_drawn_voxels_stand_for_all_of_them():
    log_odds, target = phantom()
    sample = sample_voxels(log_odds, target, most=400, rng=np.random.default_rng(0), has_regions=False)
    assert sample.weight.sum() == pytest.approx(1600)
    assert len(sample.weight) == 400
    assert sample.volume == pytest.approx(target.sum())
    # all voxels of the object are drawn, each for itself
    assert sample.weight @ sample.target[0] == pytest.approx(target.sum())


def test_sums_over_drawn_voxels_have_no_bias():
    log_odds, target = phantom()
    draws = [
        sample_voxels(log_odds, target, most=60, rng=np.random.default_rng(k), has_regions=False)
        for k in range(300)
    ]
    for exact, found in (
        (target.sum(), [d.weight @ d.target[0] for d in draws]),
        (expit(log_odds).sum(), [d.weight @ expit(d.log_odds[0]) for d in draws]),
    ):
        assert np.mean(found) == pytest.approx(exact, abs=4 * np.std(found) / np.sqrt(300))


def test_small_cases_are_taken_whole_and_ignored_voxels_never():
    log_odds, target = phantom()
    mask = np.zeros((40, 40), dtype=bool)
    mask[:, :12] = True
    whole = sample_voxels(
        log_odds, target, most=10_000, rng=np.random.default_rng(0), has_regions=False, mask=mask
    )
    assert len(whole.weight) == mask.sum()
    assert set(whole.weight) == {1.0}
    assert whole.volume == pytest.approx(target[0][mask].sum())


def test_overlapping_regions_share_a_volume():
    target = np.zeros((2, 4, 4))
    target[0, :2], target[1, :1] = 1, 1
    drawn = [
        sample_voxels(
            np.zeros((2, 4, 4)), target, most=99, rng=np.random.default_rng(0), has_regions=r
        ).volume
        for r in (True, False)
    ]
    assert drawn == [8, 12]


def test_voxels_that_no_map_changes_are_not_fitted_but_count_in_the_volume():
    log_odds, target = phantom()
    log_odds[0, :15] = -np.inf  # cropped away before prediction
    sample = sample_voxels(log_odds, target, most=9999, rng=np.random.default_rng(0), has_regions=False)
    assert sample.weight.sum() == 25 * 40
    assert sample.volume == pytest.approx(target.sum())
    assert np.isfinite(sample.log_odds).all()


def test_isotonic_of_calibrated_classes_is_close_to_the_identity():
    x = np.random.default_rng(13).normal(0, 1.5, (2, 40_000))
    q = softmax_with_background(x)
    found = fit_map([VoxelSample(x, q[1:], np.ones(40_000), 1.0)], method="isotonic", has_regions=False)
    p = probabilities_of(found(x), has_regions=False)
    assert np.abs(p - q).mean() < 0.005


def test_a_quarter_of_the_draw_is_of_voxels_that_nobody_marked_and_the_network_knows():
    # 1000 voxels are easy, 1000 are not: of 400, 300 stand for 1000 and 100 for 1000
    log_odds, target = np.full((2, 2000), -12.0), np.zeros((2, 2000))
    log_odds[0, :500] = np.log(0.002)  # unmarked, but one of the two is no longer below 0.1 %
    target[1, 500:1000] = 0.5
    sample = sample_voxels(log_odds, target, most=400, rng=np.random.default_rng(0), has_regions=False)
    is_hard = (sample.target > 0).any(axis=0) | (sample.log_odds > -11).any(axis=0)
    assert (is_hard.sum(), (~is_hard).sum()) == (300, 100)
    np.testing.assert_allclose(sample.weight[is_hard], 1000 / 300, rtol=1e-6)
    np.testing.assert_allclose(sample.weight[~is_hard], 10, rtol=1e-6)


@pytest.mark.parametrize("hard", [1, 20])
def test_places_that_hard_voxels_leave_go_to_easy_ones(hard):
    log_odds, target = np.full((1, 1000), -12.0), np.zeros((1, 1000))
    target[0, :hard] = 1
    sample = sample_voxels(log_odds, target, most=100, rng=np.random.default_rng(0), has_regions=False)
    assert len(sample.weight) == 100
    np.testing.assert_allclose(sample.weight[sample.target[0] > 0], [1] * hard)
    np.testing.assert_allclose(sample.weight[sample.target[0] == 0], (1000 - hard) / (100 - hard), rtol=1e-6)


def test_roots_lie_between_voxels_and_objects_and_are_what_is_taken_unasked():
    volumes = np.array([16.0, 100.0])
    assert WEIGHTINGS["roots"](volumes) == pytest.approx([1 / 4, 1 / 10])
    assert WEIGHTINGS["voxels"](volumes) == pytest.approx([1, 1])
    samples = skewed_cases()
    unasked = fit_map(samples, method="affine", has_regions=False)
    assert unasked == fit_map(samples, method="affine", has_regions=False, weighting="roots")
    assert unasked != fit_map(samples, method="affine", has_regions=False, weighting="objects")
    parts = {"a": samples[:1], "b": samples[1:]}
    assert cross_fit(parts, method="affine", has_regions=False)["a"] == fit_map(
        samples[1:], method="affine", has_regions=False, weighting="roots"
    )


def test_the_least_scale_is_a_thousandth():
    x = np.random.default_rng(10).normal(0, 2, (1, 500))
    sample = VoxelSample(x, expit(-x), np.ones(500), 1.0)
    for method in ("affine", "temperature"):
        assert fit_map([sample], method=method, has_regions=True).scale == pytest.approx((0.001,))


def test_isotonic_probabilities_never_reach_0_or_1():
    x = np.array([[-3.0, 3.0]])
    found = fit_map([VoxelSample(x, (x > 0) * 1.0, np.ones(2), 1.0)], method="isotonic", has_regions=True)
    ((knots, values),) = found.curves
    assert knots == (-3.0, 3.0)
    assert values == (1e-9, 1 - 1e-6)


def case_with_deep_background(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds and marks of 304,000 voxels, 500 of them lesion; the network is too sure at its rim."""
    deep, halo = rng.normal(-16, 1.5, 300_000), rng.uniform(-16, -8, 3_000)
    rim = rng.normal(0, 2.5, 1_000)
    marked = np.concatenate([np.zeros(303_000), rng.random(1_000) < expit(rim)])
    return np.concatenate([deep, halo, 2 * rim + 3]).astype(np.float32), marked.astype(np.float32)


def test_isotonic_maps_do_not_make_an_object_of_a_large_background():
    rng = np.random.default_rng(0)
    fitted, new = ([case_with_deep_background(rng) for _ in range(5)] for _ in range(2))
    samples = [VoxelSample(x[None], q[None], np.ones(len(x), np.float32), float(q.sum())) for x, q in fitted]
    found = fit_map(samples, method="isotonic", has_regions=False)

    def volume(x: np.ndarray) -> float:
        return float(probabilities_of(found(x[None]), has_regions=False)[1].sum(dtype=np.float64))

    ratios = [volume(x) / q.sum() for x, q in new]
    assert np.mean(ratios) == pytest.approx(1, abs=0.03)
    nothing = np.full(100_000_000 // 1000, -40, np.float32)  # a thousandth of a large image
    assert volume(nothing) * 1000 < 1  # voxel


@pytest.mark.parametrize("channels", [1, 2, 11])
@pytest.mark.parametrize("has_regions", [False, True])
def test_isotonic_curves_are_the_same_in_pieces_to_the_last_bit(channels, has_regions, monkeypatch):
    """Samples lie in memory voxel by voxel, as `calibrate` draws them."""
    rng = np.random.default_rng(6)
    samples = []
    for n in (700, 1, 90):
        x, q = rng.normal(-2, 4, (channels, n)), rng.dirichlet(np.ones(channels + 1), n).T[1:]
        own = (np.asfortranarray(array, np.float32) for array in (x, q))
        samples.append(VoxelSample(*own, rng.random(n).astype(np.float32), float(q.sum())))
    whole = fit_map(samples, method="isotonic", has_regions=has_regions)
    monkeypatch.setattr(voxel_sample, "PIECE", 100)
    assert len(list(voxel_sample.pieces(channels, 700))) >= 7
    assert fit_map(samples, method="isotonic", has_regions=has_regions) == whole


def test_one_class_against_the_rest_is_a_row_of_all_of_them():
    log_odds = np.random.default_rng(7).normal(0, 3, (3, 40))
    rows = [class_against_rest(log_odds, index) for index in range(4)]
    np.testing.assert_array_equal(np.stack(rows), one_against_rest(log_odds))
    p = softmax_with_background(log_odds)
    np.testing.assert_allclose(rows[2], np.log(p[2] / (1 - p[2])), rtol=1e-9)
