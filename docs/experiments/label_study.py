"""Which fusion and which prior bring a label closest to the truth, before any network.

    python docs/experiments/label_study.py                    # all cells, minutes
    python docs/experiments/label_study.py --raise-unmarked   # the prior may raise what no rater marked
    python docs/experiments/label_study.py --tables           # only rewrites the tables in docs/labels.md

Design, cells, seeds and criteria are in docs/labels.md, which was written before the first run. Results go to
label_study.csv beside this file, one row per knee and cell; the tables of docs/labels.md are made from it.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from operator import add
from pathlib import Path

import numpy as np

from nnunet_softlabel.fusion import RaterVotes, estimate_rater_rates, majority_vote, mean_vote, staple
from nnunet_softlabel.metrics.lesions import count_lesions, lesion_precision, lesion_recall
from nnunet_softlabel.metrics.overlap import dice, soft_dice
from nnunet_softlabel.priors.intensity import apply_intensity_prior
from nnunet_softlabel.priors.lesions import LesionModel, lesion_statistics
from nnunet_softlabel.priors.roi import apply_roi
from nnunet_softlabel.priors.tissue import TissueModel, estimate_tissue
from nnunet_softlabel.report.significance import mean_interval
from nnunet_softlabel.simulation.knee_phantom import KneePhantom, make_knee_phantom, phantom_raters
from nnunet_softlabel.simulation.simulated_raters import RATER_REGIMES

SEEDS = range(1000, 1060)  # 0 to 39 were used to tune the phantom and the priors
CONTRASTS = (1.0, 0.5, 0.15, 0.0)
NAMES = ("a", "b", "c")
# What most bone masks are not: exact. Voxels are 4 x 2 x 2 mm.
ROI_MARGIN_MM = 2.0

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "label_study.csv", HERE.parent / "labels.md"
METRICS = ("brier_per_mille", "soft_dice", "dice", "lesion_recall", "lesion_precision", "healthy_ml")
COLUMNS = ("regime", "contrast", "method", "seed", *METRICS, "note")
TITLES = {
    "brier_per_mille": "Brier, 1e-3 (lower)",
    "soft_dice": "soft Dice",
    "dice": "Dice at 0.5",
    "lesion_recall": "lesion recall",
    "lesion_precision": "lesion precision",
    "healthy_ml": "ml in healthy knees (lower)",
}

Labels = list[np.ndarray]
Row = dict[str, str | float]


def mean_in_bone(knees: Sequence[KneePhantom], votes: Sequence[RaterVotes]) -> Labels:
    return [
        apply_roi(mean_vote(v), [k.bone_mask], spacing_mm=k.spacing_mm, margin_mm=ROI_MARGIN_MM)
        for k, v in zip(knees, votes, strict=True)
    ]


def lesion_model(
    knees: Sequence[KneePhantom], votes: Sequence[RaterVotes]
) -> tuple[Labels, list[TissueModel], LesionModel]:
    """The label in bone, normal tissue of each knee, and lesions pooled over all knees."""
    in_bone = mean_in_bone(knees, votes)
    tissues = [estimate_tissue(k.image, k.bone_mask, q) for k, q in zip(knees, in_bone, strict=True)]
    parts = [
        lesion_statistics(k.image, k.bone_mask, q, t) for k, q, t in zip(knees, in_bone, tissues, strict=True)
    ]
    return in_bone, tissues, reduce(add, parts).model()


def mean_in_bone_bright(
    knees: Sequence[KneePhantom], votes: Sequence[RaterVotes], *, raises_unmarked: bool = False
) -> Labels:
    """ROI, then the intensity prior with its other defaults."""
    in_bone, tissues, lesions = lesion_model(knees, votes)
    return [
        apply_intensity_prior(q, k.image, k.bone_mask, t, lesions, raises_unmarked=raises_unmarked)
        for k, q, t in zip(knees, in_bone, tissues, strict=True)
    ]


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
SEES_THE_IMAGE = ("mean + roi + intensity",)  # the others are the same at any contrast
DIFFERENCES = (
    ("mean", "staple (dataset)", "pooled STAPLE, against mean"),
    ("staple (case)", "staple (dataset)", "pooled STAPLE, against STAPLE per case"),
    ("mean", "mean + roi", "roi, against mean"),
    ("mean + roi", "mean + roi + intensity", "intensity, against roi"),
    ("mean", "mean + roi + intensity", "roi and intensity, against mean"),
)


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
            knees = [make_knee_phantom(seed, lesion_contrast=contrast) for seed in SEEDS]
            for regime in RATER_REGIMES:
                for row in cell_rows(knees, regime, contrast, raises_unmarked=raises_unmarked):
                    writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
                file.flush()


def tables(rows: Sequence[Mapping[str, str]]) -> str:
    """All tables as Markdown."""
    usual, dim = CONTRASTS[0], CONTRASTS[1:]
    head = " | ".join(TITLES[m] for m in METRICS)
    line = "---|" * len(METRICS)
    return "\n".join(
        [
            f"#### Every label, lesion contrast {usual:g}\n\n| error | label | {head} |\n|---|---|{line}",
            *(_values(rows, regime, usual, method, method) for regime in RATER_REGIMES for method in METHODS),
            "\n#### The intensity prior where lesions are less bright, or not at all\n",
            "Only this label depends on the image. Lesion model: mean and standard deviation, in spreads of",
            f"the normal marrow.\n\n| error | contrast, lesion model | {head} |\n|---|---|{line}",
            *(
                _values(rows, regime, contrast, method, _with_model(rows, regime, contrast, method))
                for regime in RATER_REGIMES
                for contrast in (usual, *dim)
                for method in SEES_THE_IMAGE
            ),
            "\n#### What a prior or pooled rates change, knee by knee\n",
            "A star: the interval leaves out 0. Knees where a number is undefined in one of the labels are",
            f"left out.\n\n| error | contrast | what | {head} |\n|---|---|---|{line}",
            *_differences(rows),
        ]
    )


def _with_model(rows: Sequence[Mapping[str, str]], regime: str, contrast: float, method: str) -> str:
    note = _cell(rows, regime, contrast, method)[0]["note"]
    return f"{contrast:g}" + note.replace("lesion model", ",") * note.startswith("lesion model")


def _values(rows: Sequence[Mapping[str, str]], regime: str, contrast: float, method: str, title: str) -> str:
    found = _cell(rows, regime, contrast, method)
    is_refused = found[0]["note"].startswith("refused")
    cells = ["refused"] if is_refused else [_interval([row[m] for row in found]) for m in METRICS]
    return f"| {regime} | {title} | " + " | ".join(cells) + " |"


def _differences(rows: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """Paired by knee: mean difference with its interval; a star where the interval leaves out 0."""
    for regime in RATER_REGIMES:
        for first, second, title in DIFFERENCES:
            for contrast in CONTRASTS if second in SEES_THE_IMAGE else CONTRASTS[:1]:
                base = _cell(rows, regime, CONTRASTS[0], first)
                found = _cell(rows, regime, contrast, second)
                is_refused = found[0]["note"].startswith("refused")
                cells = ["refused"] if is_refused else [_difference(base, found, m) for m in METRICS]
                at = f"{contrast:g}" if second in SEES_THE_IMAGE else "any"
                yield f"| {regime} | {at} | {title} | " + " | ".join(cells) + " |"


def _cell(
    rows: Sequence[Mapping[str, str]], regime: str, contrast: float, method: str
) -> list[Mapping[str, str]]:
    wanted = (regime, contrast, method)
    return [row for row in rows if (row["regime"], float(row["contrast"]), row["method"]) == wanted]


def _interval(values: Sequence[str]) -> str:
    found = mean_interval([float(v) for v in values])
    return f"{found.mean:.3f} ({found.low:.3f} to {found.high:.3f})" + _number_of(found.n)


def _difference(base: Sequence[Mapping[str, str]], other: Sequence[Mapping[str, str]], metric: str) -> str:
    found = mean_interval([float(b[metric]) - float(a[metric]) for a, b in zip(base, other, strict=True)])
    star = " *" if found.low > 0 or found.high < 0 else ""
    return f"{found.mean:+.3f} ({found.low:+.3f} to {found.high:+.3f}){star}" + _number_of(found.n)


def _number_of(n: int) -> str:
    return "" if n == len(SEEDS) else f", n = {n}"


def write_tables() -> None:
    with RESULTS.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    begin, end = "<!-- tables: begin -->", "<!-- tables: end -->"
    page = PAGE.read_text(encoding="utf-8")
    before, after = page.split(begin)[0], page.split(end)[1]
    PAGE.write_text(f"{before}{begin}\n{tables(rows)}\n{end}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tables", action="store_true", help="Only rewrite the tables from the CSV.")
    parser.add_argument(
        "--raise-unmarked", action="store_true", help="The intensity prior may raise what no rater marked."
    )
    args = parser.parse_args()
    if not args.tables:
        run(raises_unmarked=args.raise_unmarked)
    write_tables()


if __name__ == "__main__":
    main()
