"""Time of `convert` beside reading and writing the same files with SimpleITK in as many processes.

    python tests/performance/benchmark_convert.py ../shared/data/lidc_nodules -np 2

SimpleITK's side reads what `convert` reads and writes as many files of the same kind (a copied image, a
float32 soft label, a hard label, one file per rater), without fusing or checking anything. CPU time is of all
processes; on a busy machine it tells more than the wall clock.
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
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

import SimpleITK as sitk


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("source", type=Path, help="folder with images/CASE.nii.gz, raters/CASE_raterR.nii.gz")
    parser.add_argument("-np", type=int, default=2, help="processes of each side")
    parser.add_argument("--cases", type=int, help="use the first so many cases only")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each side, in turn")
    args = parser.parse_args()
    images = sorted((args.source / "images").glob("*.nii.gz"))[: args.cases]
    raters = {image: sorted((args.source / "raters").glob(f"{image.name[:-7]}_rater*")) for image in images}
    seconds: dict[str, list[tuple[float, float]]] = {"SimpleITK": [], "convert": []}
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary)
        _link(base, images, raters)
        for _ in range(args.repeats):
            seconds["SimpleITK"].append(_timed(lambda: _simpleitk(base, raters, args.np)))
            seconds["convert"].append(_timed(lambda: _convert(base, args.np)))
    files = len(images) + sum(map(len, raters.values()))
    print(
        f"\n{len(images)} cases, {files} files read, {files + 2 * len(images)} written, {args.np} processes\n"
    )
    print("| | SimpleITK | convert | ratio | goal |\n|---|---|---|---|---|")
    for i, what in enumerate(["wall clock (s)", "CPU time (s)"]):
        for word, of in (("median", statistics.median), ("fastest", min)):
            stock, ours = (of([run[i] for run in seconds[side]]) for side in ("SimpleITK", "convert"))
            print(f"| {what}, {word} | {stock:.1f} | {ours:.1f} | {ours / stock:.2f}x | <= 1.5x |")


def _timed(work: Callable[[], None]) -> tuple[float, float]:
    """Wall clock and CPU seconds of what a function does in child processes."""
    start, before = time.perf_counter(), getrusage(RUSAGE_CHILDREN)
    work()
    after = getrusage(RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, cpu


def _link(base: Path, images: list[Path], raters: dict[Path, list[Path]]) -> None:
    for name in ("images", "raters", "raw", "preprocessed"):
        (base / name).mkdir()
    for image in images:
        (base / "images" / image.name).symlink_to(image.absolute())
        for rater in raters[image]:
            (base / "raters" / rater.name).symlink_to(rater.absolute())


def _simpleitk(base: Path, raters: dict[Path, list[Path]], num_processes: int) -> None:
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


def _convert(base: Path, num_processes: int) -> None:
    command = [sys.executable, "-m", "nnunet_softlabel.cli", "convert", "-d", "999", "-n", "Benchmark"]
    command += ["--images", f"{base}/images/{{case}}.nii.gz", "--channel-names", "CT", "--labels", "object=1"]
    command += ["--raters", f"{base}/raters/{{case}}_rater{{rater}}.nii.gz"]
    command += ["-np", str(num_processes), "--overwrite"]
    environment = {f"nnUNet_{name}": str(base / name) for name in ("raw", "preprocessed", "results")}
    subprocess.run(command, env=os.environ | environment, check=True, capture_output=True)


if __name__ == "__main__":
    main()
