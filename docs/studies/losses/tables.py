"""Tables and plot of the study of losses, from results.csv into tables.md and dice.png."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np

from docs.studies.shared.numbers import (
    Rows,
    difference_text,
    markdown,
    mean_text,
    paired,
    ranks,
    select,
    values,
    write_tables,
)
from docs.studies.shared.resumable import read_rows

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
PAGE, PLOT = HERE / "tables.md", HERE / "dice.png"
REGIMES = {
    "knee, outlines": {"data": "knee", "regime": "boundary"},
    "knee, missed": {"data": "knee", "regime": "missed"},
    "knee, false positives": {"data": "knee", "regime": "false_positives"},
    "LIDC": {"data": "lidc"},
}
QUESTIONS = {
    "soft against hard: DML+CE minus stock": ("stock", "DML+CE", {}),
    "balanced start: with it minus without, DML+CE": ("DML+CE", "balanced start, DML+CE", {}),
    "active-passive terms: with minus without, balanced start": (
        "balanced start, DML+CE",
        "balanced start, DML+CE+NKL+TV",
        {},
    ),
    "consistent against expectation, 5 %: DML+NKL+TV minus DML+NCE+MAE": (
        "DML+NCE+MAE",
        "DML+NKL+TV",
        {"fraction": "0.05"},
    ),
}


def write(path: Path, *, finalists: Sequence[str], questioned: Sequence[str], screen_seeds: int) -> None:
    """Rewrite tables.md and the plot."""
    rows = read_rows(path)
    screened = [
        row for row in rows if int(row["seed"]) < screen_seeds and row["regime"] in ("boundary", "real")
    ]
    final = [row for row in rows if row["candidate"] in finalists]
    others = [row for row in rows if row["candidate"] in questioned and row["fraction"] == "0.05"]
    picture = (
        "![Dice over the share of foreground](dice.png)\n\n"
        "*Dice to the truth at 0.5 (LIDC: to the majority) in the screening; each dot is a training, "
        "lines join the means, a cross is a collapse.*"
    )
    write_tables(
        PAGE,
        {
            "Screening: every candidate, two seeds": screening(screened),
            "Finalists, seven seeds (`missed` and `false_positives` five)": conditions_table(
                [*final, *others], [*finalists, *questioned]
            ),
            "The rule": rule(final, finalists),
            "The questions": f"{questions([*final, *others])}\n\n{picture}",
        },
    )
    plot(screened)


def conditions(rows: Rows) -> list[tuple[str, str, str]]:
    """Data, regime and share of foreground, in the order in which they come."""
    return list(dict.fromkeys((row["data"], row["regime"], row["fraction"]) for row in rows))


def of_condition(rows: Rows, condition: tuple[str, str, str]) -> Rows:
    return select(rows, **dict(zip(("data", "regime", "fraction"), condition, strict=True)))


def condition_title(condition: tuple[str, str, str]) -> str:
    data, regime, fraction = condition
    error = {"boundary": "outlines", "false_positives": "false positives"}.get(regime, regime)
    return ("LIDC" if data == "lidc" else f"knee, {error}") + f", {100 * float(fraction):g} %"


def table_of(rows: Rows, names: Sequence[str], metric: str) -> np.ndarray:
    """``(names, conditions)`` means over seeds."""
    return np.array(
        [
            [np.mean(values(select(of_condition(rows, c), candidate=name), metric)) for c in conditions(rows)]
            for name in names
        ]
    )


def count_text(rows: Rows) -> str:
    """Collapses, of how many runs."""
    return f"{sum(int(row['collapsed']) for row in rows)} of {len(rows)}"


def learned_nothing(rows: Rows) -> str:
    """Runs whose Dice is below 0.1 even at the threshold that suits them best."""
    return f"{int((values(rows, 'dice_best') < 0.1).sum())} of {len(rows)}"


def screening(rows: Rows) -> str:
    names = list(dict.fromkeys(row["candidate"] for row in rows))
    titles = [condition_title(c) for c in conditions(rows)]
    tables = {m: table_of(rows, names, m) for m in ("dice", "brier_near", "qubiq_dice")}
    total = sum(ranks(table, higher_is_better=m != "brier_near") for m, table in tables.items()) / 3
    lines = []
    for n in np.argsort(total):
        own = select(rows, candidate=names[n])
        lines.append(
            [
                f"`{names[n]}`",
                count_text(own),
                learned_nothing(own),
                *(f"{x:.3f}" for x in tables["dice"][n]),
                f"{tables['brier_near'][n].mean():.4f}",
                f"{tables['qubiq_dice'][n].mean():.3f}",
                f"{total[n]:.1f}",
            ]
        )
    head = [
        "loss",
        "collapsed",
        "learned nothing",
        *(f"Dice, {t}" for t in titles),
        "Brier",
        "QUBIQ Dice",
        "mean rank",
    ]
    return markdown(head, lines)


def conditions_table(rows: Rows, finalists: Sequence[str]) -> str:
    metrics = {
        "dice": "Dice at 0.5",
        "dice_best": "Dice, tuned threshold",
        "precision": "precision",
        "recall": "recall",
        "brier_near": "Brier near",
        "ece_near": "ECE near",
        "qubiq_dice": "QUBIQ Dice",
    }
    lines = []
    for condition in conditions(rows):
        for name in finalists:
            own = select(of_condition(rows, condition), candidate=name)
            if not own:
                continue
            collapsed = count_text(own)
            lines.append(
                [
                    condition_title(condition),
                    f"`{name}`",
                    collapsed,
                    *(mean_text(values(own, m)) for m in metrics),
                ]
            )
    return markdown(["images", "loss", "collapsed", *metrics.values()], lines)


def rule(rows: Rows, finalists: Sequence[str]) -> str:
    soft = [name for name in finalists if name != "stock"]
    brier_ranks = ranks(table_of(rows, soft, "brier_near"), higher_is_better=False)
    qubiq_ranks = ranks(table_of(rows, soft, "qubiq_dice"), higher_is_better=True)
    lines = []
    for n, name in enumerate(soft):
        own = select(rows, candidate=name)
        lines.append(
            [
                f"`{name}`",
                count_text(own),
                learned_nothing(own),
                *(
                    difference_text(
                        paired(select(rows, candidate="stock", **where), select(own, **where), "dice")
                    )
                    for where in REGIMES.values()
                ),
                f"{brier_ranks[n]:.2f}",
                f"{qubiq_ranks[n]:.2f}",
                f"{brier_ranks[n] + qubiq_ranks[n]:.2f}",
            ]
        )
    head = [
        "loss",
        "collapsed",
        "learned nothing",
        *(f"Dice minus stock, {r}" for r in REGIMES),
        "rank Brier",
        "rank QUBIQ",
        "sum",
    ]
    return markdown(head, lines)


def questions(rows: Rows) -> str:
    metrics = ("dice", "dice_best", "brier_near", "qubiq_dice")
    lines = []
    for title, (first, second, at) in QUESTIONS.items():
        for regime, where in REGIMES.items():
            pairs = [select(rows, candidate=name, **where, **at) for name in (first, second)]
            lines.append([title, regime, *(difference_text(paired(*pairs, m), 4) for m in metrics)])
    head = ["question", "regime", "Dice at 0.5", "Dice, tuned threshold", "Brier near", "QUBIQ Dice"]
    return markdown(head, lines)


def plot(rows: Rows) -> None:
    """Dice over the share of foreground for every candidate."""
    names = list(dict.fromkeys(row["candidate"] for row in rows))
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True)
    colours = plt.get_cmap("tab20").colors
    for axis, (data, title) in zip(axes, (("knee", "generated knees"), ("lidc", "LIDC slices")), strict=True):
        for colour, name in zip(colours, names, strict=False):
            own = select(rows, data=data, candidate=name)
            if not own:
                continue
            shares = sorted({float(row["fraction"]) for row in own})
            means = [np.mean(values([r for r in own if float(r["fraction"]) == s], "dice")) for s in shares]
            axis.plot(shares, means, color=colour, label=name, linewidth=1)
            for row in own:
                marker = "x" if row["collapsed"] == "1" else "."
                axis.plot(float(row["fraction"]), float(row["dice"]), marker, color=colour, markersize=5)
        axis.set_xscale("log")
        axis.set_xticks([0.002, 0.01, 0.05], ["0.2 %", "1 %", "5 %"])
        axis.minorticks_off()
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("share of foreground")
    axes[0].set_ylabel("Dice at 0.5")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="center right", fontsize=7)
    figure.tight_layout(rect=(0, 0, 0.84, 1))
    figure.savefig(PLOT, dpi=90)
