"""What the tests of layouts share."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import SimpleITK as sitk

from nnunet_softlabel.formats.files import read_json
from nnunet_softlabel.formats.soft_dataset import SoftDataset

Folders = SimpleNamespace


def soft_of(folder: Path) -> dict[str, np.ndarray]:
    dataset = SoftDataset(folder)
    return {case: dataset.read_soft(case) for case in dataset.cases()}


def check(nnunet_folders: Folders, expected: dict[str, np.ndarray], name: str = "Dataset901_Tiny") -> dict:
    found = soft_of(nnunet_folders.raw / name)
    assert sorted(found) == sorted(expected)
    for case, soft in expected.items():
        np.testing.assert_array_equal(found[case], soft)
    return read_json(nnunet_folders.raw / name / "dataset.json")["soft_labels"]


def head(*more: str) -> list[str]:
    return ["convert", "-d", "901", "-n", "Tiny", "-np", "1", *more]


def copied(array: np.ndarray, like: sitk.Image) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.CopyInformation(like)
    return image


def rewrite(path: Path, change: Any) -> None:
    sitk.WriteImage(change(sitk.ReadImage(str(path))), str(path))
