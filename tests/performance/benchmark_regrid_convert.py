"""Time of `convert --regrid` beside SimpleITK in as many processes, on whole volumes, in CPU seconds of all.

    python tests/performance/benchmark_regrid_convert.py --volumes 8 --size 256 -np 2

Each case has an image and one mask of half the spacing along one axis, with three labels. SimpleITK's side
reads what `convert` reads, resamples, and writes as many files of the same kind: an image, three float32 soft
labels, a hard label, one file of the rater. It fuses nothing, and checks nothing. The time in the resampler
is that of SimpleITK's side.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

import numpy as np
import SimpleITK as sitk


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--volumes", type=int, default=8)
    parser.add_argument("--size", type=int, default=256, help="voxels of the image per axis")
    parser.add_argument("-np", type=int, default=2, help="processes of each side")
    parser.add_argument("--methods", nargs="+", default=["nearest", "linear"], choices=["nearest", "linear"])
    args = parser.parse_args()
    print(f"\n{args.volumes} volumes of {args.size}^3, {args.np} processes, CPU seconds of all\n")
    print("| | convert --regrid | SimpleITK alone | of that in the resampler | ratio |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary)
        for name in ("raw", "preprocessed", "results", "simpleitk"):
            (base / name).mkdir()
        _write_files(base, args.volumes, args.size)
        for method in args.methods:
            before = _seconds_of_children()
            _convert(base, method, args.np)
            between = _seconds_of_children()
            inside = _simpleitk(base, args.volumes, method, args.np)
            ours, alone = between - before, _seconds_of_children() - between
            print(f"| {method} | {ours:.1f} | {alone:.1f} | {inside:.1f} | {ours / alone:.2f}x |", flush=True)


def _seconds_of_children() -> float:
    usage = getrusage(RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _convert(base: Path, method: str, num_processes: int) -> None:
    command = [sys.executable, "-m", "nnunet_softlabel.cli", "convert", "-d", "999", "-n", "Benchmark"]
    command += ["--images", f"{base}/{{case}}_image.nii.gz", "--channel-names", "MR"]
    command += ["--raters", f"{base}/{{case}}_rater{{rater}}.nii.gz", "--regrid", method]
    command += ["--labels", "one=1", "two=2", "three=3", "-np", str(num_processes), "--overwrite"]
    environment = {f"nnUNet_{name}": str(base / name) for name in ("raw", "preprocessed", "results")}
    environment["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"
    subprocess.run(command, env=os.environ | environment, check=True, capture_output=True)


def _simpleitk(base: Path, volumes: int, method: str, num_processes: int) -> float:
    """CPU seconds in the resampler; with linear, it runs for the background and for three labels."""
    work = partial(_one_volume, base=base, method=method)
    with get_context("spawn").Pool(num_processes) as pool:
        inside = pool.map(work, range(volumes), chunksize=1)
        pool.close()
        pool.join()  # their CPU seconds count from their end on
    return sum(inside)


def _one_volume(number: int, *, base: Path, method: str) -> float:
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    image = sitk.ReadImage(str(base / f"k{number}_image.nii.gz"))
    mask = sitk.ReadImage(str(base / f"k{number}_raterA.nii.gz"))
    if method == "nearest":
        start = time.process_time()
        hard = sitk.Resample(mask, image, sitk.Transform(), sitk.sitkNearestNeighbor)
        inside = time.process_time() - start
    else:
        parts = [sitk.Cast(mask == value, sitk.sitkFloat32) for value in range(4)]
        start = time.process_time()
        parts = [sitk.Resample(part, image, sitk.Transform(), sitk.sitkLinear) for part in parts]
        inside = time.process_time() - start
        largest = np.argmax([sitk.GetArrayViewFromImage(part) for part in parts], axis=0)
        hard = sitk.GetImageFromArray(largest.astype(np.uint8))
    soft = [sitk.Cast(hard == value, sitk.sitkFloat32) for value in (1, 2, 3)]
    output = base / "simpleitk"
    shutil.copyfile(base / f"k{number}_image.nii.gz", output / f"k{number}_image.nii.gz")
    for index, written in enumerate([hard, hard, *soft]):
        sitk.WriteImage(written, str(output / f"k{number}_{index}.nii.gz"))
    return inside


def _write_files(base: Path, volumes: int, size: int) -> None:
    """Links stand for further volumes, since reading and writing them costs the same."""
    from scipy.ndimage import gaussian_filter  # here, so that SimpleITK's processes need not import it

    noise = gaussian_filter(np.random.default_rng(0).normal(size=(size,) * 3).astype(np.float32), 2)
    image = sitk.GetImageFromArray((2000 * noise).astype(np.int16))
    mask = np.zeros((2 * size, size, size), np.uint8)
    part = size // 4
    for value in (1, 2, 3):
        mask[value * part // 2 : value * part, part : 3 * part, part : 3 * part] = value
    drawn = sitk.GetImageFromArray(mask)
    drawn.SetSpacing((1.0, 1.0, 0.5))
    drawn.SetOrigin((0.3, 0.0, 0.0))
    sitk.WriteImage(image, str(base / "k0_image.nii.gz"), True, 1)
    sitk.WriteImage(drawn, str(base / "k0_raterA.nii.gz"), True, 1)
    for number in range(1, volumes):
        for what in ("image", "raterA"):
            (base / f"k{number}_{what}.nii.gz").symlink_to(base / f"k0_{what}.nii.gz")


if __name__ == "__main__":
    main()
