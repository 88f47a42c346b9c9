"""Who disagrees with whom: numbers by hand, planted outliers found, broken files reported."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.cli import main
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from nnunet_softlabel.fusion import RaterVotes, estimate_rater_rates
from nnunet_softlabel.inspection import (
    CaseMeasures,
    dataset_cases,
    fleiss_kappa,
    format_inspection,
    inspect_raters,
    measure_case,
    pattern_cases,
    write_inspection,
)
from nnunet_softlabel.inspection.outliers import modified_z, outlying_cases, outlying_raters
from nnunet_softlabel.inspection.output import case_rows
from nnunet_softlabel.inspection.run import prior_effects
from tests.conftest import RaterFolder, write_volume

LESION = Labels({"lesion": (1,)})


def votes_of(*masks: list[list[int]], answered: list[list[list[int]]] | None = None) -> RaterVotes:
    """Raters a, b, ... of one class on a flat image with pixels of 1 x 2 mm."""
    votes = np.array(masks, dtype=bool)[:, None]
    mask = None if answered is None else np.array(answered, dtype=bool)
    return RaterVotes(votes, tuple("abcdef"[: len(votes)]), (1.0, 2.0), answered=mask)


def one(raters: RaterVotes) -> CaseMeasures:
    return measure_case(raters)[0]


def discs(num_cases: int, num_raters: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Raters who draw the same disc with a little error."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:40, :40]
    return [
        {
            f"r{rater}": (np.hypot(y - 20 - rng.normal(0, 0.4), x - 20) < 10 + rng.normal(0, 0.4)).astype(
                np.uint8
            )
            for rater in range(num_raters)
        }
        for _ in range(num_cases)
    ]


def as_cases(maps: list[dict[str, np.ndarray]]) -> list[Case]:
    return [Case(f"case{i:02d}", [], raters=raters) for i, raters in enumerate(maps)]


def reasons(summary: dict, case: str) -> str:
    return "; ".join(r for f in summary["stand_out"]["cases"] if f["case"] == case for r in f["reasons"])


# --- one case, by hand


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


# --- what stands out


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
    assert "r0 and r1 drew different things (Dice 0)" in reasons(summary, "case03")
    assert summary["stand_out"]["cases"][0]["case"] == "case03"
    assert re.search(r"r2 agrees with the others by 0\.\d+, they", reasons(summary, "case07"))
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


# --- all cases


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


def test_nothing_to_compare_is_an_error() -> None:
    with pytest.raises(UsageError, match="no case has two raters whose masks can be compared"):
        inspect_raters(as_cases(discs(3, 1)), labels=LESION)
    broken = Case("a", [], raters={"1": Path("none.nii.gz"), "2": Path("none.nii.gz")})
    with pytest.raises(UsageError, match=r"compared \(a: 1: none.nii.gz: no such file"):
        inspect_raters([broken], labels=LESION)


def test_prior_effects_are_read_from_the_records() -> None:
    record = {"a": {"before": {"lesion": 10}, "after": {"lesion": 4.0}}}
    expected = {"a": {"lesion": {"before_mm3": 10.0, "after_mm3": 4.0}}}
    assert prior_effects(record) == prior_effects({"method": "roi", "records": record}) == expected
    assert prior_effects(None) == prior_effects({"method": "roi"}) == {}
    summary = inspect_raters([Case("a", [], raters=discs(1, 2)[0])], labels=LESION, prior=record)
    assert case_rows(summary)[0]["prior_after_mm3"] == 4.0
    assert "expected volume 10 mm3 before, 4 mm3 after" in format_inspection(summary)


# --- files


def test_cases_are_named_by_raters_files_without_images(rater_folder: RaterFolder) -> None:
    with_images = pattern_cases([rater_folder.rater_pattern], rater_folder.images)
    without = pattern_cases([rater_folder.rater_pattern])
    assert [(c.name, dict(c.raters)) for c in without] == [(c.name, dict(c.raters)) for c in with_images]


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["x/{case}.nii.gz"], "needs {rater}"),
        (["x/{rater}.nii.gz"], "needs {case}"),
        (["nowhere/{case}_{rater}.png"], "fits no file"),
    ],
)
def test_wrong_patterns_are_refused(patterns: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        pattern_cases(patterns)


def test_two_files_of_one_rater_are_refused(rater_folder: RaterFolder) -> None:
    with pytest.raises(DatasetError, match="rater 1 has two files"):
        pattern_cases([rater_folder.rater_pattern] * 2)


def test_problems_with_files_are_reported_and_the_rest_compared(rater_folder: RaterFolder) -> None:
    a, b, c, d = rater_folder.cases
    mask = np.ones((8, 16, 16), dtype=np.uint8)
    write_volume(rater_folder.rater(a, "1"), mask, (1.0, 1.0, 2.0), origin=(9.0, 0.0, 0.0))
    write_volume(rater_folder.rater(b, "1"), mask[:, :, :9])
    write_volume(rater_folder.rater(c, "1"), mask * 7, (1.0, 1.0, 2.5))
    rater_folder.rater(d, "1").write_bytes(b"no image")
    cases = pattern_cases([rater_folder.rater_pattern], rater_folder.images)
    summary = inspect_raters(cases, labels=LESION)
    problems = {found["case"]: found["problem"] for found in summary["problems"]}
    assert "another grid than the image: origin (9.0, 0.0, 0.0)" in problems[a]
    assert "size (9, 16, 8) instead of (16, 16, 8)" in problems[b]
    assert "holds the value 7, which no --labels entry names" in problems[c]
    assert "cannot be read" in problems[d]
    raters = {case: list(found["lesion"]["volume_mm3"]) for case, found in summary["per_case"].items()}
    assert raters == {a: ["1", "2", "3"], b: ["2", "3"], c: ["2", "3"], d: ["2", "3"]}


def test_an_unreadable_image_is_a_problem_and_no_end(rater_folder: RaterFolder, tmp_path: Path) -> None:
    rater_folder.image(rater_folder.cases[0]).write_bytes(b"no image")
    cases = pattern_cases([rater_folder.rater_pattern], rater_folder.images)
    summary = inspect_raters(cases, labels=LESION)
    assert [p["case"] for p in summary["problems"]] == [rater_folder.cases[0]]
    assert summary["cases_compared"] == 4
    write_inspection(tmp_path / "o", summary, cases, labels=LESION, mapping={0: 0, 1: 1}, title="t")


def test_dark_foreground_in_one_and_eight_bit(tmp_path: Path) -> None:
    from PIL import Image

    mask = np.zeros((6, 6), dtype=bool)
    mask[2:4, 2:4] = True
    for rater, array in {"a": ~mask, "b": np.where(mask, 0, 255).astype(np.uint8)}.items():
        (tmp_path / rater).mkdir()
        Image.fromarray(array).save(tmp_path / rater / "x.png")
    cases = pattern_cases([str(tmp_path / "{rater}" / "{case}.png")], is_dark=True)
    summary = inspect_raters(cases, labels=LESION)
    assert summary["identical"]["raters"] == [{"raters": ["a", "b"], "cases": 1}]
    assert summary["per_case"]["x"]["lesion"]["volume_mm3"] == {"a": 4.0, "b": 4.0}


# --- the command


def refuse_constant(text: str) -> None:
    raise AssertionError(f"{text} is no JSON")


def test_inspect_a_converted_data_set(
    rater_folder: RaterFolder, nnunet_folders: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(rater_folder.arguments()) == 0
    out = tmp_path / "out"
    assert main(["inspect", "-d", "901", "-o", str(out), "-np", "1"]) == 0
    text = capsys.readouterr().out
    assert "4 of 4 cases have two raters or more; 3 raters" in text
    found = json.loads((out / "inspection.json").read_text(encoding="utf-8"), parse_constant=refuse_constant)
    assert found["raters"] == ["1", "2", "3"]
    with (out / "inspection.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows] == list(rater_folder.cases)
    assert float(rows[0]["mean_dice"]) == pytest.approx(found["per_case"]["case_00"]["lesion"]["mean_dice"])
    page = (out / "inspection.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 3 * 4
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert main(["inspect", "-d", "901", "-o", str(out), "-np", "1"]) == 2
    assert "already there" in capsys.readouterr().err
    assert main(["inspect", "-d", "901", "-o", str(out), "-np", "1", "--overwrite"]) == 0


def test_names_are_escaped(tmp_path: Path) -> None:
    maps = discs(1, 2)[0]
    cases = [Case("<b>case", [], raters={"<script>": maps["r0"], "&b": maps["r1"]})]
    summary = inspect_raters(cases, labels=LESION)
    write_inspection(tmp_path, summary, cases, labels=LESION, mapping={0: 0, 1: 1}, title="<i>")
    page = (tmp_path / "inspection.html").read_text(encoding="utf-8")
    assert not re.search("<script>|<b>case|<i>", page)
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give -d .* or --raters"),
        (["-d", "901", "--raters", "x"], "leave out --raters"),
        (["--raters", "x/{case}_{rater}.png"], "needs either --labels or --dark-foreground"),
        (["--raters", "x/{case}_{rater}.png", "--labels", "a=1", "--dark-foreground"], "needs either"),
        (["--raters", "x/{case}_{rater}.png", "--labels", "a=1"], "fits no file"),
        (["--raters", "x/{case}_{rater}.png", "--labels", "a"], "expected name=value"),
        (["-d", "901", "-np", "0"], "-np takes a number from 1"),
        (["-d", "901"], "no such data set"),
    ],
)
def test_wrong_flags_end_in_one_line(
    arguments: list[str], message: str, nnunet_folders: SimpleNamespace, capsys: pytest.CaptureFixture
) -> None:
    assert main(["inspect", *arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert re.search(message, lines[0])


def test_a_data_set_without_raters_is_refused(
    rater_folder: RaterFolder, nnunet_folders: SimpleNamespace
) -> None:
    from shutil import rmtree

    assert main(rater_folder.arguments()) == 0
    dataset = SoftDataset.find(901)
    rmtree(dataset.folder / "raterLabelsTr")
    with pytest.raises(DatasetError, match="holds no rater's mask"):
        dataset_cases(dataset)


# --- real data


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
