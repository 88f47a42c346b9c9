"""The balanced start that ends by itself, and which loss a training ends with.

    python -m docs.studies.defaults             # runs what results.csv lacks, then the tables
    python -m docs.studies.defaults --tables    # only rewrites tables.md

Design, cells, seeds and the rules are in DESIGN.md, written before the first run of each part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from docs.studies.defaults import tables
from docs.studies.defaults.tables import Setting
from docs.studies.shared import images
from docs.studies.shared.cases import LIDC, brain_growth_cases, bubil_cases, hippocampus_cases
from docs.studies.shared.losses import BATCH, fused, last_part_ce, stock
from docs.studies.shared.resumable import Cell, Row, run_missing, study_parser
from docs.studies.shared.scores import best_threshold, score_images
from docs.studies.shared.small_network import NetworkBudget, StudyLoss, predict, train
from nnunet_softlabel.evaluation.map_fitting import fit_map
from nnunet_softlabel.evaluation.recalibration import RecalibrationMap, log_odds_of, recalibrated
from nnunet_softlabel.evaluation.voxel_sample import sample_voxels
from nnunet_softlabel.losses import (
    BalancedStart,
    FusedSoftLoss,
    TermWeights,
    cross_entropy,
    dice_semimetric_loss,
)
from nnunet_softlabel.training.foreground import PLENTY

RESULTS = Path(__file__).parent / "results.csv"
SEEDS = range(5)
KEY = ("data", "fraction", "iterations", "loss", "seed")
COLUMNS = (
    *KEY, "ended_at", "volume_ratio", "collapsed", "dice", "precision", "recall", "best_threshold",
    "dice_best", "brier_near", "brier_truth", "qubiq_dice", "ece_near",
)  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """A label, a loss for trainings of so many iterations, and the start in it, if there is one."""

    label: str
    make: Callable[[int], tuple[StudyLoss, BalancedStart | None]]


def plain(loss: StudyLoss) -> Callable[[int], tuple[StudyLoss, None]]:
    return lambda iterations: (loss, None)


def with_start(
    ending: StudyLoss, *, ends_itself: bool = True
) -> Callable[[int], tuple[StudyLoss, BalancedStart]]:
    """The package's start of DML + CE, or one that always lasts its quarter, then another loss."""

    def make(iterations: int) -> tuple[StudyLoss, BalancedStart]:
        settled = FusedSoftLoss(TermWeights(**DML_CE), sums=BATCH)
        start = BalancedStart(settled.with_balance(), settled, window=25 if ends_itself else iterations)
        start.set_length(iterations)

        def loss(logits: Tensor, target: Tensor, progress: float) -> Tensor:
            value = start(logits, target) if start.is_starting else ending(logits, target, progress)
            start.advance()
            return value

        return loss, start

    return make


def region_of_majority(logits: Tensor, target: Tensor, progress: float) -> Tensor:
    """DML on the majority's mask, CE on the raters' mean."""
    is_object = (target[:, 1:] > 0.5).to(target.dtype)
    majority = torch.cat([1 - is_object, is_object], dim=1)
    return dice_semimetric_loss(logits, majority, sums=BATCH) + cross_entropy(logits, target)


DML_CE = {"nkl": 0.0, "tv": 0.0}
DEFAULT, HEAD = "DML+CE", "DML+CE, affine head last"
RECIPES = {
    "stock": Recipe("majority", plain(stock)),
    "DML+CE, no start": Recipe("soft", plain(fused(**DML_CE))),
    "DML+CE, start of a quarter": Recipe("soft", with_start(fused(**DML_CE), ends_itself=False)),
    "DML+CE, start ends itself": Recipe("soft", with_start(fused(**DML_CE))),
    "0.3 DML+CE, no start": Recipe("soft", plain(fused(dml=0.3, **DML_CE))),
    "DML+CE, last fifth CE": Recipe("soft", plain(last_part_ce(fused(**DML_CE), 0.2))),
    "CE, no start": Recipe("soft", plain(fused(dml=0.0, **DML_CE))),
    # part 2
    DEFAULT: Recipe("soft", with_start(fused(**DML_CE))),
    "DML of the majority + CE": Recipe("soft", with_start(region_of_majority)),
    "DML+CE, then CE": Recipe("soft", with_start(last_part_ce(fused(**DML_CE), 0.2))),
    "CE": Recipe("soft", with_start(fused(dml=0.0, **DML_CE))),
}
STARTS = ("stock", "DML+CE, no start", "DML+CE, start of a quarter", "DML+CE, start ends itself")
ENDINGS = ("stock", "DML+CE, no start", "0.3 DML+CE, no start", "DML+CE, last fifth CE", "CE, no start")
LONGER = ("stock", DEFAULT, "DML of the majority + CE", "DML+CE, then CE", "CE")
LONGEST = ("stock", DEFAULT, "CE")
REAL = {"brain growth": brain_growth_cases, "hippocampus": hippocampus_cases, "bubil": bubil_cases}


# in the order in which they are run, seed by seed
SETTINGS = (
    Setting("knee", "0.05", "360", STARTS, SEEDS),
    Setting("knee", "0.01", "360", STARTS, SEEDS),
    Setting("knee", "0.002", "1600", STARTS[1:], SEEDS),
    Setting("lidc", "0.05", "1000", ENDINGS, SEEDS),
    Setting("lidc", "0.05", "2000", LONGER, SEEDS, (HEAD,), is_judged=True),
    Setting("brain growth", "", "2000", LONGER, SEEDS, (HEAD,), is_judged=True),
    Setting("hippocampus", "", "2000", LONGER, SEEDS, (HEAD,), is_judged=True),
    Setting("bubil", "", "2000", LONGER, SEEDS, (HEAD,), is_judged=True),
    Setting("knee", "0.01", "2000", LONGER, SEEDS, (HEAD,), is_judged=True),
    # does the start that ends itself ever collapse? seeds 0 to 4 are above
    Setting("knee", "0.002", "1600", STARTS[3:], range(5, 50)),
    Setting("lidc", "0.05", "10000", LONGEST, SEEDS, (HEAD,)),
)


@lru_cache(maxsize=2)
def data_of(data: str, fraction: str, seed: int) -> tuple[images.Images, ...]:
    """Images to train on, to choose the threshold on, and to test on; other knees than those of `losses`."""
    if data in REAL:
        return images.slices_of(REAL[data](), 100 + seed)
    if data == "lidc":
        return images.lidc(100 + seed, fraction=float(fraction))
    first = 10_000 * (201 + seed)
    parts = (range(first, first + 200), range(first + 200, first + 250), range(first + 250, first + 350))
    return tuple(images.knees(part, fraction=float(fraction), regime="boundary") for part in parts)


def affine_head(tuning: images.Images, probability: np.ndarray) -> RecalibrationMap:
    """The affine map of the network's log-odds that fits the raters' mean on the tuning images best."""
    rng = np.random.default_rng(0)
    samples = [
        sample_voxels(
            log_odds_of(_classes(p), has_regions=False), q[None], most=q.size, rng=rng, has_regions=False
        )
        for p, q in zip(probability, tuning.soft, strict=True)
    ]
    return fit_map(samples, method="affine", has_regions=False)


def _classes(foreground: np.ndarray) -> np.ndarray:
    return np.stack([1 - foreground, foreground])


def run_cell(cell: Cell) -> list[Row]:
    """Train one network and score it; the default's again with an affine head fitted last."""
    data, fraction, iterations, name, seed = cell
    training, tuning, test = data_of(data, fraction, int(seed))
    recipe = RECIPES[name]
    loss, start = recipe.make(int(iterations))
    if start is not None and name in LONGER and training.majority.mean() >= PLENTY:
        start.skip()
    label = getattr(training, recipe.label)
    budget = NetworkBudget(iterations=int(iterations))
    network = train(training.image, label[:, None], loss, seed=int(seed), budget=budget)
    ended_at = "" if start is None or start.ended_at is None else str(start.ended_at)
    predictions = {name: (predict(network, tuning.image)[:, 0], predict(network, test.image)[:, 0])}
    if name == DEFAULT:
        head = affine_head(tuning, predictions[name][0])
        predictions[HEAD] = tuple(
            np.stack([recalibrated(_classes(p), head, has_regions=False)[1] for p in part])
            for part in predictions[name]
        )
    rows: list[Row] = []
    for called, (tuned_on, probability) in predictions.items():
        ratio = float(probability.sum() / min(test.soft.sum(), test.majority.sum()))
        about = dict(zip(KEY, (data, fraction, iterations, called, seed), strict=True))
        lost = {"ended_at": ended_at, "volume_ratio": ratio, "collapsed": int(ratio < 0.1)}
        threshold = best_threshold(tuning.truth, tuned_on)
        rows.append({**about, **lost, **score_images(test, probability, threshold)})
    return rows


def cells() -> Iterator[Cell]:
    """All losses of a setting and seed together, so that what is done is paired; the longest last."""
    longest = [s for s in SETTINGS if s.names is LONGEST]
    others = [s for s in SETTINGS if s not in longest]
    for settings, seed in product((others, longest), range(max(s.seeds.stop for s in SETTINGS))):
        for s in settings:
            if seed in s.seeds:
                yield from ((s.data, s.fraction, s.iterations, name, str(seed)) for name in s.names)


def main() -> None:
    parser = study_parser(__doc__)
    args = parser.parse_args()
    if not args.tables:
        wanted = [cell for cell in cells() if cell[0] == "knee" or LIDC.is_dir()]
        run_missing(RESULTS, wanted, run_cell, key=KEY, columns=COLUMNS, jobs=args.jobs)
    tables.write(RESULTS, SETTINGS, DEFAULT)


if __name__ == "__main__":
    main()
