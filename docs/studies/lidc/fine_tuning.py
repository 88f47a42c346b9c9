"""Fine-tuning inside nnU-Net: a stock network of each fold goes on with soft labels, by nnU-Net's command."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from docs.studies.lidc import tables
from docs.studies.lidc.trainers.fine_tuning import CONTROL, VARIANTS
from docs.studies.shared.resumable import Cell

DATASET = "501"
# added when fold 0 had been seen: as good there as the chosen one in NLL, in a third of the time
SHORTER = "FineTuneRate1e2Epochs6"


def cells(chosen: str | None) -> Iterator[Cell]:
    """Every variant on the folds that choose; what ships and what was chosen on the others.

    Args:
        chosen: by the rule of DESIGN.md; None while the first folds lack a score.
    """
    for fold in tables.CHOICE_FOLDS:
        yield from ((name, fold) for name in (tables.BASE, tables.DEFAULT, *VARIANTS))
    last = (tables.BASE, tables.DEFAULT, CONTROL, tables.AS_SHIPPED, chosen, SHORTER)
    for fold in tables.TEST_FOLDS if chosen else ():
        yield from ((name, fold) for name in dict.fromkeys(last) if name)


def train(name: str, fold: str, stock_model: Path, plans: str) -> Path:
    """The validation folder of a network that goes on from the stock model of the same fold.

    Args:
        name: of `VARIANTS`.
        fold: to train and validate.
        stock_model: result folder of the stock trainer.
        plans: plans identifier.
    """
    checkpoint = stock_model / f"fold_{fold}" / "checkpoint_final.pth"
    command = ["nnUNetv2_train", DATASET, "2d", fold, "-tr", name, "-p", plans, "--npz", "-device", "cpu"]
    environment = os.environ | {"nnUNet_n_proc_DA": "0", "nnUNet_def_n_proc": "1", "OMP_NUM_THREADS": "1"}
    folder = stock_model.parent / f"{name}__{plans}__2d" / f"fold_{fold}"
    if not (folder / "checkpoint_final.pth").is_file():
        with (stock_model.parent / f"{name}_{fold}.txt").open("w", encoding="utf-8") as log:
            started_from = [*command, "-pretrained_weights", str(checkpoint)]
            subprocess.run(started_from, check=True, env=environment, stdout=log, stderr=log)
    return folder / "validation"
