"""Time and disk of preprocessing soft labels beside nnU-Net's own preprocessing of the same cases.

    python tests/performance/benchmark_preprocessing.py -d 501 -c 3d_fullres
    python tests/performance/benchmark_preprocessing.py --generate 1 10 25

The data set must be converted and planned; nothing of it is changed. Both sides run in this one process, and
the CPU time counts. With --generate the data sets are made, one for each number of labels: ellipsoids side by
side, which fill a third of the volume, four raters, voxels of several sizes, so that most are resampled.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import blosc2
import numpy as np
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.formats.files import read_json
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.nnunet_folders import find_dataset
from nnunet_softlabel.preprocessing.preparation import Preparation
from tests.performance.generated_volumes import convert_and_plan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("-d", help="data set id or name")
    source.add_argument("--generate", type=int, nargs="+", metavar="LABELS", help="make data sets")
    parser.add_argument("--size", type=int, default=128, help="voxels along an edge of a generated volume")
    parser.add_argument("-c", default="3d_fullres", help="configuration")
    parser.add_argument("-p", default="nnUNetPlans", help="plans identifier")
    parser.add_argument("--cases", type=int, help="use the first so many cases only")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each side; the median counts")
    args = parser.parse_args()
    blosc2.set_nthreads(1)
    torch.set_num_threads(1)
    if args.d:
        return measure(args.d, args)
    for labels in args.generate:
        with tempfile.TemporaryDirectory() as folder:
            generate(Path(folder), labels, args.size)
            print(f"\n{labels} labels")
            measure("990", args)


def measure(dataset: str, args: argparse.Namespace) -> None:
    raw = find_dataset(Path(os.environ["nnUNet_raw"]), dataset)
    planned = find_dataset(Path(os.environ["nnUNet_preprocessed"]), dataset)
    plans = PlansManager(read_json(planned / f"{args.p}.json"))
    dataset_json = read_json(planned / "dataset.json")
    cases = list(get_filenames_of_train_images_and_targets(str(raw), dataset_json).items())[: args.cases]
    seconds: dict[str, list[float]] = {"stock": [], "soft": []}
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary) / raw.name
        base.mkdir()
        shutil.copyfile(planned / "dataset.json", base / "dataset.json")
        for _ in range(args.repeats):
            configuration = plans.get_configuration(args.c)
            images = base / configuration.data_identifier
            shutil.rmtree(images, ignore_errors=True)
            images.mkdir()
            seconds["stock"].append(_stock(images, cases, plans, configuration, dataset_json))
            start = time.process_time()
            Preparation(base, plans, configuration).ensure(num_processes=1, log=lambda text: None)
            seconds["soft"].append(time.process_time() - start)
        sizes = {"stock": _size(images, "*"), "soft": _size(images, "soft_labels/*")}
    _print(len(cases), {side: statistics.median(times) for side, times in seconds.items()}, sizes)


def generate(folder: Path, labels: int, size: int, cases: int = 4) -> None:
    """A converted and planned data set 990 whose cases have voxels of different sizes."""
    found = [
        Case(
            f"case_{seed}",
            [partial(_image, seed, size)],
            {f"r{rater}": partial(_mask, rater, labels, size) for rater in range(4)},
        )
        for seed in range(cases)
    ]
    convert_and_plan(folder, found, labels)


def _image(seed: int, size: int) -> tuple[np.ndarray, Grid]:
    spacing = (0.85 + 0.1 * seed,) * 3
    grid = Grid((size,) * 3, spacing, (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
    return np.random.default_rng(seed).normal(100, 20, (size,) * 3).astype(np.float32), grid


def _mask(rater: int, labels: int, size: int) -> np.ndarray:
    columns = int(np.ceil(np.sqrt(labels)))
    rows = int(np.ceil(labels / columns))
    cell = (size, size // rows, size // columns)
    axes = np.ogrid[tuple(slice(0, n) for n in cell)]
    distance = sum(((axis - (n - 1) / 2) / (0.43 * n)) ** 2 for axis, n in zip(axes, cell, strict=True))
    inside = np.roll(distance <= 1, (rater, rater, -rater), (0, 1, 2))
    mask = np.zeros((size,) * 3, dtype=np.uint8)
    for label in range(labels):
        top, left = label // columns * cell[1], label % columns * cell[2]
        mask[:, top : top + cell[1], left : left + cell[2]][inside] = label + 1
    return mask


def _stock(images: Path, cases: list, plans: PlansManager, configuration, dataset_json: dict) -> float:
    preprocessor = configuration.preprocessor_class(verbose=False)
    start = time.process_time()
    for name, files in cases:
        preprocessor.run_case_save(
            str(images / name), files["images"], files["label"], plans, configuration, dataset_json
        )
    return time.process_time() - start


def _size(folder: Path, pattern: str) -> int:
    return sum(path.stat().st_size for path in folder.glob(pattern) if path.is_file())


def _print(num_cases: int, seconds: dict[str, float], sizes: dict[str, int]) -> None:
    print(f"\n{num_cases} cases, one process\n")
    print("| | stock | soft labels | ratio | goal |\n|---|---|---|---|---|")
    print(
        f"| CPU time (s) | {seconds['stock']:.1f} | {seconds['soft']:.1f} "
        f"| {seconds['soft'] / seconds['stock']:.2f}x | <= 0.3x |"
    )
    print(
        f"| disk (MB) | {sizes['stock'] / 1e6:.1f} | {sizes['soft'] / 1e6:.1f} "
        f"| {sizes['soft'] / sizes['stock']:.2f}x | <= 0.25x |"
    )


if __name__ == "__main__":
    main()
