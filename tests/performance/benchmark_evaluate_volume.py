"""Time and memory of `evaluate`, one process, on one generated volume with four raters.

    python tests/performance/benchmark_evaluate_volume.py --size 300 512 512 --labels 3

``--folder`` keeps what is generated for the next run. Goals: at most 40 bytes per voxel, and 512 x 512 x 300
with three labels in 30 s.

Each label is a ball in a cell of its own. Probabilities are a softmax of smooth noise with a mean of -14 far
from the ball, as networks give it: no voxel of the background is exactly 0, and the digits hardly compress.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy import ndimage

from nnunet_softlabel.evaluation.run import evaluate
from nnunet_softlabel.formats.encoding import consensus
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.images import write_image
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.formats.probability_maps import write_probability
from nnunet_softlabel.formats.soft_dataset import SoftDataset

CASE, RATERS, COARSE = "volume", 4, 4  # noise is drawn on a grid this much coarser
SPACING_MM = (0.8, 0.8, 1.0)  # x, y, z
NAME = "Dataset501_Volume"


def distance_to_ball(shape: tuple[int, ...], label: int, labels: int, shift: float) -> np.ndarray:
    """Voxels to the surface of the ball of a label, negative inside, float32; readers shift it."""
    per_axis = int(np.ceil(labels ** (1 / 3)))
    cell = np.unravel_index(label, (per_axis,) * 3)
    axes = np.ogrid[tuple(slice(0, n) for n in shape)]
    radius = min(shape) / per_axis / 4
    squares = sum(
        np.square((axis - (k + 0.5) * n / per_axis - shift).astype(np.float32))
        for axis, k, n in zip(axes, cell, shape, strict=True)
    )
    return np.asarray(np.sqrt(squares) - np.float32(radius))


def write_volume(folder: Path, shape: tuple[int, ...], labels: Labels) -> None:
    """The data set and its prediction."""
    rng, count = np.random.default_rng(0), len(labels.names)
    data, predictions = folder / NAME, folder / "predictions"
    places = [data / n for n in ("imagesTr", "labelsTr", "softLabelsTr")]
    raters = [data / "raterLabelsTr" / f"rater{k}" for k in range(RATERS)]
    for place in (*places, *raters, predictions):
        place.mkdir(parents=True)
    grid = Grid.upright(shape, SPACING_MM[::-1])
    drawn = np.zeros((RATERS, *shape), np.uint8)
    total = np.ones(shape, np.float32)  # exp(0) of the background
    exponentials = np.empty((count + 1, *shape), np.float32)
    for label in range(count):
        for rater in range(RATERS):
            drawn[rater][distance_to_ball(shape, label, count, rater * 0.7) < 0] = label + 1
        coarse = rng.normal(-14, 2, [-(-n // COARSE) for n in shape]).astype(np.float32)
        noise = ndimage.zoom(coarse, [n / m for n, m in zip(shape, coarse.shape, strict=True)], order=1)
        logits = np.maximum(noise, -distance_to_ball(shape, label, count, 1.0) * 1.5)
        np.exp(np.minimum(logits, 14), out=exponentials[label + 1])
        total += exponentials[label + 1]
        soft = np.mean(drawn == label + 1, axis=0, dtype=np.float32)
        write_probability(places[2] / f"{CASE}_{label + 1:04d}.nii.gz", soft, grid)
    exponentials[0] = 1
    exponentials /= total
    np.savez_compressed(predictions / f"{CASE}.npz", probabilities=exponentials)
    write_image(predictions / f"{CASE}.nii.gz", exponentials.argmax(axis=0).astype(np.uint8), grid)
    agreed = np.stack([np.mean(drawn == k + 1, axis=0, dtype=np.float32) for k in range(count)])
    write_image(places[1] / f"{CASE}.nii.gz", consensus(agreed, labels), grid)
    write_image(places[0] / f"{CASE}_0000.nii.gz", drawn[0], grid)
    for place, map_of_rater in zip(raters, drawn, strict=True):
        write_image(place / f"{CASE}.nii.gz", map_of_rater, grid)
    about = {"format_version": 1, "fusion": {"method": "mean"}, "prior": None, "groups": {}}
    about |= {"digest": "of no conversion", "made_hard_labels": True}
    content = {"channel_names": {"0": "CT"}, "numTraining": 1, "file_ending": ".nii.gz"}
    (data / "dataset.json").write_text(
        json.dumps(content | {"soft_labels": about} | labels.to_dataset_json())
    )


def peak_bytes() -> int:
    """Of this process, as Linux reports it; ``ru_maxrss`` counts that of the process that started it, too."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def measure(folder: Path, voxels: int) -> None:
    """Print the row of the table for this process."""
    start, cpu = time.perf_counter(), time.process_time()
    evaluate(
        SoftDataset(folder / NAME), folder / "predictions", folder / "scores", num_processes=1, overwrite=True
    )
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = peak_bytes()
    print(f"{seconds:.0f} | {cpu:.0f} | {peak / 2**20:.0f} | {peak / voxels:.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, nargs=3, default=(100, 256, 256), help="voxels, z y x")
    parser.add_argument("--labels", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="keep what is generated here")
    parser.add_argument("--measure", action="store_true", help="measure in this process; needs --folder")
    args = parser.parse_args()
    shape, voxels = tuple(args.size), int(np.prod(args.size))
    if args.measure:
        measure(args.folder, voxels)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        if not (folder / NAME).is_dir():
            write_volume(folder, shape, Labels({f"label{k + 1}": (k + 1,) for k in range(args.labels)}))
        # a process of its own: the peak of generating is no peak of evaluate
        command = [sys.executable, __file__, "--measure", "--folder", str(folder), "--size", *map(str, shape)]
        row = subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8").stdout
    print("| voxels | labels | s | CPU s | peak MiB | bytes per voxel |\n|---|---|---|---|---|---|")
    print(f"| {' x '.join(map(str, shape))} | {args.labels} | {row.strip()}")


if __name__ == "__main__":
    main()
