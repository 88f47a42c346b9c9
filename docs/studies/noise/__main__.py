"""Where the active-passive loss pays: one wrong reader on whole images, three readers on crops.

    python -m docs.studies.noise             # runs what the two CSV lack, then the tables
    python -m docs.studies.noise --tables    # only rewrites tables.md

Design, cells and seeds are in DESIGN.md, written before the first run. Every cell is one network; a later
session adds seeds by raising SEEDS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from docs.studies.noise import tables
from docs.studies.noise.data import DROPPED_ON_CT, crops, sections
from docs.studies.shared.cases import LIDC
from docs.studies.shared.resumable import Cell, Row, run_missing, study_parser
from docs.studies.shared.scores import best_threshold, mean_dice
from docs.studies.shared.small_network import NetworkBudget, StudyLoss, predict, train
from nnunet_softlabel.losses import (
    RegionSums,
    WeightedSum,
    active_passive_loss,
    cross_entropy,
    generalized_cross_entropy,
    noise_robust_dice_loss,
    soft_dice_loss,
)
from nnunet_softlabel.metrics.calibration import brier
from nnunet_softlabel.metrics.overlap import precision, recall

FOLDER = Path(__file__).parent
SECTIONS, CROPS = FOLDER / "sections.csv", FOLDER / "crops.csv"
SEEDS = range(10)
EVERY = 200
BUDGET = NetworkBudget(iterations=1200, batch_size=4, optimizer="adamw")
CROP_BUDGET = NetworkBudget(iterations=1000, batch_size=16, optimizer="adamw", stages=3)

apl = partial(partial, active_passive_loss)
dice = partial(soft_dice_loss, sums=RegionSums(batch_dice=True))
LOSSES: dict[str, Callable[..., Tensor]] = {
    "Dice+CE": WeightedSum((1.0, dice), (1.0, cross_entropy)),
    "Dice+APL 1/1": WeightedSum((1.0, dice), (1.0, active_passive_loss)),
    "Dice+APL 10/0.1": WeightedSum((1.0, dice), (1.0, apl(alpha=10.0, beta=0.1))),
    "Dice+GCE": WeightedSum((1.0, dice), (1.0, generalized_cross_entropy)),
    "CE": cross_entropy,
}
MORE_LOSSES: dict[str, Callable[..., Tensor]] = {
    "NR-Dice": partial(noise_robust_dice_loss, sums=RegionSums(batch_dice=True)),
    "APL 1/1": active_passive_loss,
}
REGIMES = ("missed40", "swap40", "invented100")
MIRRORING = ("no", "yes")
CROP_LOSSES = {"BCE": cross_entropy, "APL": active_passive_loss}
CROP_REGIMES = ("missed", "boundary", "all")
FEWER_SEEDS = range(4)  # of the regimes after the first
CROP_LABELS = ("majority", "mean", "anatomy")

KEY = ("regime", "mirrored", "loss", "seed")
COLUMNS = (*KEY, "iteration", "dice", "threshold", "dice_tuned", "dice_drawn", "dice_validation", "volume")
CROP_KEY = ("regime", "label", "loss", "seed")
CROP_COLUMNS = (
    *CROP_KEY, "crops", "foreground", "label_dice", "dice", "precision", "recall", "brier",
)  # fmt: skip


def as_study_loss(loss: Callable[..., Tensor]) -> StudyLoss:
    return lambda logits, target, progress: loss(logits, target)


def run_sections(cell: Cell) -> list[Row]:
    """Train one network on one wrong reader and score it every `EVERY` iterations."""
    regime, mirrored, loss, seed = cell
    training, validation, test = sections(regime, int(seed))
    rows: list[Row] = []

    def watch(iteration: int, network: nn.Module) -> None:
        if iteration % EVERY:
            return
        p, tuning, own = (predict(network, part.image)[:, 0] for part in (test, validation, training))
        threshold = best_threshold(validation.truth, tuning)
        rows.append(
            {
                **dict(zip(KEY, cell, strict=True)),
                "iteration": iteration,
                "dice": mean_dice(test.truth, p > 0.5),
                "threshold": threshold,
                "dice_tuned": mean_dice(test.truth, p > threshold),
                "dice_drawn": mean_dice(training.drawn, own > 0.5),
                "dice_validation": mean_dice(validation.drawn, tuning > 0.5),
                "volume": float(p.sum() / test.truth.sum()),
            }
        )

    train(
        training.image, training.drawn[:, None], as_study_loss((LOSSES | MORE_LOSSES)[loss]),
        seed=int(seed), budget=BUDGET, mirrors=mirrored == "yes", watch=watch,
    )  # fmt: skip
    return rows


def run_crops(cell: Cell) -> list[Row]:
    """Train one network on crops and score it on crops of other knees that hold a lesion."""
    regime, label, loss, seed = cell
    training, test = crops(regime, int(seed))
    soft = training.labels[label]
    network = train(
        training.image, soft[:, None], as_study_loss(CROP_LOSSES[loss]), seed=int(seed), budget=CROP_BUDGET
    )
    p = predict(network, test.image)[:, 0]
    has_lesion = test.truth.any(axis=(1, 2))
    return [
        {
            **dict(zip(CROP_KEY, cell, strict=True)),
            "crops": len(soft),
            "foreground": float(training.truth.mean()),
            "label_dice": mean_dice(training.truth, soft > 0.5),
            "dice": mean_dice(test.truth[has_lesion], p[has_lesion] > 0.5),
            "precision": precision(test.truth, p > 0.5),
            "recall": recall(test.truth, p > 0.5),
            "brier": brier(test.truth.astype(np.float32), p),
        }
    ]


def crop_cells() -> Iterator[Cell]:
    """The paper's question first; all cells of a seed before the next seed, so what is done is paired."""
    for regime in CROP_REGIMES:
        for seed in SEEDS if regime == CROP_REGIMES[0] else FEWER_SEEDS:
            for label in CROP_LABELS:
                yield from ((regime, label, loss, str(seed)) for loss in CROP_LOSSES)


def section_cells() -> Iterator[Cell]:
    """The setting in which something was seen first, with all its seeds; real CT after it mirrored."""
    settings = [(regime, mirrored) for mirrored in MIRRORING for regime in REGIMES]
    mirrored = len(REGIMES) + 1
    on_ct = [(DROPPED_ON_CT, "yes")] if LIDC.is_dir() else []
    for regime, mirrors in [*settings[:mirrored], *on_ct, *settings[mirrored:]]:
        names = LOSSES | MORE_LOSSES if regime == DROPPED_ON_CT else LOSSES
        for seed in SEEDS:
            yield from ((regime, mirrors, loss, str(seed)) for loss in names)


def main() -> None:
    parser = study_parser(__doc__)
    parser.add_argument("--part", choices=("crops", "sections"), help="Run only this part.")
    args = parser.parse_args()
    if not args.tables and args.part != "sections":
        run_missing(CROPS, crop_cells(), run_crops, key=CROP_KEY, columns=CROP_COLUMNS, jobs=args.jobs)
    if not args.tables and args.part != "crops":
        run_missing(SECTIONS, section_cells(), run_sections, key=KEY, columns=COLUMNS, jobs=args.jobs)
    tables.write(SECTIONS, CROPS)


if __name__ == "__main__":
    main()
