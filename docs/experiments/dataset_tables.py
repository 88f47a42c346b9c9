"""Tables of the study on the real data sets, from its CSV into docs/benchmark.md."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
from resumable import read_rows, replace_between
from study_numbers import Rows, difference_text, markdown, mean_text, select, values

from nnunet_softlabel.evaluation.inference import mean_interval

PAGE = Path(__file__).parents[1] / "benchmark.md"
METRICS = {
    "dice": "Dice",
    "qubiq_dice": "QUBIQ Dice",
    "brier_near": "Brier near",
    "ece_near": "ECE near",
    "volume_error_abs": "volume error",
}
BASE = "stock"


def write(path: Path) -> None:
    """Rewrite the part of docs/benchmark.md of every experiment that has rows."""
    rows = read_rows(path)
    for name in dict.fromkeys(row["experiment"] for row in rows):
        own = select(rows, experiment=name)
        if name == "raters":  # trained on all of them, every network is one of the other experiment
            own += select(rows, experiment="cases", variant="all")
        replace_between(PAGE, name, table(own))


def table(rows: Rows) -> str:
    """Means, and differences to stock nnU-Net's loss by case, per variant and class."""
    many_variants = len({row["variant"] for row in rows}) > 1
    many_classes = len({row["class"] for row in rows}) > 1
    lines, differences = [], []
    for variant in dict.fromkeys(row["variant"] for row in rows):
        for number in sorted({row["class"] for row in rows}):
            part = select(rows, variant=variant, **{"class": number})
            about = [variant] * many_variants + [number] * many_classes
            for loss in dict.fromkeys(row["loss"] for row in part):
                own = select(part, loss=loss)
                lines.append([*about, f"`{loss}`", *(mean_text(values(own, m)) for m in METRICS)])
                if loss != BASE:
                    base = select(part, loss=BASE)
                    texts = [difference_text(paired_by_case(base, own, m)) for m in METRICS]
                    differences.append([*about, f"`{loss}`", *texts])
    head = [*["variant"] * many_variants, *["class"] * many_classes, "loss", *METRICS.values()]
    n_cases, n_groups, n_folds = (len({row[name] for row in rows}) for name in ("case", "group", "fold"))
    return (
        f"{n_cases} cases of {n_groups} patients or objects, {n_folds} folds. Means:\n\n"
        f"{markdown(head, lines)}\n\nDifference to `{BASE}`, case by case, 95 % bootstrap over patients:\n\n"
        f"{markdown(head, differences)}{steps(rows) if many_variants else ''}"
    )


def steps(rows: Rows) -> str:
    """What each loss gains from one variant to the next, and from the first to the last."""
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    pairs = [*pairwise(variants), (variants[0], variants[-1])]
    lines = []
    for loss in dict.fromkeys(row["loss"] for row in rows):
        for first, last in pairs:
            two = [select(rows, loss=loss, variant=variant) for variant in (first, last)]
            texts = [difference_text(paired_by_case(two[0], two[1], m)) for m in METRICS]
            lines.append([f"`{loss}`", f"{first} to {last}", *texts])
    return f"\n\nWhat more of them brings:\n\n{markdown(['loss', 'from, to', *METRICS.values()], lines)}"


def paired_by_case(base: Rows, own: Rows, metric: str) -> tuple[float, float, float]:
    """Mean difference and interval, cases of a patient drawn together."""
    of_base = {(row["fold"], row["case"]): row for row in base}
    pairs = [(of_base[row["fold"], row["case"]], row) for row in own if (row["fold"], row["case"]) in of_base]
    difference = values([two for _, two in pairs], metric) - values([one for one, _ in pairs], metric)
    found = mean_interval(np.asarray(difference), [row["group"] for _, row in pairs], resamples=2000)
    return found.mean, found.low, found.high
