"""How long `calibrate` takes on the LIDC nodules in five folds, and how memory grows with the cases.

Run: ``python tests/performance/benchmark_calibrate.py FOLDER_OF_LIDC_NODULES [PROCESSES]``.
Goals: 486 cases in <= 60 s on 2 cores, memory constant in the number of cases.
CPU seconds count the workers, too: on a machine that others use they say more than the clock.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

FOLDS, METHODS = 5, ("isotonic", "affine")
# one calibration in a process of its own: its peak memory is not that of what came before
ONE = """
import resource, sys
from pathlib import Path
from nnunet_softlabel.evaluation.calibrate import calibrate
from nnunet_softlabel.formats.soft_dataset import SoftDataset
if __name__ == "__main__":
    method, processes, dataset, file, *folders = sys.argv[1:]
    found = calibrate(SoftDataset(Path(dataset)), [Path(f) for f in folders], Path(file), method=method,
                      num_processes=int(processes))
    own, workers = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(sum(len(part["cases"]) for part in found["parts"].values()), own.ru_maxrss / 1024,
          workers.ru_maxrss / 1024)
"""


def measure(method: str, processes: int, dataset: Path, folders: Sequence[Path], root: Path) -> list[float]:
    """Cases, seconds by the clock, CPU seconds, MiB of the command, MiB of its largest worker."""
    script = root / "one.py"
    script.write_text(ONE, encoding="utf-8")
    file = root / f"{method}_{len(folders)}.json"
    command = [sys.executable, str(script), method, str(processes), str(dataset), str(file)]
    start, before = time.perf_counter(), os.times()
    done = subprocess.run([*command, *map(str, folders)], stdout=subprocess.PIPE, text=True, check=True)
    seconds, after = time.perf_counter() - start, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    cases, own, worker = map(float, done.stdout.split()[-3:])
    return [cases, seconds, cpu, own, worker]


def main() -> None:
    from benchmark_evaluate import write_dataset

    source, processes = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 2
    print("| map | cases | seconds | CPU seconds | MiB | MiB of a worker |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        dataset = write_dataset(source, root / "Dataset501_LIDC", root / "predictions")
        folds = [root / f"fold_{fold}" for fold in range(FOLDS)]
        for fold in folds:
            fold.mkdir()
        for number, path in enumerate(sorted((root / "predictions").glob("*.npz"))):
            for name in (path.name, f"{path.stem}.nii.gz"):
                (root / "predictions" / name).rename(folds[number % FOLDS] / name)
        for method in METHODS:
            for folders in (folds[:1], folds):  # a fifth of the cases, then all
                cases, *rest = measure(method, processes, dataset.folder, folders, root)
                print(
                    f"| {method} | {cases:.0f} | {' | '.join(f'{value:.0f}' for value in rest)} |", flush=True
                )


if __name__ == "__main__":
    main()
