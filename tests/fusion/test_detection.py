"""Who misses and who invents, on candidates drawn from known rates."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.special import expit

from nnunet_softlabel.fusion import detection_fit
from nnunet_softlabel.fusion.candidate import Candidate
from nnunet_softlabel.fusion.detection import estimate_detection
from nnunet_softlabel.fusion.detection_likelihood import Evidence, Parameters, likelihood
from nnunet_softlabel.fusion.detection_model import DetectionModel

Cases = list[list[Candidate]]


def draw(
    sensitivity: tuple[float, ...],
    inventions: tuple[float, ...] = (0.0, 0.0, 0.0),
    *,
    n_cases: int = 150,
    n_other: int = 3,
    slope: float = 0.0,
    has_score: bool = True,
    seed: int = 0,
) -> tuple[Cases, list[list[bool]]]:
    """Cases with two lesions and other places that look like one; whether each candidate is real."""
    rng = np.random.default_rng(seed)
    cases, truth = [], []
    for _ in range(n_cases):
        found, real = [], []
        for is_real in [True] * 2 + [False] * n_other:
            size = rng.normal()
            rates = np.asarray(sensitivity if is_real else inventions)
            if is_real and slope:
                rates = expit(np.log(rates / (1 - rates)) + slope * size)
            marks = rng.random(len(rates)) < rates
            score = float(expit(rng.normal(0.5 if is_real else -1.5, 0.7))) if has_score else None
            if marks.any() or (score is not None and score > 0.15):
                votes = dict(zip("abcdefg", marks.tolist(), strict=False))
                found.append(Candidate(votes, 100 * float(np.exp(size)), score, (0, 0)))
                real.append(is_real)
        cases.append(found)
        truth.append(real)
    return cases, truth


def rates_of(model: DetectionModel) -> np.ndarray:
    return np.array(list(model.rates().values())).T


def brier(model: DetectionModel, cases: Cases, truth: list[list[bool]]) -> float:
    posterior = np.concatenate([model.posterior(case) for case in cases if case])
    return float(np.mean((posterior - np.concatenate([t for t in truth if t])) ** 2))


def test_missed_lesions_are_told_and_rates_are_right_to_a_tenth() -> None:
    cases, _ = draw((0.67, 0.48, 0.2))
    model = estimate_detection(cases)
    assert model.name.startswith("misses")
    np.testing.assert_allclose(rates_of(model)[0], (0.67, 0.48, 0.2), atol=0.1)


def test_inventions_are_told_from_lesions_by_what_the_network_sees() -> None:
    cases, truth = draw((0.7, 0.5, 0.3), (0.05, 0.15, 0.25))
    model = estimate_detection(cases)
    assert "inventions" in model.name
    sensitivity, inventions = rates_of(model)
    np.testing.assert_allclose(sensitivity, (0.7, 0.5, 0.3), atol=0.1)
    np.testing.assert_allclose(inventions, (0.05, 0.15, 0.25), atol=0.1)
    share = [np.mean(list(c.votes.values())) for case in cases for c in case]
    of_mean = np.mean((np.array(share) - np.concatenate(truth)) ** 2)
    assert brier(model, cases, truth) < 0.5 * of_mean


def test_small_lesions_that_are_missed_do_not_pass_for_inventions() -> None:
    cases, truth = draw((0.8, 0.7, 0.6), slope=1.5)
    model = estimate_detection(cases)
    assert "difficulty" in model.name
    assert model.size_slope > 0.5
    marked = [
        (p, t) for case, real in zip(cases, truth, strict=True)
        for c, p, t in zip(case, model.posterior(case), real, strict=True) if c.is_marked and t
    ]  # fmt: skip
    assert np.mean([p for p, _ in marked]) > 0.9


def test_where_nobody_misses_or_invents_the_label_is_the_mean() -> None:
    model = estimate_detection(draw((1.0, 1.0, 1.0))[0])
    assert model.is_mean
    assert "all raters marked every candidate" in model.reason


def test_slips_alone_are_no_evidence() -> None:
    assert estimate_detection(draw((0.97, 0.97, 0.97), n_cases=40)[0]).is_mean


def test_few_cases_are_no_evidence() -> None:
    model = estimate_detection(draw((0.67, 0.48, 0.2), n_cases=5)[0])
    assert model.is_mean
    assert "too few" in model.reason


def test_one_reader_says_nothing_about_himself() -> None:
    model = estimate_detection(draw((0.6,), (0.0,))[0])
    assert model.is_mean
    assert "one rater" in model.reason


def test_two_readers_without_a_network_are_not_told_apart() -> None:
    model = estimate_detection(draw((0.6, 0.4), (0.1, 0.1), has_score=False)[0])
    assert model.is_mean
    assert "two raters without a network" in model.reason


@pytest.mark.parametrize("sensitivity", [(0.8, 0.7, 0.6), (0.8, 0.7, 0.6, 0.5)])
def test_three_or_more_readers_without_a_network_are_told_apart(sensitivity) -> None:
    cases, _ = draw(sensitivity, (0.0,) * len(sensitivity), n_cases=30, has_score=False)
    assert "two raters" not in estimate_detection(cases).reason


def test_inventions_that_look_like_lesions_to_the_network_leave_the_mean() -> None:
    rng = np.random.default_rng(0)
    cases, _ = draw((0.9, 0.8, 0.7), (0.25, 0.15, 0.1), n_other=4)
    blind = [
        [Candidate(c.votes, c.size_mm, float(rng.uniform(0.3, 0.6)), c.centre) for c in case]
        for case in cases
    ]
    model = estimate_detection(blind)
    assert "inventions" not in model.name
    assert "does not tell lesions from inventions" in model.reason


def test_without_a_network_capture_and_recapture_finds_the_rates_of_independent_readers() -> None:
    # singles that are missed by two may be inventions, so that rates tend to come out too high
    cases, _ = draw((0.67, 0.48, 0.3), n_cases=300, has_score=False)
    model = estimate_detection(cases)
    assert model.name == "misses and inventions"
    np.testing.assert_allclose(rates_of(model)[0], (0.67, 0.48, 0.3), atol=0.15)


def test_anonymous_raters_share_one_pair_of_rates() -> None:
    model = estimate_detection(draw((0.5, 0.5, 0.5))[0], shared=True)
    assert list(model.sensitivity) == ["*"]
    assert rates_of(model)[0][0] == pytest.approx(0.5, abs=0.1)


def test_raters_need_not_have_read_every_case() -> None:
    cases, _ = draw((0.67, 0.48, 0.2, 0.5), (0.0,) * 4)
    part = [
        [Candidate({r: v for r, v in c.votes.items() if r != "abcd"[i % 4]}, c.size_mm, c.score, c.centre)
         for c in case]
        for i, case in enumerate(cases)
    ]  # fmt: skip
    model = estimate_detection(part)
    np.testing.assert_allclose(rates_of(model)[0], (0.67, 0.48, 0.2, 0.5), atol=0.1)


def test_sixteen_raters_are_fitted() -> None:
    rng = np.random.default_rng(1)
    rates = rng.uniform(0.3, 0.8, 16)
    cases = [
        [Candidate({f"r{r:02d}": bool(v) for r, v in enumerate(rng.random(16) < rates)}, 50.0, 0.6, (0,))]
        for _ in range(150)
    ]
    np.testing.assert_allclose(rates_of(estimate_detection(cases))[0], rates, atol=0.1)


def test_what_an_expert_adjudicated_is_fixed() -> None:
    cases, truth = draw((0.7, 0.5, 0.3), (0.05, 0.15, 0.25), n_cases=60)
    known = [[None] * len(case) for case in cases]
    known[0] = [not real for real in truth[0]]
    model = estimate_detection(cases, known=known)
    np.testing.assert_array_equal(model.posterior(cases[0], known[0]), known[0])


def test_the_result_does_not_depend_on_the_order_of_raters_and_survives_json() -> None:
    cases, _ = draw((0.67, 0.48, 0.2), n_cases=60)
    turned = [
        [Candidate(dict(reversed(c.votes.items())), c.size_mm, c.score, c.centre) for c in case]
        for case in cases
    ]
    model = estimate_detection(cases)
    assert estimate_detection(turned) == model
    assert DetectionModel.from_json(json.loads(json.dumps(model.to_json()))) == model


def test_raters_without_rates_are_passed_over() -> None:
    model = estimate_detection(draw((0.67, 0.48, 0.2))[0])
    with_stranger = Candidate({"a": True, "stranger": False}, 100.0, 0.5, (0,))
    without = Candidate({"a": True}, 100.0, 0.5, (0,))
    np.testing.assert_array_equal(model.posterior([with_stranger]), model.posterior([without]))


@pytest.mark.parametrize("structure", detection_fit.STRUCTURES[1:], ids=lambda s: s.name)
def test_the_gradient_is_that_of_the_likelihood(structure: detection_fit.Structure) -> None:
    rng = np.random.default_rng(0)
    seen = rng.random(50) < 0.5
    answers = rng.integers(1, 3, (50, 3)).astype(float)
    yes = np.floor(rng.random((50, 3)) * (answers + 1))
    yes[~seen, 0] = answers[~seen, 0]
    evidence = Evidence(yes, answers, rng.normal(size=50), rng.random(50) * seen, seen, np.full(50, np.nan))
    start = detection_fit.fit(structure, evidence).parameters
    names = structure.free(evidence)
    x = detection_fit._pack(start, names) + 0.1

    def value(at: np.ndarray) -> float:
        return detection_fit._objective(at, start, names, evidence)[0]

    found = detection_fit._objective(x, start, names, evidence)[1]
    np.testing.assert_allclose(found, approx_fprime(x, value, 1e-6), rtol=1e-3, atol=1e-3)


def test_a_posterior_by_hand() -> None:
    # prior 1/2; both raters find half of the lesions and invent at one place in five; one of them marks:
    # 0.5 * 0.5 against 0.2 * 0.8, so 25 / 41
    parameters = Parameters(np.zeros(2), np.full(2, np.log(4.0)), prior=0.0)
    evidence = Evidence(
        np.array([[1.0, 0.0]]),
        np.ones((1, 2)),
        np.zeros(1),
        np.zeros(1),
        np.ones(1, bool),
        np.full(1, np.nan),
    )
    assert likelihood(evidence, parameters).posterior[0] == pytest.approx(25 / 41)
    # not seen: each divided by the chance that somebody marks it, 0.75 and 0.36: 25 / 75 against 16 / 36
    silent = Evidence(
        np.array([[1.0, 0.0]]),
        np.ones((1, 2)),
        np.zeros(1),
        np.zeros(1),
        np.zeros(1, bool),
        np.full(1, np.nan),
    )
    assert likelihood(silent, parameters).posterior[0] == pytest.approx((25 / 75) / (25 / 75 + 16 / 36))
