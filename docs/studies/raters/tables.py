"""tables.md of the study of seven raters, from results.csv."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from docs.studies.datasets.tables import paired_by_case
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

PAGE = Path(__file__).parent / "tables.md"
MEAN = ("labels", "mean")
SCORES = {
    "dice": "Dice",
    "qubiq_dice": "QUBIQ Dice",
    "brier_near": "Brier near (lower)",
    "ece_near": "ECE near (lower)",
    "volume_error_abs": "volume error (lower)",
}
LEFT_OUT = {
    "network": "network",
    "other_raters": "other raters",
    "consensus": "consensus of the others",
    "closer_than": "closer than this share",
}
RATES = {
    "sensitivity": "sensitivity",
    "false_positives": "share of other tissue marked",
    "dice_to_others": "Dice to the consensus of the others",
}


def write(results: Path) -> None:
    """Rewrite tables.md; a part for what has rows."""
    rows = read_rows(results)
    parts = {
        "The raters of brain growth": rates_table(select(rows, experiment="rates")),
        "At a glance": at_a_glance(rows),
        "Labels and numbers of raters, brain growth": networks_table(rows),
        "Differences to the mean of all seven": differences_table(rows),
        "Seven raters minus one": more_raters_table(rows),
        "A rater who was left out": left_out_table(rows),
    }
    write_tables(PAGE, {title: text for title, text in parts.items() if text})


def rates_table(rows: Rows) -> str:
    lines = [[row["case"], *(f"{float(row[name]):.4f}" for name in RATES)] for row in rows]
    return markdown(["rater", *RATES.values()], lines) if lines else ""


def networks_of(rows: Rows) -> Iterator[tuple[list[str], Rows]]:
    """(label, raters, loss) and its rows, of all networks that are tested against all raters."""
    for experiment in ("labels", "averaged", "stock", "number"):
        own = select(rows, experiment=experiment)
        for variant in dict.fromkeys(row["variant"] for row in own):
            for loss in dict.fromkeys(row["loss"] for row in own):
                label, raters = ("mean", variant) if variant.isdigit() else (variant, "7")
                chosen = select(own, variant=variant, loss=loss)
                if chosen:
                    yield ["consensus" if loss == "stock" else label, raters, f"`{loss}`"], chosen


def networks_table(rows: Rows) -> str:
    lines = [
        [*names, str(len(own)), *(mean_text(values(own, metric)) for metric in SCORES)]
        for names, own in networks_of(rows)
    ]
    return markdown(["label", "raters", "loss", "cases", *SCORES.values()], lines) if lines else ""


def differences_table(rows: Rows) -> str:
    base = select(rows, experiment=MEAN[0], variant=MEAN[1])
    lines = [
        [*names, *(difference_text(paired_by_case(with_class(base), with_class(own), m)) for m in SCORES)]
        for names, own in networks_of(rows)
        if (base and own[0]["experiment"] != MEAN[0]) or own[0]["variant"] != MEAN[1]
    ]
    return markdown(["label", "raters", "loss", *SCORES.values()], lines) if lines else ""


def more_raters_table(rows: Rows) -> str:
    """What six further raters bring, with each loss."""
    found = {tuple(names): with_class(own) for names, own in networks_of(rows)}
    lines = []
    for label, loss in (("mean", "`balanced start, DML+CE`"), ("consensus", "`stock`")):
        few, all_seven = (found.get((label, count, loss)) for count in ("1", "7"))
        if few and all_seven:
            scores = (difference_text(paired_by_case(few, all_seven, m)) for m in SCORES)
            lines.append([label, loss, *scores])
    return markdown(["label", "loss", *SCORES.values()], lines) if lines else ""


def at_a_glance(rows: Rows) -> str:
    """The scores of the mean of all seven; of the others the differences, starred."""
    metrics = list(SCORES)[:4]
    base = select(rows, experiment=MEAN[0], variant=MEAN[1])
    lines = []
    for (label, raters, loss), own in networks_of(rows):
        loss = "stock" if "stock" in loss else "default"
        if (own[0]["experiment"], own[0]["variant"]) == MEAN:
            scores = [mean_text(values(own, m)) for m in metrics]
            lines.append([f"{label} (the scores themselves)", raters, loss, *scores])
        elif base:
            found = [difference_text(paired_by_case(with_class(base), with_class(own), m)) for m in metrics]
            lines.append([label, raters, loss, *(_without_interval(text) for text in found)])
    return markdown(["label", "raters", "loss", *(SCORES[m] for m in metrics)], lines) if lines else ""


def _without_interval(difference: str) -> str:
    return difference.split(" ")[0] + (" *" if difference.endswith("*") else "")


def with_class(rows: Rows) -> Rows:
    return [{**row, "class": "1"} for row in rows]


def left_out_table(rows: Rows) -> str:
    """Of every rater left out, of all of brain growth, and of LIDC."""
    brain, lidc = select(rows, experiment="left out"), select(rows, experiment="lidc")
    parts: list[tuple[str, str, Rows]] = [
        ("brain growth", name, select(brain, variant=name))
        for name in sorted({row["variant"] for row in brain})
    ]
    parts += [("brain growth", "each in turn", brain), ("LIDC", "by lot", lidc)]
    lines = [
        [data, who, str(len(own)), *(mean_text(values(own, m)) for m in LEFT_OUT), _gain(own)]
        for data, who, own in parts
        if own
    ]
    head = ["data", "left out", "tests", *LEFT_OUT.values(), "network minus other raters"]
    return markdown(head, lines) if lines else ""


def _gain(rows: Rows) -> str:
    """Cases, or patients, are drawn together."""
    difference = values(rows, "network") - values(rows, "other_raters")
    found = mean_interval(difference, [row["group"] for row in rows], resamples=2000)
    return difference_text((found.mean, found.low, found.high))
