"""Share of `convert --regrid` that is SimpleITK's resampler, on whole volumes, in CPU seconds of one process.

    python tests/performance/benchmark_regrid_convert.py --volumes 8 --size 256

Each case has an image and one mask of half the spacing along one axis, with three labels. The rest of the
time goes into reading, checking, fusing and writing files. SimpleITK's side reads what `convert` reads,
resamples, and writes as many files of the same kind: an image, three float32 soft labels, a hard label, one
file of the rater.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import gaussian_filter

from nnunet_softlabel import FileOptions, Running, convert, find_cases
from nnunet_softlabel.formats import regrid

in_resampler = {"seconds": 0.0, "calls": 0.0}


class TimedResampler(sitk.ResampleImageFilter):
    """Counts the CPU seconds of the filter itself."""

    def Execute(self, *args: Any) -> Any:  # noqa: N802 - SimpleITK's name
        start = time.process_time()
        result = super().Execute(*args)
        in_resampler["seconds"] += time.process_time() - start
        in_resampler["calls"] += 1
        return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--volumes", type=int, default=8)
    parser.add_argument("--size", type=int, default=256, help="voxels of the image per axis")
    args = parser.parse_args()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    regrid.sitk.ResampleImageFilter = TimedResampler
    print(f"\n{args.volumes} volumes of {args.size}^3, CPU seconds of one process\n")
    print("| | convert --regrid | of that in the resampler | share | SimpleITK alone | ratio |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary)
        for name in ("raw", "preprocessed", "results"):
            (base / name).mkdir()
            os.environ[f"nnUNet_{name}"] = str(base / name)
        _write_files(base, args.volumes, args.size)
        for method in ("nearest", "linear"):
            total = _seconds(base, method)
            inside = in_resampler["seconds"]
            alone = _simpleitk(base, args.volumes, method)
            row = f"{total:.1f} | {inside:.1f} | {100 * inside / total:.0f} % | {alone:.1f}"
            print(f"| {method} | {row} | {total / alone:.2f}x |", flush=True)


def _seconds(base: Path, method: regrid.Regrid) -> float:
    in_resampler.update(seconds=0.0, calls=0.0)
    cases = find_cases([f"{base}/{{case}}_image.nii.gz"], raters=[f"{base}/{{case}}_rater{{rater}}.nii.gz"])
    start = time.process_time()
    convert(
        cases,
        "Dataset999_Benchmark",
        labels=["one=1", "two=2", "three=3"],
        channel_names=["MR"],
        files=FileOptions(regrid=method),
        running=Running(num_processes=1, overwrite=True),
    )
    return time.process_time() - start


def _simpleitk(base: Path, volumes: int, method: regrid.Regrid) -> float:
    """Seconds of SimpleITK alone; with linear, the resampler runs for the background and for three labels."""
    start = time.process_time()
    for number in range(volumes):
        image = sitk.ReadImage(str(base / f"k{number}_image.nii.gz"))
        mask = sitk.ReadImage(str(base / f"k{number}_raterA.nii.gz"))
        if method == "nearest":
            hard = sitk.Resample(mask, image, sitk.Transform(), sitk.sitkNearestNeighbor)
            soft = [sitk.Cast(hard == value, sitk.sitkFloat32) for value in (1, 2, 3)]
        else:
            parts = [sitk.Cast(mask == value, sitk.sitkFloat32) for value in range(4)]
            parts = [sitk.Resample(part, image, sitk.Transform(), sitk.sitkLinear) for part in parts]
            largest = np.argmax([sitk.GetArrayViewFromImage(part) for part in parts], axis=0)
            hard = sitk.GetImageFromArray(largest.astype(np.uint8))
            soft = [sitk.Cast(hard == value, sitk.sitkFloat32) for value in (1, 2, 3)]
        shutil.copyfile(base / f"k{number}_image.nii.gz", base / "raw" / "image.nii.gz")
        for index, written in enumerate([hard, hard, *soft]):
            sitk.WriteImage(written, str(base / "raw" / f"{index}.nii.gz"))
    return time.process_time() - start


def _write_files(base: Path, volumes: int, size: int) -> None:
    """Links stand for further volumes, since reading and writing them costs the same."""
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
