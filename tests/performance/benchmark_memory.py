"""Peak memory per voxel and time of commands, by number of labels, with four raters and one process.

    python tests/performance/benchmark_memory.py --commands convert inspect preprocess --labels 1 3 10 25

Each command runs in a process of its own: first on tiny volumes, so that all libraries are there, then on a
large one. The memory that the process has in between is subtracted from the peak afterwards. So the bytes per
voxel are those that a larger volume takes more. `preprocess` resamples voxels of 0.9 mm to 1 mm; the voxels
that count are those of the image as converted.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RATERS = 4
TINY = (20, 28, 28)
IDS = {"tiny": "998", "large": "999"}
LIBRARIES = 300 * 2**20  # bytes of a process without a volume
READS = ["--images", "{files}/images/{{case}}.nii.gz", "--raters", "{files}/raters/{{case}}_{{rater}}.nii.gz"]
OF = ["-d", "{id}"]
ONE = [*OF, "-i", "{files}/predictions"]
THREE = [*ONE, "{files}/predictions_b", "{files}/predictions_c"]
CALIBRATION = ["--calibration", "{files}/calibration.json"]
FILE = ["--calibration-file", "{files}/calibration.json"]
REFINE = ["refine", *OF, "-tr", "nnUNetTrainerSoftCE", "-c", "3d_fullres", "-o", "{new}", "--overwrite"]
COMMANDS = {
    "convert": ["convert", *OF, "-n", "Memory{id}", "--channel-names", "CT", *READS, "--overwrite"],
    "inspect": ["inspect", *READS, "-o", "{out}"],
    "preprocess": ["preprocess", *OF, "--overwrite"],
    "evaluate": ["evaluate", *ONE, "-o", "{out}"],
    "evaluate, 3 models": ["evaluate", *THREE, "-o", "{out}"],
    "evaluate, recalibrated": ["evaluate", *ONE, *CALIBRATION, "-o", "{out}"],
    "evaluate, 3 models recalibrated": ["evaluate", *THREE, *CALIBRATION, "-o", "{out}"],
    "tune-threshold": ["tune-threshold", *ONE, "-o", "{out}/thresholds.json"],
    "tune-threshold, raters": ["tune-threshold", *ONE, "--against", "raters", "-o", "{out}/thresholds.json"],
    "tune-threshold, 3 models recalibrated": [
        "tune-threshold", *THREE, *CALIBRATION, "-o", "{out}/thresholds.json"
    ],
    "calibrate": ["calibrate", *ONE, "-o", "{out}/maps.json"],
    "calibrate, 3 models": ["calibrate", *THREE, "-o", "{out}/maps.json"],
    "apply-threshold": ["apply-threshold", *ONE, "-o", "{out}", "--threshold", "0.5"],
    "apply-threshold, 3 models recalibrated": [
        "apply-threshold", *THREE, *CALIBRATION, "-o", "{out}", "--threshold", "0.5"
    ],
    "apply-calibration": ["apply-calibration", *ONE, *FILE, "-o", "{out}"],
    "average": ["average", *THREE, "-o", "{out}"],
    "average, logits": ["average", *THREE, "--of", "logits", "-o", "{out}"],
    "maps": ["maps", *ONE, "-o", "{out}"],
    "maps, 3 models": ["maps", *THREE, "-o", "{out}"],
    "refine": REFINE,
    "pictures of the report": [],  # no command; `_picture` draws what the report of three trainers asks for
}  # fmt: skip
NEEDS_NO_DATASET = ("convert", "inspect")
NEEDS_LABELS = NEEDS_NO_DATASET


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--commands", nargs="+", choices=[*COMMANDS], default=[*COMMANDS], metavar="COMMAND")
    parser.add_argument("--labels", nargs="+", type=int, default=[1, 3, 10, 25])
    parser.add_argument("--shape", nargs=3, type=int, default=[100, 256, 256])
    parser.add_argument("--raters", type=int, default=RATERS)
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)  # this script, in a child
    args = parser.parse_args()
    if args.child:
        return _child(*args.child)
    voxels = args.shape[0] * args.shape[1] * args.shape[2]
    print(f"\n{args.raters} raters, {' x '.join(map(str, args.shape))} voxels, one process\n")
    print("| command | labels | bytes per voxel | GiB at 512 x 512 x 300 | seconds |\n|---|---|---|---|---|")
    for labels in args.labels:
        with tempfile.TemporaryDirectory() as temporary:
            files = Path(temporary)
            _make_files(files, args.commands, labels, args.raters, args.shape)
            for command in args.commands:
                more, seconds = _measure(command, labels, files)
                gib = (LIBRARIES + more / voxels * 512 * 512 * 300) / 2**30
                print(
                    f"| {command} | {labels} | {more / voxels:.1f} | {gib:.1f} | {seconds:.1f} |", flush=True
                )


def _make_files(files: Path, commands: list[str], labels: int, raters: int, shape: list[int]) -> None:
    """What the commands read, made by children, so that this process stays small."""
    for name in ("raw", "preprocessed", "results"):
        (files / f"nnUNet_{name}").mkdir()
    for size, own in (("tiny", TINY), ("large", shape)):
        (files / size).mkdir()
        _run(files, "cases", size, str(labels), str(raters), *map(str, own))
    needed = set(commands).difference(NEEDS_NO_DATASET)
    if needed:
        _measure("convert", labels, files)
    if needed.difference(["preprocess"]):
        for size in IDS:
            _run(files, "predictions", size)
    if "preprocess" in needed:
        for size in IDS:
            _run(files, "plan", size)
    if any("recalibrated" in command or "apply-calibration" in command for command in needed):
        for size in IDS:
            _run(files, "calibration", size)


def _measure(command: str, labels: int, files: Path) -> tuple[int, float]:
    """Bytes that the large volume took more than the tiny one, and seconds."""
    for size in IDS:
        shutil.rmtree(files / size / "out", ignore_errors=True)
        (files / size / "out").mkdir()
    calls = json.dumps([_call(command, labels, files / size, IDS[size]) for size in IDS])
    _run(files, "measure", calls if COMMANDS[command] else "", str(files / "found.json"))
    more, seconds = json.loads((files / "found.json").read_text())
    return int(more), float(seconds)


def _call(command: str, labels: int, files: Path, identifier: str) -> list[str]:
    fields = {"files": files, "out": files / "out", "id": identifier, "new": int(identifier) - 100}
    call = [part.format(**fields) for part in COMMANDS[command]] + ["-np", "1"]
    if command in NEEDS_LABELS:
        call += ["--labels", *(f"l{value}={value}" for value in range(1, labels + 1))]
    return call


def _run(files: Path, *what: str) -> None:
    """This script in a child."""
    folders = {f"nnUNet_{n}": str(files / f"nnUNet_{n}") for n in ("raw", "preprocessed", "results")}
    own = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "nnUNet_n_proc_DA": "1"}
    log = files / "log.txt"
    call = [sys.executable, __file__, "--child", str(files), *what]
    with log.open("w") as output:
        done = subprocess.run(call, env=os.environ | folders | own, stdout=output, stderr=output)
    if done.returncode:
        sys.exit(f"{' '.join(call)} failed:\n{log.read_text()[-2000:]}")


def _child(files: str, what: str, *arguments: str) -> None:
    if what == "measure":
        return _measure_here(Path(files), *arguments)
    import generated_volumes as volumes

    size, *rest = arguments
    if what == "cases":
        labels, raters, *shape = map(int, rest)
        volumes.write_cases(tuple(shape), labels, raters, Path(files) / size)
    elif what == "predictions":
        volumes.write_predictions(IDS[size], Path(files) / size)
    elif what == "plan":
        volumes.plan(IDS[size])
    else:
        folder = Path(files) / size
        _command(
            ["calibrate", *_call("calibrate", 0, folder, IDS[size])[1:-4], "-o", f"{folder}/calibration.json"]
        )


def _measure_here(files: Path, calls: str, found: str) -> None:
    """Run a command on the tiny volumes, then on the large one."""
    import blosc2  # noqa: F401  packs large volumes only

    steps = json.loads(calls) if calls else [None, None]
    for size, call in zip(IDS, steps, strict=True):
        gc.collect()
        # else the large volume would lie in what the tiny one and the imports left, and count for nothing
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
        before, start = _bytes("VmRSS"), time.perf_counter()
        if call is None:
            _picture(files / size, IDS[size])
        else:
            _command(call)
    Path(found).write_text(json.dumps([_bytes("VmHWM") - before, time.perf_counter() - start]))


def _command(call: list[str]) -> None:
    from nnunet_softlabel.cli import main as run_command

    code = run_command(call)
    if code:
        sys.exit(code)


def _picture(files: Path, identifier: str) -> None:
    from generated_volumes import MODELS

    from nnunet_softlabel.formats.nnunet_folders import environment_folder, find_dataset
    from nnunet_softlabel.formats.soft_dataset import SoftDataset
    from nnunet_softlabel.report.pictures import case_picture

    dataset = SoftDataset(find_dataset(environment_folder("nnUNet_raw"), identifier))
    case_picture(dataset, "large", {name: files / name for name in MODELS}, class_name="l1")


def _bytes(field: str) -> int:
    """Memory of this process, now (VmRSS) or at the peak (VmHWM), as Linux reports it."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


if __name__ == "__main__":
    main()
