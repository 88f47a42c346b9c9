"""The paper's comparison on generated knees: labels x losses x rater errors, by voxel, lesion and knee.

    python -m docs.studies.knees --jobs 2      # runs what results.csv lacks, then the tables
    python -m docs.studies.knees --tables      # only rewrites tables.md

Design, cells, seeds and criteria are in DESIGN.md, written before the first run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from docs.studies.knees import tables
from docs.studies.shared.labels import mean_in_bone_bright, rater_corrected
from docs.studies.shared.losses import balanced_start, expectation, fused, stock
from docs.studies.shared.resumable import Cell, Row, run_missing, study_parser
from docs.studies.shared.scores import best_threshold, mean_dice
from docs.studies.shared.small_network import NetworkBudget, StudyLoss, normalised, predict, train
from nnunet_softlabel.fusion import RaterVotes, majority_vote, mean_vote
from nnunet_softlabel.metrics.calibration import brier
from nnunet_softlabel.metrics.lesions import case_score, count_lesions, detection_auc
from nnunet_softlabel.metrics.overlap import NAN, precision, ratio, recall
from nnunet_softlabel.simulation.knee_phantom import (
    KneeLesions,
    KneePhantom,
    make_knee_phantom,
    phantom_raters,
)
from nnunet_softlabel.simulation.simulated_raters import RaterSkill, simulate_raters

RESULTS = Path(__file__).parent / "results.csv"
BUDGET = NetworkBudget(iterations=400, batch_size=8, optimizer="adamw")
LONG = NetworkBudget(iterations=2000, batch_size=8, optimizer="adamw")
N_TRAINING, N_TUNING, N_TEST = 60, 20, 40
SEEDS = range(3)
NAMES = ("a", "b", "c")

REGIMES = ("boundary", "missed", "false_positives")
# Where it should not help: raters who are all right, and lesions hardly brighter than marrow.
HARD_FOR_US = (("unanimous", "1"), ("boundary", "0.15"))

LABELS = {
    "majority": lambda knees, votes: [majority_vote(v) for v in votes],
    "mean": lambda knees, votes: [mean_vote(v) for v in votes],
    "anatomy": mean_in_bone_bright,
}
LOSSES: dict[str, StudyLoss] = {
    "BCE": fused(dml=0.0, nkl=0.0, tv=0.0),
    "Dice+CE": stock,
    "DML+CE": fused(nkl=0.0, tv=0.0),
    "SoftCE": balanced_start(0.0),
    "APL": balanced_start(1.0),
    "APL, no balanced start": fused(),
    "APL expectation": expectation,
}
BCE_LONG, STOCK_LONG, SOFT_CE_LONG = (f"{name}, {LONG.iterations}" for name in ("BCE", "Dice+CE", "SoftCE"))
LOSSES |= {BCE_LONG: LOSSES["BCE"], STOCK_LONG: LOSSES["Dice+CE"], SOFT_CE_LONG: LOSSES["SoftCE"]}
SOFT_CE, NO_START = "SoftCE", "APL, no balanced start"
FIRST_LOSSES = ("BCE", "Dice+CE", "DML+CE", "APL", "APL expectation")
KEY = ("regime", "contrast", "label", "loss", "seed", "threshold")
COLUMNS = (
    *KEY, "value", "dice", "precision", "recall", "lesion_precision", "lesion_recall", "lesion_f1",
    "knee_sensitivity", "knee_specificity", "knee_auc", "brier_truth", "label_dice", "label_brier", "note",
)  # fmt: skip


@dataclass(frozen=True)
class Knees:
    """Knees of one seed, regime and contrast; ``votes`` are those of the training knees."""

    training: list[KneePhantom]
    tuning: list[KneePhantom]
    test: list[KneePhantom]
    votes: list[RaterVotes]


@lru_cache(maxsize=1)
def knees_of(regime: str, contrast: str, seed: str) -> Knees:
    first = 1_000_000 + 1000 * int(seed)
    seeds = range(first, first + N_TRAINING + N_TUNING + N_TEST)
    knees = [make_knee_phantom(s, lesions=KneeLesions(contrast=float(contrast))) for s in seeds]
    votes = [
        RaterVotes(drawn(knee, regime, s)[:, None] == 1, NAMES, knee.spacing_mm)
        for s, knee in zip(seeds[:N_TRAINING], knees[:N_TRAINING], strict=True)
    ]
    tuned = N_TRAINING + N_TUNING
    return Knees(knees[:N_TRAINING], knees[N_TRAINING:tuned], knees[tuned:], votes)


def drawn(knee: KneePhantom, regime: str, seed: int) -> np.ndarray:
    """What three raters draw."""
    if regime == "unanimous":
        return simulate_raters(
            knee.truth, spacing_mm=knee.spacing_mm, raters=[RaterSkill()] * len(NAMES), seed=seed
        )
    return phantom_raters(knee, regime, seed=seed)


def run_cell(cell: Cell) -> list[Row]:
    """Train one network on the slices of the training knees, score it in 3D on the test knees."""
    regime, contrast, label, loss, seed = cell
    found = knees_of(regime, contrast, seed)
    about = dict(zip(KEY, cell, strict=False))
    try:
        labels = LABELS[label](found.training, found.votes)
    except ValueError as error:  # the prior refuses lesions that are not brighter
        return [{**about, "threshold": "0.5", "note": f"refused: {error}"}]
    soft = np.concatenate([q[0] for q in labels])
    network = train(
        np.concatenate([normalised(knee.image) for knee in found.training]),
        soft[:, None],
        LOSSES[loss],
        seed=int(seed),
        budget=LONG if loss in (BCE_LONG, STOCK_LONG, SOFT_CE_LONG) else BUDGET,
        draw=_any_vote(found.votes),
    )
    truth_of_training = np.stack([knee.truth == 1 for knee in found.training])
    about |= {
        "label_dice": mean_dice(truth_of_training, np.stack([q[0] > 0.5 for q in labels])),
        "label_brier": 1000 * brier(truth_of_training.astype(np.float32), np.stack([q[0] for q in labels])),
    }
    tuning, test = (
        [predict(network, normalised(knee.image))[:, 0] for knee in part]
        for part in (found.tuning, found.test)
    )
    thresholds = {
        "0.5": 0.5,
        "tuned": best_threshold(np.stack([knee.truth == 1 for knee in found.tuning]), np.stack(tuning)),
    }
    if label == "mean":
        thresholds["rater-corrected"] = rater_corrected(found.votes)
    truth = [knee.truth == 1 for knee in found.test]
    return [
        {**about, "threshold": name, "value": value, **score(truth, test, value)}
        for name, value in thresholds.items()
    ]


def _any_vote(votes: list[RaterVotes]) -> np.ndarray:
    """Slices in which some rater marked something, ``(N,)``."""
    return np.concatenate([v.votes.any(axis=(0, 1, 3, 4)) for v in votes])


def score(truth: list[np.ndarray], probability: list[np.ndarray], threshold: float) -> Row:
    """Against the known truth; precision, recall and lesions pooled over the knees."""
    hard = [p > threshold for p in probability]
    counts = [count_lesions(t, h) for t, h in zip(truth, hard, strict=True)]
    matched, in_truth, predicted = (sum(c[k] for c in counts) for k in range(3))
    has_lesion = np.array([t.any() for t in truth])
    says_lesion = np.array([h.any() for h in hard])
    all_truth, all_hard = np.stack(truth), np.stack(hard)
    return {
        "dice": mean_dice(all_truth[has_lesion], all_hard[has_lesion]),
        "precision": precision(all_truth, all_hard),
        "recall": recall(all_truth, all_hard),
        "lesion_precision": ratio(matched, predicted),
        "lesion_recall": ratio(matched, in_truth),
        "lesion_f1": ratio(2 * matched, in_truth + predicted),
        "knee_sensitivity": float(says_lesion[has_lesion].mean()) if has_lesion.any() else NAN,
        "knee_specificity": float(1 - says_lesion[~has_lesion].mean()) if (~has_lesion).any() else NAN,
        "knee_auc": detection_auc(has_lesion.tolist(), [case_score(p) for p in probability]),
        "brier_truth": 1000 * brier(all_truth.astype(np.float32), np.stack(probability)),
    }


def cells() -> Iterator[Cell]:
    """Cells of the same knees follow each other; all of one seed before the next."""
    for seed in SEEDS:
        for regime in REGIMES:
            for label in LABELS:
                losses = FIRST_LOSSES if label != "majority" else [n for n in FIRST_LOSSES if n != "DML+CE"]
                yield from ((regime, "1", label, loss, str(seed)) for loss in losses)
    for seed in SEEDS:
        for regime, contrast in HARD_FOR_US:
            for label in LABELS:
                base = "Dice+CE" if label == "majority" else "DML+CE"
                yield from ((regime, contrast, label, loss, str(seed)) for loss in (base, "APL"))
    for seed in SEEDS:
        yield from ((regime, "1", "mean", NO_START, str(seed)) for regime in REGIMES)
    places = [*((regime, "1") for regime in REGIMES), *HARD_FOR_US]
    for seed in SEEDS:
        for place in places:
            yield from ((*place, label, SOFT_CE, str(seed)) for label in LABELS)
    for seed in SEEDS:
        for regime in REGIMES[:2]:
            yield (regime, "1", "majority", STOCK_LONG, str(seed))
            yield from ((regime, "1", label, SOFT_CE_LONG, str(seed)) for label in LABELS)
    for seed in SEEDS:
        yield from ((regime, "1", "majority", BCE_LONG, str(seed)) for regime in REGIMES[:2])


def main() -> None:
    parser = study_parser(__doc__)
    args = parser.parse_args()
    if not args.tables:
        run_missing(RESULTS, cells(), run_cell, key=KEY[:-1], columns=COLUMNS, jobs=args.jobs)
    tables.write(RESULTS)


if __name__ == "__main__":
    main()
