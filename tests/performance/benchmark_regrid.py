"""Time of `--regrid` beside SimpleITK's resampler alone, per mask, in CPU seconds of one process.

    python tests/performance/benchmark_regrid.py --size 256 --repeats 3

The mask has half the spacing of the image along one axis and a shifted origin; three labels. The resampler's
side holds a SimpleITK image already and ends with one; ours begins and ends with arrays.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import SimpleITK as sitk

from nnunet_softlabel.cases.label_maps import LabelMap, on_grid
from nnunet_softlabel.formats.grid import Grid

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", type=int, default=256, help="voxels of the image per axis")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each side; the median counts")
    args = parser.parse_args()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    image = Grid((args.size,) * 3, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), IDENTITY)
    own = Grid((args.size, args.size, 2 * args.size), (1.0, 1.0, 0.5), (0.3, 0.0, 0.0), IDENTITY)
    mask = np.zeros(own.shape, np.uint8)
    part = args.size // 4
    for value in (1, 2, 3):
        mask[part : 4 * part, part : 3 * part, value * part // 2 : value * part] = value
    print(f"\n{args.size}^3 voxels, CPU seconds\n\n| | resampler | --regrid | ratio |\n|---|---|---|---|")
    for method in ("nearest", "linear"):
        theirs = _median(lambda m=method: _resampler(mask, own, image, m), args.repeats)
        ours = _median(lambda m=method: on_grid(LabelMap(mask, own), image, m), args.repeats)
        print(f"| {method} | {theirs:.2f} | {ours:.2f} | {ours / theirs:.2f}x |")


def _median(work: Callable[[], object], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


def _resampler(mask: np.ndarray, own: Grid, image: Grid, method: str) -> None:
    """One pass over the labels with nearest; four, as floating point, with linear: background and three."""
    for value in (None,) if method == "nearest" else (0, 1, 2, 3):
        array = mask if value is None else (mask == value).astype(np.float32)
        source = sitk.GetImageFromArray(array)
        source.SetSpacing(own.spacing_mm)
        source.SetOrigin(own.origin)
        reference = sitk.Image(image.size, sitk.sitkUInt8)
        reference.SetSpacing(image.spacing_mm)
        interpolator = sitk.sitkNearestNeighbor if method == "nearest" else sitk.sitkLinear
        sitk.Resample(source, reference, sitk.Transform(), interpolator, 0.0)


if __name__ == "__main__":
    main()
