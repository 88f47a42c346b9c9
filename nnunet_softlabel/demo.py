"""The whole way on generated knees: raters, soft labels, training, comparison with the known truth."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import Literal

from nnunet_softlabel.conversion.prior_settings import IntensityPrior, Priors, RoiPrior
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.formats.files import write_json
from nnunet_softlabel.formats.plans import REDUCED_PLANS
from nnunet_softlabel.simulation.knee_files import READERS, write_knees
from nnunet_softlabel.simulation.simulated_raters import RATER_REGIMES, RaterSkill

DATASET_ID, DATASET_NAME = 999, "KneePhantom"
Variant = Literal["mean", "anatomy", "refine"]
TRAINERS = ("nnUNetTrainer", "nnUNetTrainerHardBCE", "nnUNetTrainerSoftCE")
REFINED_ID, REFINED_TRAINER, REFINED_FOLDS = 998, "nnUNetTrainerSoftCE", 3
WHO_MISS = dict(zip(READERS, RATER_REGIMES["missed"], strict=True))
PATCH_SIZE = (16, 48, 48)


@dataclass(frozen=True)
class DemoSize:
    """How much the demo does.

    Attributes:
        num_training: knees to train on.
        num_validation: knees to compare on.
        epochs: of every trainer.
        iterations: per epoch.
    """

    num_training: int = 24
    num_validation: int = 8
    epochs: int = 8
    iterations: int = 80


def demo(
    output: Path,
    *,
    size: DemoSize | None = None,
    seed: int = 0,
    readers: Mapping[str, RaterSkill] | None = None,
    variant: Variant = "mean",
    num_processes: int = 2,
    overwrite: bool = False,
    log: Callable[[str], None] = print,
) -> Path:
    """Generate knees and raters, convert, plan, train on a reduced plan, compare with the truth.

    nnU-Net's folders are made under ``output``, whatever the environment says.

    Args:
        output: a new folder.
        size: how many knees, how long the trainings; None: minutes on a CPU.
        seed: same seed, same data.
        readers: name -> skill of the simulated raters; None takes `READERS`, for ``refine`` `WHO_MISS`.
        variant: ``mean`` of the readers; ``anatomy``: labels also know the bone and that lesions are bright;
            ``refine``: readers who miss lesions, one trainer on three folds, and a second round on
            lesion-wise labels.
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
    size = size or DemoSize()
    for flag, value in (("--epochs", size.epochs), ("--iterations", size.iterations)):
        if value < 1:
            raise UsageError(f"{flag} {value}: give a number from 1.")
    if seed < 0:
        raise UsageError(f"--seed {seed}: give a number from 0.")
    output = output.absolute()
    started = time()

    def step(text: str) -> None:
        log(f"[{time() - started:4.0f} s] {text}")

    set_environment(output)
    # imported after the environment is set, and only here: nnU-Net and torch take their time
    from nnunet_softlabel.benchmark import format_benchmark
    from nnunet_softlabel.preprocessing.reduced_plans import NetworkSize, reduce_plans

    readers = readers or (WHO_MISS if variant == "refine" else READERS)
    number = size.num_training + size.num_validation
    step(f"Generating {number} knees, drawn by {', '.join(readers)}")
    cases = write_knees(output / "knees", seed=seed, number=number, readers=readers, overwrite=overwrite)
    has_anatomy = variant == "anatomy"
    step(f"Converting readers{' and anatomy' if has_anatomy else ''} into soft labels")
    fuse_readers(output / "knees", has_anatomy=has_anatomy, num_processes=num_processes, overwrite=overwrite)
    step("nnU-Net plans and preprocesses")
    plan(output / "plan_and_preprocess.txt")
    reduce_plans(DATASET_ID, network=NetworkSize(patch_size=PATCH_SIZE), overwrite=overwrite)
    splits = [{"train": cases[: size.num_training], "val": cases[size.num_training :]}]
    if variant == "refine":  # every case needs a network that did not see it
        parts = [cases[i::REFINED_FOLDS] for i in range(REFINED_FOLDS)]
        splits = [{"train": [c for c in cases if c not in part], "val": part} for part in parts]
    write_json(
        output / "nnUNet_preprocessed" / f"Dataset{DATASET_ID}_{DATASET_NAME}" / "splits_final.json", splits
    )
    page = train_and_report(output, size, variant, seed=seed, num_processes=num_processes, log=step)
    step("Done. Against the truth, which no trainer has seen:")
    log(format_benchmark(output, reference="truth"))
    log(f"Report: {page}")
    return page


def train_and_report(
    output: Path,
    size: DemoSize,
    variant: Variant,
    *,
    seed: int,
    num_processes: int,
    log: Callable[[str], None],
) -> Path:
    """Train what the variant asks for, side by side, and write the page."""
    from nnunet_softlabel.benchmark import (
        BenchmarkGrid,
        CellScoring,
        SecondRound,
        Trainings,
        benchmark,
        report,
        two_rounds,
    )
    from nnunet_softlabel.training.budget import Budget

    refines = variant == "refine"
    trainers = (REFINED_TRAINER,) if refines else TRAINERS
    log(f"Training {', '.join(trainers)}: {size.epochs} x {size.iterations} iterations each, on the CPU")
    grid = BenchmarkGrid(
        DATASET_ID,
        output,
        Trainings(trainers, folds=range(REFINED_FOLDS if refines else 1), seeds=[seed], plans=REDUCED_PLANS),
        budget=Budget(size.epochs, size.iterations, device="cpu"),
        scoring=CellScoring(truth=output / "knees" / "truth"),
    )
    # side by side with a thread each is faster than one after another with all cores
    jobs = len(grid.cells)
    if not refines:
        outcome = benchmark(grid, num_processes=num_processes, jobs=jobs, log=log)
        return report(grid, outcome, commands=["nnunet_softlabel demo"])
    second = SecondRound(REFINED_ID)
    rounds = two_rounds(grid, second, num_processes=num_processes, jobs=jobs, log=log)
    return report(grid, rounds.first, commands=["nnunet_softlabel demo --refine"], rounds=rounds)


def fuse_readers(knees: Path, *, has_anatomy: bool, num_processes: int, overwrite: bool) -> None:
    """Convert the demo's knees into its soft-label data set."""
    from nnunet_softlabel.cases.find import find_cases
    from nnunet_softlabel.conversion.run import convert
    from nnunet_softlabel.conversion.settings import Running

    found = find_cases(
        [str(knees / "images" / "{case}.nii.gz")],
        raters=[str(knees / "raters" / "{case}_{rater}.nii.gz")],
        rois={"bone": str(knees / "bone" / "{case}.nii.gz")},
    )
    anatomy = Priors(RoiPrior(("bone",), margin_mm=2.0), IntensityPrior("brighter"))
    convert(
        found,
        f"Dataset{DATASET_ID}_{DATASET_NAME}",
        labels=["lesion=1"],
        channel_names=["MRI"],
        priors=anatomy if has_anatomy else None,
        running=Running(num_processes, overwrite),
    )


def set_environment(output: Path) -> None:
    """Point nnU-Net at folders under ``output``, with settings for a small CPU."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ[name] = str(output / name)
        (output / name).mkdir(parents=True, exist_ok=True)
    # without a background process the same seed gives the same training
    os.environ |= {"nnUNet_n_proc_DA": "0", "nnUNet_def_n_proc": "1"}


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
