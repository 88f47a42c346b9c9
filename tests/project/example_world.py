"""The folder in which examples of docstrings run: knees, readers, predictions, tables."""

from __future__ import annotations

import csv
from pathlib import Path
from shutil import copyfile

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

import nnunet_softlabel as ns
from nnunet_softlabel.evaluation.consistency import stock_threshold
from nnunet_softlabel.formats.encoding import with_background
from nnunet_softlabel.formats.files import write_json
from nnunet_softlabel.formats.images import read_mask, write_image
from nnunet_softlabel.simulation import knee_files

SHAPE = (12, 32, 32)
PATTERNS = {"images": "images/{case}.nii.gz", "raters": "raters/{case}_{rater}.nii.gz"}
FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


def enter(world: Path, patch: pytest.MonkeyPatch) -> None:
    """Work in the folder, with nnU-Net's variables pointing into it."""
    patch.chdir(world)
    for name in FOLDERS:
        (world / name).mkdir(exist_ok=True)
        patch.setenv(name, str(world / name))


def make_world(world: Path) -> None:
    """Write everything; `Dataset501_Knees` is converted and predicted twice."""
    with pytest.MonkeyPatch.context() as patch:
        enter(world, patch)
        patch.setattr(knee_files, "SHAPE", SHAPE)
        names = ns.simulation.write_knees(".", seed=0, number=4)
        cases = ns.find_cases(**PATTERNS)
        options = {"labels": {"lesion": 1}, "channel_names": "MRI"}
        folder = ns.convert(cases, "Dataset501_Knees", **options)
        dataset = ns.SoftDataset(folder)
        for place, blur in (("predictions", 0.7), ("predictions_b", 1.2)):
            _predict(dataset, world / place, blur)
        for number, rater in ((601, "expert"), (602, "student")):
            _plain_dataset(world, f"Dataset{number}_{rater}", names, f"raters/{{}}_{rater}.nii.gz")
        _plain_dataset(world, "Dataset603_Plain", names, "truth/{}.nii.gz")
        _write_tables(world, names)


def _predict(dataset: ns.SoftDataset, place: Path, blur: float) -> None:
    place.mkdir()
    for case in dataset.cases():
        soft = np.stack([gaussian_filter(channel, blur) for channel in dataset.read_soft(case)])
        probabilities = with_background(np.clip(3 * (soft - 0.5) + 0.5, 0.001, 0.999))  # too sure
        np.savez_compressed(place / f"{case}.npz", probabilities=probabilities)
        _, grid = read_mask(dataset.label_file(case))
        mask = ns.decide(probabilities, dataset.labels, stock_threshold(dataset.labels))
        write_image(place / f"{case}.nii.gz", mask, grid)


def _plain_dataset(world: Path, name: str, cases: list[str], masks: str) -> None:
    folder = world / "nnUNet_raw" / name
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for case in cases:
        copyfile(world / "images" / f"{case}.nii.gz", folder / "imagesTr" / f"{case}_0000.nii.gz")
        copyfile(world / masks.format(case), folder / "labelsTr" / f"{case}.nii.gz")
    content = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": len(cases),
        "file_ending": ".nii.gz",
    }
    write_json(folder / "dataset.json", content)


def _write_tables(world: Path, cases: list[str]) -> None:
    with (world / "patients.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("case", "patient"), *((c, f"p{i // 2}") for i, c in enumerate(cases))])
    rows = [
        (c, f"images/{c}.nii.gz", r, f"raters/{c}_{r}.nii.gz") for c in cases for r in ("expert", "student")
    ]
    with (world / "cases.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("case", "image", "rater", "mask"), *rows])
