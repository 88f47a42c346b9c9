"""The model of detection piece by piece, on numbers worked by hand or integrated."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import expit, logit
from scipy.stats import norm

from nnunet_softlabel.fusion import detection, detection_fit
from nnunet_softlabel.fusion.candidate import Candidate
from nnunet_softlabel.fusion.detection import bootstrapped_rates, estimate_detection
from nnunet_softlabel.fusion.detection_likelihood import Evidence, Parameters, concatenated, likelihood
from nnunet_softlabel.fusion.detection_model import DetectionModel, evidence_of
from tests.fusion.test_detection import draw

NULL, MISSES, BY_DIFFICULTY, INVENTIONS, ALL = detection_fit.STRUCTURES


def evidence(yes: list[list[float]], *, is_seen: bool = True, **options: list[float]) -> Evidence:
    """Raters who answered once each."""
    marks = np.array(yes, float)
    n = len(marks)
    columns = {name: np.array(options.get(name, [default] * n), float)
               for name, default in (("size", 0), ("score", 0), ("known", np.nan))}  # fmt: skip
    return Evidence(
        marks, np.ones_like(marks), columns["size"], columns["score"], np.full(n, is_seen), columns["known"]
    )


def test_candidates_become_arrays_by_hand() -> None:
    candidates = [
        Candidate({"a": True, "b": False}, np.exp(2.0), 0.5, ()),
        Candidate({"b": True}, np.exp(9.0), None, ()),
        Candidate({"a": False, "b": False}, np.exp(2.0), 0.999, ()),
        Candidate({"a": True}, np.exp(-9.0), 0.1, ()),
    ]
    found = evidence_of(candidates, ("a", "b"), (1.0, 0.5), [None, True, False, None])
    assert found.yes.tolist() == [[1, 0], [0, 1], [0, 0], [1, 0]]
    assert found.answers.tolist() == [[1, 1], [0, 1], [1, 1], [1, 0]]
    assert found.size.tolist() == pytest.approx([2, 3, 0, -3])  # of nobody's marks: the usual size
    assert found.score == pytest.approx([logit(0.5) - logit(0.15), 0, logit(0.99) - logit(0.15), 0])
    assert found.is_seen.tolist() == [True, False, True, False]
    np.testing.assert_array_equal(found.known, [np.nan, 1, 0, np.nan])
    anyone = evidence_of(candidates, ("*",), (1.0, 0.5))
    assert anyone.yes.ravel().tolist() == [1, 1, 0, 1]
    assert anyone.answers.ravel().tolist() == [2, 1, 2, 1]
    assert np.isnan(anyone.known).all()
    with pytest.raises(AssertionError, match="rater b has no rates"):
        evidence_of(candidates, ("a",), (1.0, 0.5))
    passed_over = evidence_of(candidates, ("a",), (1.0, 0.5), may_be_unknown=True)
    assert passed_over.answers.ravel().tolist() == [1, 0, 1, 1]


def test_parts_of_the_evidence_go_together_again() -> None:
    whole = evidence([[1, 0], [0, 0], [1, 1]], size=[1, 2, 3], score=[4, 5, 6])
    chosen = np.array([True, False, True])
    again = concatenated([whole.subset(chosen), whole.subset(~chosen)])
    assert again.yes.tolist() == [[1, 0], [1, 1], [0, 0]]
    assert again.size.tolist() == [1, 3, 2]
    assert again.score.tolist() == [4, 6, 5]


def test_size_and_difficulty_are_those_of_the_integral() -> None:
    a, b, tau, prior = np.array([0.3, -0.5]), 0.8, 0.6, 0.4
    given = evidence([[1, 0], [1, 1], [0, 0]], size=[0.5, -1.0, 2.0], score=[0.2, 0.0, 1.0])
    parameters = Parameters(a, np.array([2.0, 3.0]), b, tau, prior, prior_slope=0.7)
    found = likelihood(given, parameters)
    for i, marks in enumerate(given.yes):

        def of_lesion(u: float, marks=marks, size=given.size[i]) -> float:
            s = expit(a + b * size + tau * u)
            return float(np.prod(np.where(marks, s, 1 - s)) * norm.pdf(u))

        f = expit(a - parameters.gap)
        other = np.prod(np.where(marks, f, 1 - f))
        is_lesion = expit(prior + 0.7 * given.score[i])
        both = is_lesion * quad(of_lesion, -8, 8)[0], (1 - is_lesion) * other
        assert found.value[i] == pytest.approx(np.log(sum(both)), abs=1e-4)
        assert found.posterior[i] == pytest.approx(both[0] / sum(both), abs=1e-4)


def test_marks_that_the_network_does_not_see_are_given_that_somebody_marked() -> None:
    # s = 1/2, f = 1/5 of two raters; a share of 0.6 of such marks are lesions
    parameters = Parameters(np.zeros(2), np.full(2, np.log(4.0)), silent=float(logit(0.6)))
    found = likelihood(evidence([[1, 0]], is_seen=False), parameters)
    lesion, other = 0.6 * 0.25 / 0.75, 0.4 * 0.16 / 0.36
    assert found.value[0] == pytest.approx(np.log(lesion + other))
    assert found.posterior[0] == pytest.approx(lesion / (lesion + other))
    # with a difficulty, the chance that somebody marks a lesion is an integral as well
    hard = replace(parameters, difficulty=0.6)

    def nobody(u: float) -> float:
        return float((1 - expit(0.6 * u)) ** 2 * norm.pdf(u))

    def one(u: float) -> float:
        return float(expit(0.6 * u) * (1 - expit(0.6 * u)) * norm.pdf(u))

    lesion = 0.6 * quad(one, -8, 8)[0] / (1 - quad(nobody, -8, 8)[0])
    assert likelihood(evidence([[1, 0]], is_seen=False), hard).posterior[0] == pytest.approx(
        lesion / (lesion + other), abs=1e-5
    )


def test_who_never_invents_marks_lesions_only() -> None:
    parameters = Parameters(np.zeros(2), np.full(2, np.inf), prior=float(logit(0.3)), silent=-2.0)
    seen = likelihood(evidence([[1, 0], [0, 0]]), parameters)
    assert seen.posterior == pytest.approx([1, 0.3 * 0.25 / (0.3 * 0.25 + 0.7)])
    assert seen.value == pytest.approx(np.log([0.3 * 0.25, 0.3 * 0.25 + 0.7]))
    assert likelihood(evidence([[1, 0]], is_seen=False), parameters).posterior == pytest.approx([1])


def test_what_was_adjudicated_is_certain() -> None:
    parameters = Parameters(np.zeros(2), np.full(2, np.log(4.0)), prior=float(logit(0.3)))
    found = likelihood(evidence([[1, 0], [1, 0]], known=[1, 0]), parameters)
    assert found.posterior.tolist() == [1, 0]
    assert found.value == pytest.approx(np.log([0.3 * 0.25, 0.7 * 0.16]))
    never = likelihood(evidence([[1, 0]], known=[0]), Parameters(np.zeros(2), np.full(2, np.inf)))
    assert never.posterior.tolist() == [0]
    assert never.value.tolist() == [-np.inf]


def test_rates_are_means_over_the_difficulty() -> None:
    model = DetectionModel("m", "", {"a": 0.5, "b": -1.0}, {"a": -2.0, "b": -3.0}, 0, 1.2, 0, 1, 0, (3, 1))
    for rater, (sensitivity, inventions) in model.rates().items():
        a = model.sensitivity[rater]
        expected = quad(lambda u, a=a: expit(a + 1.2 * u) * norm.pdf(u), -9, 9)[0]
        assert sensitivity == pytest.approx(expected, abs=1e-5)
        assert inventions == pytest.approx(expit(model.inventions[rater]))
    parameters = model.parameters()
    assert parameters.gap.tolist() == [2.5, 2.0]
    alone = replace(model, inventions={})
    assert {rates[1] for rates in alone.rates().values()} == {0.0}
    assert alone.parameters().gap.tolist() == [np.inf, np.inf]


def test_weak_priors_by_hand() -> None:
    parameters = Parameters(np.array([0.0, 2.0]), np.array([4.0, 5.0]), 0.5, 0.2, 1.0, 1.5, -1.0)
    expected = {
        "sensitivity": 1.0,  # 1 to either side of their mean, which is the usual 1
        "gap": 0.25 + (0.5 / 0.75) ** 2 / 2,  # inventions -4 and -3, half to either side of -3.5
        "size_slope": 0.5**2 / 2,
        "difficulty": 0.2**2 / 2,
        "prior": (1 / 2) ** 2 / 2,
        "prior_slope": 1.5**2 / 2,
        "silent": (1.5 / 1.5) ** 2 / 2,
    }
    for n in range(1, len(expected) + 1):
        names = tuple(expected)[:n]
        total = sum(expected[name] for name in names)
        assert detection_fit._penalty(parameters, names)[0] == pytest.approx(total)


def test_structures_free_what_they_know() -> None:
    seen, silent = evidence([[1, 0]]), evidence([[1, 0]], is_seen=False)
    both = concatenated([seen, silent])
    assert MISSES.free(both) == ("sensitivity", "prior", "prior_slope")
    assert MISSES.free(silent) == ("sensitivity",)
    assert NULL.free(both) == ("sensitivity", "gap", "prior", "prior_slope", "silent")
    assert INVENTIONS.free(seen) == ("sensitivity", "gap", "prior", "prior_slope")
    assert INVENTIONS.free(silent) == ("sensitivity", "gap", "silent")
    hard = ("size_slope", "difficulty")
    assert BY_DIFFICULTY.free(silent) == ("sensitivity", *hard)
    assert ALL.free(both) == ("sensitivity", "gap", *hard, "prior", "prior_slope", "silent")
    assert [s.is_known_without_network for s in detection_fit.STRUCTURES] == [True, False, False, True, False]


def test_where_nobody_misses_readers_slip_once_in_twenty_at_most() -> None:
    slip = float(logit(0.95))
    assert NULL.bounds("sensitivity") == (slip, 5.0)
    assert NULL.bounds("gap")[0] == 5.0 + slip  # even for who marks most
    assert NULL.bounds("silent")[0] == slip
    assert MISSES.bounds("sensitivity") == (-5.0, 5.0)
    assert NULL.bounds("prior") == MISSES.bounds("prior")
    model = estimate_detection([])
    assert model.rates() == {}
    some = estimate_detection([[Candidate({"a": True, "b": True}, 9.0, None, ())]])
    assert some.rates() == {name: pytest.approx((0.95, 0.05)) for name in "ab"}


def cases_of(*votes: dict[str, bool], n_cases: int, score: float | None = 0.5) -> list[list[Candidate]]:
    cases: list[list[Candidate]] = [[] for _ in range(n_cases)]
    for i, own in enumerate(votes):
        cases[i % n_cases].append(Candidate(own, 9.0, score, ()))
    return cases


ALL_THREE = dict.fromkeys("abc", True)
UNANIMOUS = "all raters marked every candidate"


@pytest.mark.parametrize(
    ("cases", "reason"),
    [
        (cases_of(*[ALL_THREE] * 20, n_cases=10), UNANIMOUS),
        (cases_of(*[ALL_THREE] * 20, n_cases=9), "20 marked candidates in 9 cases are too few"),
        (cases_of(*[ALL_THREE] * 19, n_cases=10), "19 marked candidates in 10 cases are too few"),
        (
            cases_of(*[ALL_THREE] * 19, {"a": False}, n_cases=10),
            r"19 marked candidates in 10 cases are too few to judge raters by \(20 in 10 are needed\)",
        ),
        (cases_of(*[{"a": True}] * 10, *[ALL_THREE] * 10, n_cases=10), "read by one rater"),
        (cases_of(*[{"a": True}] * 9, *[ALL_THREE] * 11, n_cases=10), UNANIMOUS),
        (
            cases_of(*[{"a": True, "b": True}] * 10, *[ALL_THREE] * 10, n_cases=10, score=None),
            "two raters without a network",
        ),
        (cases_of(*[{"a": True, "b": True}] * 9, *[ALL_THREE] * 11, n_cases=10, score=None), UNANIMOUS),
        (cases_of(*[{"a": True, "b": True}] * 20, n_cases=10), UNANIMOUS),
    ],
)
def test_what_is_too_little_to_judge_raters_by(cases: list[list[Candidate]], reason: str) -> None:
    model = estimate_detection(cases)
    assert model.is_mean
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(model.reason)


def test_a_doubt_from_outside_leaves_the_mean() -> None:
    model = estimate_detection(cases_of(*[ALL_THREE] * 20, n_cases=10), doubt="the networks saw the cases")
    assert (model.is_mean, model.reason) == (True, "the networks saw the cases")
    assert model.has_network
    assert not estimate_detection(cases_of(ALL_THREE, n_cases=1, score=None)).has_network


def test_the_usual_size_is_that_of_what_was_marked() -> None:
    sizes = [Candidate({"a": True}, float(np.exp(s)), 0.5, ()) for s in (1.0, 3.0)]
    unmarked = Candidate({"a": False}, 1e9, 0.5, ())
    assert estimate_detection([[*sizes, unmarked]]).log_size == pytest.approx((2.0, 1.0))
    assert estimate_detection([sizes[:1]]).log_size == pytest.approx((1.0, 0.05))  # never 0
    assert estimate_detection([[unmarked]]).log_size == pytest.approx((0.0, 0.05))


def test_better_is_by_more_than_two_standard_errors_and_more_than_one_unit() -> None:
    zero = np.zeros(4)
    assert detection._is_better(np.full(4, 0.3), zero)
    assert not detection._is_better(np.full(4, 0.25), zero)  # one unit in all
    noisy = np.array([3.0, -1.0, 3.0, -1.0])  # 4 in all; standard error 2 * std = 4.6
    assert not detection._is_better(noisy, zero)
    assert detection._is_better(noisy + 0.2, zero)  # 4.8
    assert not detection._is_better(noisy + 0.2, zero, errors=2)
    assert detection._is_better(noisy + 1.4, zero, errors=2)  # 9.6 against 9.2


def test_models_are_compared_over_as_many_numbers_as_there_are_patients(monkeypatch) -> None:
    sizes = []
    is_better = detection._is_better

    def watched(one, other, **options):
        sizes.append((one.size, other.size))
        return is_better(one, other, **options)

    monkeypatch.setattr(detection, "_is_better", watched)
    cases, _ = draw((0.7, 0.5, 0.3), n_cases=30)
    estimate_detection(cases, groups=[f"p{i // 2}" for i in range(30)])
    assert set(sizes) == {(15, 15)}


def test_log_1mexp_is_exact_near_and_far() -> None:
    from nnunet_softlabel.fusion.detection_likelihood import _log1mexp

    x = np.array([-1e-9, -0.1, -0.7, -0.71, -5.0, -40.0])
    expected = [np.log(1e-9), *np.log(1 - np.exp(x[1:-1])), -np.exp(-40.0)]
    np.testing.assert_allclose(_log1mexp(x), expected, rtol=1e-8)
    assert _log1mexp(np.zeros(1))[0] == pytest.approx(np.log(1e-12))


def test_rates_are_fitted_again_to_patients_drawn_with_replacement() -> None:
    cases, _ = draw((0.67, 0.48, 0.2), n_cases=40)
    logits = {"a": 0.7, "b": -0.1, "c": -1.4}
    model = DetectionModel("misses", "", logits, {}, 0.0, 0.0, 0.0, 1.0, 30.0, (4.6, 1.0), True)
    patients = [f"p{i // 2}" for i in range(40)]
    found = bootstrapped_rates(model, cases, patients, n=4)
    assert {name: rates.shape for name, rates in found.items()} == dict.fromkeys("abc", (4, 2))
    for rates, expected in zip(found.values(), (0.67, 0.48, 0.2), strict=True):
        assert np.ptp(rates[:, 0]) > 0
        assert rates[:, 0].mean() == pytest.approx(expected, abs=0.15)
        assert not rates[:, 1].any()  # nobody invents
    again = bootstrapped_rates(model, cases, patients, n=4)
    np.testing.assert_array_equal(list(again.values()), list(found.values()))
    of_one_patient = bootstrapped_rates(model, cases, ["p"] * 40, n=3)
    assert all(np.ptp(rates, axis=0).max() == 0 for rates in of_one_patient.values())


def test_of_one_patient_the_rates_are_those_of_the_model_with_what_was_adjudicated() -> None:
    cases, _ = draw((0.8, 0.6, 0.4), n_cases=15)
    known = [[sum(c.votes.values()) >= 2 for c in case] for case in cases]  # single marks are no lesions
    model = estimate_detection(cases, known=known)
    assert model.inventions
    of_one_patient = bootstrapped_rates(model, cases, ["p"] * 15, known=known, n=1)
    for name, rates in model.rates().items():
        assert of_one_patient[name][0] == pytest.approx(rates, abs=1e-3)
    unheard = bootstrapped_rates(model, cases, ["p"] * 15, n=1)
    assert abs(unheard["b"][0] - model.rates()["b"]).max() > 0.1
