"""STAPLE agrees with SimpleITK's, finds known rates, and never breaks."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_softlabel.fusion import (
    RaterCounts,
    RaterRates,
    RaterVotes,
    estimate_rater_rates,
    mean_vote,
    staple,
)

Maker = Callable[..., RaterVotes]
SENSITIVITY, SPECIFICITY = np.array([0.9, 0.7, 0.5]), np.array([0.99, 0.95, 0.98])


def simulated(truth: np.ndarray, seed: int = 0, raters: tuple[int, ...] = (0, 1, 2)) -> RaterVotes:
    """Raters of the rates above who err independently in every voxel."""
    draw = np.random.default_rng(seed).random((3, *truth.shape))
    sides = (slice(None), *(None,) * truth.ndim)
    votes = np.where(truth, draw < SENSITIVITY[sides], draw > SPECIFICITY[sides])
    names = tuple("abc"[r] for r in raters)
    return RaterVotes(votes[list(raters)][:, None], names, (1.0,) * truth.ndim)


@pytest.fixture
def truth() -> np.ndarray:
    truth = np.zeros((20, 30, 30), dtype=bool)
    truth[5:15, 8:20, 8:20] = True
    return truth


def simpleitk_staple(raters: RaterVotes) -> tuple[np.ndarray, tuple[float, ...], tuple[float, ...]]:
    filter_ = sitk.STAPLEImageFilter()
    filter_.SetForegroundValue(1)
    images = [sitk.GetImageFromArray(votes[0].astype(np.uint8)) for votes in raters.votes]
    posterior = sitk.GetArrayFromImage(filter_.Execute(images))
    return posterior, filter_.GetSensitivity(), filter_.GetSpecificity()


def test_posterior_equals_simpleitk_on_disputed_voxels(truth: np.ndarray) -> None:
    raters = simulated(truth)
    expected, _, _ = simpleitk_staple(raters)
    mean = mean_vote(raters)[0]
    disputed = (mean > 0) & (mean < 1)
    assert disputed.sum() > 1000
    soft = staple(raters, margin_mm=np.inf)[0]
    np.testing.assert_allclose(soft[disputed], expected[disputed], atol=1e-4)
    np.testing.assert_array_equal(soft[~disputed], mean[~disputed])


def test_rates_equal_simpleitk(truth: np.ndarray) -> None:
    raters = simulated(truth)
    _, sensitivity, specificity = simpleitk_staple(raters)
    rates = estimate_rater_rates([raters], has_fixed_prevalence=True)
    np.testing.assert_allclose([rates.sensitivity[n][0] for n in "abc"], sensitivity, atol=1e-4)
    np.testing.assert_allclose([rates.specificity[n][0] for n in "abc"], specificity, atol=1e-4)


def test_region_is_the_marked_box_and_its_margin(votes_of: Maker) -> None:
    # A block that a and b share, of which c saw half; a wider margin would change c's specificity.
    votes = np.zeros((3, 1, 40, 40), dtype=bool)
    votes[:, :, 10:14, 10:14] = True
    votes[2, :, 10:12] = False
    votes[0, :, 9, 10] = True
    raters = RaterVotes(votes, ("a", "b", "c"), (1.0, 1.0))
    cut = RaterVotes(votes[:, :, 6:17, 7:17], ("a", "b", "c"), (1.0, 1.0))
    assert staple(raters, margin_mm=3.0)[0, 6:17, 7:17] == pytest.approx(staple(cut, margin_mm=np.inf)[0])


def test_known_rates_are_found_over_several_cases(truth: np.ndarray) -> None:
    cases = (simulated(truth & (seed > 0), seed=seed) for seed in range(6))
    rates = estimate_rater_rates(cases)
    np.testing.assert_allclose([rates.sensitivity[n][0] for n in "abc"], SENSITIVITY, atol=0.02)
    np.testing.assert_allclose([rates.specificity[n][0] for n in "abc"], SPECIFICITY, atol=0.005)
    assert rates.prevalence[0] == pytest.approx(truth.mean() * 5 / 6, abs=0.003)


def test_raters_may_be_missing_from_cases(truth: np.ndarray) -> None:
    pairs = [(0, 1, 2), (0, 1), (1, 2), (0, 1, 2), (0, 2), (0, 1, 2)]
    rates = estimate_rater_rates(simulated(truth, seed, raters) for seed, raters in enumerate(pairs))
    np.testing.assert_allclose([rates.sensitivity[n][0] for n in "abc"], SENSITIVITY, atol=0.03)


def test_unanswered_voxels_do_not_bias_the_rates(truth: np.ndarray) -> None:
    full = simulated(truth)
    answered = np.random.default_rng(1).random((3, *truth.shape)) < 0.7
    gaps = RaterVotes(full.votes, full.names, full.spacing_mm, answered=answered)
    rates = estimate_rater_rates([gaps])
    np.testing.assert_allclose([rates.sensitivity[n][0] for n in "abc"], SENSITIVITY, atol=0.05)


def test_anonymous_raters_share_the_rates_of_raters_alike(truth: np.ndarray) -> None:
    draw = np.random.default_rng(0).random((4, 1, *truth.shape))
    votes = np.where(truth, draw < 0.6, draw > 0.97)
    rates = estimate_rater_rates([RaterVotes(votes, tuple("abcd"), (1.0,) * 3)], shared=True)
    assert rates.of("whoever", 0) == pytest.approx((0.6, 0.97), abs=0.02)


def test_pooled_rates_find_lesions_that_most_raters_miss() -> None:
    # Raters see 45 % of the voxels of lesions and mark nothing else: in a data set, one mark is proof enough.
    rng = np.random.default_rng(0)
    truths = rng.random((20, 50, 50)) < 0.05
    cases = [
        RaterVotes((t & (rng.random((3, 1, 50, 50)) < 0.45)), ("a", "b", "c"), (1.0, 1.0)) for t in truths
    ]
    rates = estimate_rater_rates(cases)
    np.testing.assert_allclose([rates.sensitivity[n][0] for n in "abc"], 0.45, atol=0.04)
    soft = staple(cases[0], rates=rates)[0]
    marked = cases[0].votes.any(axis=(0, 1))
    assert soft[marked].min() > 0.9
    assert not soft[~marked].any()


def test_posterior_by_hand(votes_of: Maker) -> None:
    # Prior 1/2; a: 0.8 / 0.9, b: 0.6 / 0.7. Voxel one, a yes and b no: inside 0.8 * 0.4 = 0.32, outside
    # 0.1 * 0.7 = 0.07. Voxel two, a no and b yes: 0.2 * 0.6 = 0.12, 0.9 * 0.3 = 0.27.
    rates = RaterRates({"a": (0.8,), "b": (0.6,)}, {"a": (0.9,), "b": (0.7,)}, (0.5,))
    soft = staple(votes_of([[[1, 0]], [[0, 1]]]), rates=rates)
    np.testing.assert_allclose(soft[0], [[0.32 / 0.39, 0.12 / 0.39]], rtol=1e-5)


def test_who_did_not_answer_has_no_say(votes_of: Maker) -> None:
    # As above with a third rater who answers nowhere.
    rates = RaterRates(
        {"a": (0.8,), "b": (0.6,), "c": (0.9,)}, {"a": (0.9,), "b": (0.7,), "c": (0.9,)}, (0.5,)
    )
    answered = np.ones((3, 1, 2), dtype=bool)
    answered[2] = False
    raters = votes_of([[[1, 0]], [[0, 1]], [[1, 1]]], answered=answered)
    np.testing.assert_allclose(staple(raters, rates=rates)[0], [[0.32 / 0.39, 0.12 / 0.39]], rtol=1e-5)


def test_a_voxel_nobody_calls_background_is_no_background() -> None:
    rng = np.random.default_rng(0)
    first = rng.random((3, 20, 20)) < 0.5
    raters = RaterVotes(np.stack([first, ~first], axis=1), ("a", "b", "c"), (1.0, 1.0))
    np.testing.assert_allclose(staple(raters).sum(axis=0), 1, atol=1e-6)


@pytest.mark.parametrize("empty", [(0,), (0, 1), (0, 1, 2)])
def test_empty_raters_give_numbers(truth: np.ndarray, empty: tuple[int, ...]) -> None:
    raters = simulated(truth)
    raters.votes[list(empty)] = False
    soft = staple(raters)
    assert np.isfinite(soft).all()
    assert (soft.max() == 0) == (len(empty) == 3)


def test_raters_who_answered_different_voxels_give_numbers(votes_of: Maker) -> None:
    answered = np.array([[[1, 1, 0]], [[0, 1, 1]]], dtype=bool)
    soft = staple(votes_of([[[1, 1, 0]], [[0, 0, 1]]], answered=answered))
    assert np.isfinite(soft).all()
    assert soft[0, 0, [0, 2]].tolist() == [1, 1]


def test_rates_of_an_empty_data_set_are_finite() -> None:
    nothing = RaterVotes(np.zeros((2, 1, 5, 5), dtype=bool), ("a", "b"), (1.0, 1.0))
    rates = estimate_rater_rates([nothing])
    assert all(np.isfinite([*rates.sensitivity[n], *rates.specificity[n]]).all() for n in "ab")


def test_errors_say_what_is_wrong(votes_of: Maker) -> None:
    raters = votes_of([[[1, 0]], [[0, 1]]])
    with pytest.raises(ValueError, match="margin_mm must not be negative"):
        staple(raters, margin_mm=-1.0)
    with pytest.raises(ValueError, match="rates lack rater b"):
        staple(raters, rates=RaterRates({"a": (0.9,)}, {"a": (0.9,)}, (0.1,)))
    with pytest.raises(ValueError, match="rates are for 1 channels, the votes have 2"):
        staple(
            RaterVotes(np.zeros((1, 2, 3, 3), dtype=bool), ("a",), (1.0, 1.0)),
            rates=RaterRates({"a": (0.9,)}, {"a": (0.9,)}, (0.1,)),
        )
    with pytest.raises(ValueError, match="at least one case"):
        estimate_rater_rates([])
    with pytest.raises(ValueError, match="cases differ in channels: 1 and 2"):
        estimate_rater_rates([raters, RaterVotes(np.zeros((1, 2, 3, 3), dtype=bool), ("a",), (1.0, 1.0))])
    crowd = RaterVotes(np.zeros((40, 1, 2, 2), dtype=bool), tuple(map(str, range(40))), (1.0, 1.0))
    with pytest.raises(ValueError, match="at most 39 raters"):
        estimate_rater_rates([crowd])


def test_counts_add_up_in_any_order_and_travel_as_json() -> None:
    rng = np.random.default_rng(0)
    teams = (("a", "b", "c"), ("c", "a"), ("b", "d", "a"))
    cases = [RaterVotes(rng.random((len(t), 2, 5, 6)) < 0.4, t, (1.0, 1.0), exclusive=False) for t in teams]
    first, second, third = (
        RaterCounts.from_json(json.loads(json.dumps(RaterCounts.of(c).to_json()))) for c in cases
    )
    assert first == RaterCounts.of(cases[0])
    for shared in (False, True):
        rates = estimate_rater_rates(cases, shared=shared)
        assert (first + second + third).estimate(shared=shared) == rates
        assert (third + first + second).estimate(shared=shared) == rates


def test_counts_by_hand() -> None:
    # a and b on four voxels: both, a alone, nobody, and one where b gave no answer
    votes = np.array([[[1, 1, 0, 1]], [[1, 0, 0, 0]]], dtype=bool)
    answered = np.array([[1, 1, 1, 1], [1, 1, 1, 0]], dtype=bool)
    counts = RaterCounts.of(RaterVotes(votes, ("a", "b"), (1.0,), answered=answered))
    assert counts.to_json() == {"names": ["a", "b"], "channels": [{"10": 1, "1-": 1, "00": 1, "11": 1}]}


def test_rates_of_0_and_1_are_kept_a_little_inside(votes_of: Maker) -> None:
    # b never misses a voxel, so that its no leaves 1e-7 / 0.9 of the odds 9 that a's yes gives
    rates = RaterRates({"a": (0.9,), "b": (1.0,)}, {"a": (0.9,), "b": (0.9,)}, (0.5,))
    odds = 9 * 1e-7 / 0.9
    soft = staple(votes_of([[[1, 0]], [[0, 0]]]), rates=rates)[0, 0]
    np.testing.assert_allclose(soft, [odds / (1 + odds), 0], rtol=1e-4)
    # of two who never miss, 1e-14 would be left: log-odds end at -15 and 15
    sure = RaterRates(dict.fromkeys("abc", (1.0,)), {"a": (0.9,), "b": (0.9,), "c": (0.9,)}, (0.5,))
    soft = staple(votes_of([[[1, 0]], [[0, 0]], [[0, 1]]]), rates=sure)[0, 0]
    np.testing.assert_allclose(soft, 1 / (1 + np.exp(15)), rtol=1e-4)
    sure = RaterRates({"a": (0.9,), "b": (0.9,), "c": (0.9,)}, dict.fromkeys("abc", (1.0,)), (0.5,))
    soft = staple(votes_of([[[1]], [[1]], [[0]]]), rates=sure)[0, 0]
    np.testing.assert_allclose(1 - soft, 1 / (1 + np.exp(15)), rtol=0.3)  # near the last digit


def test_the_margin_is_10_mm_unasked_and_may_be_0() -> None:
    votes = np.zeros((3, 1, 60, 60), dtype=bool)
    votes[:, :, 28:32, 28:32] = True
    votes[2, :, 28:30] = False
    votes[0, :, 27, 28] = True
    raters = RaterVotes(votes, ("a", "b", "c"), (1.0, 1.0))
    unasked = staple(raters)
    np.testing.assert_array_equal(unasked, staple(raters, margin_mm=10.0))
    for other in (0.0, 9.0, 11.0):
        assert (staple(raters, margin_mm=other) != unasked).any()
    with pytest.raises(ValueError, match="margin_mm must not be negative"):
        staple(raters, margin_mm=float("nan"))


def test_classes_that_add_up_to_more_than_one_are_scaled(votes_of: Maker) -> None:
    # Of three raters, a says 1, b says 2, c says background; both classes get 0.9 and are scaled to 0.5
    rates = RaterRates(
        {"a": (0.9, 0.5), "b": (0.5, 0.9), "c": (0.5, 0.5)},
        {"a": (0.9, 0.5), "b": (0.5, 0.9), "c": (0.5, 0.5)},
        (0.5, 0.5),
    )
    raters = votes_of([[[[1]], [[0]]], [[[0]], [[1]]], [[[0]], [[0]]]])
    np.testing.assert_allclose(staple(raters, rates=rates)[:, 0, 0], [0.5, 0.5], rtol=1e-6)
    apart = votes_of([[[[1]], [[0]]], [[[0]], [[1]]], [[[0]], [[0]]]], exclusive=False)
    np.testing.assert_allclose(staple(apart, rates=rates)[:, 0, 0], [0.9, 0.9], rtol=1e-6)


def test_imagined_voxels_keep_rates_off_0_and_1_and_at_one_half_where_nothing_is_known() -> None:
    nothing = RaterVotes(np.zeros((2, 1, 5, 5), dtype=bool), ("a", "b"), (1.0, 1.0))
    rates = estimate_rater_rates([nothing], max_iterations=1)
    for name in "ab":
        assert rates.of(name, 0) == pytest.approx((0.5, (25 + 1e-3) / (25 + 2e-3)), abs=1e-9)
    assert rates.prevalence[0] == pytest.approx(1e-3 / (25 + 2e-3))


def test_thirty_nine_raters_are_counted() -> None:
    votes = np.zeros((39, 1, 2), dtype=bool)
    votes[-1, 0, 1] = votes[0, 0, 1] = True
    names = tuple(f"{k:02d}" for k in range(39))
    (channel,) = RaterCounts.of(RaterVotes(votes, names, (1.0,))).to_json()["channels"]
    assert channel == {"0" * 39: 1, "1" + "0" * 37 + "1": 1}


def test_rates_of_some_channels_are_theirs() -> None:
    rates = RaterRates({"a": (0.1, 0.2, 0.3)}, {"a": (0.4, 0.5, 0.6)}, (0.7, 0.8, 0.9))
    assert rates.of_channels([2, 0]) == RaterRates({"a": (0.3, 0.1)}, {"a": (0.6, 0.4)}, (0.9, 0.7))
    assert rates.of("a", 1) == (0.2, 0.5)
    assert rates.has("a")
    assert not rates.has("b")
