from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nnunet_softlabel.conversion import Fusion
from nnunet_softlabel.conversion.prior_settings import IntensityPrior, Priors, RoiPrior
from nnunet_softlabel.conversion.run import add_soft_labels
from nnunet_softlabel.conversion.settings import Running
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.formats.images import read_mask, write_image
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from tests.conversion.conversion_helpers import GRID, converted, in_memory_cases, run
from tests.conversion.prior_helpers import BONE, BRIGHT_BONE, intensity_cases, write_rois

Folders = SimpleNamespace


WRONG_FLAGS = {
    "scope": (["--staple-scope", "dataset"], "--staple-scope dataset: belongs to --fusion staple"),
    "scope text": (["--staple-scope", "all"], "argument --staple-scope: invalid choice: 'all'"),
    "roi": (["--roi", "bone"], "--roi bone: expected NAME=PATTERN, as in 'bone=bones/{case}.nii.gz'"),
    "roi twice": (["--roi", "ROI", "--roi", "ROI"], "--roi: the name 'bone' is given twice"),
    "no roi file": (["--roi", "bone=absent/{case}.nii.gz"], "--roi absent/{case}.nii.gz: fits no file"),
    "margin alone": (["--roi-margin-mm", "2"], "--roi-margin-mm and --roi-weight belong to --roi; add it"),
    "margin": (["--roi", "ROI", "--roi-margin-mm", "-1"], "--roi-margin-mm -1: takes a number from 0"),
    "weight twice": (["--roi", "ROI", "--roi-weight", "bone=1", "bone=0"], "bone has a weight already"),
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
        (lambda: Priors(RoiPrior(())), r"RoiPrior\(names=...\): name at least one ROI"),
        (lambda: Priors(IntensityPrior("redder")), "direction: 'redder' is none of 'brighter', 'darker'"),  # type: ignore[arg-type]
    ],
)
def test_wrong_priors_in_python(nnunet_folders: Folders, priors: Callable[[], Priors], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        converted(in_memory_cases([1]), ["a=1"], priors=priors())


def test_wrong_scope_in_python(nnunet_folders: Folders) -> None:
    with pytest.raises(UsageError, match="scope: 'all' is none of 'case', 'dataset'"):
        converted(in_memory_cases([1]), ["a=1"], fusion=Fusion("staple", scope="all"))


def test_case_without_the_roi_in_python(nnunet_folders: Folders) -> None:
    with pytest.raises(DatasetError, match=r"has no mask of the ROI bone \(RoiPrior\(names=...\)\); add it"):
        converted(in_memory_cases([1]), ["a=1"], priors=BONE)


def test_rates_need_a_fused_training_case(nnunet_folders: Folders) -> None:
    cases = [replace(case, soft={"a": np.zeros(GRID.shape, np.float32)}) for case in in_memory_cases([1])]
    with pytest.raises(DatasetError, match="no training case has raters to estimate rates from"):
        converted(cases, ["a=1"], fusion=Fusion("staple", scope="dataset"))


def test_added_soft_labels_take_priors(nnunet_folders: Folders) -> None:
    dataset = converted(intensity_cases(), ["a=1"])
    add_soft_labels(intensity_cases(), dataset.folder, priors=BRIGHT_BONE, running=Running(overwrite=True))
    changed = SoftDataset(dataset.folder)
    assert changed.read_soft("c0")[0, 1, 2, 12] > 0.9
    assert [step["name"] for step in changed.about["prior"]["steps"]] == ["roi", "intensity"]
