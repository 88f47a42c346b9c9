"""tables.md of the study of the defaults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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

PAGE = Path(__file__).parent / "tables.md"

METRICS = ("dice", "dice_best", "brier_near", "qubiq_dice", "ece_near", "volume_ratio")
HEADS = ("Dice at 0.5", "Dice, tuned", "Brier near", "QUBIQ Dice", "ECE near", "volume, times the label's")
COMPARED = ("dice", "brier_near", "qubiq_dice")
STOCK = "stock"
OLD_START, NEW_START = "DML+CE, start of a quarter", "DML+CE, start ends itself"


@dataclass(frozen=True)
class Setting:
    """Images, how long a network is trained on them, with which losses and seeds.

    Attributes:
        data: name of the images.
        fraction: share of foreground that was chosen; empty where the data decide.
        iterations: of the training.
        names: losses, as the table shows them.
        seeds: of the networks.
        without_training: rows that are made from another row's network.
        is_judged: whether the rule of part 2 counts it.
    """

    data: str
    fraction: str
    iterations: str
    names: Sequence[str]
    seeds: range
    without_training: tuple[str, ...] = ()
    is_judged: bool = False

    @property
    def about(self) -> list[str]:
        """Images and iterations, as the tables name them."""
        share = f", {100 * float(self.fraction):g} %" if self.fraction else ""
        return [self.data + share, self.iterations]

    @property
    def rows(self) -> tuple[str, ...]:
        """All losses that results.csv has of it."""
        return (*self.names, *self.without_training)


def write(results: Path, settings: Sequence[Setting], default: str) -> None:
    """Rewrite tables.md beside the CSV, from the seeds for which all losses of a setting are there.

    Args:
        results: the CSV.
        settings: in the order of the tables.
        default: the loss that the others of a longer training are held against, beside stock.
    """
    everything = read_rows(results)
    means, differences = [], []
    judged: list[Setting] = []
    for setting in settings:
        rows = complete(everything, setting)
        judged += [setting] if setting.is_judged and rows else []
        for name in setting.rows if rows else ():
            cell = select(rows, loss=name)
            means.append([*setting.about, name, *_collapse(cell), *_means(cell)])
            for other in _against(name, setting, default):
                found = [_difference(select(rows, loss=other), cell, metric) for metric in COMPARED]
                differences.append([*setting.about, f"{name} minus {other}", str(len(cell)), *found])
    head = ["images", "iterations", "loss", "collapsed", "start ended at", *HEADS]
    question = ["images", "iterations", "question", "seeds", "Dice at 0.5", "Brier near", "QUBIQ Dice"]
    parts = {
        "Means over the seeds": markdown(head, means),
        "Differences, paired by seed": markdown(question, differences),
        "The rule of part 2": _rule(everything, judged, default),
    }
    write_tables(PAGE, {title: text for title, text in parts.items() if text})


def complete(rows: Rows, setting: Setting) -> Rows:
    """The rows of a setting, of the seeds that have all of its losses."""
    own = select(rows, data=setting.data, fraction=setting.fraction, iterations=setting.iterations)
    done = {row["seed"]: {r["loss"] for r in own if r["seed"] == row["seed"]} for row in own}
    return [row for row in own if done[row["seed"]] >= set(setting.rows)]


def _collapse(cell: Rows) -> tuple[str, str]:
    """How many networks are lost, and when the starts ended; only the range where there are many."""
    lost = f"{sum(row['collapsed'] == '1' for row in cell)} of {len(cell)}"
    ended = sorted(int(row["ended_at"]) for row in cell if row["ended_at"])
    text = ", ".join(map(str, ended)) if len(ended) < 10 else f"{ended[0]} to {ended[-1]}"
    return lost, text or "-"


def _means(cell: Rows) -> list[str]:
    return [mean_text(values(cell, metric)) for metric in METRICS]


def _against(name: str, setting: Setting, default: str) -> list[str]:
    """What a loss is compared with: the first of its setting; the other start; the default."""
    if name == setting.names[0]:
        return []
    others = [setting.names[0], *(OLD_START for _ in range(name == NEW_START)), default]
    return [other for other in dict.fromkeys(others) if other != name and other in setting.names]


def _rule(everything: Rows, settings: Sequence[Setting], default: str) -> str:
    """Mean ranks of the soft endings over all settings and three scores, and where one is below stock."""
    if not settings:
        return ""
    names = [name for name in settings[0].rows if name != STOCK]
    found: dict[str, list[np.ndarray]] = {"brier_near": [], "qubiq_dice": [], "volume": []}
    below: dict[str, list[str]] = {name: [] for name in names}
    for setting in settings:
        rows = complete(everything, setting)
        cells = {name: select(rows, loss=name) for name in names}
        for metric in ("brier_near", "qubiq_dice"):
            found[metric].append(np.array([values(cell, metric).mean() for cell in cells.values()]))
        off = [np.abs(np.log(values(cell, "volume_ratio"))).mean() for cell in cells.values()]
        found["volume"].append(np.array(off))
        for name, cell in cells.items():
            high = paired(select(rows, loss=STOCK), cell, "dice")[2]
            below[name] += [" ".join(setting.about)] if high < 0 else []
    each = [ranks(np.stack(found[m], axis=1), higher_is_better=m == "qubiq_dice") for m in found]
    lines = [
        [name, *(f"{rank[i]:.2f}" for rank in each), f"{np.mean([rank[i] for rank in each]):.2f}",
         "; ".join(below[name]) or "nowhere"]
        for i, name in enumerate(names)
    ]  # fmt: skip
    about = f"Mean ranks over {len(settings)} settings, 1 is best. The default is *{default}*."
    head = ["ending", "Brier near", "QUBIQ Dice", "volume", "mean rank", "Dice shown to be below stock's"]
    return f"{about}\n\n{markdown(head, lines)}"


def _difference(first: Rows, second: Rows, metric: str) -> str:
    """The difference with its interval, which a single seed does not have."""
    found = paired(first, second, metric)
    return difference_text(found) if len(second) > 1 else f"{found[0]:+.3f} (one seed)"
