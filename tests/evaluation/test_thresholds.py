from __future__ import annotations

import json

import numpy as np
import pytest

from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.evaluation.thresholds import (
    Threshold,
    choose_threshold,
    decide,
    rater_corrected,
    read_thresholds,
)
from nnunet_softlabel.formats.encoding import consensus, with_background
from nnunet_softlabel.formats.labels import Labels

CLASSES = Labels({"a": (1,), "b": (2,)})
REGIONS = Labels({"whole": (1, 2), "core": (2,)})
RATES = {"lesion": {"sensitivity": 0.45, "false_positive_rate": 0.05}}


def test_half_is_nnunets_own_rule_for_classes(rng):
    soft = rng.dirichlet((1, 1, 1), 500).T[1:].astype(np.float32)
    half = Threshold("0.5", {"a": 0.5, "b": 0.5})
    np.testing.assert_array_equal(decide(with_background(soft), CLASSES, half), consensus(soft, CLASSES))


def test_half_is_nnunets_own_rule_for_regions(rng):
    whole = rng.random(500).astype(np.float32)
    soft = np.stack([whole, whole * rng.random(500).astype(np.float32)])
    half = Threshold("0.5", {"whole": 0.5, "core": 0.5})
    np.testing.assert_array_equal(decide(soft, REGIONS, half), consensus(soft, REGIONS))


def test_one_number_asks_whether_it_is_background_then_which_class():
    # background .6 .75 .3, so foreground .4 .25 .7
    p = np.array([[0.6, 0.75, 0.3], [0.1, 0.25, 0.4], [0.3, 0.0, 0.3]])
    third = Threshold("0.3", {"a": 0.3, "b": 0.3})
    assert decide(p, CLASSES, third).tolist() == [2, 0, 1]


def test_a_number_per_class_weighs_each_by_its_own():
    # a needs .5, b .2: b alone passes; both pass and b is the further above (.3 / .2 > .6 / .5); none passes
    p = np.array([[0.3, 0.1, 0.4], [0.45, 0.6, 0.45], [0.25, 0.3, 0.15]])
    tuned = Threshold("tuned", {"a": 0.5, "b": 0.2})
    assert decide(p, CLASSES, tuned).tolist() == [2, 2, 0]


@pytest.mark.parametrize("choice", ["0.3", "tuned"])
def test_with_one_class_every_rule_is_p_above_t(choice, rng):
    p = rng.random(200).astype(np.float32)
    hard = decide(np.stack([1 - p, p]), Labels({"lesion": (1,)}), Threshold(choice, {"lesion": 0.3}))
    np.testing.assert_array_equal(hard, p > np.float32(0.3))


def test_regions_are_painted_in_order():
    p = np.array([[0.4, 0.4, 0.1], [0.1, 0.35, 0.35]])
    assert decide(p, REGIONS, Threshold("0.3", {"whole": 0.3, "core": 0.3})).tolist() == [1, 2, 2]


@pytest.mark.parametrize(("choice", "value"), [("0.25", 0.25), (0.7, 0.7)])
def test_a_number_holds_for_all_classes(build, choice, value):
    dataset = build(CLASSES).dataset
    assert choose_threshold(choice, dataset).values == {"a": value, "b": value}


@pytest.mark.parametrize("choice", ["half", "0", "1", "-0.2", "nan", 1.5])
def test_no_threshold_is_refused(build, choice):
    with pytest.raises(UsageError, match=r"number in \(0, 1\), tuned or rater-corrected"):
        choose_threshold(choice, build().dataset)


def test_rater_corrected_lies_between_the_rates(build):
    dataset = build(about={"rater_rates": RATES}).dataset
    assert choose_threshold("rater-corrected", dataset).values == {"lesion": pytest.approx(0.25)}


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({}, "no rater_rates for lesion"),
        ({"rater_rates": RATES, "fusion": {"method": "staple"}}, "fused by 'staple'"),
        ({"rater_rates": RATES, "fusion": None}, "fused by None"),
        ({"rater_rates": RATES, "prior": {"roi": "bone"}}, "a prior was applied"),
        (
            {"rater_rates": {"lesion": {"sensitivity": 0.2, "false_positive_rate": 0.3}}},
            "does not exceed their false positive rate",
        ),
    ],
)
def test_rater_corrected_is_refused_where_it_would_be_wrong(build, about, message):
    with pytest.raises(DatasetError, match=message):
        rater_corrected(build(about=about).dataset)


def test_tuned_reads_its_file(build, tmp_path):
    file = tmp_path / "thresholds.json"
    file.write_text(json.dumps({"thresholds": {"lesion": 0.34}, "cases": ["x"]}))
    found = choose_threshold("tuned", build().dataset, threshold_file=file)
    assert (found.values, found.tuned_on) == ({"lesion": 0.34}, ("x",))


def test_tuned_without_its_file_is_refused(build, tmp_path):
    dataset = build().dataset
    for file in (None, tmp_path / "missing.json"):
        with pytest.raises(UsageError, match="tune one on validation cases first"):
            choose_threshold("tuned", dataset, threshold_file=file)
    with pytest.raises(UsageError, match=r"name the file with --threshold-file\.$"):
        choose_threshold("tuned", dataset)
    with pytest.raises(UsageError, match=r"missing\.json does not exist; no thresholds\.json was found"):
        choose_threshold("tuned", dataset, threshold_file=tmp_path / "missing.json")


def test_a_threshold_file_beside_a_number_is_refused(build, tmp_path):
    file = tmp_path / "thresholds.json"
    file.write_text(json.dumps({"thresholds": {"lesion": 0.34}, "cases": ["x"]}))
    with pytest.raises(UsageError, match=r"belongs to --threshold tuned or rater-corrected; .* is 0\.5"):
        choose_threshold("0.5", build().dataset, threshold_file=file)


def test_tuned_for_other_classes_is_refused(build, tmp_path):
    file = tmp_path / "thresholds.json"
    file.write_text(json.dumps({"thresholds": {"liver": 0.34}}))
    with pytest.raises(DatasetError, match="liver"):
        choose_threshold("tuned", build().dataset, threshold_file=file)


@pytest.mark.parametrize(
    ("threshold", "words"),
    [
        (Threshold("0.5", {"a": 0.5}), "nnU-Net's own"),
        (Threshold("0.3", {"a": 0.3}), "1 - p"),
        (Threshold("tuned", {"a": 0.5}), "p / t"),
    ],
)
def test_the_rule_is_told_in_words(threshold, words):
    assert words in threshold.rule


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"thresholds": {"lesion": None}}, "threshold of lesion is None, expected a number between 0 and 1"),
        ({"thresholds": {"lesion": 5}}, "threshold of lesion is 5"),
        ({"thresholds": {"lesion": -1}}, "threshold of lesion is -1"),
        ({"thresholds": {"lesion": True}}, "threshold of lesion is True"),
        ({"thresholds": {"lesion": "0.5"}}, "threshold of lesion is 0.5, expected a number"),
        ({"thresholds": [0.5]}, r"holds thresholds for \[0.5\], the data set has"),
        ({}, r"holds thresholds for \[\], the data set has"),
        ({"thresholds": {"lesion": 0.5}, "cases": 3}, "its cases are no list of names"),
        ({"thresholds": {"lesion": 0.5}, "cases": [{}]}, "its cases are no list of names"),
    ],
)
def test_a_file_of_thresholds_of_another_shape_is_one_line(tmp_path, content, message):
    path = tmp_path / "thresholds.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DatasetError, match=message):
        read_thresholds(path, ["lesion"])


@pytest.mark.parametrize("rates", [{"lesion": {}}, {"lesion": 3}, {"lesion": {"sensitivity": "x"}}])
def test_rates_of_another_shape_are_one_line(build, rates):
    data = build(cases=1, about={"rater_rates": rates})
    with pytest.raises(DatasetError, match=r"--threshold rater-corrected cannot be used: .*rater_rates"):
        choose_threshold("rater-corrected", data.dataset)


def test_numbers_of_python_callers_must_lie_between_0_and_1():
    assert Threshold.of(0.3, ["a", "b"]).values == {"a": 0.3, "b": 0.3}
    assert Threshold.of({"a": 0.3, "b": 0.6}, ["a", "b"]).values == {"a": 0.3, "b": 0.6}
    for wrong in (0, 0.0, -0.5, 1, 1.5, {"a": 0.5, "b": 1}):
        with pytest.raises(UsageError, match=r"give numbers in \(0, 1\)"):
            Threshold.of(wrong, ["a", "b"])
    with pytest.raises(UsageError, match="give a number for each of a, b"):
        Threshold.of({"a": 0.5}, ["a", "b"])


@pytest.mark.parametrize("value", [0, 1, 1.0, True, "0.5"])
def test_a_file_of_thresholds_holds_numbers_between_0_and_1(build, tmp_path, value):
    file = tmp_path / "thresholds.json"
    file.write_text(json.dumps({"thresholds": {"lesion": value}, "cases": ["x"]}))
    with pytest.raises(DatasetError, match=r"the threshold of lesion is .*expected a number between 0 and 1"):
        choose_threshold("tuned", build().dataset, threshold_file=file)


def test_rates_that_are_missing_are_named_with_their_file(build, tmp_path):
    dataset = build(about={"rater_rates": {}}).dataset
    with pytest.raises(DatasetError, match=r"dataset\.json holds no rater_rates for lesion"):
        rater_corrected(dataset)
    file = tmp_path / "rater_rates.json"
    file.write_text(json.dumps({"rater_rates": {"liver": RATES["lesion"]}}))
    with pytest.raises(DatasetError, match=r"tmp.*rater_rates\.json holds no rater_rates for lesion"):
        rater_corrected(dataset, rates_file=file)


@pytest.mark.parametrize("fusion", [{"name": "mean"}, {"method": "mean"}])
@pytest.mark.parametrize("prior", [None, {}])
def test_a_mean_without_a_prior_is_known_by_all_its_names(build, fusion, prior):
    about = {"rater_rates": RATES, "fusion": fusion, "prior": prior}
    assert rater_corrected(build(cases=1, about=about).dataset) == {"lesion": pytest.approx(0.25)}


@pytest.mark.parametrize(
    ("sensitivity", "false_positive", "is_allowed"),
    [(1.0, 0.0, True), (0.3, 0.3, False), (1.01, 0.1, False), (0.5, -0.01, False)],
)
def test_rates_are_shares_and_sensitivity_the_larger(build, sensitivity, false_positive, is_allowed):
    rates = {"lesion": {"sensitivity": sensitivity, "false_positive_rate": false_positive}}
    dataset = build(cases=1, about={"rater_rates": rates}).dataset
    if is_allowed:
        assert rater_corrected(dataset) == {"lesion": (sensitivity + false_positive) / 2}
    else:
        with pytest.raises(DatasetError, match="such marks say nothing"):
            rater_corrected(dataset)


def test_every_class_has_its_own_rates(build):
    rates = {
        "a": {"sensitivity": 0.6, "false_positive_rate": 0.2},
        "b": {"sensitivity": 0.9, "false_positive_rate": 0.3},
    }
    found = rater_corrected(build(CLASSES, cases=1, about={"rater_rates": rates}).dataset)
    assert found == {"a": pytest.approx(0.4), "b": pytest.approx(0.6)}


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ([0.5], r"rater_rates of .*rates\.json is no object; run refine again"),
        ({"lesion": {}}, r"rater_rates of lesion in .*rates\.json lack sensitivity .*; run refine again"),
    ],
)
def test_a_file_of_rates_of_another_shape_is_named(build, tmp_path, rates, message):
    file = tmp_path / "rates.json"
    file.write_text(json.dumps({"rater_rates": rates}))
    with pytest.raises(DatasetError, match=message):
        rater_corrected(build(cases=1).dataset, rates_file=file)


def test_a_file_of_thresholds_tells_what_its_probabilities_were(tmp_path):
    path = tmp_path / "thresholds.json"
    path.write_text(json.dumps({"thresholds": {"b": 0.3, "a": 0.2}, "calibration": "abc"}))
    found = read_thresholds(path, ["a", "b"])
    assert found == Threshold("tuned", {"a": 0.2, "b": 0.3}, (), "abc")
    assert list(found.values) == ["a", "b"]
    path.write_text(json.dumps({"thresholds": {"a": 0.2}, "calibration": 3}))
    with pytest.raises(DatasetError, match="its calibration is no digest"):
        read_thresholds(path, ["a"])


def test_only_one_half_asked_for_as_a_number_is_nnunets_own():
    both = {"a": 0.5, "b": 0.5}
    assert Threshold("0.5", both).is_stock
    assert Threshold.of(0.5, ["a", "b"]).is_stock
    assert not Threshold("0.4", {"a": 0.4, "b": 0.4}).is_stock
    assert Threshold("0.4", {"a": 0.4, "b": 0.4}).is_single
    for choice in ("tuned", "rater-corrected"):
        assert not Threshold(choice, both).is_stock
        assert not Threshold(choice, both).is_single
    given = Threshold.of(both, ["a", "b"])
    assert not given.is_stock
    assert not given.is_single
    assert Threshold.of(given, ["x"]) is given


def test_a_threshold_is_kept_whole():
    assert Threshold("tuned", {"a": 0.2}, ("x", "y"), "abc").to_json() == {
        "choice": "tuned",
        "values": {"a": 0.2},
        "tuned_on": ["x", "y"],
        "calibration": "abc",
        "rule": "classes: among those with p > t the one with the largest p / t; regions: p > t",
    }
