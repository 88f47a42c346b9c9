"""Which loss is the default: collapse, overlap, calibration at three shares of foreground.

    python -m docs.studies.losses --jobs 2    # runs what results.csv lacks, then tables and plot
    python -m docs.studies.losses --tables    # only rewrites tables.md and dice.png

Design, cells, seeds and the rule of decision are in DESIGN.md, written before the first run. Slices of LIDC
need the data set beside the source tree; without it the other cells run.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from pathlib import Path

from docs.studies.losses import tables
from docs.studies.shared import images
from docs.studies.shared.cases import LIDC
from docs.studies.shared.losses import CANDIDATES
from docs.studies.shared.resumable import Cell, Row, run_missing, study_parser
from docs.studies.shared.scores import best_threshold, score_images
from docs.studies.shared.small_network import NetworkBudget, predict, train

RESULTS = Path(__file__).parent / "results.csv"
BUDGET = NetworkBudget()
SCREEN_SEEDS, FINAL_SEEDS = range(2), range(2, 7)
FRACTIONS = ("0.05", "0.01", "0.002")
SCREEN = [(data, "boundary" if data == "knee" else "real", f) for data in ("knee", "lidc") for f in FRACTIONS]
SLOWEST = ("lidc", "real", "0.002")  # squares of four tiles
FINAL_REGIMES = [("knee", regime, "0.05") for regime in ("missed", "false_positives")]

KEY = ("data", "regime", "fraction", "candidate", "seed")
COLUMNS = (
    *KEY, "volume_ratio", "collapsed", "dice", "precision", "recall", "best_threshold", "dice_best",
    "brier_near", "brier_truth", "qubiq_dice", "ece_near",
)  # fmt: skip


# Settled by the rule in DESIGN.md after the screening.
FINALISTS = ("stock", "DML+CE", "balanced start, DML+CE", "balanced start, DML+CE+NKL+TV")
# Collapsed in the screening; for the questions, where there is enough foreground for them to learn.
QUESTIONED = ("DML+NKL+TV", "DML+NCE+MAE")
QUESTIONED_AT = "0.05"


@lru_cache(maxsize=1)
def data_of(data: str, regime: str, fraction: str, seed: int) -> tuple[images.Images, ...]:
    """Images to train on, to choose the threshold on, and to test on."""
    if data == "lidc":
        return images.lidc(seed, fraction=float(fraction))
    first = 10_000 * (1 + seed)
    parts = (range(first, first + 200), range(first + 200, first + 250), range(first + 250, first + 350))
    return tuple(images.knees(part, fraction=float(fraction), regime=regime) for part in parts)


def run_cell(cell: Cell) -> list[Row]:
    """Train one network and score it."""
    data, regime, fraction, name, seed = cell
    training, tuning, test = data_of(data, regime, fraction, int(seed))
    candidate = CANDIDATES[name]
    label = getattr(training, candidate.label)
    network = train(training.image, label[:, None], candidate.loss(), seed=int(seed), budget=BUDGET)
    threshold = best_threshold(tuning.truth, predict(network, tuning.image)[:, 0])
    # The linear form and hard labels aim at the majority: judge collapse by the smaller of what can be meant.
    wanted = min(test.soft.sum(), test.majority.sum())
    probability = predict(network, test.image)[:, 0]
    ratio = float(probability.sum() / wanted)
    return [
        {
            **dict(zip(KEY, cell, strict=True)),
            "volume_ratio": ratio,
            "collapsed": int(ratio < 0.1),
            **score_images(test, probability, threshold),
        }
    ]


def cells() -> Iterator[Cell]:
    """Cells of the same images follow each other."""
    for seed in SCREEN_SEEDS:
        for condition in SCREEN:
            yield from ((*condition, name, str(seed)) for name in CANDIDATES)
    by_cost = sorted(product(FINAL_SEEDS, (*SCREEN, *FINAL_REGIMES)), key=lambda place: place[1] == SLOWEST)
    for seed, condition in by_cost:
        names = (*FINALISTS, *QUESTIONED) if condition[2] == QUESTIONED_AT else FINALISTS
        yield from ((*condition, name, str(seed)) for name in names)


def main() -> None:
    parser = study_parser(__doc__)
    args = parser.parse_args()
    if not args.tables:
        wanted = [cell for cell in cells() if cell[0] != "lidc" or LIDC.is_dir()]
        run_missing(RESULTS, wanted, run_cell, key=KEY, columns=COLUMNS, jobs=args.jobs)
    tables.write(RESULTS, finalists=FINALISTS, questioned=QUESTIONED, screen_seeds=len(SCREEN_SEEDS))


if __name__ == "__main__":
    main()
