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

# column -> (label, threshold)
AT_A_GLANCE = {
    "mean": ("mean", "0.5"),
    "mean, tuned": ("mean", "tuned"),
    "mean, rates": ("mean", "rates"),
    "staple": ("staple", "0.5"),
    "every mark": ("every mark", "0.5"),
    "**lesion-wise**": ("lesion-wise", "0.5"),
    "anatomy": ("anatomy", "0.5"),
    "lesion-wise, anatomy": ("lesion-wise, anatomy", "0.5"),
}
BRIER = {
    "network, mean": ("mean", "brier_near", 3),
    "network, lesion-wise": ("lesion-wise", "brier_near", 3),
    "label, mean": ("mean", "label_brier", 1),
    "label, lesion-wise": ("lesion-wise", "label_brier", 1),
    "label, anatomy": ("anatomy", "label_brier", 1),
    "label, both": ("lesion-wise, anatomy", "label_brier", 1),
}

Rows = Sequence[Mapping[str, str]]


def write(results: Path) -> None:
    """Rewrite tables.md."""
    rows = read_rows(results)
    first = [row for row in rows if row["threshold"] in ("", "0.5")]
    trained = [row for row in rows if row["threshold"]]
    head = ["data", "regime", "contrast", "correlation"]
    parts = {
        "Dice at a glance": at_a_glance(rows),
        "Brier at a glance": brier_at_a_glance(first),
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


def conditions(rows: Rows) -> Iterator[tuple[str, str, Rows]]:
    """(data, regime) and its rows: scenes, and knees of contrast 1 and correlation 0.3."""
    main = [r for r in rows if r["data"] == "scenes" or (r["contrast"], r["correlation"]) == ("1", "0.3")]
    for data, regime in dict.fromkeys((row["data"], row["regime"]) for row in main):
        yield data, regime, [row for row in main if (row["data"], row["regime"]) == (data, regime)]


def at_a_glance(rows: Rows) -> str:
    """Dice of networks, a line per condition."""
    lines = []
    for data, regime, own in conditions(rows):
        cells = []
        for label, threshold in AT_A_GLANCE.values():
            found = [r for r in own if (r["label"], r["threshold"]) == (label, threshold)]
            cells.append(f"**{_mean(found, 'dice')}**" if label == "lesion-wise" else _mean(found, "dice"))
        lines.append([data, f"`{regime}`", str(len({row["seed"] for row in own})), *cells])
    return markdown(["data", "readers", "seeds", *AT_A_GLANCE], lines)


def brier_at_a_glance(first: Rows) -> str:
    """Of networks near the object, and of labels in thousandths, a line per condition."""
    lines = [
        [
            data,
            f"`{regime}`",
            *(
                _mean([row for row in own if row["label"] == label], score, digits)
                for label, score, digits in BRIER.values()
            ),
        ]
        for data, regime, own in conditions(first)
    ]
    return markdown(["data", "readers", *BRIER], lines)


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


def _mean(group: Rows, score: str, digits: int = 3) -> str:
    found = [float(row[score]) for row in group if row[score] not in ("", "nan")]
    return f"{np.mean(found):.{digits}f}" if found else "-"
