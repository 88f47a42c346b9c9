"""Peak memory per voxel and time of commands, by number of labels, with four raters and one process.

    python tests/performance/benchmark_memory.py --commands convert inspect preprocess --labels 1 3 10 25

Each command runs in a process of its own on one generated volume. Labels are ellipsoids side by side, which
fill a third of the volume; raters draw them shifted. What the same command takes on a tiny volume (Python and
its libraries) is subtracted from the peak. `preprocess` resamples voxels of 0.9 mm to 1 mm; the voxels that
count are those of the image as converted.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# The kernel counts the memory of the starting process as the child's until the child has begun. So this
# process stays small: numpy and nnU-Net are imported by the children alone.
RATERS = 4
TINY = (16, 24, 24)
CLI = [sys.executable, "-m", "nnunet_softlabel.cli"]
READS = ["--images", "{files}/images/{{case}}.nii.gz", "--raters", "{files}/raters/{{case}}_{{rater}}.nii.gz"]
PREDICTED = ["-d", "999", "-i", "{files}/predictions"]
COMMANDS = {
    "convert": ["convert", "-d", "999", "-n", "Memory", "--channel-names", "CT", *READS, "--overwrite"],
    "inspect": ["inspect", *READS, "-o", "{out}"],
    "preprocess": ["preprocess", "-d", "999", "--overwrite"],
    "evaluate": ["evaluate", *PREDICTED, "-o", "{out}"],
    "tune-threshold": ["tune-threshold", *PREDICTED, "-o", "{out}/thresholds.json"],
    "calibrate": ["calibrate", *PREDICTED, "-o", "{out}/maps.json"],
    "apply-threshold": ["apply-threshold", *PREDICTED, "-o", "{out}", "--threshold", "0.5"],
    "average": ["average", *PREDICTED, "{files}/predictions", "-o", "{out}"],
    "maps": ["maps", *PREDICTED, "-o", "{out}"],
}
NEEDS_LABELS = ("convert", "inspect")


@dataclass(frozen=True)
class Measured:
    """What one run of a command took."""

    peak_bytes: int
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--commands", nargs="+", choices=[*COMMANDS], default=[*COMMANDS])
    parser.add_argument("--labels", nargs="+", type=int, default=[1, 3, 10, 25])
    parser.add_argument("--shape", nargs=3, type=int, default=[100, 256, 256])
    parser.add_argument("--raters", type=int, default=RATERS)
    parser.add_argument("--make", nargs="+", help=argparse.SUPPRESS)  # this script, in a child
    parser.add_argument("--here", type=Path, help="folder for the files; it is emptied")
    args = parser.parse_args()
    if args.make:
        return make(args.make[0], int(args.make[1]), args.raters, tuple(args.shape), args.here)
    voxels = args.shape[0] * args.shape[1] * args.shape[2]
    print(f"\n{args.raters} raters, {' x '.join(map(str, args.shape))} voxels, one process\n")
    print("| command | labels | bytes per voxel | GiB at 512 x 512 x 300 | seconds |\n|---|---|---|---|---|")
    for labels in args.labels:
        found = {
            shape: _measure(args.commands, labels, args.raters, shape) for shape in (TINY, tuple(args.shape))
        }
        for command in args.commands:
            tiny, large = found[TINY][command], found[tuple(args.shape)][command]
            each = (large.peak_bytes - tiny.peak_bytes) / voxels
            gib = (tiny.peak_bytes + each * 512 * 512 * 300) / 2**30
            print(f"| {command} | {labels} | {each:.0f} | {gib:.1f} | {large.seconds:.1f} |", flush=True)


def _measure(commands: list[str], labels: int, raters: int, shape: tuple[int, ...]) -> dict[str, Measured]:
    """Every command once, in the order of use; what a later one reads is made before it."""
    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        files = Path(temporary)
        for name in ("raw", "preprocessed", "results"):
            (files / f"nnUNet_{name}").mkdir()
        _call(_making("images", labels, raters, shape, files), files)
        for command in COMMANDS:
            if command not in commands and command != "convert":
                continue
            if command == "preprocess":
                _call(_making("plans", labels, raters, shape, files), files)
            elif command not in NEEDS_LABELS and not (files / "predictions").exists():
                _call(_making("predictions", labels, raters, shape, files), files)
            found[command] = _run(command, labels, files)
    return found


def _making(what: str, labels: int, raters: int, shape: tuple[int, ...], files: Path) -> list[str]:
    size = ["--shape", *map(str, shape), "--raters", str(raters), "--here", str(files)]
    return [sys.executable, __file__, "--make", what, str(labels), *size]


def _run(command: str, labels: int, files: Path) -> Measured:
    out = files / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    call = [*CLI, *(part.format(files=files, out=out) for part in COMMANDS[command]), "-np", "1"]
    if command in NEEDS_LABELS:
        call += ["--labels", *(f"l{value}={value}" for value in range(1, labels + 1))]
    start = time.perf_counter()
    peak = _call(call, files)
    return Measured(peak, time.perf_counter() - start)


def _call(call: list[str], files: Path) -> int:
    """Run a program; its peak memory in bytes."""
    folders = {f"nnUNet_{n}": str(files / f"nnUNet_{n}") for n in ("raw", "preprocessed", "results")}
    own = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "nnUNet_n_proc_DA": "1"}
    log = files / "log.txt"
    with log.open("w") as output:
        child = subprocess.Popen(call, env=os.environ | folders | own, stdout=output, stderr=output)
        _, status, usage = os.wait4(child.pid, 0)
    if status:
        sys.exit(f"{' '.join(call)} failed:\n{log.read_text()[-2000:]}")
    return usage.ru_maxrss * 1024


def make(what: str, labels: int, raters: int, shape: tuple[int, ...], files: Path) -> None:
    """Write images and raters, or predictions of the converted data set, or have nnU-Net plan it."""
    if what == "images":
        _write_case("large", shape, labels, raters, files)
        _write_case("small", TINY, labels, raters, files)  # calibrate needs a second case
    elif what == "predictions":
        _predict(files, labels)
    else:
        _plan(files)


def _drawn(shape: tuple[int, ...], labels: int, shift: int) -> Any:
    """Ellipsoids side by side in the last two axes, one per label."""
    import numpy as np

    mask = np.zeros(shape, np.uint8)
    columns = int(np.ceil(np.sqrt(labels)))
    rows = int(np.ceil(labels / columns))
    height, width = shape[1] // rows, shape[2] // columns
    cell = (shape[0], height, width)
    axes = [np.arange(n, dtype=np.float32) - (n - 1) / 2 for n in cell]
    radii = [max(0.43 * n, 1) for n in cell]
    z, y, x = ((axis / radius) ** 2 for axis, radius in zip(axes, radii, strict=True))
    inside = z[:, None, None] + y[:, None] + x <= 1
    for label in range(labels):
        top, left = (label // columns) * height, (label % columns) * width
        part = mask[:, top : top + height, left : left + width]
        part[np.roll(inside, (shift, shift, -shift), (0, 1, 2))] = label + 1
    return mask


def _write_case(name: str, shape: tuple[int, ...], labels: int, raters: int, files: Path) -> None:
    import numpy as np
    import SimpleITK as sitk

    random = np.random.default_rng(0)
    arrays = {f"images/{name}": random.normal(100, 20, shape).astype(np.int16)}
    arrays |= {f"raters/{name}_r{rater}": _drawn(shape, labels, rater) for rater in range(raters)}
    for path, array in arrays.items():
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((0.9, 0.9, 0.9))
        (files / path).parent.mkdir(exist_ok=True)
        sitk.WriteImage(image, str(files / f"{path}.nii.gz"), True, 1)


def _predict(files: Path, labels: int) -> None:
    import numpy as np

    from nnunet_softlabel.formats.nnunet_folders import find_dataset
    from nnunet_softlabel.formats.soft_dataset import SoftDataset

    dataset = SoftDataset(find_dataset(files / "nnUNet_raw", "999"))
    (files / "predictions").mkdir()
    for case in dataset.cases("Tr"):
        soft = dataset.read_soft(case)
        rest = np.maximum(1 - soft.sum(axis=0, keepdims=True), 0)
        predicted = 0.9 * np.concatenate([rest, soft]) + np.float32(0.1 / (labels + 1))
        np.savez(files / "predictions" / f"{case}.npz", probabilities=predicted.astype(np.float32))


def _plan(files: Path) -> None:
    """nnU-Net's plan and preprocessing, as if most cases had voxels of 1 mm: so ours are resampled."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprint_dataset,
        plan_experiment_dataset,
        preprocess_dataset,
    )

    from nnunet_softlabel.formats.files import read_json, write_json

    extract_fingerprint_dataset(999, num_processes=1)
    (fingerprint,) = (files / "nnUNet_preprocessed").glob("*/dataset_fingerprint.json")
    content = read_json(fingerprint)
    content["spacings"] = [[1.0, 1.0, 1.0] for _ in content["spacings"]]
    write_json(fingerprint, content)
    plan_experiment_dataset(999)
    preprocess_dataset(999, configurations=("3d_fullres",), num_processes=[1], show_progress_bar=False)


if __name__ == "__main__":
    main()
