"""Time and disk of preprocessing soft labels beside nnU-Net's own preprocessing of the same cases.

    python tests/performance/benchmark_preprocessing.py -d 501 -c 3d_fullres

The data set must be converted and planned; nothing of it is changed. Both sides run in this one process.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import blosc2
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

from nnunet_softlabel.formats.files import read_json
from nnunet_softlabel.formats.nnunet_folders import find_dataset
from nnunet_softlabel.preprocessing.preparation import Preparation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("-d", required=True, help="data set id or name")
    parser.add_argument("-c", default="3d_fullres", help="configuration")
    parser.add_argument("-p", default="nnUNetPlans", help="plans identifier")
    parser.add_argument("--cases", type=int, help="use the first so many cases only")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each side; the median counts")
    args = parser.parse_args()
    raw = find_dataset(Path(os.environ["nnUNet_raw"]), args.d)
    planned = find_dataset(Path(os.environ["nnUNet_preprocessed"]), args.d)
    plans = PlansManager(read_json(planned / f"{args.p}.json"))
    dataset_json = read_json(planned / "dataset.json")
    cases = list(get_filenames_of_train_images_and_targets(str(raw), dataset_json).items())[: args.cases]
    blosc2.set_nthreads(1)
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
            start = time.perf_counter()
            Preparation(base, plans, configuration).ensure(log=lambda text: None)
            seconds["soft"].append(time.perf_counter() - start)
        sizes = {"stock": _size(images, "*"), "soft": _size(images, "soft_labels/*")}
    _print(len(cases), {side: statistics.median(times) for side, times in seconds.items()}, sizes)


def _stock(images: Path, cases: list, plans: PlansManager, configuration, dataset_json: dict) -> float:
    preprocessor = configuration.preprocessor_class(verbose=False)
    start = time.perf_counter()
    for name, files in cases:
        preprocessor.run_case_save(
            str(images / name), files["images"], files["label"], plans, configuration, dataset_json
        )
    return time.perf_counter() - start


def _size(folder: Path, pattern: str) -> int:
    return sum(path.stat().st_size for path in folder.glob(pattern) if path.is_file())


def _print(num_cases: int, seconds: dict[str, float], sizes: dict[str, int]) -> None:
    print(f"\n{num_cases} cases, one process\n")
    print("| | stock | soft labels | ratio | goal |\n|---|---|---|---|---|")
    print(
        f"| time (s) | {seconds['stock']:.1f} | {seconds['soft']:.1f} "
        f"| {seconds['soft'] / seconds['stock']:.2f}x | <= 0.3x |"
    )
    print(
        f"| disk (MB) | {sizes['stock'] / 1e6:.1f} | {sizes['soft'] / 1e6:.1f} "
        f"| {sizes['soft'] / sizes['stock']:.2f}x | <= 0.25x |"
    )


if __name__ == "__main__":
    main()
