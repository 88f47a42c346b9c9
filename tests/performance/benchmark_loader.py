"""Time of one augmented training batch, ours against stock nnU-Net's loader, on 128^3 patches.

    python tests/performance/benchmark_loader.py [--classes 1 4 14] [--batches 12]

Generates a data set of smooth blobs, plans it with nnU-Net (which chooses 128^3), and draws batches
alternately from both loaders in one process, on one thread, with the same seed for both. Prints medians of
the CPU time, the ratio of the sums, and the quartiles of the ratio of single batches.
"""

import argparse
import os
import random
import statistics
import tempfile
from functools import partial
from pathlib import Path
from time import process_time

import numpy as np
import torch

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.formats.grid import Grid
from tests.performance.generated_volumes import convert_and_plan

SHAPE = (160, 160, 160)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, nargs="+", default=[1, 4, 14])
    parser.add_argument("--batches", type=int, default=12)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(
        "| foreground classes | stock, CPU s | ours, CPU s | ratio of sums | ratio of a batch | quartiles |"
    )
    print("|---|---|---|---|---|---|")
    for classes in args.classes:
        with tempfile.TemporaryDirectory() as folder:
            prepare(Path(folder), classes)
            stock, ours = measure(classes, args.batches)
        low, middle, high = (ratio(stock, ours, q) for q in (0.25, 0.5, 0.75))
        medians = f"{statistics.median(stock):.2f} | {statistics.median(ours):.2f}"
        sums = sum(ours) / sum(stock)
        print(f"| {classes} | {medians} | {sums:.2f} | {middle:.2f} | {low:.2f} to {high:.2f} |", flush=True)


def ratio(stock: list[float], ours: list[float], quantile: float) -> float:
    """Quantile of the ratios of neighbouring draws: both saw the same load, and the same augmentation."""
    return float(np.quantile([b / a for a, b in zip(stock, ours, strict=True)], quantile))


def make_image(seed: int) -> tuple[np.ndarray, Grid]:
    size = SHAPE[::-1]
    grid = Grid(size, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
    return np.random.default_rng(seed).normal(100, 20, SHAPE).astype(np.float32), grid


def make_mask(seed: int, rater: int, classes: int) -> np.ndarray:
    axes = np.ogrid[tuple(slice(0, n) for n in SHAPE)]
    mask = np.zeros(SHAPE, dtype=np.uint8)
    for label in range(1, classes + 1):
        centre = np.random.default_rng([seed, label]).uniform(40, 120, 3)
        radius = 24 + np.random.default_rng([seed, label, rater]).uniform(-3, 3)
        mask[sum((axis - c) ** 2 for axis, c in zip(axes, centre, strict=True)) < radius**2] = label
    return mask


def prepare(folder: Path, classes: int) -> None:
    from nnunet_softlabel.preprocessing.run import preprocess

    cases = [
        Case(
            f"case_{seed}",
            [partial(make_image, seed)],
            {f"r{rater}": partial(make_mask, seed, rater, classes) for rater in range(3)},
        )
        for seed in range(5)
    ]
    convert_and_plan(folder, cases, classes)
    preprocess(990, "3d_fullres")


def measure(classes: int, batches: int) -> tuple[list[float], list[float]]:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    from nnunet_softlabel.training.recipes import nnUNetTrainerAPL

    loaders = []
    for trainer_class in (nnUNetTrainer, nnUNetTrainerAPL):
        trainer = make_trainer(trainer_class)
        trainer._set_batch_size_and_oversample()
        loaders.append(trainer.get_dataloaders()[0])
    times: tuple[list[float], list[float]] = ([], [])
    for seed in range(batches):
        for i in np.random.default_rng(seed).permutation(2):
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
            start = process_time()
            batch = next(loaders[i])
            times[i].append(process_time() - start)
            assert batch["data"].shape[2:] == (128, 128, 128), batch["data"].shape
    return times


def make_trainer(trainer_class: type) -> object:
    from nnunet_softlabel.formats.files import read_json

    base = Path(os.environ["nnUNet_preprocessed"]) / "Dataset990_Speed"
    return trainer_class(
        plans={**read_json(base / "nnUNetPlans.json"), "continue_training": False},
        configuration="3d_fullres",
        fold=0,
        dataset_json=read_json(base / "dataset.json"),
        device=torch.device("cpu"),
    )


if __name__ == "__main__":
    main()
