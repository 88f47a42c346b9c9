"""Small masks, maps and a soft-label data set with predictions, as nnU-Net would leave them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from nnunet_softlabel.evaluation.consistency import stock_threshold
from nnunet_softlabel.evaluation.thresholds import decide
from nnunet_softlabel.formats.encoding import channels_of, consensus, with_background
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.images import read_mask, write_image
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.formats.probability_maps import write_probability
from nnunet_softlabel.formats.soft_dataset import SoftDataset

SHAPE = (6, 20, 20)
SPACING_MM = (1.0, 1.0, 2.5)  # x, y, z
RATERS = ("ann", "bob", "eve")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def ball(shape: tuple[int, ...], centre: tuple[float, ...], radius: float) -> np.ndarray:
    """A mask of the voxels within ``radius`` of ``centre``, in voxels."""
    grid = np.indices(shape, dtype=float)
    return sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) <= radius**2


@dataclass(frozen=True)
class Evaluated:
    """A data set and predictions for it."""

    dataset: SoftDataset
    predictions: Path


Builder = Callable[..., Evaluated]


@pytest.fixture
def build(build_at: Callable[..., Evaluated], tmp_path: Path) -> Builder:
    """`write_dataset` in the folder of this test."""
    return partial(build_at, tmp_path)


@pytest.fixture(scope="session")
def build_at() -> Callable[..., Evaluated]:
    """`write_dataset`, for fixtures that several tests share."""
    return write_dataset


def write_dataset(
    root: Path,
    labels: Labels | None = None,
    *,
    cases: int = 4,
    ending: str = ".nii.gz",
    raters: tuple[str, ...] = RATERS,
    about: dict | None = None,
    empty: tuple[int, ...] = (),
) -> Evaluated:
    """Write a data set of balls, larger with some raters, and predictions that blur the soft label."""
    labels = labels or Labels({"lesion": (1,)})
    folder, predictions = root / "Dataset900_Balls", root / "predictions"
    for name in ("imagesTr", "labelsTr", "softLabelsTr"):
        (folder / name).mkdir(parents=True)
    predictions.mkdir()
    rng = np.random.default_rng(3)
    for index in range(cases):
        _write_case(folder, predictions, f"case{index}", labels, ending, raters, index in empty, rng)
    content = {
        "channel_names": {"0": "CT"},
        "numTraining": cases,
        "file_ending": ending,
        "soft_labels": {
            **{"format_version": 1, "fusion": {"method": "mean"}, "prior": None},
            **{"digest": "of no conversion", "made_hard_labels": True},
            **(about or {}),
        },
    }
    (folder / "dataset.json").write_text(json.dumps(content | labels.to_dataset_json()))
    return Evaluated(SoftDataset(folder), predictions)


def predict_again(data: Evaluated, case: str, probabilities: np.ndarray) -> None:
    """Other probabilities of a case, and the segmentation that belongs to them."""
    labels, path = data.dataset.labels, data.predictions / f"{case}{data.dataset.file_ending}"
    np.savez_compressed(data.predictions / f"{case}.npz", probabilities=probabilities)
    _, grid = read_mask(path)
    write_image(path, decide(probabilities, labels, stock_threshold(labels)), grid)


def _write_case(folder, predictions, case, labels, ending, raters, is_empty, rng) -> None:
    flat = ending == ".png"
    shape = SHAPE[1:] if flat else SHAPE
    grid = Grid.flat(shape) if flat else Grid(
        shape[::-1], SPACING_MM, (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    )  # fmt: skip
    centre = [n / 2 + rng.uniform(-1, 1) for n in shape]
    highest = max(max(v) for v in labels.values.values())
    maps = {}
    for k, rater in enumerate(raters):
        drawn = np.zeros(shape, np.uint8)
        for value in range(1, highest + 1):  # later labels lie inside earlier ones
            drawn[ball(shape, centre, (4.5 + 0.7 * k) / value)] = 0 if is_empty else value
        maps[rater] = drawn
        (folder / "raterLabelsTr" / rater).mkdir(parents=True, exist_ok=True)
        write_image(folder / "raterLabelsTr" / rater / f"{case}{ending}", drawn, grid)
    soft = np.zeros((len(labels.names), *shape), np.float32)
    if maps:
        soft = np.mean([channels_of(m, labels) for m in maps.values()], axis=0).astype(np.float32)
    for channel, probability in enumerate(soft, start=1):
        write_probability(folder / "softLabelsTr" / f"{case}_{channel:04d}{ending}", probability, grid)
    hard = consensus(soft, labels)
    write_image(folder / "labelsTr" / f"{case}{ending}", hard, grid)
    image = (100 * soft.max(axis=0) + rng.normal(20, 2, shape)).clip(0, 255)
    write_image(folder / "imagesTr" / f"{case}_0000{ending}", image.astype(np.uint8), grid)
    blurred = np.stack([gaussian_filter(channel, 0.8) for channel in soft])
    stored = blurred if labels.has_regions else with_background(blurred)
    decision = decide(stored, labels, stock_threshold(labels))
    if flat:
        stored = stored[:, None]  # as nnU-Net stores flat images
    np.savez_compressed(predictions / f"{case}.npz", probabilities=stored)
    write_image(predictions / f"{case}{ending}", decision, grid)
