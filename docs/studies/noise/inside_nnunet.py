"""The recipe of the active-passive loss against stock, inside nnU-Net, on the study's wrong readers."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from docs.studies.noise.data import Sections, sections
from docs.studies.shared.resumable import Cell, Row
from docs.studies.shared.scores import mean_dice
from nnunet_softlabel.metrics.overlap import precision, recall

TRAINERS = ("nnUNetTrainer", "nnUNetTrainerHardAPLNoCE", "nnUNetTrainerHardDMLCE")  # stock, recipe, control
OWN_TRAINERS = Path(__file__).parent / "trainers"
# trainers and seeds of each regime
SETTINGS = {
    "invented100": (TRAINERS, range(10)),
    "invented200": (TRAINERS[:2], range(5)),
    "missed40": (TRAINERS[:2], range(5)),
}
CHECKPOINTS = ("final", "best")  # nnU-Net's best: on the validation cases, whose labels are as wrong
PLANS, SCHEDULE = "nnUNetPlansReduced4", ("--epochs", "20", "--iterations", "200")
KEY = ("regime", "trainer", "seed")
COLUMNS = (*KEY, "checkpoint", "dice", "precision", "recall", "volume")
ON_CPU = {"nnUNet_def_n_proc": "1", "OMP_NUM_THREADS": "1"}
IN_THIS_PROCESS = {"nnUNet_n_proc_DA": "0"}  # augmentation; nnU-Net's planner refuses 0


def cells() -> Iterator[Cell]:
    """All trainers and regimes of a seed before the next seed, so that what is done is paired."""
    for seed in range(max(seeds.stop for _, seeds in SETTINGS.values())):
        for regime, (trainers, seeds) in SETTINGS.items():
            if seed in seeds:
                yield from ((regime, trainer, str(seed)) for trainer in trainers)


def run_cell(cell: Cell, *, work: Path) -> list[Row]:
    """Train on one wrong reader; score both checkpoints against the truth of the test sections.

    Args:
        cell: regime, trainer, seed; every seed has sections of its own.
        work: folder for nnU-Net's files, absolute.
    """
    regime, trainer, seed = cell
    own = work / f"{regime}_{seed}"
    environment = os.environ | ON_CPU | {"nnUNet_extTrainer": str(OWN_TRAINERS)}
    for name in ("raw", "preprocessed"):
        (own / name).mkdir(parents=True, exist_ok=True)
        environment[f"nnUNet_{name}"] = str(own / name)
    environment["nnUNet_results"] = str(own / "report" / "results" / f"seed_{seed}")
    parts = sections(regime, int(seed))
    if not (own / "preprocessed" / "Dataset501_Knees" / f"{PLANS}.json").is_file():
        _prepare(own, parts, environment)
    train = ["nnunet_softlabel", "benchmark", "-d", "501", "-c", "2d", "-p", PLANS, *SCHEDULE, "-f", "0"]
    where = ["-tr", trainer, "--seeds", seed, "-device", "cpu", "-np", "1", "--only", "train"]
    _run([*train, *where, "-o", str(own / "report")], environment | IN_THIS_PROCESS)
    truth = parts[2].truth
    rows: list[Row] = []
    for checkpoint in CHECKPOINTS:
        masks = _predicted(own, trainer, checkpoint, len(truth), environment)
        rows.append(
            {
                **dict(zip(KEY, cell, strict=True)),
                "checkpoint": checkpoint,
                "dice": mean_dice(truth, masks),
                "precision": precision(truth, masks),
                "recall": recall(truth, masks),
                "volume": float(masks.sum() / truth.sum()),
            }
        )
    return rows


def _prepare(own: Path, parts: tuple[Sections, Sections, Sections], environment: dict[str, str]) -> None:
    """Convert the wrong reader's masks, plan, and let a fold train on one part and watch the next."""
    split = {name: _write(own, name, part) for name, part in zip(("train", "val"), parts[:2], strict=True)}
    _write(own, "test", parts[2])
    convert = ["nnunet_softlabel", "convert", "-d", "501", "-n", "Knees", "--channel-names", "T2"]
    files = ["--images", f"{own}/images/{{case}}.nii.gz", "--raters", f"{own}/drawn/{{case}}.nii.gz"]
    _run([*convert, *files, "--single-rater", "--labels", "lesion=1", "--overwrite"], environment)
    _run(["nnUNetv2_plan_and_preprocess", "-d", "501", "-c", "2d", "-np", "1", "-npfp", "1"], environment)
    splits = own / "preprocessed" / "Dataset501_Knees" / "splits_final.json"
    splits.write_text(json.dumps([split]), encoding="utf-8")
    _run(["nnunet_softlabel", "reduce-plans", "-d", "501", "--batch-size", "4", "-o", PLANS], environment)


def _write(own: Path, name: str, part: Sections) -> list[str]:
    """Images and masks as files; those to test on, of which no mask is written, under nnU-Net's names."""
    cases = [f"{name}_{i:03d}" for i in range(len(part.image))]
    is_test = name == "test"
    for folder in ("test",) if is_test else ("images", "drawn"):
        (own / folder).mkdir(exist_ok=True)
    for case, image, drawn in zip(cases, part.image, part.drawn, strict=True):
        if is_test:
            _write_image(own / "test" / f"{case}_0000.nii.gz", image)
        else:
            _write_image(own / "images" / f"{case}.nii.gz", image)
            _write_image(own / "drawn" / f"{case}.nii.gz", drawn.astype(np.uint8))
    return cases


def _write_image(path: Path, section: np.ndarray) -> None:
    image = sitk.GetImageFromArray(section[None])
    image.SetSpacing((2.0, 2.0, 4.0))
    sitk.WriteImage(image, path)


def _predicted(
    own: Path, trainer: str, checkpoint: str, number: int, environment: dict[str, str]
) -> np.ndarray:
    """Masks ``(N, H, W)`` of the test sections, by nnU-Net's command."""
    into = own / "predicted" / f"{trainer}_{checkpoint}"
    model = ["-d", "501", "-c", "2d", "-tr", trainer, "-p", PLANS, "-f", "0", "-device", "cpu"]
    how = ["-chk", f"checkpoint_{checkpoint}.pth", "-npp", "1", "-nps", "1"]
    _run(["nnUNetv2_predict", "-i", str(own / "test"), "-o", str(into), *model, *how], environment)
    files = [into / f"test_{i:03d}.nii.gz" for i in range(number)]
    return np.stack([sitk.GetArrayFromImage(sitk.ReadImage(file))[0] == 1 for file in files])


def _run(command: list[str], environment: dict[str, str]) -> None:
    """One command, what it prints below the folder of its data set."""
    with (Path(environment["nnUNet_raw"]).parent / "log.txt").open("a", encoding="utf-8") as log:
        subprocess.run(command, check=True, env=environment, stdout=log, stderr=log)
