from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conversion_helpers import GRID, converted, in_memory_cases, run, tree
from test_conversion_kills import kill_everywhere

from nnunet_softlabel.cases import Case, find_cases
from nnunet_softlabel.conversion import IntensityPrior, Priors, RoiPrior, add_soft_labels, convert
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.evaluation.thresholds import rater_corrected
from nnunet_softlabel.fusion import RaterVotes, estimate_rater_rates, staple
from nnunet_softlabel.fusion.priors import (
    TissueModel,
    apply_intensity_prior,
    estimate_tissue,
    lesion_statistics,
)
from nnunet_softlabel.image_io import Grid, read_image, read_mask, write_image
from nnunet_softlabel.inspection.summary import prior_effects
from nnunet_softlabel.phantom import make_knee_phantom, phantom_raters
from nnunet_softlabel.soft_labels import SoftDataset

Folders = SimpleNamespace
BONE = Priors(RoiPrior(("bone",)))
BRIGHT_BONE = Priors(RoiPrior(("bone",)), IntensityPrior("brighter"))


def roi(*inside: int) -> np.ndarray:
    mask = np.zeros(GRID.shape, np.uint8)
    mask.flat[list(inside)] = 1
    return mask


def votes_of(folder: Any, case: str, raters: tuple[str, ...]) -> RaterVotes:
    votes = np.stack([read_mask(folder.rater(case, rater))[0] == 1 for rater in raters])
    spacing_mm = read_image(folder.image(case))[1].spacing_of_axes_mm
    return RaterVotes(votes[:, None], raters, spacing_mm)


def write_rois(folder: Any, margin: int = 1) -> str:
    """A mask per case: all but the borders; returns the pattern."""
    for case in folder.cases:
        array, grid = read_mask(folder.rater(case, folder.raters[0]))
        mask = np.zeros_like(array)
        mask[:, margin:-margin, margin:-margin] = 1
        (folder.root / "bones").mkdir(exist_ok=True)
        write_image(folder.root / "bones" / f"{case}.nii.gz", mask, grid)
    return f"bone={folder.root}/bones/{{case}}.nii.gz"


def knee_cases(regime: str, n: int = 4) -> tuple[list[Case], list[Any]]:
    """Small generated knees, each with two lesions and three raters."""
    knees = [make_knee_phantom(seed, shape=(12, 32, 32), n_lesions=2) for seed in range(n)]
    cases = []
    for seed, knee in enumerate(knees):
        spacing_mm = tuple(float(s) for s in knee.spacing_mm[::-1])
        direction = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
        grid = Grid(knee.image.shape[::-1], spacing_mm, (0.0,) * 3, direction)
        raters = dict(zip("abc", phantom_raters(knee, regime, seed=seed).astype(np.uint8), strict=True))
        image = KneeImage(knee.image, grid)
        cases.append(Case(f"knee{seed}", [image], raters, rois={"bone": knee.bone_mask}))
    return cases, knees


class KneeImage:
    """A function that gives an array and its grid, and can travel between processes."""

    def __init__(self, array: np.ndarray, grid: Grid) -> None:
        self.array, self.grid = array, grid

    def __call__(self) -> tuple[np.ndarray, Grid]:
        return self.array, self.grid


# STAPLE over the data set


def test_pooled_staple_is_that_of_the_estimated_rates(rater_folder, nnunet_folders: Folders) -> None:
    assert run(*rater_folder.arguments(), "--fusion", "staple", "--staple-scope", "dataset") == 0
    votes = {case: votes_of(rater_folder, case, rater_folder.raters) for case in rater_folder.cases}
    rates = estimate_rater_rates(votes.values())
    dataset = SoftDataset.find(901)
    for case, raters in votes.items():
        np.testing.assert_array_equal(dataset.read_soft(case), staple(raters, rates=rates))
    fusion = dataset.about["fusion"]
    assert (fusion["method"], fusion["scope"]) == ("staple", "dataset")
    assert fusion["prevalence"] == {"lesion": rates.prevalence[0]}
    for rater in rater_folder.raters:
        found = fusion["rates"][rater]["lesion"]
        assert (found["sensitivity"], found["specificity"]) == rates.of(rater, 0)


def test_anonymous_raters_share_their_rates(rater_folder, nnunet_folders: Folders) -> None:
    flags = ["--fusion", "staple", "--staple-scope", "dataset", "--anonymous-raters"]
    assert run(*rater_folder.arguments(), *flags) == 0
    votes = [votes_of(rater_folder, case, rater_folder.raters) for case in rater_folder.cases]
    rates = estimate_rater_rates(votes, shared=True)
    dataset = SoftDataset.find(901)
    assert list(dataset.about["fusion"]["rates"]) == ["*"]
    assert dataset.about["has_anonymous_raters"] is True
    np.testing.assert_array_equal(dataset.read_soft("case_00"), staple(votes[0], rates=rates))


def test_test_cases_do_not_change_the_rates(rater_folder, nnunet_folders: Folders) -> None:
    flags = ["--fusion", "staple", "--staple-scope", "dataset", "--test-cases", "case_03"]
    assert run(*rater_folder.arguments(), *flags) == 0
    votes = [votes_of(rater_folder, case, rater_folder.raters) for case in rater_folder.cases[:3]]
    found = SoftDataset.find(901).about["fusion"]["rates"]["1"]["lesion"]
    assert (found["sensitivity"], found["specificity"]) == estimate_rater_rates(votes).of("1", 0)


def test_a_rater_of_test_cases_alone_has_no_rates(nnunet_folders: Folders) -> None:
    cases = in_memory_cases([1, 0], [1, 1], [0, 1])
    cases.append(replace(cases[0], name="t", is_test=True, raters={"new": roi(0), "2": roi(1)}))
    options: dict[str, Any] = {"fusion": "staple", "staple_scope": "dataset"}
    with pytest.raises(DatasetError, match=r"Case t: rater new rated no training case.*--anonymous-raters"):
        converted(cases, ["a=1"], **options)
    converted(cases, ["a=1"], **options, has_anonymous_raters=True)


# Rates of the raters


def test_rater_rates_are_those_of_the_pooled_votes(rater_folder, nnunet_folders: Folders) -> None:
    assert run(*rater_folder.arguments()) == 0
    votes = [votes_of(rater_folder, case, rater_folder.raters) for case in rater_folder.cases]
    sensitivity, specificity = estimate_rater_rates(votes, shared=True).of("*", 0)
    dataset = SoftDataset.find(901)
    expected = {"sensitivity": sensitivity, "false_positive_rate": 1 - specificity}
    assert dataset.about["rater_rates"] == {"lesion": expected}
    for rater, rates in dataset.about["rates_of_raters"].items():
        own = estimate_rater_rates(votes).of(rater, 0)
        assert (rates["lesion"]["sensitivity"], rates["lesion"]["specificity"]) == own
    assert rater_corrected(dataset) == {"lesion": pytest.approx((sensitivity + 1 - specificity) / 2)}


def test_rater_corrected_threshold_works_on_a_converted_data_set(
    rater_folder, nnunet_folders: Folders, tmp_path: Path
) -> None:
    assert run(*rater_folder.arguments()) == 0
    dataset = SoftDataset.find(901)
    predictions = tmp_path / "predictions"
    predictions.mkdir()
    for case in dataset.cases():
        soft = dataset.read_soft(case)
        np.savez(predictions / f"{case}.npz", probabilities=np.concatenate([1 - soft, soft]))
        hard = read_image(dataset.label_file(case))
        write_image(predictions / f"{case}.nii.gz", *hard)
    flags = ["-d", "901", "-i", str(predictions), "-o", str(tmp_path / "scores"), "-np", "1"]
    assert run("evaluate", *flags, "--threshold", "rater-corrected") == 0
    assert (tmp_path / "scores" / "soft_summary.json").is_file()


def test_two_raters_do_not_tell_their_rates(nnunet_folders: Folders) -> None:
    dataset = converted(in_memory_cases([1, 1, 0], [1, 0, 0]), ["a=1"])
    assert not {"rater_rates", "rates_of_raters"} & set(dataset.about)
    with pytest.raises(DatasetError, match=r"no rater_rates for a; .* most cases have three raters or more"):
        rater_corrected(dataset)


def test_rates_need_three_raters_in_most_cases(nnunet_folders: Folders) -> None:
    cases = in_memory_cases([1, 1, 0], [1, 0, 0], [1, 0, 1], num_cases=3)
    two = {name: cases[0].raters[name] for name in ("1", "2")}
    assert "rater_rates" in converted([*cases[:2], replace(cases[2], raters=two)], ["a=1"]).about
    few = [cases[0], *(replace(case, raters=two) for case in cases[1:])]
    assert "rater_rates" not in converted(few, ["a=1"], overwrite=True).about


@pytest.mark.parametrize(
    "options", [{"fusion": "majority"}, {"priors": BONE}, {"has_anonymous_raters": True}], ids=str
)
def test_rates_are_left_out_where_they_mean_nothing(nnunet_folders: Folders, options: dict) -> None:
    cases = in_memory_cases([1, 1, 0], [1, 0, 0], [1, 0, 1], rois={"bone": roi(0, 1, 2)})
    about = converted(cases, ["a=1"], **options).about
    assert ("rater_rates" in about) == ("has_anonymous_raters" in options)
    assert "rates_of_raters" not in about


def test_ignored_voxels_do_not_count(nnunet_folders: Folders) -> None:
    raters = [[1, 1, 0, 1], [1, 0, 0, 1], [1, 1, 0, 0]]
    mask = roi(3)
    dataset = converted(in_memory_cases(*raters, ignore=mask), ["a=1"])
    votes = np.zeros((3, 1, 24), bool)
    votes[:, 0, :4] = raters
    answered = np.broadcast_to(mask.ravel() == 0, (3, 24))
    rates = estimate_rater_rates([RaterVotes(votes, ("1", "2", "3"), (1.0,), answered)] * 2, shared=True)
    assert dataset.about["rater_rates"]["a"]["sensitivity"] == pytest.approx(rates.of("*", 0)[0])


# ROI


def test_roi_by_hand(nnunet_folders: Folders) -> None:
    # voxels of 2 x 1 x 1 mm; the first four are a row: q = 1, 1/2, 1/2, 0. The ROI holds the first two; the
    # third is 1 mm outside, with a margin of 2 mm (1 + cos(pi / 2)) / 2 = 1/2 of its weight.
    cases = in_memory_cases([1, 1, 1, 0], [1, 0, 0, 0], rois={"bone": roi(0, 1)})
    for margin_mm, weight, expected in (
        (0.0, 1.0, [1, 0.5, 0, 0]),
        (2.0, 1.0, [1, 0.5, 0.25, 0]),
        (0.0, 0.4, [0.4, 0.2, 0, 0]),
    ):
        priors = Priors(RoiPrior(("bone",), margin_mm, {"bone": weight}))
        dataset = converted(cases, ["a=1"], priors=priors, overwrite=True)
        np.testing.assert_allclose(dataset.read_soft("c0").flat[:4], expected, atol=1e-6)
        prior = dataset.about["prior"]
        assert prior["steps"] == [{"name": "roi", "weights": {"bone": weight}, "margin_mm": margin_mm}]
        # 2 mm^3 a voxel: 2 * (1 + 1/2 + 1/2) before
        effect = prior_effects(prior)["c0"]["a"]
        assert effect["before_mm3"] == pytest.approx(4)
        assert effect["after_mm3"] == pytest.approx(2 * sum(expected))


def test_several_rois_from_the_command_line(rater_folder, nnunet_folders: Folders) -> None:
    bone = write_rois(rater_folder)
    for case in rater_folder.cases:
        array, grid = read_mask(rater_folder.rater(case, "1"))
        write_image(rater_folder.root / f"all_{case}.nii.gz", np.ones_like(array), grid)
    everywhere = f"rest={rater_folder.root}/all_{{case}}.nii.gz"
    assert run(*rater_folder.arguments(), "--roi", bone, everywhere, "--roi-weight", "rest=0.5") == 0
    dataset = SoftDataset.find(901)
    votes = votes_of(rater_folder, "case_00", rater_folder.raters).votes.mean(axis=0)
    inside = read_mask(rater_folder.root / "bones" / "case_00.nii.gz")[0]
    np.testing.assert_allclose(dataset.read_soft("case_00"), votes * np.where(inside, 1, 0.5), atol=1e-6)
    assert dataset.about["prior"]["steps"][0]["weights"] == {"bone": 1.0, "rest": 0.5}


def test_a_roi_is_no_rater(rater_folder, nnunet_folders: Folders) -> None:
    bone = write_rois(rater_folder)
    (rater_folder.root / "anna").mkdir()
    for case in rater_folder.cases:
        rater_folder.rater(case, "1").rename(rater_folder.root / "anna" / f"{case}.nii.gz")
    shutil.rmtree(rater_folder.root / "raters")
    raters = f"{rater_folder.root}/{{rater}}/{{case}}.nii.gz"
    found = find_cases(rater_folder.images, raters=[raters], rois={"bone": bone.split("=")[1]})
    assert [sorted(case.raters) for case in found] == [["anna"]] * 4


def test_roi_for_a_data_set_that_is_there(plain_dataset: Path, rater_folder) -> None:
    bone = write_rois(rater_folder, margin=6)
    into = ["convert", "--into", "901", "--raters", rater_folder.rater_pattern, "-np", "1", "--roi", bone]
    assert run(*into) == 0
    dataset = SoftDataset(plain_dataset)
    inside = read_mask(rater_folder.root / "bones" / "case_00.nii.gz")[0]
    votes = votes_of(rater_folder, "case_00", rater_folder.raters).votes.mean(axis=0)
    assert (votes[0][inside == 0] > 0).any()
    np.testing.assert_allclose(dataset.read_soft("case_00"), votes * (inside > 0), atol=1e-6)


# Intensity


def intensity_cases(lesion: float = 40.0) -> list[Case]:
    """Tissue around 10; in each case 12 agreed voxels of ``lesion``, 2 disputed and 2 unmarked ones."""
    grid = Grid((20, 10, 3), (1.0,) * 3, (0.0,) * 3, GRID.direction)
    rng = np.random.default_rng(0)
    cases = []
    for i in range(2):
        image = rng.normal(10, 2, grid.shape).astype(np.float32)
        first, second = np.zeros((2, *grid.shape), np.uint8)
        first[1, 2, :14] = second[1, 2, :12] = 1
        second[1, 2, 12:14] = 0
        image[1, 2, :16] = lesion
        second[1, 4, 0] = 1  # one rater's mark on normal tissue
        image[1, 4, 0] = 10
        bone = np.ones(grid.shape, np.uint8)
        bone[0] = 0
        cases.append(Case(f"c{i}", [KneeImage(image, grid)], {"1": first, "2": second}, rois={"bone": bone}))
    return cases


def test_intensity_is_the_pure_functions_over_all_cases(nnunet_folders: Folders) -> None:
    cases = intensity_cases()
    dataset = converted(cases, ["a=1"], priors=BRIGHT_BONE)
    parts = []
    for case in cases:
        image, inside = case.images[0]()[0], case.rois["bone"]
        soft = np.mean([case.raters["1"], case.raters["2"]], axis=0, dtype=np.float32)[None]
        tissue = estimate_tissue(image, inside, soft)
        parts.append((image, inside, soft, tissue, lesion_statistics(image, inside, soft, tissue)))
    model = (parts[0][4] + parts[1][4]).model()
    for case, (image, inside, soft, tissue, _) in zip(cases, parts, strict=True):
        expected = apply_intensity_prior(soft * inside, image, inside, tissue, model)
        np.testing.assert_array_equal(dataset.read_soft(case.name), expected)
        record = dataset.about["prior"]["records"][case.name]
        assert TissueModel(**record["tissue"]) == tissue
        assert record["before"]["a"] == pytest.approx(12 + 1 + 0.5)  # 12 agreed, 2 + 1 halves
    step = dataset.about["prior"]["steps"][1]
    assert step == {
        "name": "intensity",
        "direction": "brighter",
        "strength": 1.0,
        "channel": 0,
        "raises_unmarked": False,
        "certainty": 0.99,
        "most_evidence": 3.0,
        "agreed_above": 0.5,
        "lesion_model": {"a": {"mean": model.mean[0], "spread": model.spread[0]}},
    }


def test_disputed_bright_voxels_rise_and_unmarked_ones_only_where_asked(nnunet_folders: Folders) -> None:
    # evidence is cut at 3: 1/2 becomes sigmoid(3) = 0.953, and an unmarked 0.01 sigmoid(-4.595 + 3) = 0.169
    raised = Priors(BRIGHT_BONE.roi, IntensityPrior("brighter", raises_unmarked=True))
    for priors, unmarked in ((BRIGHT_BONE, 0.0), (raised, 0.169)):
        soft = converted(intensity_cases(), ["a=1"], priors=priors, overwrite=True).read_soft("c0")[0]
        np.testing.assert_allclose(soft[1, 2, [0, 11, 12, 13]], [1, 1, 0.953, 0.953], atol=1e-3)
        np.testing.assert_allclose(soft[1, 2, [14, 15]], unmarked, atol=1e-3)
        assert soft[1, 4, 0] < 0.1  # one of two raters, on normal tissue


def test_the_margin_of_a_roi_keeps_its_label(nnunet_folders: Folders) -> None:
    cases = intensity_cases()
    for case in cases:
        case.raters["1"][0, 2, :2] = 1  # 1 mm outside: half of q = 1/2 with a margin of 2 mm
    priors = Priors(RoiPrior(("bone",), 2.0), IntensityPrior("brighter"))
    soft = converted(cases, ["a=1"], priors=priors).read_soft("c0")[0]
    np.testing.assert_allclose(soft[0, 2, :2], 0.25, atol=1e-6)


def test_ignored_voxels_stay_ignored(nnunet_folders: Folders) -> None:
    cases = [replace(case, ignore=case.raters["2"]) for case in intensity_cases()]
    with pytest.raises(DatasetError, match=r"raters agree on \[0\] voxels"):
        converted(cases, ["a=1"], priors=BRIGHT_BONE)


def test_another_image_channel(nnunet_folders: Folders) -> None:
    cases = []
    for case in intensity_cases():
        image, grid = case.images[0]()
        cases.append(replace(case, images=[KneeImage(np.ones_like(image), grid), *case.images]))
    priors = Priors(BRIGHT_BONE.roi, IntensityPrior("brighter", channel=1))
    options: dict[str, Any] = {"dataset_id": 901, "name": "T", "labels": ["a=1"], "channel_names": ["x", "y"]}
    dataset = SoftDataset(convert(cases, priors=priors, **options))
    assert dataset.read_soft("c0")[0, 1, 2, 12] > 0.9
    message = "Case c0: --intensity-prior brighter: the normal tissue in the ROI has no spread"
    with pytest.raises(DatasetError, match=message):
        convert(cases, priors=BRIGHT_BONE, overwrite=True, **options)


def test_knees_whose_raters_miss_lesions_get_a_better_label(nnunet_folders: Folders) -> None:
    cases, knees = knee_cases("missed", n=6)
    brier = {}
    for name, priors in (("mean", None), ("priors", BRIGHT_BONE)):
        dataset = converted(cases, ["lesion=1"], priors=priors, overwrite=True)
        pairs = zip(cases, knees, strict=True)
        brier[name] = np.mean([(dataset.read_soft(c.name)[0] - (k.truth == 1)) ** 2 for c, k in pairs])
    assert brier["priors"] < 0.9 * brier["mean"]


# The same bytes

EVERYTHING = ["--fusion", "staple", "--staple-scope", "dataset", "--intensity-prior", "brighter", "--roi"]


def test_processes_change_nothing(rater_folder, nnunet_folders: Folders) -> None:
    arguments = [*rater_folder.arguments(), *EVERYTHING, write_rois(rater_folder)]
    assert run(*arguments) == 0
    before = tree(nnunet_folders.raw)
    assert run(*arguments, "-np", "2", "--overwrite") == 0
    assert tree(nnunet_folders.raw) == before


def test_kill_anywhere_is_resumed_to_the_same_bytes(
    tmp_path: Path, nnunet_folders: Folders, rater_folder_factory
) -> None:
    folder = rater_folder_factory(tmp_path / "s", num_cases=2, num_raters=3, shape=(4, 10, 10))
    arguments = [*folder.arguments(), *EVERYTHING, write_rois(folder)]
    assert run(*arguments) == 0
    complete = tree(nnunet_folders.raw)

    def empty() -> None:
        shutil.rmtree(nnunet_folders.raw)
        nnunet_folders.raw.mkdir()

    def check() -> None:
        assert tree(nnunet_folders.raw / "Dataset901_Tiny") in ({}, complete)

    assert kill_everywhere(arguments, empty, check) > 20
    assert tree(nnunet_folders.raw) == complete


def test_a_real_kill_in_the_first_pass(tmp_path: Path, nnunet_folders: Folders, rater_folder_factory) -> None:
    folder = rater_folder_factory(tmp_path / "s", num_cases=8, shape=(12, 40, 40))
    arguments = [*folder.arguments(), *EVERYTHING, write_rois(folder)]
    assert run(*arguments) == 0
    complete = tree(nnunet_folders.raw)
    shutil.rmtree(nnunet_folders.raw / "Dataset901_Tiny")
    command = [sys.executable, "-m", "nnunet_softlabel.cli", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=dict(os.environ))
    records = nnunet_folders.raw / ".unfinished_Dataset901_Tiny" / "lesions"
    while process.poll() is None and len(list(records.glob("*.json"))) < 3:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert run(*arguments, "--resume") == 0
    assert tree(nnunet_folders.raw) == complete


def test_resume_with_another_prior_is_refused(rater_folder, nnunet_folders: Folders, capsys) -> None:
    arguments = [*rater_folder.arguments(), *EVERYTHING, write_rois(rater_folder)]
    assert run(*arguments) == 0
    assert run(*arguments, "--resume") == 0
    assert run(*arguments, "--resume", "--prior-strength", "2") == 2
    assert "is already there; add --overwrite" in capsys.readouterr().err


# Errors

WRONG_FLAGS = {
    "scope": (["--staple-scope", "dataset"], "--staple-scope dataset: belongs to --fusion staple"),
    "scope text": (["--staple-scope", "all"], "argument --staple-scope: invalid choice: 'all'"),
    "roi": (["--roi", "bone"], "--roi bone: expected NAME=PATTERN, as in 'bone=bones/{case}.nii.gz'"),
    "roi twice": (["--roi", "ROI", "--roi", "ROI"], "--roi: the name 'bone' is given twice"),
    "no roi file": (["--roi", "bone=absent/{case}.nii.gz"], "--roi absent/{case}.nii.gz: fits no file"),
    "margin alone": (["--roi-margin-mm", "2"], "--roi-margin-mm and --roi-weight belong to --roi; add it"),
    "margin": (["--roi", "ROI", "--roi-margin-mm", "-1"], "--roi-margin-mm -1: takes a number from 0"),
    "weight text": (["--roi", "ROI", "--roi-weight", "bone"], "--roi-weight bone: expected NAME=WEIGHT"),
    "weight name": (["--roi", "ROI", "--roi-weight", "x=1"], "x=1: no --roi has that name; there is bone"),
    "weight": (["--roi", "ROI", "--roi-weight", "bone=2"], "--roi-weight bone=2: weights lie in [0, 1]"),
    "no weight": (["--roi", "ROI", "--roi-weight", "bone=0"], "all ROIs weigh 0, so every label"),
    "intensity": (["--intensity-prior", "darker"], "--intensity-prior darker: needs --roi"),
    "strength": (["--prior-strength", "2"], "--prior-strength: belongs to --intensity-prior; add it"),
    "raise": (["--raise-unmarked"], "--raise-unmarked: belongs to --intensity-prior; add it"),
    "negative": (
        ["--roi", "ROI", "--intensity-prior", "brighter", "--prior-strength", "-1"],
        "--prior-strength -1: takes a number from 0",
    ),
    "channel": (
        ["--roi", "ROI", "--intensity-prior", "brighter", "--prior-channel", "1"],
        "--prior-channel 1: there are 1 channels, counted from 0",
    ),
    "direction": (
        ["--roi", "ROI", "--intensity-prior", "darker"],
        "label lesion: the lesions that raters agree on are not darker than their tissue",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG_FLAGS)
def test_wrong_flag_is_one_line_and_nothing_is_written(
    rater_folder, nnunet_folders: Folders, capsys, kind: str
) -> None:
    pattern = write_rois(rater_folder)
    flags, message = WRONG_FLAGS[kind]
    assert run(*rater_folder.arguments(), *(pattern if flag == "ROI" else flag for flag in flags)) == 2
    error = capsys.readouterr().err.split("\r")[-1].strip().splitlines()
    assert message in error[-1]
    assert not list(nnunet_folders.raw.iterdir())


def spoil(rater_folder: Any, kind: str) -> None:
    path = rater_folder.root / "bones" / "case_02.nii.gz"
    array, grid = read_mask(path)
    if kind == "missing":
        path.unlink()
    elif kind == "empty":
        write_image(path, array * 0, grid)
    elif kind == "small":
        array[:] = 0
        array[0, 0, :5] = 1
        write_image(path, array, grid)
    else:
        write_image(path, array, replace(grid, origin=(9.0, 0.0, 0.0)))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "Case case_02: has no mask that fits --roi"),
        ("empty", "Case case_02: ROI bone is empty, so the whole label would vanish; correct the mask"),
        ("small", "Case case_02: --intensity-prior brighter: only 5 voxels of the ROI are normal tissue"),
        ("grid", "Case case_02: ROI bone (PATH) is on another grid than the image: origin"),
    ],
)
def test_wrong_roi_file(rater_folder, nnunet_folders: Folders, capsys, kind: str, message: str) -> None:
    pattern = write_rois(rater_folder)
    spoil(rater_folder, kind)
    assert run(*rater_folder.arguments(), "--roi", pattern, "--intensity-prior", "brighter") == 2
    error = capsys.readouterr().err.split("\r")[-1].strip().splitlines()[-1]
    assert message.replace("PATH", str(rater_folder.root / "bones" / "case_02.nii.gz")) in error
    assert not list(nnunet_folders.raw.iterdir())


@pytest.mark.parametrize("lesion", [10.0, 11.0])
def test_lesions_as_bright_as_their_tissue_are_refused(nnunet_folders: Folders, lesion: float) -> None:
    with pytest.raises(DatasetError, match=r"label a: the lesions .* are not brighter than their tissue"):
        converted(intensity_cases(lesion), ["a=1"], priors=BRIGHT_BONE)
    assert not list(nnunet_folders.raw.iterdir())


def test_dark_lesions_as_darker(nnunet_folders: Folders) -> None:
    priors = Priors(BRIGHT_BONE.roi, IntensityPrior("darker"))
    dataset = converted(intensity_cases(-20.0), ["a=1"], priors=priors)
    assert dataset.read_soft("c0")[0, 1, 2, 12] > 0.9
    model = dataset.about["prior"]["steps"][1]["lesion_model"]["a"]
    assert model["mean"] < -5


@pytest.mark.parametrize(
    ("priors", "message"),
    [
        (Priors(RoiPrior(())), "--roi: name at least one ROI"),
        (Priors(RoiPrior(("bone",)), IntensityPrior("redder")), "redder: choose brighter or darker"),  # type: ignore[arg-type]
    ],
)
def test_wrong_priors_in_python(nnunet_folders: Folders, priors: Priors, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        converted(in_memory_cases([1]), ["a=1"], priors=priors)


def test_wrong_scope_in_python(nnunet_folders: Folders) -> None:
    with pytest.raises(UsageError, match="--staple-scope all: choose case or dataset"):
        converted(in_memory_cases([1]), ["a=1"], fusion="staple", staple_scope="all")


def test_case_without_the_roi_in_python(nnunet_folders: Folders) -> None:
    with pytest.raises(DatasetError, match=r"Case c0: has no mask of the ROI bone \(--roi\); add it"):
        converted(in_memory_cases([1]), ["a=1"], priors=BONE)


def test_rates_need_a_fused_training_case(nnunet_folders: Folders) -> None:
    cases = [replace(case, soft={"a": np.zeros(GRID.shape, np.float32)}) for case in in_memory_cases([1])]
    with pytest.raises(DatasetError, match="no training case has raters to estimate rates from"):
        converted(cases, ["a=1"], fusion="staple", staple_scope="dataset")


def test_added_soft_labels_take_priors(nnunet_folders: Folders) -> None:
    dataset = converted(intensity_cases(), ["a=1"])
    add_soft_labels(intensity_cases(), dataset.folder, priors=BRIGHT_BONE, overwrite=True)
    changed = SoftDataset(dataset.folder)
    assert changed.read_soft("c0")[0, 1, 2, 12] > 0.9
    assert [step["name"] for step in changed.about["prior"]["steps"]] == ["roi", "intensity"]
