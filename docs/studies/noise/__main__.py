"""Where the active-passive loss pays: one wrong reader on whole images, three readers on crops.

    python -m docs.studies.noise                   # runs what two of the CSV lack, then the tables
    python -m docs.studies.noise --inside FOLDER   # makes inside_nnunet.csv, then the tables
    python -m docs.studies.noise --tables          # only rewrites tables.md

Design, cells and seeds are in DESIGN.md, written before the first run. Every cell is one network; a later
session adds seeds by raising SEEDS. ``FOLDER`` gets nnU-Net's files and may be thrown away afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from docs.studies.noise import inside_nnunet, tables
from docs.studies.noise.augmentation import nnunet_augmentation
from docs.studies.noise.data import crops, sections
from docs.studies.noise.scenarios import INVENTED_ON_CT, MISSED_ON_CT, SCENARIOS
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
SECTIONS, CROPS, INSIDE = FOLDER / "sections.csv", FOLDER / "crops.csv", FOLDER / "inside_nnunet.csv"
SEEDS = range(10)
FIVE, LAST_FIVE = range(5), range(5, 10)
BUDGET = NetworkBudget(batch_size=4, optimizer="adamw")  # iterations: see SCENARIOS
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
# further weights (alpha / beta), and the other mode, which differs on soft labels only
GRID: dict[str, Callable[..., Tensor]] = {
    "Dice+APL 1/0.1": WeightedSum((1.0, dice), (1.0, apl(alpha=1.0, beta=0.1))),
    "Dice+APL 10/1": WeightedSum((1.0, dice), (1.0, apl(alpha=10.0, beta=1.0))),
}
EXPECTATION: dict[str, Callable[..., Tensor]] = {
    "Dice+APL 1/1, expectation": WeightedSum((1.0, dice), (1.0, apl(mode="expectation")))
}
ALL_LOSSES = LOSSES | MORE_LOSSES | GRID | EXPECTATION
TWO = ("Dice+CE", "Dice+APL 1/1")
THREE = (*TWO, "Dice+APL 10/0.1")
# what augments the images: nothing, mirroring, all of nnU-Net's transforms
NOTHING, MIRRORED, LIKE_NNUNET = "no", "yes", "nnU-Net"
REGIMES = ("missed40", "swap40", "invented100")
MAIN = (
    "missed20", "missed60", "swap40", "shift40", "invented100", "missed40, 10 sections",
    "missed40, 200 sections", "missed40, majority of three", "missed40, mean of three",
)  # fmt: skip
SLOWEST = "missed40, 20000 iterations"  # five seeds
SIDE = (
    "swap20", "swap60", "shift20", "shift60", "invented50", "invented200", "missed40, 17 sections",
    "swap40, mean of three", "swap40, majority of three", SLOWEST,
)  # fmt: skip
Setting = tuple[str, str, tuple[str, ...]]
CROP_LOSSES = {"BCE": cross_entropy, "APL": active_passive_loss}
CROP_REGIMES = ("missed", "boundary", "all")
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
    """Train one network on wrong readers and score it every so many iterations."""
    regime, mirrored, loss, seed = cell
    training, validation, test = sections(regime, int(seed))
    scenario = SCENARIOS[regime]
    rows: list[Row] = []

    def watch(iteration: int, network: nn.Module) -> None:
        if iteration % scenario.every:
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
                "dice_drawn": mean_dice(training.drawn > 0.5, own > 0.5),
                "dice_validation": mean_dice(validation.drawn > 0.5, tuning > 0.5),
                "volume": float(p.sum() / test.truth.sum()),
            }
        )

    train(
        training.image, training.drawn[:, None], as_study_loss(ALL_LOSSES[loss]),
        seed=int(seed), budget=replace(BUDGET, iterations=scenario.iterations), watch=watch,
        mirrors=mirrored == MIRRORED,
        augment=nnunet_augmentation(training.image.shape[1], int(seed)) if mirrored == LIKE_NNUNET else None,
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
        for seed in SEEDS:
            for label in CROP_LABELS:
                yield from ((regime, label, loss, str(seed)) for loss in CROP_LOSSES)


def section_cells() -> Iterator[Cell]:
    """All cells, each once, in the order in which they are run."""
    yield from dict.fromkeys(_planned_cells())


def _planned_cells() -> Iterator[Cell]:
    """Those of DESIGN.md's first date come first."""
    for regime, mirrored in [*((regime, NOTHING) for regime in REGIMES), (REGIMES[0], MIRRORED)]:
        yield from _cells([(regime, mirrored, tuple(LOSSES))], SEEDS)
    ct = [(MISSED_ON_CT, MIRRORED, (*LOSSES, *MORE_LOSSES))] if known(MISSED_ON_CT) else []
    yield from _cells(ct, FIVE)
    yield from _cells([(REGIMES[0], LIKE_NNUNET, THREE)], SEEDS)
    yield from _cells([(name, MIRRORED, TWO) for name in MAIN], FIVE)
    yield from longer_cells()
    yield from _cells([s for s in invented_settings() if known(s[0])], SEEDS)
    weights = [
        (REGIMES[0], MIRRORED, (*GRID, *MORE_LOSSES)),
        ("missed40, mean of three", MIRRORED, tuple(EXPECTATION)),
    ]
    yield from _cells(weights, FIVE)
    yield from _cells([(name, MIRRORED, TWO) for name in SIDE], FIVE)
    short = [name for name in (*MAIN, *SIDE) if name != SLOWEST]
    yield from _cells([*ct, *((name, MIRRORED, TWO) for name in short)], LAST_FIVE)
    yield from _cells([(name, MIRRORED, THREE[2:]) for name in MAIN], SEEDS)


def longer_cells() -> Iterator[Cell]:
    """Long trainings with nnU-Net's transforms."""
    names = ("missed40, 4000 iterations", "ct, missed40, 4000 iterations")
    yield from _cells([(name, LIKE_NNUNET, TWO) for name in names if known(name)], FIVE)


def invented_settings() -> list[Setting]:
    """False lesions, with ten seeds: added when five seeds had shown a gain."""
    more = [
        ("invented200", MIRRORED, TWO),
        ("invented100", LIKE_NNUNET, TWO),
        (INVENTED_ON_CT, MIRRORED, TWO),
    ]
    return [("invented100", MIRRORED, (*THREE, *GRID, "Dice+GCE")), *more]


def known(scenario: str) -> bool:
    """Whether its data are there."""
    return LIDC.is_dir() or not SCENARIOS[scenario].on_ct


def _cells(settings: Sequence[Setting], seeds: Iterable[int]) -> Iterator[Cell]:
    """Regime, augmentation and losses, seed by seed."""
    for seed in seeds:
        for regime, mirrored, names in settings:
            yield from ((regime, mirrored, loss, str(seed)) for loss in names)


def main() -> None:
    parser = study_parser(__doc__)
    parser.add_argument("--part", choices=("crops", "sections"), help="Run only this part.")
    parser.add_argument("--inside", type=Path, metavar="FOLDER", help="Run only the part inside nnU-Net.")
    args = parser.parse_args()
    if args.inside is not None and not args.tables:
        job = partial(inside_nnunet.run_cell, work=args.inside.resolve())
        key, columns = inside_nnunet.KEY, inside_nnunet.COLUMNS
        run_missing(INSIDE, inside_nnunet.cells(), job, key=key, columns=columns, jobs=args.jobs)
    elif not args.tables:
        run_parts(args.part, args.jobs)
    tables.write(SECTIONS, CROPS, INSIDE)


def run_parts(part: str | None, jobs: int) -> None:
    """Crops and sections, or one of them."""
    if part != "sections":
        run_missing(CROPS, crop_cells(), run_crops, key=CROP_KEY, columns=CROP_COLUMNS, jobs=jobs)
    if part != "crops":
        run_missing(SECTIONS, section_cells(), run_sections, key=KEY, columns=COLUMNS, jobs=jobs)


if __name__ == "__main__":
    main()
