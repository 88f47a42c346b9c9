"""Time of `convert` beside reading and writing the same files with SimpleITK in as many processes.

    python tests/performance/benchmark_convert.py ../shared/data/lidc_nodules -np 2

SimpleITK's side reads what `convert` reads and writes as many files of the same kind (a copied image, a float32
soft label, a hard label, one file per rater), without fusing or checking anything.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

import SimpleITK as sitk  # noqa: N813


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("source", type=Path, help="folder with images/CASE.nii.gz, raters/CASE_raterR.nii.gz")
    parser.add_argument("-np", type=int, default=2, help="processes of each side")
    parser.add_argument("--cases", type=int, help="use the first so many cases only")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each side; the median counts")
    args = parser.parse_args()
    images = sorted((args.source / "images").glob("*.nii.gz"))[: args.cases]
    raters = {image: sorted((args.source / "raters").glob(f"{image.name[:-7]}_rater*")) for image in images}
    seconds: dict[str, list[float]] = {"SimpleITK": [], "convert": []}
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary)
        _link(base, images, raters)
        for _ in range(args.repeats):
            seconds["SimpleITK"].append(_simpleitk(base, raters, args.np))
            seconds["convert"].append(_convert(base, args.np))
    times = {side: statistics.median(runs) for side, runs in seconds.items()}
    files = len(images) + sum(map(len, raters.values()))
    print(
        f"\n{len(images)} cases, {files} files read, {files + 2 * len(images)} written, {args.np} processes\n"
    )
    print("| | SimpleITK | convert | ratio | goal |\n|---|---|---|---|---|")
    ratio = times["convert"] / times["SimpleITK"]
    print(f"| time (s) | {times['SimpleITK']:.1f} | {times['convert']:.1f} | {ratio:.2f}x | <= 1.5x |")


def _link(base: Path, images: list[Path], raters: dict[Path, list[Path]]) -> None:
    for name in ("images", "raters", "raw", "preprocessed"):
        (base / name).mkdir()
    for image in images:
        (base / "images" / image.name).symlink_to(image.absolute())
        for rater in raters[image]:
            (base / "raters" / rater.name).symlink_to(rater.absolute())


def _simpleitk(base: Path, raters: dict[Path, list[Path]], num_processes: int) -> float:
    output = base / "simpleitk"
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir()
    start = time.perf_counter()
    with get_context("spawn").Pool(num_processes) as pool:
        pool.starmap(
            _read_and_write, [(image, files, output) for image, files in raters.items()], chunksize=4
        )
    return time.perf_counter() - start


def _read_and_write(image: Path, raters: list[Path], output: Path) -> None:
    sitk.ReadImage(str(image))
    shutil.copyfile(image, output / image.name)
    for path in raters:
        mask = sitk.ReadImage(str(path))
        sitk.WriteImage(mask, str(output / path.name))
    sitk.WriteImage(mask, str(output / f"hard_{image.name}"))
    sitk.WriteImage(sitk.Cast(mask, sitk.sitkFloat32), str(output / f"soft_{image.name}"))


def _convert(base: Path, num_processes: int) -> float:
    command = [sys.executable, "-m", "nnunet_softlabel.cli", "convert", "-d", "999", "-n", "Benchmark"]
    command += ["--images", f"{base}/images/{{case}}.nii.gz", "--channel-names", "CT", "--labels", "object=1"]
    command += ["--raters", f"{base}/raters/{{case}}_rater{{rater}}.nii.gz"]
    command += ["-np", str(num_processes), "--overwrite"]
    environment = {f"nnUNet_{name}": str(base / name) for name in ("raw", "preprocessed", "results")}
    start = time.perf_counter()
    subprocess.run(command, env=os.environ | environment, check=True, capture_output=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
