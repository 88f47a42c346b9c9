"""The balanced start that ends by itself, and which loss a training ends with.

    python -m docs.studies.defaults             # runs what results.csv lacks, then the tables
    python -m docs.studies.defaults --tables    # only rewrites tables.md

Design, cells, seeds and the rule are in DESIGN.md, written before the first run. A later session adds seeds
by raising SEEDS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from torch import Tensor

from docs.studies.defaults import tables
from docs.studies.shared import images
from docs.studies.shared.cases import LIDC
from docs.studies.shared.losses import BATCH, fused, stock
from docs.studies.shared.resumable import Cell, Row, run_missing, study_parser
from docs.studies.shared.scores import best_threshold, score_images
from docs.studies.shared.small_network import NetworkBudget, StudyLoss, predict, train
from nnunet_softlabel.losses import BalancedStart, FusedSoftLoss, TermWeights

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


def with_start(*, ends_itself: bool, **weights: float) -> Callable[[int], tuple[StudyLoss, BalancedStart]]:
    """A fused loss with the package's start, or with one that always lasts its quarter."""

    def make(iterations: int) -> tuple[StudyLoss, BalancedStart]:
        settled = FusedSoftLoss(TermWeights(**weights), sums=BATCH)
        start = BalancedStart(settled.with_balance(), settled, window=25 if ends_itself else iterations)
        start.set_length(iterations)

        def loss(logits: Tensor, target: Tensor, progress: float) -> Tensor:
            value = start(logits, target)
            start.advance()
            return value

        return loss, start

    return make


def last_part_ce(loss: StudyLoss, share: float) -> StudyLoss:
    """Cross entropy alone in the last part of a training."""
    ce = fused(dml=0.0, nkl=0.0, tv=0.0)
    return lambda z, q, progress: (ce if progress >= 1 - share else loss)(z, q, progress)


DML_CE = {"nkl": 0.0, "tv": 0.0}
RECIPES = {
    "stock": Recipe("majority", plain(stock)),
    "DML+CE, no start": Recipe("soft", plain(fused(**DML_CE))),
    "DML+CE, start of a quarter": Recipe("soft", with_start(ends_itself=False, **DML_CE)),
    "DML+CE, start ends itself": Recipe("soft", with_start(ends_itself=True, **DML_CE)),
    "0.3 DML+CE, no start": Recipe("soft", plain(fused(dml=0.3, **DML_CE))),
    "DML+CE, last fifth CE": Recipe("soft", plain(last_part_ce(fused(**DML_CE), 0.2))),
    "CE, no start": Recipe("soft", plain(fused(dml=0.0, **DML_CE))),
}
STARTS = ("stock", "DML+CE, no start", "DML+CE, start of a quarter", "DML+CE, start ends itself")
ENDINGS = ("stock", "DML+CE, no start", "0.3 DML+CE, no start", "DML+CE, last fifth CE", "CE, no start")
# data, share of foreground, iterations, losses: in the order in which they are run, seed by seed
SETTINGS = (
    ("knee", "0.05", "360", STARTS),
    ("knee", "0.01", "360", STARTS),
    ("knee", "0.002", "1600", STARTS[1:]),
    ("lidc", "0.05", "1000", ENDINGS),
)


@lru_cache(maxsize=2)
def data_of(data: str, fraction: str, seed: int) -> tuple[images.Images, ...]:
    """Images to train on, to choose the threshold on, and to test on; other knees than those of `losses`."""
    if data == "lidc":
        return images.lidc(100 + seed, fraction=float(fraction))
    first = 10_000 * (201 + seed)
    parts = (range(first, first + 200), range(first + 200, first + 250), range(first + 250, first + 350))
    return tuple(images.knees(part, fraction=float(fraction), regime="boundary") for part in parts)


def run_cell(cell: Cell) -> list[Row]:
    """Train one network and score it."""
    data, fraction, iterations, name, seed = cell
    training, tuning, test = data_of(data, fraction, int(seed))
    recipe = RECIPES[name]
    loss, start = recipe.make(int(iterations))
    label = getattr(training, recipe.label)
    budget = NetworkBudget(iterations=int(iterations))
    network = train(training.image, label[:, None], loss, seed=int(seed), budget=budget)
    threshold = best_threshold(tuning.truth, predict(network, tuning.image)[:, 0])
    probability = predict(network, test.image)[:, 0]
    ratio = float(probability.sum() / min(test.soft.sum(), test.majority.sum()))
    return [
        {
            **dict(zip(KEY, cell, strict=True)),
            "ended_at": "" if start is None or start.ended_at is None else str(start.ended_at),
            "volume_ratio": ratio,
            "collapsed": int(ratio < 0.1),
            **score_images(test, probability, threshold),
        }
    ]


def cells() -> Iterator[Cell]:
    """All losses of a setting and seed together, so that what is done is paired."""
    for seed in SEEDS:
        for data, fraction, iterations, names in SETTINGS:
            yield from ((data, fraction, iterations, name, str(seed)) for name in names)


def main() -> None:
    parser = study_parser(__doc__)
    args = parser.parse_args()
    if not args.tables:
        wanted = [cell for cell in cells() if cell[0] != "lidc" or LIDC.is_dir()]
        run_missing(RESULTS, wanted, run_cell, key=KEY, columns=COLUMNS, jobs=args.jobs)
    tables.write(RESULTS, SETTINGS)


if __name__ == "__main__":
    main()
