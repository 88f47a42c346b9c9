"""Volumes for benchmark_memory.py: images, raters, predictions, a first round of folds, nnU-Net's plan.

Labels are ellipsoids side by side, which fill a third of the volume. Raters draw them shifted; the fourth
does not see the first label, so that `refine` has something to doubt. Predictions of one label put 5 % on
every voxel of the background, so that no voxel can be passed over.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.evaluation.thresholds import decide
from nnunet_softlabel.formats.files import read_json, write_json
from nnunet_softlabel.formats.nnunet_folders import environment_folder, find_dataset
from nnunet_softlabel.formats.soft_dataset import SoftDataset

SMALL = (16, 24, 24)  # a second case, which calibrate and folds need
SPACING_MM = 0.9
TRAINER = "nnUNetTrainerSoftCE"
MODELS = ("predictions", "predictions_b", "predictions_c")


def write_cases(shape: tuple[int, ...], labels: int, raters: int, files: Path) -> None:
    """Image and raters of a large and a small case."""
    for name, size in (("large", shape), ("small", SMALL)):
        random = np.random.default_rng(0)
        image = random.normal(100, 20, size).astype(np.int16)
        _write(files / "images" / f"{name}.nii.gz", image)
        for rater in range(raters):
            drawn = _drawn(size, labels, rater)
            if rater == 3:
                drawn[drawn == 1] = 0
            _write(files / "raters" / f"{name}_r{rater}.nii.gz", drawn)


def _drawn(shape: tuple[int, ...], labels: int, shift: int) -> Any:
    """Ellipsoids side by side in the last two axes, one per label."""
    mask = np.zeros(shape, np.uint8)
    columns = int(np.ceil(np.sqrt(labels)))
    rows = int(np.ceil(labels / columns))
    height, width = shape[1] // rows, shape[2] // columns
    cell = (shape[0], height, width)
    axes = [np.arange(n, dtype=np.float32) - (n - 1) / 2 for n in cell]
    radii = [max(0.43 * n, 1) for n in cell]
    z, y, x = ((axis / radius) ** 2 for axis, radius in zip(axes, radii, strict=True))
    inside = z[:, None, None] + y[:, None] + x <= 1
    for label in range(labels):
        top, left = (label // columns) * height, (label % columns) * width
        part = mask[:, top : top + height, left : left + width]
        part[np.roll(inside, (shift, shift, -shift), (0, 1, 2))] = label + 1
    return mask


def _write(path: Path, array: Any) -> None:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((SPACING_MM,) * 3)
    path.parent.mkdir(exist_ok=True)
    sitk.WriteImage(image, str(path), True, 1)


def write_predictions(identifier: str, files: Path) -> None:
    """Three models, each with probabilities and segmentation; and a first round, a fold per case."""
    dataset = SoftDataset(find_dataset(environment_folder("nnUNet_raw"), identifier))
    labels, cases = dataset.labels, dataset.cases("Tr")
    model = environment_folder("nnUNet_results") / dataset.folder.name / f"{TRAINER}__nnUNetPlans__3d_fullres"
    for fold, case in enumerate(cases):
        soft = dataset.read_soft(case)
        rest = np.maximum(1 - soft.sum(axis=0, keepdims=True), 0)
        for certain, name in zip((0.9, 0.8, 0.7), MODELS, strict=True):
            rate = np.float32(1 / (len(soft) + 1))
            predicted = certain * np.concatenate([rest, soft]) + (1 - certain) * rate
            (files / name).mkdir(exist_ok=True)
            _predict(files / name / case, predicted, labels)
            if name == MODELS[0]:
                validation = model / f"fold_{fold}" / "validation"
                validation.mkdir(parents=True)
                _predict(validation / case, predicted, labels)
    splits = [{"train": [c for c in cases if c != case], "val": [case]} for case in cases]
    folder = environment_folder("nnUNet_preprocessed") / dataset.folder.name
    folder.mkdir(exist_ok=True)
    write_json(folder / "splits_final.json", splits)


def _predict(path: Path, predicted: Any, labels: Any) -> None:
    np.savez(f"{path}.npz", probabilities=predicted.astype(np.float32))
    _write(path.parent / f"{path.name}.nii.gz", decide(predicted.astype(np.float32), labels, 0.5))


def plan(identifier: str) -> None:
    """nnU-Net's plan and preprocessing, as if most cases had voxels of 1 mm: so ours are resampled."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprint_dataset,
        plan_experiment_dataset,
        preprocess_dataset,
    )

    number = int(identifier)
    name = find_dataset(environment_folder("nnUNet_raw"), identifier).name
    extract_fingerprint_dataset(number, num_processes=1)
    fingerprint = environment_folder("nnUNet_preprocessed") / name / "dataset_fingerprint.json"
    content = read_json(fingerprint)
    content["spacings"] = [[1.0, 1.0, 1.0] for _ in content["spacings"]]
    write_json(fingerprint, content)
    plan_experiment_dataset(number)
    preprocess_dataset(number, configurations=("3d_fullres",), num_processes=[1], show_progress_bar=False)


def convert_and_plan(folder: Path, cases: Sequence[Case], labels: int) -> None:
    """Data set 990 below a folder, which becomes nnU-Net's; labels are 1, 2, ..."""
    from nnunet_softlabel.conversion.run import convert
    from tests.conftest import plan_in_process

    for name in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{name}"] = str(folder / name)
        (folder / name).mkdir()
    os.environ |= {"nnUNet_n_proc_DA": "0", "nnUNet_def_n_proc": "1"}
    names = [f"class{i}={i}" for i in range(1, labels + 1)]
    convert(cases, "Dataset990_Speed", labels=names, channel_names=["MR"])
    plan_in_process(990, ("3d_fullres",))
