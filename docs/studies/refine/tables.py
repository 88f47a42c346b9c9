"""tables.md of the study of lesion-wise fusion, from results.csv."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

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
CONDITION = ("data", "regime", "contrast", "correlation")
MAIN_KNEES = ("1", "0.3")
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
PAPER = ("majority, cross entropy", "0.5")
OURS = ("lesion-wise", "0.5")

# column -> (label, threshold)
AT_A_GLANCE = {
    "majority, CE": PAPER,
    "mean": ("mean", "0.5"),
    "mean, tuned": ("mean", "tuned"),
    "mean, rates": ("mean", "rates"),
    "staple": ("staple", "0.5"),
    "every mark": ("every mark", "0.5"),
    "**lesion-wise**": OURS,
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
RIVALS = {
    "mean": ("mean", "0.5"),
    "mean, tuned": ("mean", "tuned"),
    "mean, voxel rates": ("mean", "voxel rates"),
    "mean, rates": ("mean", "rates"),
    "every mark": ("every mark", "0.5"),
    "anatomy": ("anatomy", "0.5"),
}


def write(results: Path) -> None:
    """Rewrite tables.md."""
    rows = read_rows(results)
    first = [row for row in rows if row["threshold"] in ("", "0.5")]
    trained = [row for row in rows if row["threshold"]]
    head = ["data", "regime", "contrast", "correlation"]
    parts = {
        "Dice at a glance": at_a_glance(rows),
        "Dice: lesion-wise minus": differences(rows),
        "Brier at a glance": brier_at_a_glance(first),
        "Beside the paper": beside_the_paper(rows),
        "Rates": rates(rows),
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


def conditions(rows: Rows) -> Iterator[tuple[list[str], Rows]]:
    """(data, readers, seeds) and its rows; the knees of contrast 1 and correlation 0.3 come first."""
    found: dict[tuple[str, ...], list[Mapping[str, str]]] = {}
    for row in rows:
        found.setdefault(tuple(row[k] for k in CONDITION), []).append(row)
    for key in sorted(found, key=lambda k: k[2] != "" and k[2:] != MAIN_KNEES):
        data, regime, contrast, correlation = key
        is_main = data != "knees" or (contrast, correlation) == MAIN_KNEES
        readers = f"`{regime}`" if is_main else f"`{regime}`, contrast {contrast}, correlation {correlation}"
        yield [data, readers, str(len({row["seed"] for row in found[key]}))], found[key]


def at_a_glance(rows: Rows) -> str:
    """Dice of networks, a line per condition."""
    lines = []
    for name, own in conditions(rows):
        cells = [mean_text(values(of(own, *which), "dice")) for which in AT_A_GLANCE.values()]
        at = list(AT_A_GLANCE.values()).index(OURS)
        cells[at] = f"**{cells[at]}**"
        lines.append([*name, *cells])
    return markdown(["data", "readers", "seeds", *AT_A_GLANCE], lines)


def differences(rows: Rows) -> str:
    """Dice at 0.5 of the network on the lesion-wise label minus a rival's, paired by seed."""
    lines = [
        [*name, *(_difference(of(own, *rival), of(own, *OURS), "dice") for rival in RIVALS.values())]
        for name, own in conditions(rows)
    ]
    return markdown(["data", "readers", "seeds", *RIVALS], lines)


def beside_the_paper(rows: Rows) -> str:
    """In points, against cross entropy on the majority; precision and recall count lesions."""
    lines = [
        [
            *name,
            *(
                _difference(of(own, *PAPER), of(own, *OURS), s, 1, 100)
                for s in ("dice", "precision", "recall")
            ),
        ]
        for name, own in conditions(rows)
        if of(own, *PAPER) and name[0] in ("knees", "scenes")
    ]
    return markdown(["data", "readers", "seeds", "Dice", "lesion precision", "lesion recall"], lines)


def rates(rows: Rows) -> str:
    """The largest error of a reader's sensitivity, mean over seeds; a dash where the model is the mean."""
    labels = ("lesion-wise", "lesion-wise without network")
    lines = []
    for name, own in conditions(rows):
        cells = []
        for label in labels:
            error = values(select(own, label=label), "worst_rate_error")
            number = int(np.isfinite(error).sum())
            cells.append(f"{mean_text(error, 2)} ({number})" if number else "-")
        lines.append([*name, *cells])
    return markdown(["data", "readers", "seeds", "lesion-wise (seeds)", "without a network (seeds)"], lines)


def of(rows: Rows, label: str, threshold: str) -> Rows:
    return select(rows, label=label, threshold=threshold)


def _difference(first: Rows, second: Rows, score: str, digits: int = 3, scale: float = 1) -> str:
    found = paired(first, second, score) if first and second else (np.nan,) * 3
    return "-" if np.isnan(found[0]) else difference_text(found, digits, scale)


def brier_at_a_glance(first: Rows) -> str:
    """Of networks near the object, and of labels in thousandths, a line per condition."""
    lines = [
        [
            *name,
            *(
                mean_text(values(select(own, label=label), score), digits)
                for label, score, digits in BRIER.values()
            ),
        ]
        for name, own in conditions(first)
    ]
    return markdown(["data", "readers", "seeds", *BRIER], lines)


def _lines(
    rows: Rows, names: tuple[str, ...], scores: Mapping[str, str], *, with_model: bool
) -> Iterator[list[str]]:
    """A line per condition and label: means over seeds."""
    groups: dict[tuple[str, ...], list[Mapping[str, str]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[k] for k in (*CONDITION, *names)), []).append(row)
    for key, group in sorted(groups.items(), key=lambda item: item[0][: len(CONDITION)]):
        line = [
            *key,
            str(len({row["seed"] for row in group})),
            *(mean_text(values(group, s)) for s in scores),
        ]
        yield line + [", ".join(sorted({r["model"] for r in group} - {""}))] * with_model
