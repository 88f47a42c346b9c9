"""Tables of the knee study, from results.csv into tables.md."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

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
REGIMES = {"boundary": "outlines", "missed": "missed", "false_positives": "false positives"}
LABELS = ("majority", "mean", "anatomy")
PAPERS = (
    (("majority", "BCE"), ("anatomy", "APL")),
    (("majority", "BCE"), ("anatomy", "SoftCE")),
    (("majority", "BCE, 2000"), ("anatomy", "SoftCE, 2000")),
)
LONG = ", 2000"
VOXELS = {"dice": "Dice", "precision": "precision", "recall": "recall", "brier_truth": "Brier, 1e-3"}
LESIONS = {
    "lesion_precision": "lesion precision",
    "lesion_recall": "lesion recall",
    "lesion_f1": "lesion F1",
    "knee_sensitivity": "knee sensitivity",
    "knee_specificity": "knee specificity",
    "knee_auc": "knee AUC",
}
# Label against label with the same loss, and loss against loss with the same label.
EFFECTS = (
    ("label: mean, not majority", ("majority", "BCE"), ("mean", "BCE")),
    ("label: anatomy, not mean", ("mean", "BCE"), ("anatomy", "BCE")),
    ("label: mean, not majority", ("majority", "Dice+CE"), ("mean", "Dice+CE")),
    ("label: anatomy, not mean", ("mean", "Dice+CE"), ("anatomy", "Dice+CE")),
    ("label: mean, not majority", ("majority", "APL expectation"), ("mean", "APL expectation")),
    ("label: anatomy, not mean", ("mean", "APL expectation"), ("anatomy", "APL expectation")),
    ("label: mean, not majority", ("majority", "APL"), ("mean", "APL")),
    ("label: anatomy, not mean", ("mean", "APL"), ("anatomy", "APL")),
    ("label: mean, not majority", ("majority", "SoftCE"), ("mean", "SoftCE")),
    ("label: anatomy, not mean", ("mean", "SoftCE"), ("anatomy", "SoftCE")),
    ("label: mean, not majority", ("majority", "SoftCE, 2000"), ("mean", "SoftCE, 2000")),
    ("label: anatomy, not mean", ("mean", "SoftCE, 2000"), ("anatomy", "SoftCE, 2000")),
    ("label and loss: SoftCE, not stock", ("majority", "Dice+CE, 2000"), ("mean", "SoftCE, 2000")),
    ("label and loss: SoftCE, not stock", ("majority", "Dice+CE, 2000"), ("anatomy", "SoftCE, 2000")),
    ("loss: SoftCE, not Dice+CE", ("majority", "Dice+CE, 2000"), ("majority", "SoftCE, 2000")),
    ("loss: Dice+CE, not BCE", ("majority", "BCE"), ("majority", "Dice+CE")),
    ("label and loss: SoftCE, not stock", ("majority", "Dice+CE"), ("mean", "SoftCE")),
    ("label and loss: SoftCE, not stock", ("majority", "Dice+CE"), ("anatomy", "SoftCE")),
    ("loss: SoftCE, not Dice+CE", ("majority", "Dice+CE"), ("majority", "SoftCE")),
    ("loss: SoftCE, not DML+CE", ("mean", "DML+CE"), ("mean", "SoftCE")),
    ("loss: SoftCE, not DML+CE", ("anatomy", "DML+CE"), ("anatomy", "SoftCE")),
    ("loss: APL, not SoftCE", ("mean", "SoftCE"), ("mean", "APL")),
    ("loss: APL, not SoftCE", ("anatomy", "SoftCE"), ("anatomy", "APL")),
    ("loss: DML+CE, not Dice+CE", ("anatomy", "Dice+CE"), ("anatomy", "DML+CE")),
    ("loss: APL, not BCE", ("anatomy", "BCE"), ("anatomy", "APL")),
    ("loss: APL, not DML+CE", ("mean", "DML+CE"), ("mean", "APL")),
    ("loss: APL, not DML+CE", ("anatomy", "DML+CE"), ("anatomy", "APL")),
    ("loss: APL without balanced start, not DML+CE", ("mean", "DML+CE"), ("mean", "APL, no balanced start")),
    ("loss: APL, not APL expectation", ("mean", "APL expectation"), ("mean", "APL")),
    ("loss: APL, not APL expectation", ("anatomy", "APL expectation"), ("anatomy", "APL")),
)


def write(path: Path) -> None:
    """Rewrite tables.md."""
    rows = read_rows(path)
    usual = [row for row in rows if row["regime"] in REGIMES and row["contrast"] == "1"]
    unusual = [row for row in rows if row["regime"] not in REGIMES or row["contrast"] != "1"]
    at_half = select(usual, threshold="0.5")
    seeds = len({row["seed"] for row in rows})
    by_voxel = (
        f"Means of {seeds} seeds, threshold 0.5.\n\n{cells_table(at_half, VOXELS)}\n\n"
        f"The paper's pair, `majority` + `BCE` against `anatomy` + `APL`, and the same with our default, "
        f"in points (the paper, on its 17 real knees: precision +14, recall +22, Dice +8):\n\n"
        f"{paper_table(at_half)}\n\n"
        f"What a change of label or loss alone does, paired by seed:\n\n{effects_table(at_half)}"
    )
    write_tables(
        PAGE,
        {
            "Labels, losses and errors, by voxel": by_voxel,
            "Detection and thresholds": f"{detection_table(usual)}\n\n{detection_effects(usual)}",
            "Where it does not help": f"{limits_table(unusual)}\n\n{explanation(rows)}",
        },
    )


def combinations(rows: Rows) -> list[tuple[str, str]]:
    """Label and loss, in the order in which they come."""
    return list(dict.fromkeys((row["label"], row["loss"]) for row in rows))


def of_pair(rows: Rows, pair: tuple[str, str], **where: str) -> Rows:
    return select(rows, label=pair[0], loss=pair[1], **where)


def cells_table(rows: Rows, metrics: dict[str, str]) -> str:
    lines = []
    for regime, title in REGIMES.items():
        for pair in combinations(rows):
            own = of_pair(rows, pair, regime=regime)
            if own:
                lines.append([title, f"`{pair[0]}`", pair[1], *(mean_text(values(own, m)) for m in metrics)])
    return markdown(["error", "label", "loss", *metrics.values()], lines)


def paper_table(rows: Rows) -> str:
    metrics = ("precision", "recall", "dice")
    lines = []
    for baseline, method in PAPERS:
        for regime, title in REGIMES.items():
            pair = [of_pair(rows, p, regime=regime) for p in (baseline, method)]
            if not all(pair):
                continue
            texts = [difference_text(paired(*pair, m), 1, 100) for m in metrics]
            lines.append([f"`{method[0]}` + {method[1]}", title, *texts])
    return markdown(["against the baseline", "error", *metrics], lines)


def effects_table(rows: Rows) -> str:
    lines = []
    for title, first, second in EFFECTS:
        kind = title.split(":")[0]
        same = {"label": f"loss {first[1]}", "loss": f"label {first[0]}"}.get(kind, f"label {second[0]}")
        same += LONG if LONG in second[1] and LONG not in same else ""
        for regime, error in REGIMES.items():
            pair = [of_pair(rows, p, regime=regime) for p in (first, second)]
            if not all(pair):
                continue
            differences = [difference_text(paired(*pair, m)) for m in ("dice", "recall", "precision")]
            lines.append([title, same, error, *differences])
    return markdown(["change", "at", "error", "Dice", "recall", "precision"], lines)


def detection_table(rows: Rows) -> str:
    lines = []
    for regime, title in REGIMES.items():
        for label in LABELS:
            for loss in ("BCE", "APL", "SoftCE", *(f"{name}{LONG}" for name in ("BCE", "Dice+CE", "SoftCE"))):
                for threshold in ("0.5", "tuned", "rater-corrected"):
                    own = of_pair(rows, (label, loss), regime=regime, threshold=threshold)
                    if own:
                        lines.append([title, f"`{label}`", loss, *_detection_cells(own, threshold)])
    return markdown(["error", "label", "loss", "threshold", "Dice", *LESIONS.values()], lines)


def detection_effects(rows: Rows) -> str:
    """What a change of label or threshold, and the default against stock, do to detection, paired by seed."""
    metrics = {"dice": "Dice", "recall": "recall", **LESIONS}
    at_half, tuned, corrected = "0.5", "tuned", "rater-corrected"
    changes = [
        (f"{second}, not {first}, {loss}", (first, loss, at_half), (second, loss, at_half))
        for loss in ("APL", "SoftCE", f"SoftCE{LONG}")
        for first, second in pairwise(LABELS)
    ]
    changes += [
        (f"{corrected}, not 0.5, mean, {loss}", ("mean", loss, at_half), ("mean", loss, corrected))
        for loss in ("BCE", "APL", "SoftCE", f"SoftCE{LONG}")
    ]
    changes += [
        (
            f"SoftCE on the mean, {corrected}, not stock on the majority, {threshold}{budget}",
            ("majority", f"Dice+CE{budget}", threshold),
            ("mean", f"SoftCE{budget}", corrected),
        )
        for budget in ("", LONG)
        for threshold in (at_half, tuned)
    ]
    lines = []
    for title, *places in changes:
        for regime, error in REGIMES.items():
            pair = [of_pair(rows, place[:2], regime=regime, threshold=place[2]) for place in places]
            if all(pair):
                lines.append([title, error, *(difference_text(paired(*pair, m), 2) for m in metrics)])
    table = markdown(["change", "error", *metrics.values()], lines)
    return f"What a change alone does, paired by seed:\n\n{table}"


def _detection_cells(own: Rows, threshold: str) -> list[str]:
    value = "" if threshold == "0.5" else f" ({mean_text(values(own, 'value'), 2)})"
    return [
        f"{threshold}{value}",
        mean_text(values(own, "dice")),
        *(mean_text(values(own, metric), 2) for metric in LESIONS),
    ]


def limits_table(rows: Rows) -> str:
    titles = {"unanimous": "readers agree with the truth", "boundary": "outlines, contrast 0.15"}
    lines = []
    for regime, title in titles.items():
        base = of_pair(rows, ("majority", "Dice+CE"), regime=regime, threshold="0.5")
        for label, loss in combinations(rows):
            own = of_pair(rows, (label, loss), regime=regime, threshold="0.5")
            if any(row["note"] for row in own):
                lines.append([title, f"`{label}`", loss, own[0]["note"], *[""] * (len(VOXELS) + 3)])
                continue
            is_base = (label, loss) == ("majority", "Dice+CE")
            lines.append(
                [
                    title,
                    f"`{label}`",
                    loss,
                    *(mean_text(values(own, m)) for m in VOXELS),
                    mean_text(values(own, "lesion_f1")),
                    "-" if is_base else difference_text(paired(base, own, "dice")),
                    mean_text(values(own, "label_dice")),
                    mean_text(values(own, "label_brier")),
                ]
            )
    head = [
        "readers",
        "label",
        "loss",
        *VOXELS.values(),
        "lesion F1",
        "Dice minus stock",
        "Dice of the label",
    ]
    return markdown([*head, "Brier of the label, 1e-3"], lines)


def explanation(rows: Rows) -> str:
    """Does the label's own error explain the network's?

    Rank correlation over all means of cells, which losses separate too, and over changes of the label alone.
    """
    at_half = [row for row in select(rows, threshold="0.5") if not row["note"]]
    texts, changed = [], []
    for of_label, of_network in (("label_dice", "dice"), ("label_brier", "brier_truth")):
        pairs = list(label_and_network(at_half, of_label, of_network).values())
        found = spearmanr(*np.array(pairs).T)
        texts.append(f"`{of_label}` with `{of_network}` {found.statistic:.2f} (p = {found.pvalue:.2g})")
        steps = label_changes(at_half, of_label, of_network)
        found = spearmanr(*steps.T)
        alike = int((np.sign(steps[:, 0]) == np.sign(steps[:, 1])).sum())
        changed.append(
            f"`{of_label}` with `{of_network}` {found.statistic:.2f} (p = {found.pvalue:.2g}), "
            f"of one sign in {alike} of {len(steps)}"
        )
    return (
        f"Rank correlation of the label's error with the network's, over all {len(pairs)} combinations of "
        f"readers, contrast, label and loss of this study: {'; '.join(texts)}. Of the *change* of both when "
        f"only the label changes (majority to mean, mean to anatomy; same knees, same loss), leaving out "
        f"labels that are the same: {'; '.join(changed)}."
    )


def label_and_network(
    rows: Rows, of_label: str, of_network: str
) -> dict[tuple[str, str, str, str], tuple[float, float]]:
    """(regime, contrast, loss, label) -> means over seeds of a metric of the label and one of the network."""
    names = ("regime", "contrast", "loss", "label")
    found = {}
    for key in dict.fromkeys(tuple(row[name] for name in names) for row in rows):
        own = select(rows, **dict(zip(names, key, strict=True)))
        found[key] = (float(values(own, of_label).mean()), float(values(own, of_network).mean()))
    return found


def label_changes(rows: Rows, of_label: str, of_network: str) -> np.ndarray:
    """``(N, 2)``: by how much label and network change from one label to the next, all else the same."""
    found = label_and_network(rows, of_label, of_network)
    steps = [
        np.subtract(found[(*place, second)], found[(*place, first)])
        for place in dict.fromkeys(key[:3] for key in found)
        for first, second in pairwise(LABELS)
        if (*place, first) in found and (*place, second) in found
    ]
    return np.array([step for step in steps if abs(step[0]) > 1e-9])
