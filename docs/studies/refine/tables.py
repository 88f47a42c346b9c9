"""tables.md of the study of lesion-wise fusion, from results.csv."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from docs.studies.shared.numbers import markdown, write_tables
from docs.studies.shared.resumable import read_rows

PAGE = Path(__file__).parent / "tables.md"
CONDITION = ("data", "regime", "contrast", "correlation")
LABEL_SCORES = {
    "label_dice": "Dice of the label",
    "label_precision": "precision",
    "label_brier": "Brier, 1e-3 (lower)",
    "worst_rate_error": "largest error of a rate",
}
NETWORK_SCORES = {
    "dice": "Dice",
    "recall": "lesion recall",
    "precision": "lesion precision",
    "f1": "lesion F1",
    "brier_near": "Brier near (lower)",
}

Rows = Sequence[Mapping[str, str]]


def write(results: Path) -> None:
    """Rewrite tables.md."""
    rows = read_rows(results)
    first = [row for row in rows if row["threshold"] in ("", "0.5")]
    trained = [row for row in rows if row["threshold"]]
    head = ["data", "regime", "contrast", "correlation"]
    parts = {
        "labels": markdown(
            [*head, "label", "seeds", *LABEL_SCORES.values(), "models"],
            _lines(first, ("label",), LABEL_SCORES, with_model=True),
        ),
        "networks": markdown(
            [*head, "label", "threshold", "seeds", *NETWORK_SCORES.values()],
            _lines(trained, ("label", "threshold"), NETWORK_SCORES, with_model=False),
        ),
    }
    write_tables(PAGE, parts)


def _lines(
    rows: Rows, names: tuple[str, ...], scores: Mapping[str, str], *, with_model: bool
) -> Iterator[list[str]]:
    """A line per condition and label: means over seeds."""
    groups: dict[tuple[str, ...], list[Mapping[str, str]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[k] for k in (*CONDITION, *names)), []).append(row)
    for key, group in sorted(groups.items(), key=lambda item: item[0][: len(CONDITION)]):
        line = [*key, str(len({row["seed"] for row in group})), *(_mean(group, s) for s in scores)]
        yield line + [", ".join(sorted({r["model"] for r in group} - {""}))] * with_model


def _mean(group: Rows, score: str) -> str:
    found = [float(row[score]) for row in group if row[score] not in ("", "nan")]
    return f"{np.mean(found):.3f}" if found else "-"
