"""The whole way on generated knees: raters, soft labels, training, comparison with the known truth."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from time import time

import numpy as np

from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.image_io import Grid, write_image
from nnunet_softlabel.phantom import make_knee_phantom
from nnunet_softlabel.prior_settings import IntensityPrior, Priors, RoiPrior
from nnunet_softlabel.raters import RaterSkill, simulate_raters
from nnunet_softlabel.soft_labels import write_json

DATASET_ID, DATASET_NAME = 999, "KneePhantom"
TRAINERS = ("nnUNetTrainer", "nnUNetTrainerHardBCE", "nnUNetTrainerSoftCE")
SHAPE = (16, 48, 48)
PATCH_SIZE = (16, 48, 48)
LESION_RADIUS_MM = (9.0, 15.0)  # a few hundred iterations do not learn smaller ones
REDUCED = "nnUNetPlansReduced"
# what an expert misses and adds little of, and a beginner more
READERS = {
    "expert": RaterSkill(sensitivity=0.95, false_positives=0.1, boundary_jitter_mm=1.0),
    "resident": RaterSkill(
        sensitivity=0.8, false_positives=0.5, boundary_bias_mm=1.0, boundary_jitter_mm=1.5
    ),
    "student": RaterSkill(
        sensitivity=0.65, false_positives=1.0, boundary_bias_mm=2.0, boundary_jitter_mm=2.0
    ),
}


def demo(
    output: Path,
    *,
    seed: int = 0,
    num_training: int = 24,
    num_validation: int = 8,
    epochs: int = 8,
    iterations: int = 80,
    readers: Mapping[str, RaterSkill] | None = None,
    has_anatomy: bool = False,
    num_processes: int = 2,
    overwrite: bool = False,
    log: Callable[[str], None] = print,
) -> Path:
    """Generate knees and raters, convert, plan, train on a reduced plan, compare with the truth.

    nnU-Net's folders are made under ``output``, whatever the environment says.

    Args:
        output: a new folder.
        seed: same seed, same data.
        num_training: knees to train on.
        num_validation: knees to compare on.
        epochs: of every trainer.
        iterations: per epoch.
        readers: name -> skill of the simulated raters; None takes `READERS`.
        has_anatomy: labels also know the bone and that lesions are bright; False: the mean of the readers.
        num_processes: of conversion and evaluation.
        overwrite: use a folder that is not empty.
        log: takes one line of progress.

    Returns:
        The report.

    Raises:
        UsageError: if the folder is not empty.
        DatasetError: if nnU-Net's planning fails.
    """
    if output.exists() and any(output.iterdir()) and not overwrite:
        raise UsageError(f"{output}: is not empty; choose another -o, or add --overwrite.")
    output = output.absolute()
    started = time()

    def step(text: str) -> None:
        log(f"[{time() - started:4.0f} s] {text}")

    set_environment(output)
    # imported after the environment is set, and only here: nnU-Net and torch take their time
    from nnunet_softlabel.benchmark import Budget, benchmark, format_benchmark, report
    from nnunet_softlabel.benchmark import Grid as BenchmarkGrid
    from nnunet_softlabel.plans import reduce_plans

    readers = readers or READERS
    step(f"Generating {num_training + num_validation} knees, drawn by {', '.join(readers)}")
    cases = write_knees(output / "knees", seed=seed, number=num_training + num_validation, readers=readers)
    step(f"Converting readers{' and anatomy' if has_anatomy else ''} into soft labels")
    fuse_readers(output / "knees", has_anatomy=has_anatomy, num_processes=num_processes, overwrite=overwrite)
    step("nnU-Net plans and preprocesses")
    plan(output / "plan_and_preprocess.txt")
    reduce_plans(DATASET_ID, patch_size=PATCH_SIZE, overwrite=overwrite)
    split = {"train": cases[:num_training], "val": cases[num_training:]}
    write_json(
        output / "nnUNet_preprocessed" / f"Dataset{DATASET_ID}_{DATASET_NAME}" / "splits_final.json", [split]
    )
    step(f"Training {', '.join(TRAINERS)}: {epochs} x {iterations} iterations each, on the CPU")
    grid = BenchmarkGrid(
        DATASET_ID,
        output,
        trainers=TRAINERS,
        folds=[0],
        seeds=[seed],
        plans=REDUCED,
        budget=Budget(epochs, iterations),
        device="cpu",
        truth=output / "knees" / "truth",
    )
    outcome = benchmark(grid, num_processes=num_processes, log=step)
    page = report(grid, outcome, commands=["nnunet_softlabel demo"])
    step("Done. Against the truth, which no trainer has seen:")
    log(format_benchmark(output, reference="truth"))
    log(f"Report: {page}")
    return page


def fuse_readers(knees: Path, *, has_anatomy: bool, num_processes: int, overwrite: bool) -> None:
    """Convert the demo's knees into its soft-label data set."""
    from nnunet_softlabel.cases import find_cases
    from nnunet_softlabel.conversion import convert

    found = find_cases(
        [str(knees / "images" / "{case}.nii.gz")],
        raters=[str(knees / "raters" / "{case}_{rater}.nii.gz")],
        rois={"bone": str(knees / "bone" / "{case}.nii.gz")},
    )
    anatomy = Priors(RoiPrior(("bone",), margin_mm=2.0), IntensityPrior("brighter"))
    convert(
        found,
        dataset_id=DATASET_ID,
        name=DATASET_NAME,
        labels=["lesion=1"],
        channel_names=["MRI"],
        priors=anatomy if has_anatomy else None,
        num_processes=num_processes,
        overwrite=overwrite,
    )


def set_environment(output: Path) -> None:
    """Point nnU-Net at folders under ``output``, with settings for a small CPU."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ[name] = str(output / name)
        (output / name).mkdir(parents=True, exist_ok=True)
    # without a background process the same seed gives the same training
    os.environ |= {"nnUNet_n_proc_DA": "0", "nnUNet_def_n_proc": "1"}


def write_knees(
    folder: Path, *, seed: int, number: int, readers: Mapping[str, RaterSkill] = READERS
) -> list[str]:
    """Write images, raters and truth of generated knees; returns their names."""
    for name in ("images", "raters", "truth", "bone"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    names = [f"knee_{i:03d}" for i in range(number)]
    seeds = np.random.SeedSequence(seed).generate_state(number).tolist()
    for name, own_seed in zip(names, seeds, strict=True):
        _write_knee(folder, readers, name, own_seed)
    return names


def _write_knee(folder: Path, readers: Mapping[str, RaterSkill], name: str, seed: int) -> None:
    knee = make_knee_phantom(seed, shape=SHAPE, n_lesions=1 + seed % 3, lesion_radius_mm=LESION_RADIUS_MM)
    size, spacing = knee.image.shape[::-1], tuple(float(s) for s in knee.spacing_mm[::-1])
    grid = Grid(size, spacing, (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
    write_image(folder / "images" / f"{name}.nii.gz", knee.image, grid)
    write_image(folder / "truth" / f"{name}.nii.gz", knee.truth, grid)
    write_image(folder / "bone" / f"{name}.nii.gz", (knee.bone_mask > 0).astype(np.uint8), grid)
    drawn = simulate_raters(
        knee.truth,
        spacing_mm=knee.spacing_mm,
        raters=list(readers.values()),
        seed=seed,
        correlation=0.3,
        false_positive_roi=knee.distractors,
    )
    for reader, label_map in zip(readers, drawn, strict=True):
        write_image(folder / "raters" / f"{name}_{reader}.nii.gz", label_map, grid)


def plan(log_file: Path) -> None:
    """nnU-Net's own planning and preprocessing of the demo's data set.

    Raises:
        DatasetError: if it fails, with the place of its output.
    """
    module = "nnunetv2.experiment_planning.plan_and_preprocess_entrypoints"
    arguments = [
        "-d",
        str(DATASET_ID),
        "-c",
        "3d_fullres",
        "--verify_dataset_integrity",
        "-np",
        "1",
        "-npfp",
        "1",
    ]
    # nnU-Net's planner hands nnUNet_n_proc_DA to torch.set_num_threads, which refuses 0
    environment = os.environ | {"nnUNet_n_proc_DA": "1"}
    command = [
        sys.executable,
        "-c",
        f"from {module} import plan_and_preprocess_entry as main; main()",
        *arguments,
    ]
    with log_file.open("w", encoding="utf-8") as file:
        code = subprocess.run(command, env=environment, stdout=file, stderr=subprocess.STDOUT).returncode
    if code:
        raise DatasetError(f"nnU-Net's planning failed; see {log_file}.")
