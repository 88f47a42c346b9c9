"""tables.md of the study of the defaults."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from docs.studies.shared.numbers import (
    Rows,
    difference_text,
    markdown,
    mean_text,
    paired,
    select,
    values,
    write_tables,
)
from docs.studies.shared.resumable import read_rows

PAGE = Path(__file__).parent / "tables.md"

METRICS = ("dice", "dice_best", "brier_near", "qubiq_dice", "ece_near", "volume_ratio")
HEADS = ("Dice at 0.5", "Dice, tuned", "Brier near", "QUBIQ Dice", "ECE near", "volume, times the label's")
COMPARED = ("dice", "brier_near", "qubiq_dice")
OLD_START, NEW_START = "DML+CE, start of a quarter", "DML+CE, start ends itself"

Settings = Sequence[tuple[str, str, str, Sequence[str]]]


def write(results: Path, settings: Settings) -> None:
    """Rewrite tables.md beside the CSV, from the seeds for which all losses of a setting are there."""
    means, differences = [], []
    for data, fraction, iterations, names in settings:
        about = [f"{data}, {100 * float(fraction):g} %", iterations]
        rows = _complete(
            select(read_rows(results), data=data, fraction=fraction, iterations=iterations), names
        )
        for name in names if rows else ():
            cell = select(rows, loss=name)
            ended = sorted(int(row["ended_at"]) for row in cell if row["ended_at"])
            lost = f"{sum(row['collapsed'] == '1' for row in cell)} of {len(cell)}"
            numbers = [mean_text(values(cell, metric)) for metric in METRICS]
            means.append([*about, name, lost, ", ".join(map(str, ended)) or "-", *numbers])
            for other in _against(name, names):
                first = select(rows, loss=other)
                found = [_difference(first, cell, metric) for metric in COMPARED]
                differences.append([*about, f"{name} minus {other}", str(len(cell)), *found])
    head = ["images", "iterations", "loss", "collapsed", "start ended at", *HEADS]
    question = ["images", "iterations", "question", "seeds", "Dice at 0.5", "Brier near", "QUBIQ Dice"]
    parts = {
        "Means over the seeds": markdown(head, means),
        "Differences, paired by seed": markdown(question, differences),
    }
    write_tables(PAGE, parts)


def _against(name: str, names: Sequence[str]) -> list[str]:
    """What a loss is compared with: the first of its setting, and the two starts with each other."""
    others = [] if name == names[0] else [names[0]]
    return [*others, OLD_START] if (name, OLD_START in names) == (NEW_START, True) else others


def _complete(rows: Rows, names: Sequence[str]) -> Rows:
    done = {seed: {row["loss"] for row in rows if row["seed"] == seed} for seed in {r["seed"] for r in rows}}
    return [row for row in rows if done[row["seed"]] >= set(names)]


def _difference(first: Rows, second: Rows, metric: str) -> str:
    """The difference with its interval, which a single seed does not have."""
    found = paired(first, second, metric)
    return difference_text(found) if len(second) > 1 else f"{found[0]:+.3f} (one seed)"
