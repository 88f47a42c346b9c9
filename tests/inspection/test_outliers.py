"""Planted outliers are found, with their reason."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest

from nnunet_softlabel.inspection import (
    inspect_raters,
    pattern_cases,
)
from nnunet_softlabel.inspection.outliers import modified_z, outlying_cases, outlying_raters
from tests.inspection.raters_by_hand import LESION, as_cases, discs, one, votes_of


def reasons(summary: dict, case: str) -> str:
    return "; ".join(r for f in summary["stand_out"]["cases"] if f["case"] == case for r in f["reasons"])


def test_modified_z_by_hand() -> None:
    # Median 3, deviations 2, 1, 0, 1, 97: MAD 1. And, with MAD 0, mean deviation (0 + 0 + 0 + 0 + 5) / 5 = 1.
    assert modified_z([1, 2, 3, 4, 100])[-1] == pytest.approx(0.6745 * 97)
    assert modified_z([1, 1, 1, 1, 6])[-1] == pytest.approx(5 / 1.2533)
    assert not modified_z([2, 2, 2, 2, 2]).any()
    assert np.isnan(modified_z([1, 2, 3, 100])).all()
    assert np.isnan(modified_z([1, np.nan, 2, 3, 4, 5])).tolist() == [False, True, False, False, False, False]


def test_alike_raters_do_not_stand_out() -> None:
    cases = {f"{i}": one(votes_of([[1, 1, 0, 0]], [[1, 1, 1, 0]], [[1, 1, 0, 0]])) for i in range(9)}
    assert outlying_cases("lesion", cases) == []


def test_planted_outliers_are_found_with_their_reason() -> None:
    maps = discs(20, 4)
    maps[3]["r1"] = np.roll(maps[3]["r1"], 20, axis=1)  # elsewhere
    maps[7]["r2"] = np.roll(maps[7]["r2"], 6, axis=0)  # beside
    maps[9]["r0"] = np.pad(maps[9]["r0"][16:24, 16:24], 16)  # too small
    summary = inspect_raters(as_cases(maps), labels=LESION)
    assert "raters r0 and r1 drew different things (Dice 0)" in reasons(summary, "case03")
    assert summary["stand_out"]["cases"][0]["case"] == "case03"
    assert re.search(r"rater r2 agrees with the others by 0\.\d+, they", reasons(summary, "case07"))
    assert re.search(r"r0 drew 0\.\d+ times the others", reasons(summary, "case09"))
    assert {f["case"] for f in summary["stand_out"]["cases"]} == {"case03", "case07", "case09"}
    assert summary["stand_out"]["raters"] == []


def test_a_rater_who_draws_too_much_stands_out() -> None:
    maps = discs(8, 4)
    for raters in maps:
        raters["r3"] = np.maximum.reduce([np.roll(raters["r3"], s, axis=1) for s in (-5, 0, 5)])
    summary = inspect_raters(as_cases(maps), labels=LESION)
    found = {(f["rater"], "volume" in f["reason"]) for f in summary["stand_out"]["raters"]}
    assert found == {("r3", True), ("r3", False)}
    assert summary["per_class"]["lesion"]["raters"]["r3"]["volume_bias"] > 0.2
    assert inspect_raters(as_cases(maps), labels=LESION, is_anonymous=True)["stand_out"]["raters"] == []


def test_two_raters_have_no_one_apart() -> None:
    assert outlying_raters("lesion", {"1": one(votes_of([[1, 0]], [[0, 1]]))}) == []


@pytest.mark.shared_data
def test_lidc_cases_without_overlap_are_found(shared_data: Path) -> None:
    source = shared_data / "lidc_nodules"
    cases = pattern_cases([str(source / "raters" / "{case}_rater{rater}.nii.gz")])
    summary = inspect_raters(cases, labels=LESION, is_anonymous=True)
    without = {f["case"] for f in summary["stand_out"]["cases"] if "no overlap" in f["rules"]}
    assert without == {"LIDC-IDRI-0179_R_9", "LIDC-IDRI-0249_R_2"}
    assert summary["per_class"]["lesion"]["mean_dice"] == pytest.approx(0.772, abs=5e-4)
    with (source / "cases.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            found = summary["per_case"][row["case"]]["lesion"]
            assert found["mean_dice"] == pytest.approx(float(row["mean_pairwise_dice"]), abs=1e-4)
            assert found["lowest_dice"] == pytest.approx(float(row["min_pairwise_dice"]), abs=1e-4)
