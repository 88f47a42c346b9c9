"""Which fusion and which prior bring a label closest to the truth, before any network.

    python -m docs.studies.labels                    # all cells, minutes
    python -m docs.studies.labels --raise-unmarked   # the prior may raise what no rater marked
    python -m docs.studies.labels --tables           # only rewrites tables.md

Design, cells, seeds and criteria are in DESIGN.md, which was written before the first run. Results go to
results.csv, one row per knee and cell; tables.md is made from it.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from docs.studies.labels import tables
from docs.studies.labels.tables import CONTRASTS, METRICS, SEES_THE_IMAGE
from docs.studies.shared.labels import Labels, lesion_model, mean_in_bone, mean_in_bone_bright
from nnunet_softlabel.fusion import RaterVotes, estimate_rater_rates, majority_vote, mean_vote, staple
from nnunet_softlabel.metrics.lesions import count_lesions, lesion_precision, lesion_recall
from nnunet_softlabel.metrics.overlap import dice, soft_dice
from nnunet_softlabel.simulation.knee_phantom import (
    KneeLesions,
    KneePhantom,
    make_knee_phantom,
    phantom_raters,
)
from nnunet_softlabel.simulation.simulated_raters import RATER_REGIMES

SEEDS = range(1000, 1060)  # 0 to 39 were used to tune the phantom and the priors
NAMES = ("a", "b", "c")

RESULTS = Path(__file__).parent / "results.csv"
COLUMNS = ("regime", "contrast", "method", "seed", *METRICS, "note")
Row = dict[str, str | float]


def pooled_staple(knees: Sequence[KneePhantom], votes: Sequence[RaterVotes]) -> Labels:
    rates = estimate_rater_rates(votes)
    return [staple(v, rates=rates) for v in votes]


METHODS: dict[str, Callable[..., Labels]] = {
    "majority": lambda knees, votes: [majority_vote(v) for v in votes],
    "mean": lambda knees, votes: [mean_vote(v) for v in votes],
    "staple (case)": lambda knees, votes: [staple(v) for v in votes],
    "staple (dataset)": pooled_staple,
    "mean + roi": mean_in_bone,
    "mean + roi + intensity": mean_in_bone_bright,
}


def score(truth: np.ndarray, soft: np.ndarray, voxel_ml: float) -> dict[str, float]:
    """Error of one label; NaN where a number is undefined (no lesion, nothing predicted)."""
    hard = soft > 0.5
    counts = count_lesions(truth, hard)
    return {
        "brier_per_mille": 1000 * float(np.mean((soft - truth) ** 2, dtype=np.float64)),
        "soft_dice": soft_dice(truth.astype(np.float32), soft),
        "dice": dice(truth, hard),
        "lesion_recall": lesion_recall(counts),
        "lesion_precision": lesion_precision(counts),
        "healthy_ml": float("nan") if truth.any() else float(soft.sum(dtype=np.float64) * voxel_ml),
    }


def cell_rows(
    knees: Sequence[KneePhantom], regime: str, contrast: float, *, raises_unmarked: bool
) -> Iterator[Row]:
    votes = [
        RaterVotes(phantom_raters(knee, regime, seed=seed)[:, None] == 1, NAMES, knee.spacing_mm)
        for seed, knee in zip(SEEDS, knees, strict=True)
    ]
    voxel_ml = float(np.prod(knees[0].spacing_mm)) / 1000
    for method, function in METHODS.items():
        if contrast != CONTRASTS[0] and method not in SEES_THE_IMAGE:
            continue
        cell: Row = {"regime": regime, "contrast": contrast, "method": method}
        note = ""
        try:
            if method not in SEES_THE_IMAGE:
                labels = function(knees, votes)
            else:
                labels = function(knees, votes, raises_unmarked=raises_unmarked)
                model = lesion_model(knees, votes)[2]
                note = f"lesion model {model.mean[0]:.2f} +- {model.spread[0]:.2f}"
        except ValueError as error:  # the prior refuses lesions that are not brighter
            yield cell | {"seed": "", "note": f"refused: {error}"}
            continue
        for seed, knee, label in zip(SEEDS, knees, labels, strict=True):
            yield cell | {"seed": seed, "note": note} | score(knee.truth == 1, label[0], voxel_ml)


def run(*, raises_unmarked: bool) -> None:
    with RESULTS.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        for contrast in CONTRASTS:
            knees = [make_knee_phantom(seed, lesions=KneeLesions(contrast=contrast)) for seed in SEEDS]
            for regime in RATER_REGIMES:
                for row in cell_rows(knees, regime, contrast, raises_unmarked=raises_unmarked):
                    writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
                file.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tables", action="store_true", help="Only rewrite the tables from the CSV.")
    parser.add_argument(
        "--raise-unmarked", action="store_true", help="The intensity prior may raise what no rater marked."
    )
    args = parser.parse_args()
    if not args.tables:
        run(raises_unmarked=args.raise_unmarked)
    tables.write(RESULTS)


if __name__ == "__main__":
    main()
