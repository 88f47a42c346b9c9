"""How long `refine` takes on the LIDC nodules in five folds, and how memory grows with the cases.

Run: ``python tests/performance/benchmark_refine.py DATASET_FOLDER [PROCESSES]``.
The folder is a soft-label data set. Each rater leaves out whole nodules by lot, so that there is something to
fit; networks are the blurred mean of the untouched raters with noise. Goals: 486 cases in <= 60 s on 2 cores,
memory constant in the number of cases.
CPU seconds count the workers, too: on a machine that others use they say more than the clock.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.conversion.run import convert
from nnunet_softlabel.formats.encoding import with_background
from nnunet_softlabel.formats.files import write_json
from nnunet_softlabel.formats.images import read_mask, write_image
from nnunet_softlabel.formats.soft_dataset import SoftDataset

FOLDS, MISSES = 5, (0.3, 0.4, 0.5, 0.7)
TRAINING = "nnUNetTrainerSoftCE__nnUNetPlans__3d_fullres"
FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
# one refinement in a process of its own: its peak memory is not that of what came before
ONE = """
import resource, sys
from nnunet_softlabel.cli import main
if __name__ == "__main__":
    dataset, new, processes = sys.argv[1:]
    code = main(["refine", "-d", dataset, "-tr", "nnUNetTrainerSoftCE", "-c", "3d_fullres", "-o", new,
                 "-np", processes])
    own, workers = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(own.ru_maxrss / 1024, workers.ru_maxrss / 1024)
    sys.exit(code)
"""


def write_first_round(source: SoftDataset, root: Path, number: int, dataset_id: int) -> None:
    """A data set of the first cases, whose raters miss nodules, and what its folds would have predicted."""
    rng, cases = np.random.default_rng(0), []
    names = source.cases()[:number]
    for name in names:
        raters = {}
        for (rater, file), misses in zip(source.rater_files(name).items(), MISSES, strict=False):
            drawn, grid = read_mask(file)
            raters[rater] = root / "raters" / rater / f"{name}{source.file_ending}"
            raters[rater].parent.mkdir(parents=True, exist_ok=True)
            write_image(raters[rater], drawn * np.uint8(rng.random() > misses), grid)
        cases.append(Case(name, source.image_files(name), raters))
    made = convert(cases, f"Dataset{dataset_id}_Missed", labels=["nodule=1"], channel_names=["CT"])
    folds = [names[k::FOLDS] for k in range(FOLDS)]
    splits = [{"train": [n for n in names if n not in fold], "val": fold} for fold in folds]
    (root / "nnUNet_preprocessed" / made.name).mkdir()
    write_json(root / "nnUNet_preprocessed" / made.name / "splits_final.json", splits)
    for k, fold in enumerate(folds):
        validation = root / "nnUNet_results" / made.name / TRAINING / f"fold_{k}" / "validation"
        validation.mkdir(parents=True)
        for name in fold:
            p = gaussian_filter(source.read_soft(name)[0], 1.0)
            noise = 8 * gaussian_filter(rng.standard_normal(p.shape), 2)
            p = 1 / (1 + (1.001 - p) / (p + 1e-3) * np.exp(1 - noise))
            np.savez_compressed(validation / f"{name}.npz", probabilities=with_background(p[None]))


def measure(root: Path, dataset_id: int, processes: int) -> list[float]:
    """Seconds by the clock, CPU seconds, MiB of the command, MiB of its largest worker."""
    script = root / "one.py"
    script.write_text(ONE, encoding="utf-8")
    command = [sys.executable, str(script), str(dataset_id), str(dataset_id + 1), str(processes)]
    start, before = time.perf_counter(), os.times()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    seconds, after = time.perf_counter() - start, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return [seconds, cpu, *map(float, done.stdout.split()[-2:])]


def main() -> None:
    processes = int(sys.argv[2]) if len(sys.argv) > 2 else 2
    source = SoftDataset(Path(sys.argv[1]))
    print("| cases | seconds | CPU seconds | MiB | MiB of a worker |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        for name in FOLDERS:
            (root / name).mkdir()
            os.environ[name] = str(root / name)
        for number, dataset_id in ((98, 601), (len(source.cases()), 603)):
            write_first_round(source, root, number, dataset_id)
            values = measure(root, dataset_id, processes)
            print(f"| {number} | {' | '.join(f'{value:.0f}' for value in values)} |", flush=True)


if __name__ == "__main__":
    main()
