from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.metrics.registry import BETTER
from nnunet_softlabel.report.comparison import (
    PRIMARY,
    Bootstrap,
    case_values,
    compare,
    compare_pairs,
    home_reference,
    primary_tests,
)
from nnunet_softlabel.report.significance import (
    Interval,
    group_means,
    holm,
    interval_of_mean,
    mean_interval,
    rank_test,
    smallest_rank_p,
)


def rows_of(values, metric="dice", groups=None, prediction="model", class_name="lesion"):
    """Rows of ``soft_metrics.csv`` with one metric against its home reference."""
    return [
        {
            "case": f"case{i}",
            "group": "" if groups is None else groups[i],
            "class": class_name,
            "reference": home_reference(metric),
            "prediction": prediction,
            metric: float(value),
        }
        for i, value in enumerate(values)
    ]


def only(tests):
    (test,) = tests
    return test


def compare_values(first, second, **options):
    metric, groups = options.pop("metric", "dice"), options.pop("groups", None)
    return only(
        compare(
            rows_of(first, metric, groups),
            rows_of(second, metric, groups),
            names=("stock", "APL"),
            metrics=[metric],
            **options,
        )
    )


def test_difference_is_second_minus_first(rng):
    first = rng.uniform(0.6, 0.9, 40)
    test = compare_values(first, first + 0.05 + rng.normal(0, 0.01, 40))
    assert test.difference.mean == pytest.approx(0.05, abs=0.01)
    assert test.difference.low < 0.05 < test.difference.high
    assert test.better == "APL"
    assert test.is_significant()
    assert test.wins == (40, 0, 0)
    assert test.effect_size == 1


def test_where_lower_is_better_a_rise_is_a_loss(rng):
    first = rng.uniform(1, 9, 30)
    test = compare_values(first, first + 1, metric="hd95_mm")
    assert (test.better, test.wins) == ("stock", (0, 0, 30))


def test_ranks_that_contradict_the_mean_are_nobodys_win():
    second = np.array([0.51] * 29 + [0.1])  # a little better 29 times, much worse once
    test = compare_values(np.full(30, 0.5), second)
    assert test.p_holm < 0.05
    assert test.difference.mean < 0
    assert not test.is_significant()


def test_signed_errors_have_no_better_side():
    assert compare_values([1.0, 2, 3], [2.0, 3, 4], metric="volume_error").better is None


def test_cases_that_cannot_be_paired_are_counted_with_the_reason():
    first = rows_of([0.5, math.nan, 0.7, math.nan, 0.6, 0.7])
    second = rows_of([0.6, 0.7, math.nan, math.nan, 0.7])
    second += [row | {"case": f"new{i}"} for i, row in enumerate(rows_of([0.5, 0.5]))]
    test = only(compare(first, second, names=("stock", "APL"), metrics=["dice"]))
    assert test.dropped == {
        "undefined (NaN) for stock": 1,
        "undefined (NaN) for APL": 1,
        "undefined (NaN) for stock and APL": 1,
        "not scored by APL": 1,
        "not scored by stock": 2,
    }
    assert test.difference.n == 2
    assert test.first_mean == pytest.approx(0.55)


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_pairs_are_nan_with_a_reason(n):
    values = [0.5] * n + [math.nan] * 3
    test = compare_values(values, values)
    assert math.isnan(test.p_value)
    assert math.isnan(test.p_holm)
    assert not test.is_significant()
    assert "at least two" in test.reason
    assert test.difference.method == "fewer than 6: no interval"


def test_equal_trainers_differ_by_nothing():
    test = compare_values([0.5, 0.6, 0.7] * 2, [0.5, 0.6, 0.7] * 2)
    assert (test.difference.mean, test.difference.low, test.p_value, test.effect_size) == (0, 0, 1, 0)
    assert test.better is None


def test_metrics_without_rows_are_no_tests():
    assert compare(rows_of([0.5]), rows_of([0.5]), names=("a", "b"), metrics=["ged"]) == []


def test_holms_family_is_all_metrics_and_classes(rng):
    values = rng.uniform(0.4, 0.9, (4, 20))
    first = rows_of(values[0]) + rows_of(values[1], class_name="other")
    second = rows_of(values[2]) + rows_of(values[3], class_name="other")
    tests = compare(first, second, names=("a", "b"), metrics=["dice"])
    assert [test.class_name for test in tests] == ["lesion", "other"]
    assert {test.family for test in tests} == {2}
    assert [test.p_holm for test in tests] == holm([test.p_value for test in tests])


def test_seeds_of_a_case_are_averaged():
    rows = rows_of([0.5, 0.6]) + rows_of([0.7, math.nan])
    found = case_values(rows, metric="dice", class_name="lesion", reference="consensus")
    assert found == {"case0": (pytest.approx(0.6), "case0"), "case1": (pytest.approx(0.6), "case1")}


@pytest.mark.parametrize(
    ("metric", "change", "margin", "verdict"),
    [
        ("dice", -0.01, 0.05, True),
        ("dice", -0.10, 0.05, False),
        ("hd95_mm", 0.01, 0.05, True),
        ("hd95_mm", 0.10, 0.05, False),
        ("hd95_mm", -1.0, 0.05, True),
    ],
)
def test_non_inferiority_asks_the_worse_end_of_the_interval(rng, metric, change, margin, verdict):
    first = rng.uniform(0.6, 0.9, 50)
    second = first + change + rng.normal(0, 0.005, 50)
    test = compare_values(first, second, metric=metric, margins={metric: margin})
    assert test.non_inferior is verdict


@pytest.mark.parametrize("n", [1, 5])
def test_non_inferiority_is_unknown_without_an_interval(n):
    assert compare_values([0.5] * n, [0.5] * n, margins={"dice": 0.1}).non_inferior is None


@pytest.mark.parametrize("margins", [{"dice": 0}, {"dice": math.inf}, {"volume_error": 0.1}, {"beauty": 1}])
def test_senseless_margins_are_refused(margins):
    with pytest.raises(ValueError, match="margin of"):
        compare([], [], names=("a", "b"), margins=margins)


def test_unknown_metrics_are_refused():
    with pytest.raises(ValueError, match="unknown metrics"):
        compare([], [], names=("a", "b"), metrics=["beauty"])


def test_primary_metrics_exist():
    assert set(PRIMARY) <= set(BETTER)


def test_interval_without_groups_is_scipys_bca_of_the_mean(rng):
    values = rng.exponential(size=60)
    expected = stats.bootstrap(
        (values,), np.mean, method="bca", n_resamples=20000, rng=rng
    ).confidence_interval
    found = mean_interval(values, resamples=20000)
    assert (found.mean, found.method) == (pytest.approx(values.mean()), "bca")
    assert found.low == pytest.approx(expected.low, abs=0.03)
    assert found.high == pytest.approx(expected.high, abs=0.03)


def test_cases_of_one_patient_widen_the_interval(rng):
    values = np.repeat(rng.normal(size=20), 5)
    alone, grouped = mean_interval(values), mean_interval(values, np.repeat(np.arange(20), 5).astype(str))
    assert grouped.n_groups == 20
    # five copies of a value tell nothing new: the interval is sqrt(5) times as wide
    assert (grouped.high - grouped.low) / (alone.high - alone.low) == pytest.approx(np.sqrt(5), rel=0.15)


def test_intervals_leave_nan_out_and_repeat_exactly(rng):
    values = [*rng.random(30), math.nan]
    assert mean_interval(values) == mean_interval(values)
    assert mean_interval(values).n == 30


def test_interval_of_nothing_and_of_equal_values():
    assert math.isnan(mean_interval([]).mean)
    assert math.isnan(interval_of_mean([]).mean)
    assert mean_interval([0.3] * 6).low == interval_of_mean([0.3] * 6).low == 0.3


def test_wilcoxon_is_scipys():
    differences = np.array([0.3, -0.1, 0.2, 0.5, 0.4, 0.0])
    p, effect, reason = rank_test(differences)
    assert p == pytest.approx(stats.wilcoxon(differences[:5]).pvalue)
    # ranks 3 1 2 5 4; the second is negative: (15 - 2 * 1) / 15
    assert effect == pytest.approx((15 - 2) / 15)
    assert reason == ""


@pytest.mark.parametrize("known_to", [0, 1])
def test_one_run_that_knows_the_patients_is_enough(rng, known_to):
    values, patients = rng.random(12), [f"p{i // 3}" for i in range(12)]
    runs = [rows_of(v, groups=patients if i == known_to else None) for i, v in enumerate((values, values**2))]
    tested = only(compare(*runs, names=("stock", "APL"), metrics=["dice"]))
    assert tested.difference == compare_values(values, values**2, groups=patients).difference
    assert tested.difference != compare_values(values, values**2).difference


def test_runs_that_name_two_patients_of_a_case_are_refused():
    runs = [rows_of([0.5, 0.6, 0.7], groups=groups) for groups in (["p", "p", "q"], ["p", "q", "q"])]
    with pytest.raises(
        DatasetError, match="case case1: is of patient p in the scores of stock, and of patient q"
    ):
        compare(*runs, names=("stock", "APL"), metrics=["dice"])


def test_patients_count_once_in_the_rank_test():
    assert group_means(np.array([1.0, 3.0, 5.0]), ["a", "a", "b"]).tolist() == [2.0, 5.0]
    assert len(group_means(np.array([]), [])) == 0


def test_hand_worked_holm():
    # sorted .01 .03 .04: 3 * .01, 2 * .03, max(.06, 1 * .04)
    assert holm([0.01, 0.04, 0.03, math.nan])[:3] == pytest.approx([0.03, 0.06, 0.06])
    assert math.isnan(holm([0.01, math.nan])[1])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1, 1]


def test_holm_agrees_with_statsmodels(rng):
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p = rng.random(12) ** 3
    assert holm(p) == pytest.approx(multitest.multipletests(p, method="holm")[1])


@pytest.mark.parametrize(("primary", "tested"), [(None, {"dice"}), (("recall",), {"recall"})])
def test_metrics_that_the_caller_calls_primary_are_the_family(rng, primary, tested):
    values = rng.uniform(0.6, 0.9, 20)
    runs = {
        name: [r | {"recall": r["dice"] / 2} for r in rows_of(values + gain * (1 + values))]
        for name, gain in (("stock", 0), ("APL", 0.02))
    }
    tests = compare_pairs(runs, [("stock", "APL")], margins=None, primary=primary)
    assert {t.metric for t in tests if t.is_primary and np.isfinite(t.p_value)} == tested


def test_the_smallest_p_of_ranks_is_that_of_all_pairs_on_one_side():
    for pairs in (2, 5, 8):
        p, effect, _ = rank_test(np.arange(1.0, pairs + 1))
        assert (p, effect) == (pytest.approx(smallest_rank_p(pairs)), 1.0)
        assert rank_test(-np.arange(1.0, pairs + 1))[1] == -1.0
    assert (smallest_rank_p(0), smallest_rank_p(1), smallest_rank_p(6)) == (1, 1, 1 / 32)


@pytest.mark.parametrize("n", [10, 30])
def test_less_confidence_is_a_narrower_interval(rng, n):
    first, second = np.zeros(n), rng.random(n)
    by_name = np.argsort([f"case{i}" for i in range(n)])
    widths = []
    for confidence in (0.5, 0.95):
        found = compare_values(first, second, bootstrap=Bootstrap(confidence=confidence)).difference
        assert found == interval_of_mean(second[by_name], confidence=confidence)
        widths.append(found.high - found.low)
    assert widths[0] < 0.5 * widths[1]


def test_the_number_of_resamples_reaches_the_bootstrap(rng):
    first, second = np.zeros(30), rng.random(30)
    by_name = second[np.argsort([f"case{i}" for i in range(30)])]
    few = compare_values(first, second, bootstrap=Bootstrap(resamples=20)).difference
    assert few == mean_interval(by_name, resamples=20) != mean_interval(by_name)


def test_the_interval_says_how_it_came_about(rng):
    assert mean_interval([0.3] * 6) == Interval(
        pytest.approx(0.3), *[pytest.approx(0.3)] * 2, 6, 6, "all values are equal"
    )
    methods = [interval_of_mean(rng.random(n)).method for n in (5, 6, 19, 20)]
    assert methods == ["fewer than 6: no interval", "t", "t", "bca"]
    patients = [f"p{i}" for i in range(5) for _ in range(8)]
    few = interval_of_mean([*rng.random(40), math.nan], [*patients, "p9"])
    assert (few.n, few.n_groups, few.method) == (40, 5, "fewer than 6: no interval")
    assert math.isnan(few.low)
    assert math.isnan(few.high)


def test_few_groups_have_scipys_t_interval(rng):
    values = rng.normal(size=8)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    found = interval_of_mean(values)
    assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    # every case four times: nothing new is told
    again = interval_of_mean(np.repeat(values, 4), np.repeat([f"p{i}" for i in range(8)], 4))
    assert (again.low, again.high) == (pytest.approx(expected.low), pytest.approx(expected.high))


@pytest.mark.parametrize("patients", [2, 3, 5, 6, 10])
def test_intervals_of_few_patients_seldom_exclude_what_is_true(patients):
    rng = np.random.default_rng(patients)
    found = [interval_of_mean(rng.normal(size=patients)) for _ in range(400)]
    assert np.mean([own.low > 0 or own.high < 0 for own in found]) < 0.08  # 0.05, and 2.7 deviations


def test_patients_are_drawn_whole_and_ranked_by_their_mean():
    groups = ["p", "p", "p", "q", "r"]
    first, second = np.zeros(5), np.array([0.1, 0.2, -0.6, 0.3, 0.4])
    test = compare_values(first, second, groups=groups)
    assert test.difference.n_groups == 3
    # the means of p, q and r are -0.1, 0.3 and 0.4: ranks 1, 2, 3
    assert test.effect_size == pytest.approx((2 + 3 - 1) / 6)
    assert test.wins == (4, 0, 1)


@pytest.mark.parametrize(
    ("recall", "has_several"), [(0.5, True), (0.0, False), (1.0, False), (math.nan, False)]
)
def test_lesions_are_tested_where_some_case_has_several(recall, has_several):
    about = {"prediction": "model", "reference": "consensus"}
    rows = [{"lesion_recall": 1.0, **about}, {"lesion_recall": recall, **about}, about]
    assert primary_tests(rows) == (
        ("dice", "brier_near", "lesion_f1") if has_several else ("dice", "brier_near")
    )


@pytest.mark.parametrize(
    ("prediction", "reference"), [("rater1", "raters"), ("model", "raters"), ("model", "rater1")]
)
def test_means_over_raters_do_not_say_that_a_case_has_several_lesions(prediction, reference):
    rows = [{"lesion_recall": 2 / 3, "prediction": prediction, "reference": reference}]
    assert primary_tests(rows) == ("dice", "brier_near")


def test_a_difference_stands_if_p_is_below_alpha_and_the_interval_excludes_0():
    up = compare_values(np.zeros(9), np.linspace(0.1, 0.2, 9))
    assert up.is_significant(alpha=0.01)
    assert not up.is_significant(alpha=up.p_holm)
    down = compare_values(np.zeros(9), -np.linspace(0.1, 0.2, 9))
    assert down.is_significant()
    assert not replace(up, p_holm=0.05).is_significant()  # whatever p was before the correction
    touching = replace(up, difference=replace(up.difference, low=0.0))
    assert not touching.is_significant()
    assert not replace(down, difference=replace(down.difference, high=0.0)).is_significant()


def test_worse_by_exactly_the_margin_is_not_non_inferior():
    values = np.full(6, 0.5)
    assert compare_values(values, values - 0.25, margins={"dice": 0.25}).non_inferior is False
    assert compare_values(values, values - 0.25, margins={"dice": 0.2501}).non_inferior is True
    assert (
        compare_values(values, values + 0.25, metric="hd95_mm", margins={"hd95_mm": 0.25}).non_inferior
        is False
    )
    assert compare_values(values, values, margins={}).non_inferior is None


def test_another_reference_may_be_asked_for(rng):
    first, second = (
        [r | {"reference": "truth"} for r in rows_of(values)] + rows_of(values[::-1])
        for values in rng.random((2, 8))
    )
    names = ("a", "b")
    home, truth = (
        only(compare(first, second, names=names, metrics=["dice"], reference=reference))
        for reference in (None, "truth")
    )
    assert (home.reference, truth.reference) == ("consensus", "truth")
    assert truth.first_mean == pytest.approx(home.first_mean)
    runs = {"a": first, "b": second}
    pairs = compare_pairs(runs, [names], reference="truth", margins=None, primary=None)
    (pair,) = [test for test in pairs if test.metric == "dice"]
    assert pair.reference == "truth"
    assert home_reference("ged") == "raters"
    assert home_reference("brier") == "soft"
