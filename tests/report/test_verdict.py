"""Each sentence that the verdict can say."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_softlabel.report.comparison import Bootstrap, compare, primary_tests
from nnunet_softlabel.report.dead import dead_network, dead_trainings
from nnunet_softlabel.report.difference_text import describe_difference
from nnunet_softlabel.report.significance import rank_test, smallest_rank_p
from nnunet_softlabel.report.verdict import verdict

QUICK = Bootstrap(resamples=500)

NAN = float("nan")


def rows(dice: np.ndarray, *, brier: float = 0.02, patients: int | None = None, **more: float) -> list[dict]:
    """Rows of a trainer: Dice against the consensus, Brier against the soft label."""
    found = []
    for i, value in enumerate(dice):
        keys = {"case": f"c{i:03d}", "group": f"p{i % (patients or len(dice))}", "class": "lesion"}
        scores = {"dice": float(value), "precision": 0.8, "recall": 0.7, **more}
        found.append({**keys, "reference": "consensus", "prediction": "model", **scores})
        found.append({**keys, "reference": "soft", "prediction": "model", "brier_near": brier})
    return found


def say(first: list[dict], second: list[dict], **options: object) -> list[str]:
    tests = compare(
        first, second, names=("Stock", "Soft"), metrics=["dice", "brier_near"], bootstrap=QUICK,
        primary=["dice", "brier_near"], margins=options.pop("margins", None),
    )  # fmt: skip
    return [s.text for s in verdict({"Stock": first, "Soft": second}, tests, **options)]


@pytest.fixture
def base() -> np.ndarray:
    return np.random.default_rng(0).uniform(0.5, 0.8, 40)


def test_a_clear_difference_is_said_with_its_side_and_interval(base):
    _, text = say(rows(base), rows(base + np.linspace(0.02, 0.04, 40)))
    assert text.startswith("Over 40 cases, Soft against Stock: better Dice (+0.030, +0.028 to +0.032; clear)")


def test_patients_are_counted_where_they_have_several_cases(base):
    _, text = say(rows(base, patients=20), rows(base + 0.01, patients=20))
    assert text.startswith("Over 40 cases of 20 patients, ")


def test_a_loss_is_called_worse(base):
    _, text = say(rows(base), rows(base - np.linspace(0.02, 0.04, 40)))
    assert "worse Dice (-0.030" in text


def test_no_proof_is_not_called_equality(base):
    noise = np.random.default_rng(1).normal(0, 0.05, 40)
    _, text = say(rows(base), rows(base + noise - noise.mean()))
    assert "no clear difference in Dice (0," in text
    assert "same" not in text


def test_equality_needs_a_margin(base):
    noise = np.random.default_rng(1).normal(0, 0.01, 40)
    _, text = say(rows(base), rows(base + noise - noise.mean()), margins={"dice": 0.05})
    assert "the same Dice within the margin of 0.05" in text


def test_few_cases_that_all_agree_are_described_and_the_powerless_test_is_named():
    dice = np.full(6, 0.7)
    _, text = say(rows(dice), rows(np.array([0.0, 0.01, 0.0, 0.02, 0.0, 0.0])))
    assert "worse Dice (-0.695" in text
    assert "worse in 6 of 6 cases, not decided by the test" in text
    assert (
        "6 cases cannot decide 2 tests: the smallest p that they can give is 0.031, and 0.062 after" in text
    )
    assert "Of 2 intervals, 1 exclude 0." in text


@pytest.mark.parametrize(("patients", "units"), [(5, "5 patients"), (None, "5 cases")])
def test_too_few_to_decide_are_never_better_or_worse(patients, units):
    dice = np.full(10 if patients else 5, 0.7)
    found = say(rows(dice, patients=patients), rows(dice - 0.6, patients=patients))
    assert found[0] == f"Too few to say which trainer is better: {units}, and 6 are the least."
    assert found[1].endswith(
        f" Soft against Stock: Dice -0.600; Brier near the object 0. {units} cannot decide: fewer than 6 "
        f"have no interval, and the smallest p that they can give is 0.062."
    )


def test_equal_trainers_of_few_patients_are_seldom_told_apart():
    rng, told = np.random.default_rng(0), 0
    for _ in range(40):
        first, second = (rows(rng.normal(0.7, 0.05, 3), brier=0.1) for _ in range(2))
        told += any("better" in text.replace("which trainer is better", "") for text in say(first, second))
    assert told == 0


def test_each_metric_has_its_own_number_of_cases(base):
    """Sixteen cases are healthy: their Dice is not defined. Their Brier score is."""
    dice = np.r_[base[:4], np.full(16, NAN)]
    first, second = rows(dice), rows(dice + 0.1)
    for i, row in enumerate(second):
        row["brier_near"] = 0.03 + 0.0001 * i
    *_, text = say(first, second)
    assert text.startswith("Soft against Stock: Dice +0.100 over 4 cases; worse Brier near the object (")
    assert "; clear) over 20 cases. 4 cases cannot decide on Dice: " in text
    nothing_else = [row for row in first if row["reference"] == "consensus"]
    *_, text = say(nothing_else, [row for row in second if row["reference"] == "consensus"])
    assert text.startswith("Over 4 cases, Soft against Stock: Dice +0.100. 4 cases cannot decide: ")


def test_a_test_that_others_leave_power_is_not_called_powerless(base):
    """Six cases give p = 0.031 at best, which counts twice only while the other test is open."""
    first, second = rows(np.r_[base[:6], np.full(34, NAN)]), rows(np.r_[base[:6] + 0.1, np.full(34, NAN)])
    for i, row in enumerate(second):
        row["brier_near"] = 0.03 + 0.0001 * i
    *_, text = say(first, second)
    assert "over 6 cases" in text
    assert "cannot decide" not in text


def test_a_trainer_that_is_clearly_better_and_nowhere_worse_is_the_advice(base):
    found = say(rows(base), rows(base + np.linspace(0.02, 0.04, 40)))
    assert found[0] == "Use Soft: better Dice than Stock, and worse in nothing tested."


def advised(runs: dict[str, list[dict]]) -> str:
    """The advice on trainers, the first of which is the baseline."""
    first, *others = runs
    tests = [
        test
        for name in others
        for test in compare(
            runs[first], runs[name], names=(first, name), metrics=["dice", "brier_near"], bootstrap=QUICK,
            primary=["dice", "brier_near"],
        )
    ]  # fmt: skip
    return next(s.text for s in verdict(runs, tests) if s.kind == "advice")


def test_trainers_that_are_better_in_the_same_are_named_together(base):
    better = rows(base + np.linspace(0.02, 0.04, 40))
    text = advised({"Stock": rows(base), "Soft": better, "APL": better})
    assert text == "Use Soft or APL: better Dice than Stock, and worse in nothing tested."


def test_trainers_that_are_better_in_other_things_are_a_choice(base):
    dice, brier = rows(base + np.linspace(0.02, 0.04, 40)), rows(base, brier=0.01)
    text = advised({"Stock": rows(base), "Soft": dice, "APL": brier})
    assert text == (
        "Use Soft or APL: Soft has better Dice than Stock; APL has better Brier near the object than Stock. "
        "None of them is worse in anything tested: choose by what you need."
    )


def test_who_is_better_in_more_is_the_advice(base):
    gain = np.linspace(0.02, 0.04, 40)
    runs = {"Stock": rows(base), "Soft": rows(base + gain), "APL": rows(base + gain, brier=0.01)}
    assert advised(runs) == (
        "Use APL: better Dice and Brier near the object than Stock, and worse in nothing tested."
    )


def test_what_seems_worse_is_said_with_the_advice(base):
    first, second = rows(base), rows(base + np.linspace(0.02, 0.04, 40), precision=0.7)
    hint = "No test decides. Soft looks better"
    for second_rows, primary, start in (
        (second, ["dice"], "Use Soft: "),
        (second[:12], ["dice", "recall"], hint),
    ):
        tests = compare(
            first[: len(second_rows)], second_rows, names=("Stock", "Soft"), primary=primary,
            metrics=["dice", "precision", "recall"], bootstrap=QUICK,
        )  # fmt: skip
        (text,) = [
            s.text for s in verdict({"Stock": first, "Soft": second_rows}, tests) if s.kind == "advice"
        ]
        assert text.startswith(start)
        assert "By its intervals alone, Soft is worse in Precision." in text


def test_classes_are_named_where_there_are_several(base):
    def two(change: float) -> list[dict]:
        own = rows(base + np.linspace(0, change, 40) + change)
        return own + [{**row, "class": "edema"} for row in own]

    texts = say(two(0.0), two(0.02))
    assert texts[0].startswith("Use Soft: better Dice of lesion and Dice of edema than Stock")
    assert [text.split(": Over")[0] for text in texts[1:]] == ["lesion", "edema"]


def test_patients_who_are_too_few_are_called_patients():
    dice = np.full(12, 0.5)
    *_, text = say(rows(dice, patients=6), rows(dice + np.linspace(0.02, 0.04, 12), patients=6))
    assert "6 patients cannot decide 2 tests" in text


def test_a_metric_without_values_cannot_be_compared(base):
    nothing = [{k: v for k, v in row.items() if k != "brier_near"} for row in rows(base)]
    *_, text = say(nothing, rows(base))
    assert "Brier near the object cannot be compared (" in text


def test_a_signed_error_has_no_better_side(base):
    first, second = rows(base, volume_error=0.1), rows(base, volume_error=0.1)
    for row, change in zip(second, np.linspace(0.02, 0.04, len(second)), strict=True):
        row["volume_error"] = 0.1 + change
    for own in (first, second):
        own[:] = [{**row, "reference": "soft"} for row in own]
    (test,) = compare(
        first,
        second,
        names=("a", "b"),
        metrics=["volume_error"],
        primary=["volume_error"],
        bootstrap=QUICK,
    )
    assert describe_difference(test).startswith("different ")


@pytest.mark.parametrize(
    ("change", "written"),
    [(0.03, "+0.030, +0.030 to +0.030"), (0.0004, "+0.0004, +0.0004 to +0.0004"), (0.0, "0, 0 to 0")],
)
def test_an_end_that_is_not_zero_does_not_look_like_zero(base, change, written):
    (test,) = compare(
        rows(base),
        rows(base + change),
        names=("a", "b"),
        metrics=["dice"],
        primary=["dice"],
        bootstrap=QUICK,
    )
    assert f"({written}" in describe_difference(test)


def test_a_trainer_that_is_only_worse_is_advised_against(base):
    found = say(rows(base), rows(base - np.linspace(0.02, 0.04, 40)))
    assert found[0] == (
        "No trainer is shown to be better than Stock: nothing here speaks against it. Not Soft: worse Dice."
    )


def test_better_in_one_and_worse_in_another_is_a_choice(base):
    second = rows(base + np.linspace(0.02, 0.04, 40), brier=0.04)
    found = say(rows(base), second)
    assert found[0] == (
        "Soft is better in Dice and worse in Brier near the object than Stock: choose by what you need."
    )


def test_better_in_one_and_by_the_interval_worse_in_another_is_a_choice_too(base):
    """A few large losses: the interval of the mean excludes 0, the ranks do not follow."""
    dice = base + 0.001
    dice[:8] -= 0.3
    found = say(rows(base), rows(dice, brier=0.01))
    assert found[0] == (
        "Soft is better in Brier near the object than Stock, and by the interval worse in Dice, which the "
        "test does not decide: choose by what you need."
    )


def test_those_who_gain_and_lose_alike_are_named_together(base):
    mixed = rows(base + np.linspace(0.02, 0.04, 40), brier=0.04)
    assert advised({"Stock": rows(base), "Soft": mixed, "APL": mixed}) == (
        "Soft and APL are better in Dice and worse in Brier near the object than Stock: "
        "choose by what you need."
    )
    assert advised({"Stock": rows(base), "Soft, recalibrated": mixed}).startswith(
        "Soft, recalibrated, is better in Dice and worse in"
    )


def test_an_interval_without_a_test_is_a_hint():
    dice = np.full(6, 0.5)
    found = say(rows(dice), rows(dice + np.linspace(0.02, 0.04, 6)))
    assert found[0] == (
        "No test decides. Soft looks better in Dice than Stock: the interval excludes 0. "
        "More cases would tell."
    )


def test_no_difference_keeps_the_baseline(base):
    noise = np.random.default_rng(1).normal(0, 0.05, 40)
    found = say(rows(base), rows(base + noise - noise.mean()))
    assert found[0] == "No trainer is shown to be better than Stock: nothing here speaks against it."


def test_dead_networks_are_no_choice(base):
    dead = [{**row, "dice": 0.0, "precision": NAN, "recall": 0.0} for row in rows(base)]
    for first, second, alive in ((dead, rows(base), "Soft"), (rows(base), dead, "Stock")):
        found = say(first, second)
        assert found[0].endswith("Do not use it.")
        assert found[1] == f"Use {alive}: the only trainer here that has learned."
    assert say(dead, dead)[2] == "No trainer here can be used."


def test_trainers_beside_a_dead_baseline_are_compared_in_the_table(base):
    dead = [{**row, "dice": 0.0, "precision": NAN, "recall": 0.0} for row in rows(base)]
    runs = {"Stock": dead, "Soft": rows(base), "APL": rows(base)}
    tests = [
        test
        for name in ("Soft", "APL")
        for test in compare(dead, runs[name], names=("Stock", name), metrics=["dice"], bootstrap=QUICK)
    ]
    assert [s.text for s in verdict(runs, tests) if s.kind == "advice"] == [
        "The baseline has not learned: compare Soft and APL in the table."
    ]


def test_one_trainer_alone_has_no_advice(base):
    assert verdict({"Stock": rows(base)}, []) == []


@pytest.mark.parametrize("pairs", [2, 5, 8])
def test_the_smallest_p_is_that_of_pairs_on_one_side(pairs):
    assert smallest_rank_p(pairs) == pytest.approx(rank_test(np.arange(1, pairs + 1) / 7)[0])


def test_a_network_that_marks_nothing_comes_first(base):
    dead = rows(np.zeros(40), precision=NAN, recall=0.0)
    texts = say(rows(base), dead)
    assert texts[0].startswith("Soft marks no lesion in 40 of 40 cases that have one")


def test_a_network_that_marks_everything_is_named():
    (text,) = dead_network("Soft", rows(np.full(6, 0.05), precision=0.02, recall=1.0))
    assert "marks far too much lesion in 6 of 6 cases" in text


def of_trainings(**dead: float) -> list[dict]:
    """Rows of trainings by name, over the same six cases; a number is the precision, NaN for no mark."""
    found = []
    for name, precision in dead.items():
        marks = {"precision": precision, "recall": 0.0 if np.isnan(precision) else 1.0}
        found += [{"training": name, **row} for row in rows(np.zeros(6), **marks)]
    return found


def test_a_case_counts_once_however_often_it_is_scored():
    dead = rows(np.zeros(4), precision=NAN, recall=0.0)
    assert dead_network("Soft", dead * 5)[0].startswith(
        "Soft marks no lesion in 4 of 4 cases that have one: "
    )
    everything = rows(np.zeros(4), precision=0.02, recall=1.0)
    assert "far too much lesion in 4 of 4 cases: " in dead_network("Soft", everything * 5)[0]


def test_a_training_that_marks_nothing_is_named_though_others_of_its_trainer_mark():
    found = of_trainings(seed_0=0.8, seed_1=NAN, seed_2=0.02)
    assert dead_network("Soft", found) == []
    nothing, too_much = dead_trainings("Soft", found)
    assert nothing.startswith("Soft: the training seed_1 marks no lesion in 6 of 6 cases that have one: ")
    assert nothing.endswith("they are of the cases and trainings that have one.")
    assert too_much.startswith("Soft: the training seed_2 marks far too much lesion in 6 of 6 cases: ")
    assert say(rows(np.full(6, 0.7)), found)[0] == nothing


def test_trainings_that_all_mark_nothing_are_told_as_their_trainer():
    found = of_trainings(seed_0=NAN, seed_1=NAN)
    assert dead_trainings("Soft", found) == []
    assert dead_network("Soft", found)[0].startswith("Soft marks no lesion in 6 of 6 cases that have one: ")


def test_a_trainer_most_of_whose_trainings_mark_nothing_is_no_choice():
    found = of_trainings(seed_0=0.8, seed_1=NAN, seed_2=NAN)
    assert (
        "no lesion in 6 of 6 cases that have one, by most of its trainings: " in dead_network("S", found)[0]
    )
    assert [text.split(" marks")[0] for text in dead_trainings("S", found)] == [
        "S: the training seed_1", "S: the training seed_2",
    ]  # fmt: skip


def test_cases_without_the_object_do_not_make_a_network_dead():
    assert dead_network("Soft", rows(np.full(6, NAN), precision=NAN, recall=NAN)) == []


@pytest.mark.parametrize(("iterations", "is_trial"), [(360, True), (250_000, False), (None, False)])
def test_a_short_training_is_a_trial(base, iterations, is_trial):
    known = None if iterations is None else {"Stock": iterations, "Soft": iterations}
    texts = say(rows(base), rows(base + 0.01), iterations=known)
    assert any("This is a trial: each training had 360 iterations" in text for text in texts) == is_trial


@pytest.mark.parametrize(
    ("soft", "said"),
    [
        (
            20_000,
            "This is a trial: each training of Stock had 10,000 iterations; each training of Soft",
        ),
        (25_000, "This is a trial in part: each training of Stock had 10,000 iterations. nnU-Net's"),
    ],
)
def test_trainings_of_unequal_length_are_judged_one_by_one(base, soft, said):
    texts = say(rows(base), rows(base + 0.01), iterations={"Stock": 10_000, "Soft": soft})
    assert any(text.startswith(said) for text in texts)


def test_lesion_f1_is_primary_only_where_cases_have_several_lesions():
    found = [{"lesion_recall": r, "prediction": "model", "reference": "truth"} for r in (1.0, 0.0, 0.5)]
    assert primary_tests(found[:2]) == ("dice", "brier_near")
    assert primary_tests(found) == ("dice", "brier_near", "lesion_f1")


def test_only_primary_tests_carry_the_correction(base):
    tests = compare(
        rows(base), rows(base + 0.01), names=("a", "b"), metrics=["dice", "recall"], primary=["dice"]
    )
    dice, recall = tests
    assert (dice.family, dice.p_holm) == (1, dice.p_value)
    assert not recall.is_primary
    assert not recall.is_significant()
