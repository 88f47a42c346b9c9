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

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.cases.find import find_cases
from nnunet_softlabel.conversion.prior_settings import IntensityPrior, Priors, RoiPrior
from nnunet_softlabel.conversion.run import convert
from nnunet_softlabel.conversion.settings import Running
from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.images import read_mask, write_image
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from nnunet_softlabel.inspection.run import prior_effects
from nnunet_softlabel.priors.intensity import apply_intensity_prior
from nnunet_softlabel.priors.lesions import lesion_statistics
from nnunet_softlabel.priors.tissue import TissueModel, estimate_tissue
from nnunet_softlabel.simulation.knee_phantom import KneeLesions, make_knee_phantom, phantom_raters
from tests.conversion.conversion_helpers import converted, in_memory_cases, run, tree
from tests.conversion.prior_helpers import (
    BRIGHT_BONE,
    ImageInMemory,
    intensity_cases,
    roi,
    votes_of,
    write_rois,
)
from tests.conversion.test_conversion_kills import kill_everywhere

Folders = SimpleNamespace
EVERYTHING = ["--fusion", "staple", "--staple-scope", "dataset", "--intensity-prior", "brighter", "--roi"]


def knee_cases(regime: str, n: int = 4) -> tuple[list[Case], list[Any]]:
    """Small generated knees, each with two lesions and three raters."""
    knees = [make_knee_phantom(seed, shape=(12, 32, 32), lesions=KneeLesions(number=2)) for seed in range(n)]
    cases = []
    for seed, knee in enumerate(knees):
        spacing_mm = tuple(float(s) for s in knee.spacing_mm[::-1])
        direction = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
        grid = Grid(knee.image.shape[::-1], spacing_mm, (0.0,) * 3, direction)
        raters = dict(zip("abc", phantom_raters(knee, regime, seed=seed).astype(np.uint8), strict=True))
        image = ImageInMemory(knee.image, grid)
        cases.append(Case(f"knee{seed}", [image], raters, rois={"bone": knee.bone_mask}))
    return cases, knees


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
        expected = apply_intensity_prior(soft * inside, image, inside, tissue=tissue, lesions=model)
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
        cases.append(replace(case, images=[ImageInMemory(np.ones_like(image), grid), *case.images]))
    priors = Priors(BRIGHT_BONE.roi, IntensityPrior("brighter", channel=1))
    options: dict[str, Any] = {"dataset": "Dataset901_T", "labels": ["a=1"], "channel_names": ["x", "y"]}
    dataset = SoftDataset(convert(cases, priors=priors, **options))
    assert dataset.read_soft("c0")[0, 1, 2, 12] > 0.9
    message = r"Case c0: IntensityPrior\(direction='brighter'\): the normal tissue in the ROI has no spread"
    with pytest.raises(DatasetError, match=message):
        convert(cases, priors=BRIGHT_BONE, running=Running(overwrite=True), **options)


def test_knees_whose_raters_miss_lesions_get_a_better_label(nnunet_folders: Folders) -> None:
    cases, knees = knee_cases("missed", n=6)
    brier = {}
    for name, priors in (("mean", None), ("priors", BRIGHT_BONE)):
        dataset = converted(cases, ["lesion=1"], priors=priors, overwrite=True)
        pairs = zip(cases, knees, strict=True)
        brier[name] = np.mean([(dataset.read_soft(c.name)[0] - (k.truth == 1)) ** 2 for c, k in pairs])
    assert brier["priors"] < 0.9 * brier["mean"]


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
