"""Tables of the study on the real data sets, from results.csv into tables.md and scaling.png."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np

from docs.studies.shared.numbers import (
    Rows,
    difference_text,
    markdown,
    mean_text,
    select,
    values,
    write_tables,
)
from docs.studies.shared.resumable import read_rows
from nnunet_softlabel.report.significance import mean_interval

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
PAGE, PLOT = HERE / "tables.md", HERE / "scaling.png"
EXPERIMENTS = {
    "bubil": "BU-BIL",
    "hippocampus": "Hippocampus, simulated readers",
    "raters": "LIDC, number of raters, 400 iterations",
    "cases": "LIDC, number of cases, 400 iterations",
    "raters_long": "LIDC, number of raters, 2000 iterations",
    "cases_long": "LIDC, number of cases, 2000 iterations",
    "one": "Hippocampus, one reader",
}
FEW_AND_MANY = (("raters", "cases"), ("raters_long", "cases_long"), ("one", "hippocampus"))
METRICS = {
    "dice": "Dice",
    "qubiq_dice": "QUBIQ Dice",
    "brier_near": "Brier near",
    "ece_near": "ECE near",
    "volume_error_abs": "volume error",
}
BASE, DEFAULT = "stock", "balanced start, DML+CE"
OTHERS = ("DML+CE", "balanced start, DML+CE+NKL+TV")  # compared with the default, too


def write(path: Path) -> None:
    """Rewrite tables.md, a part for every experiment that has rows, and the plot."""
    rows = read_rows(path)
    of = {name: select(rows, experiment=name) for name in dict.fromkeys(row["experiment"] for row in rows)}
    for few, many in FEW_AND_MANY:
        if few in of and many in of:  # trained on all readers, a network is one of the other experiment
            of[few] += _same_losses_and_folds(of[few], select(rows, experiment=many, variant="all"))
    if "raters_long" in of and "cases_long" in of:
        plot(of["raters_long"], of["cases_long"])
    write_tables(PAGE, {EXPERIMENTS.get(name, name): table(own) for name, own in of.items()})


def _same_losses_and_folds(like: Rows, rows: Rows) -> Rows:
    losses, folds = ({row[name] for row in like} for name in ("loss", "fold"))
    return [row for row in rows if row["loss"] in losses and row["fold"] in folds]


def table(rows: Rows) -> str:
    """Means, and differences to stock nnU-Net's loss by case, per variant and class."""
    many_variants = len({row["variant"] for row in rows}) > 1
    many_classes = len({row["class"] for row in rows}) > 1
    lines, differences = [], []
    for variant in variants_of(rows):
        for number in sorted({row["class"] for row in rows}):
            part = select(rows, variant=variant, **{"class": number})
            about = [variant] * many_variants + [number] * many_classes
            for loss in dict.fromkeys(row["loss"] for row in part):
                own = select(part, loss=loss)
                lines.append([*about, f"`{loss}`", *(mean_text(values(own, m)) for m in METRICS)])
                for base in (BASE, DEFAULT):
                    if loss in OTHERS or (base == BASE and loss != BASE):
                        two = select(part, loss=base), own
                        texts = [difference_text(paired_by_case(*two, m)) for m in METRICS]
                        differences.append([*about, f"`{loss}` - `{base}`", *texts])
    head = [*["variant"] * many_variants, *["class"] * many_classes, "loss", *METRICS.values()]
    n_cases, n_groups, n_folds = (len({row[name] for row in rows}) for name in ("case", "group", "fold"))
    return (
        f"{n_cases} cases of {n_groups} patients or objects, {n_folds} folds. Means:\n\n"
        f"{markdown(head, lines)}\n\nDifferences case by case, 95 % bootstrap over patients:\n\n"
        f"{markdown(head, differences)}{steps(rows) if many_variants else ''}"
    )


def variants_of(rows: Rows) -> list[str]:
    """Numbers from few to many, all of them last."""
    found = dict.fromkeys(row["variant"] for row in rows)
    return sorted(found, key=lambda v: (v == "all", int(v) if v.isdigit() else 0))


def steps(rows: Rows) -> str:
    """What each loss gains from one variant to the next, and from the first to the last."""
    variants = variants_of(rows)
    pairs = dict.fromkeys([*pairwise(variants), (variants[0], variants[-1])])
    lines = []
    for loss in dict.fromkeys(row["loss"] for row in rows):
        for first, last in pairs:
            two = [select(rows, loss=loss, variant=variant) for variant in (first, last)]
            texts = [difference_text(paired_by_case(two[0], two[1], m)) for m in METRICS]
            lines.append([f"`{loss}`", f"{first} to {last}", *texts])
    return f"\n\nWhat more of them brings:\n\n{markdown(['loss', 'from, to', *METRICS.values()], lines)}"


def paired_by_case(base: Rows, own: Rows, metric: str) -> tuple[float, float, float]:
    """Mean difference and interval, cases of a patient drawn together."""
    of_base = {_place(row): row for row in base}
    pairs = [(of_base[_place(row)], row) for row in own if _place(row) in of_base]
    difference = values([two for _, two in pairs], metric) - values([one for one, _ in pairs], metric)
    found = mean_interval(np.asarray(difference), [row["group"] for _, row in pairs], resamples=2000)
    return found.mean, found.low, found.high


def _place(row: Mapping[str, str]) -> tuple[str, str, str]:
    return row["fold"], row["case"], row["class"]


def plot(raters: Rows, cases: Rows) -> None:
    """Overlap and calibration over the number of raters and of cases; a line per loss, a dot per fold."""
    metrics = ("qubiq_dice", "brier_near")
    figure, axes = plt.subplots(2, 2, figsize=(8, 5.5), sharey="row", sharex="col")
    for column, (title, rows) in enumerate({"raters a case": raters, "cases to train on": cases}.items()):
        variants = variants_of(rows)
        for axis, metric in zip(axes[:, column], metrics, strict=True):
            for colour, loss in enumerate(dict.fromkeys(row["loss"] for row in rows)):
                own = [_fold_means(select(rows, loss=loss, variant=v), metric) for v in variants]
                axis.plot([np.mean(found) for found in own], color=f"C{colour}", label=loss)
                for place, found in enumerate(own):
                    axis.plot([place] * len(found), found, ".", color=f"C{colour}", markersize=4)
            axis.set_xticks(range(len(variants)), variants)
        axes[1, column].set_xlabel(title)
    for axis, metric in zip(axes[:, 0], metrics, strict=True):
        axis.set_ylabel(METRICS[metric])
    axes[0, 0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(PLOT, dpi=90)


def _fold_means(rows: Rows, metric: str) -> list[float]:
    folds = dict.fromkeys(row["fold"] for row in rows)
    return [float(np.nanmean(values(select(rows, fold=fold), metric))) for fold in folds]
