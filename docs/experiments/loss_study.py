"""Which loss is the default: collapse, overlap, calibration at three shares of foreground.

    python docs/experiments/loss_study.py --jobs 2    # runs what loss_study.csv lacks, then tables and plot
    python docs/experiments/loss_study.py --tables    # only rewrites tables and plot of docs/losses.md

Design, cells, seeds and the rule of decision are in docs/losses.md, written before the first run. Slices
of LIDC need the data set beside the source tree; without it the other cells run.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path

import images
import loss_tables
import numpy as np
from case_sources import LIDC
from resumable import Cell, Row, run_missing
from small_network import Budget, StudyLoss, predict, train
from torch import Tensor

from nnunet_softlabel.losses import (
    FusedSoftLoss,
    active_passive_loss,
    cross_entropy,
    dice_semimetric_loss,
    soft_dice_loss,
)
from nnunet_softlabel.metrics.calibration import brier, expected_calibration_error, near_object
from nnunet_softlabel.metrics.overlap import dice, precision, qubiq_dice, recall

HERE = Path(__file__).parent
RESULTS = HERE / "loss_study.csv"
BUDGET = Budget()
WARM_UP = 0.25  # share of the training with cross entropy alone
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


def fused(**weights: float) -> StudyLoss:
    """DML + CE + NKL + TV with other weights."""
    loss = FusedSoftLoss(batch_dice=True, **weights)
    return lambda logits, target, progress: loss(logits, target)


def stock(logits: Tensor, target: Tensor, progress: float) -> Tensor:
    """nnU-Net's Dice + CE."""
    return soft_dice_loss(logits, target, batch_dice=True) + cross_entropy(logits, target)


def expectation(logits: Tensor, target: Tensor, progress: float) -> Tensor:
    """DML + NCE + MAE, the target put in linearly."""
    return dice_semimetric_loss(logits, target, batch_dice=True) + active_passive_loss(
        logits, target, mode="expectation"
    )


def balanced(logits: Tensor, target: Tensor, progress: float) -> Tensor:
    """NKL + TV, averaged over voxels that some rater marked and over the others with equal weight."""
    is_marked = target[:, :1] < 1
    return 0.5 * sum(active_passive_loss(logits, target, mask=mask) for mask in (is_marked, ~is_marked))


def warmed_up(loss: StudyLoss) -> StudyLoss:
    """Cross entropy first."""

    def switched(logits: Tensor, target: Tensor, progress: float) -> Tensor:
        return cross_entropy(logits, target) if progress < WARM_UP else loss(logits, target, progress)

    return switched


def balanced_start(weight: float) -> StudyLoss:
    """DML + CE + weight * (NKL + TV), its voxel terms balanced as above in the first quarter."""
    settled = fused(weight_nkl=weight, weight_tv=weight)

    def voxel_terms(logits: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        apl = active_passive_loss(logits, target, mask=mask) if weight else 0.0
        return cross_entropy(logits, target, mask=mask) + weight * apl

    def switched(logits: Tensor, target: Tensor, progress: float) -> Tensor:
        if progress >= WARM_UP:
            return settled(logits, target, progress)
        is_marked = target[:, :1] < 1
        terms = 0.5 * (voxel_terms(logits, target, is_marked) + voxel_terms(logits, target, ~is_marked))
        return dice_semimetric_loss(logits, target, batch_dice=True) + terms

    return switched


@dataclass(frozen=True)
class Candidate:
    """A loss and the label it is trained on: ``majority`` or ``soft``."""

    label: str
    loss: Callable[[], StudyLoss]


def _off(*names: str) -> dict[str, float]:
    return {f"weight_{name}": 0.0 for name in names}


CANDIDATES: dict[str, Candidate] = {
    "stock": Candidate("majority", lambda: stock),
    "HardBCE": Candidate("majority", lambda: fused(**_off("dml", "nkl", "tv"))),
    "DML+CE": Candidate("soft", lambda: fused(**_off("nkl", "tv"))),
    "DML+CE+NKL+TV": Candidate("soft", fused),
    "DML+CE+0.1(NKL+TV)": Candidate("soft", lambda: fused(weight_nkl=0.1, weight_tv=0.1)),
    "DML+NCE+MAE": Candidate("soft", lambda: expectation),
    "NKL+TV": Candidate("soft", lambda: fused(**_off("dml", "ce"))),
    "DML+NKL+TV": Candidate("soft", lambda: fused(**_off("ce"))),
    "CE+NKL+TV": Candidate("soft", lambda: fused(**_off("dml"))),
    "balanced NKL+TV": Candidate("soft", lambda: balanced),
    "CE, then NKL+TV": Candidate("soft", lambda: warmed_up(fused(**_off("dml", "ce")))),
    "CE, then DML+NKL+TV": Candidate("soft", lambda: warmed_up(fused(**_off("ce")))),
    "DML+10NKL+0.1TV": Candidate("soft", lambda: fused(weight_ce=0.0, weight_nkl=10.0, weight_tv=0.1)),
    "DML+NKL+9.21TV": Candidate("soft", lambda: fused(weight_ce=0.0, weight_tv=9.21)),
    # the second round, after the first had shown that only a balanced average never collapses
    "balanced start, DML+CE": Candidate("soft", lambda: balanced_start(0.0)),
    "balanced start, DML+CE+0.1(NKL+TV)": Candidate("soft", lambda: balanced_start(0.1)),
    "balanced start, DML+CE+NKL+TV": Candidate("soft", lambda: balanced_start(1.0)),
}
# Settled by the rule in docs/losses.md after the screening.
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
            **score(test, probability, threshold),
        }
    ]


def best_threshold(truth: np.ndarray, probability: np.ndarray) -> float:
    """The threshold with the highest mean Dice over images."""
    levels = np.arange(0.05, 1, 0.05)
    means = [mean_dice(truth, probability > t) for t in levels]
    return float(levels[int(np.argmax(means))])


def mean_dice(truth: np.ndarray, prediction: np.ndarray) -> float:
    return float(np.nanmean([dice(t, p) for t, p in zip(truth, prediction, strict=True)]))


def score(test: images.Images, probability: np.ndarray, threshold: float) -> Row:
    """Overlap with the truth at 0.5 and at the threshold, calibration against the raters."""
    hard = probability > 0.5
    near = [near_object(q > 0, spacing_mm=test.spacing_mm, near_mm=5) for q in test.soft]
    triples = list(zip(test.soft, probability, near, strict=True))
    return {
        "dice": mean_dice(test.truth, hard),
        "precision": precision(test.truth, hard),
        "recall": recall(test.truth, hard),
        "best_threshold": threshold,
        "dice_best": mean_dice(test.truth, probability > threshold),
        "brier_near": float(np.nanmean([brier(q, p, mask=n) for q, p, n in triples])),
        "brier_truth": brier(test.truth.astype(np.float32), probability),
        "qubiq_dice": float(np.nanmean([qubiq_dice(q, p) for q, p, _ in triples])),
        "ece_near": float(np.nanmean([expected_calibration_error(q, p, mask=n) for q, p, n in triples])),
    }


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tables", action="store_true", help="Only rewrite tables and plot from the CSV.")
    parser.add_argument("--jobs", type=int, default=1, help="Networks trained at the same time.")
    args = parser.parse_args()
    if not args.tables:
        wanted = [cell for cell in cells() if cell[0] != "lidc" or LIDC.is_dir()]
        run_missing(RESULTS, wanted, run_cell, key=KEY, columns=COLUMNS, jobs=args.jobs)
    loss_tables.write(RESULTS, finalists=FINALISTS, questioned=QUESTIONED, screen_seeds=len(SCREEN_SEEDS))


if __name__ == "__main__":
    main()
