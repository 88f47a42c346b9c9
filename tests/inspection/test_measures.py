"""Who disagrees with whom: numbers by hand, and of all cases together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nnunet_softlabel.cases.label_maps import FileOptions
from nnunet_softlabel.errors import UsageError
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.fusion import RaterVotes, estimate_rater_rates
from nnunet_softlabel.inspection import (
    fleiss_kappa,
    inspect_raters,
    pattern_cases,
)
from nnunet_softlabel.inspection.outliers import total_volume_bias
from tests.conftest import RaterFolder
from tests.inspection.raters_by_hand import LESION, as_cases, discs, one, votes_of


def test_measures_by_hand() -> None:
    # a marks 2 pixels, b 3, two in common: Dice 2 * 2 / 5. Any: 3 pixels of 2 mm^2, disputed: 1.
    case = one(votes_of([[1, 1, 0, 0]], [[1, 1, 1, 0]]))
    assert case.dice == {("a", "b"): pytest.approx(0.8)}
    assert case.volume_mm3 == {"a": 4.0, "b": 6.0}
    assert (case.marked_mm3, case.disputed_mm3) == (6.0, 2.0)
    assert case.disputed_share == pytest.approx(1 / 3)
    assert case.volume_ratio("b") == pytest.approx(1.5)


def test_kappa_by_hand() -> None:
    # Votes 3, 0, 2, 0 of 3 on 4 pixels. Agreement (1 + 1 + 1/3 + 1) / 4 = 120/144, by chance
    # (5/12)^2 + (7/12)^2 = 74/144; kappa = (120 - 74) / (144 - 74).
    case = one(votes_of([[1, 0, 1, 0]], [[1, 0, 1, 0]], [[1, 0, 0, 0]]))
    assert fleiss_kappa(case.coincidences) == pytest.approx(46 / 70)


def test_voxels_that_nobody_marked_count_for_kappa() -> None:
    near = one(votes_of([[1, 1, 0]], [[1, 0, 0]]))
    far = one(votes_of([[1, 1, 0] + [0] * 50], [[1, 0, 0] + [0] * 50]))
    assert far.coincidences[0, 0] == near.coincidences[0, 0] + 2 * 50
    assert far.dice == near.dice


def test_kappa_is_krippendorffs_but_for_one_answer_less() -> None:
    krippendorff = pytest.importorskip("krippendorff")
    rng = np.random.default_rng(0)
    votes, answered = rng.random((4, 6, 7)) < 0.3, rng.random((4, 6, 7)) < 0.7
    raters = RaterVotes(votes[:, None], tuple("abcd"), (1.0, 1.0), answered=answered)
    data = np.where(answered, votes, np.nan).reshape(4, -1)
    alpha = krippendorff.alpha(reliability_data=data, level_of_measurement="nominal")
    n = one(raters).coincidences.sum()
    assert 1 - fleiss_kappa(one(raters).coincidences) == pytest.approx((1 - alpha) * n / (n - 1))


def test_volumes_are_compared_where_both_answered() -> None:
    # a and b draw the same; b left the right half open, where c, who answered all, marks one pixel less
    case = one(
        votes_of(
            [[1, 1, 1, 1]], [[1, 1, 0, 0]], [[1, 1, 1, 0]],
            answered=[[[1, 1, 1, 1]], [[1, 1, 0, 0]], [[1, 1, 1, 1]]],
        )
    )  # fmt: skip
    assert case.volume_mm3 == {"a": 8.0, "b": 4.0, "c": 6.0}
    assert case.volume_ratio("b") == 1  # with a and with c: 2 pixels of 2
    # with b 2 of 2, with c 4 of 3: the median of theirs to its own is that of 1 and 3 / 4
    assert case.volume_ratio("a") == pytest.approx(1 / ((1 + 3 / 4) / 2))
    alone = one(votes_of([[1, 0]], [[0, 0]], answered=[[[1, 1]], [[0, 1]]]))
    assert np.isnan(alone.volume_ratio("a"))


def test_a_rater_who_did_not_answer_missed_nothing() -> None:
    # b answered the left half, where nobody drew anything; c answered all and drew nothing
    case = one(
        votes_of(
            [[0, 0, 1, 1]], [[0, 0, 0, 0]], [[0, 0, 0, 0]],
            answered=[[[1, 1, 1, 1]], [[1, 1, 0, 0]], [[1, 1, 1, 1]]],
        )
    )  # fmt: skip
    assert [case.found_nothing(rater) for rater in "abc"] == [False, False, True]
    assert total_volume_bias("b", [case]) != total_volume_bias("b", [case])  # nothing to compare with
    assert total_volume_bias("c", [case]) == -1


def test_unanswered_voxels_are_left_out() -> None:
    # The third pixel is b's and a did not answer it: of the first two, both marked the same.
    case = one(votes_of([[1, 0, 0]], [[1, 0, 1]], answered=[[[1, 1, 0]], [[1, 1, 1]]]))
    assert case.dice == {("a", "b"): 1.0}
    assert case.disputed_mm3 == 0
    assert fleiss_kappa(case.coincidences) == pytest.approx(1)


def test_empty_masks_have_no_dice() -> None:
    case = one(votes_of([[0, 0]], [[0, 0]], [[0, 1]]))
    assert np.isnan(case.dice["a", "b"])
    assert case.mean_dice == 0
    nothing = one(votes_of([[0, 0]], [[0, 0]]))
    assert np.isnan([nothing.mean_dice, nothing.disputed_share, fleiss_kappa(nothing.coincidences)]).all()
    assert nothing.lowest_pair is None


def test_rates_are_those_of_the_whole_images() -> None:
    maps = discs(5, 3)
    maps[2]["r0"] = np.zeros_like(maps[2]["r0"])
    votes = [
        RaterVotes(np.stack(list(m.values()))[:, None] == 1, ("r0", "r1", "r2"), (1.0, 1.0)) for m in maps
    ]
    expected = estimate_rater_rates(votes)
    found = inspect_raters(as_cases(maps), labels=LESION)["per_class"]["lesion"]["raters"]
    for rater in ("r0", "r1", "r2"):
        assert found[rater]["sensitivity"] == pytest.approx(expected.sensitivity[rater][0])
        assert found[rater]["specificity"] == pytest.approx(expected.specificity[rater][0])
    assert found["r0"]["empty_where_others_marked"] == 1
    shared = inspect_raters(as_cases(maps), labels=LESION, is_anonymous=True)["per_class"]["lesion"]
    expected = estimate_rater_rates(votes, shared=True)
    assert shared["shared_rates"]["sensitivity"] == pytest.approx(expected.sensitivity["*"][0])
    assert shared["raters"] == {}
    assert [pair["raters"] for pair in shared["pairs"]] == [["any pair", "any pair"]]


def test_identical_raters_are_one_group_and_other_pairs_are_named() -> None:
    maps = discs(6, 4)
    for raters in maps:
        raters["r1"], raters["copy"] = raters["r0"].copy(), raters["r0"].copy()
    maps[4]["r3"] = maps[4]["r2"].copy()
    maps[5] = {rater: np.zeros_like(mask) for rater, mask in maps[5].items()}
    identical = inspect_raters(as_cases(maps), labels=LESION)["identical"]
    assert identical["raters"] == [{"raters": ["copy", "r0", "r1"], "cases": 6}]
    assert identical["pairs"] == [{"case": "case04", "raters": ["r2", "r3"]}]


def test_raters_may_be_missing_and_lone_ones_are_not_compared() -> None:
    maps = discs(4, 3)
    del maps[0]["r0"], maps[0]["r1"], maps[1]["r2"]
    summary = inspect_raters(as_cases(maps), labels=LESION)
    assert (summary["number_of_cases"], summary["cases_compared"]) == (4, 3)
    pairs = {tuple(p["raters"]): p["n"] for p in summary["per_class"]["lesion"]["pairs"]}
    assert pairs == {("r0", "r1"): 3, ("r0", "r2"): 2, ("r1", "r2"): 2}


def test_classes_regions_and_ignored_voxels() -> None:
    maps = discs(3, 2)
    for raters in maps:
        raters["r0"][:, 20:] *= 2
        raters["r1"][:, 20:] *= 2
        raters["r1"][:4] = 3
    labels = Labels({"whole": (1, 2), "right": (2,)}, ignore=3)
    summary = inspect_raters(as_cases(maps), labels=labels)
    assert list(summary["per_class"]) == ["whole", "right"]
    assert summary["per_class"]["right"]["mean_dice"] > 0.8
    assert summary["per_case"]["case00"]["whole"]["volume_mm3"]["r0"] > 250


def test_more_processes_find_the_same(rater_folder: RaterFolder) -> None:
    cases = pattern_cases([rater_folder.rater_pattern], rater_folder.images)
    assert inspect_raters(cases, labels=LESION) == inspect_raters(cases, labels=LESION, num_processes=2)


@pytest.mark.shared_data
def test_bubil_gold_standard_is_person_two(shared_data: Path) -> None:
    source = shared_data / "bubil_rat_smc"
    patterns = [
        str(source / folder)
        for folder in (
            "ExpertsAnnotations/{rater}/seg_{case}.png",
            "ExpertsAnnotations/{rater}/Seg_{case}.png",
            "{rater}/seg_{case}.png",
        )
    ]
    summary = inspect_raters(pattern_cases(patterns, is_dark=True), labels=LESION)
    group = {"raters": ["GoldStandard", "Person2_Amira", "Person2_ImageJ"], "cases": 35}
    assert summary["identical"]["raters"] == [group]
    # The data set's own description: the four other persons with Amira, mean 0.864, minimum 0.610.
    usable = {f"Person{person}_Amira" for person in (1, 3, 4, 5)}
    pairs = [p for p in summary["per_class"]["lesion"]["pairs"] if usable.issuperset(p["raters"])]
    assert np.mean([p["mean_dice"] for p in pairs]) == pytest.approx(0.864, abs=5e-4)
    assert min(p["lowest_dice"] for p in pairs) == pytest.approx(0.610, abs=5e-4)


def test_labels_of_a_rater_who_is_not_there_are_refused(rater_folder: RaterFolder) -> None:
    cases = pattern_cases([rater_folder.rater_pattern], [])
    reading = FileOptions(rater_labels=["Bob:lesion=2"])
    with pytest.raises(UsageError, match="Bob: no case has a rater of that name; there is 1, 2, 3"):
        inspect_raters(cases, labels=["lesion=1"], reading=reading)
