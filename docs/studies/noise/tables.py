"""Tables and plot of the study of noise, from its CSV into tables.md and regimes.png."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

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

PAGE, PLOT = Path(__file__).parent / "tables.md", Path(__file__).parent / "regimes.png"

BASELINE, PAIR = ("majority", "BCE"), ("anatomy", "APL")
METRICS = ("dice", "precision", "recall", "brier")
REFERENCE = "Dice+CE"
SHOWN = "Dice+APL 1/1"  # in the plot
STOCK, RECIPE = "nnUNetTrainer", "nnUNetTrainerHardAPLNoCE"
INSIDE_REFERENCES = {
    "stock's final": (STOCK, "final"),
    "stock's best": (STOCK, "best"),
    "the control's final": ("nnUNetTrainerHardDMLCE", "final"),
}
Interval = tuple[float, float, float]  # mean, low, high
KINDS = ("invented", "missed", "swap", "shift", "ct")  # of errors, as the plot orders settings
TEN = 10  # seeds, which the rule asks for
PARTS = 6  # of a training, in the table of curves


def write(sections: Path, crops: Path, inside: Path) -> None:
    """Rewrite tables.md and regimes.png beside the three CSV."""
    crop_rows, section_rows, inside_rows = read_rows(crops), read_rows(sections), read_rows(inside)
    parts = {
        "Crops around candidates": _crop_means(crop_rows),
        "Crops: what label and loss bring": _effects(crop_rows),
    }
    if section_rows:
        parts["Whole sections, wrong readers"] = _curves(section_rows)
        parts["Whole sections: against Dice + CE"] = _against_reference(section_rows)
        parts["Whole sections: the rule's 99 % intervals"] = _by_the_rule(section_rows)
        plot(section_rows, inside_rows, PLOT)
    if inside_rows:
        parts["Inside nnU-Net"] = _inside(inside_rows)
    write_tables(PAGE, parts)


def _complete(rows: Rows, names: Sequence[str], count: int) -> Rows:
    """The rows of the seeds for which all of that many cells are there."""
    cells = {seed: {tuple(r[n] for n in names) for r in rows if r["seed"] == seed} for seed in _seeds(rows)}
    return [row for row in rows if len(cells[row["seed"]]) == count]


def _seeds(rows: Rows) -> list[str]:
    return list(dict.fromkeys(row["seed"] for row in rows))


def _regimes(rows: Rows) -> list[str]:
    return list(dict.fromkeys(row["regime"] for row in rows))


def _crop_means(rows: Rows) -> str:
    lines = []
    for regime in _regimes(rows):
        own = _complete(select(rows, regime=regime), ("label", "loss"), 6)
        for label in ("majority", "mean", "anatomy"):
            for loss in ("BCE", "APL"):
                cell = select(own, label=label, loss=loss)
                if cell:
                    means = [mean_text(values(cell, m)) for m in ("foreground", "label_dice", *METRICS)]
                    worst = f"{np.nanmin(values(cell, 'dice')):.3f}"
                    lines.append([regime, f"`{label}`", loss, str(len(cell)), *means, worst])
    head = [
        "error",
        "label",
        "loss",
        "seeds",
        "foreground",
        "Dice of the label",
        "Dice",
        "precision",
        "recall",
    ]
    return markdown([*head, "Brier", "lowest Dice of a seed"], lines)


def _effects(rows: Rows) -> str:
    questions = {
        "the paper's pair minus the paper's baseline": (BASELINE, PAIR),
        "the label alone (BCE): anatomy minus majority": (BASELINE, ("anatomy", "BCE")),
        "the label alone (BCE): mean minus majority": (BASELINE, ("mean", "BCE")),
        "the loss alone (majority): APL minus BCE": (BASELINE, ("majority", "APL")),
        "the loss alone (mean): APL minus BCE": (("mean", "BCE"), ("mean", "APL")),
        "the loss alone (anatomy): APL minus BCE": (("anatomy", "BCE"), PAIR),
    }
    lines = []
    for regime in _regimes(rows):
        own = _complete(select(rows, regime=regime), ("label", "loss"), 6)
        for question, pair in questions.items() if own else ():
            first, second = (select(own, label=label, loss=loss) for label, loss in pair)
            found = [difference_text(paired(first, second, metric)) for metric in METRICS]
            lines.append([regime, question, *found])
    return markdown(["error", "question", "Dice", "precision", "recall", "Brier"], lines)


def _last(rows: Rows) -> Rows:
    last = max(int(row["iteration"]) for row in rows)
    return select(rows, iteration=str(last))


def _stopped(rows: Rows) -> Rows:
    """Of each seed the row with the best Dice to the wrong reader on the sections for stopping."""
    return [
        max(select(rows, seed=seed), key=lambda row: float(row["dice_validation"])) for seed in _seeds(rows)
    ]


def _settings(rows: Rows) -> list[tuple[str, str]]:
    return list(dict.fromkeys((row["regime"], row["mirrored"]) for row in rows))


def _own(rows: Rows, regime: str, mirrored: str) -> Rows:
    """The rows of a setting, of seeds for which the reference is there."""
    own = select(rows, regime=regime, mirrored=mirrored)
    seeds = set(_seeds(select(own, loss=REFERENCE)))
    return [row for row in own if row["seed"] in seeds]


def _curves(rows: Rows) -> str:
    lines = []
    for regime, mirrored in _settings(rows):
        own = _own(rows, regime, mirrored)
        for loss in dict.fromkeys(row["loss"] for row in own):
            cell = select(own, loss=loss)
            curve = [mean_text(values(part, "dice")) for part in _sixths(cell)]
            last = _last(cell)
            more = [mean_text(values(last, name)) for name in ("dice_tuned", "dice_drawn")]
            stopped = mean_text(values(_stopped(cell), "dice"))
            iterations = last[0]["iteration"]
            lines.append([regime, mirrored, loss, str(len(_seeds(cell))), iterations, *curve, *more, stopped])
    head = [
        "error",
        "mirrored",
        "loss",
        "seeds",
        "iterations",
        *(f"Dice, {i}/{PARTS}" for i in range(1, PARTS + 1)),
    ]
    return markdown([*head, "tuned threshold, last", "Dice to the wrong label, last", "stopped early"], lines)


def _sixths(rows: Rows) -> list[Rows]:
    """The rows nearest to one sixth of the training, to two sixths, and so on."""
    scored = sorted({int(row["iteration"]) for row in rows})
    wanted = [scored[-1] * part / PARTS for part in range(1, PARTS + 1)]
    return [select(rows, iteration=str(min(scored, key=lambda i: abs(i - w)))) for w in wanted]


def _against_reference(rows: Rows) -> str:
    lines = []
    for regime, mirrored in _settings(rows):
        own = _own(rows, regime, mirrored)
        reference = select(own, loss=REFERENCE)
        for loss in dict.fromkeys(row["loss"] for row in own):
            cell = select(own, loss=loss)
            found = [
                difference_text(paired(_last(reference), _last(cell), "dice")),
                difference_text(paired(_last(reference), _last(cell), "dice_tuned")),
                difference_text(paired(_stopped(reference), _last(cell), "dice")),
                difference_text(paired(_stopped(reference), _stopped(cell), "dice")),
            ]
            lines.append([regime, mirrored, loss, str(len(_seeds(cell))), *found])
    head = ["error", "mirrored", "loss", "seeds", "last, at 0.5, minus Dice + CE"]
    more = ["last, tuned, minus Dice + CE", "last minus Dice + CE stopped early"]
    return markdown([*head, *more, "stopped early minus Dice + CE stopped early"], lines)


def _by_the_rule(rows: Rows) -> str:
    """Settings and losses with ten seeds: last Dice at 0.5 minus Dice + CE, with the rule's interval."""
    lines = []
    for regime, mirrored in _settings(rows):
        own = _own(rows, regime, mirrored)
        reference = _last(select(own, loss=REFERENCE))
        for loss in dict.fromkeys(row["loss"] for row in own if row["loss"] != REFERENCE):
            cell = _last(select(own, loss=loss))
            if len(cell) == TEN:
                lines.append(
                    [regime, mirrored, loss, difference_text(paired(reference, cell, "dice", level=0.99))]
                )
    return markdown(["error", "mirrored", "loss", "last, at 0.5, minus Dice + CE, 99 %"], lines)


def _inside(rows: Rows) -> str:
    """Both checkpoints of every trainer, and their Dice against those of `INSIDE_REFERENCES`."""
    lines = []
    for regime in _regimes(rows):
        own = select(rows, regime=regime)
        number = len({(row["trainer"], row["checkpoint"]) for row in own})
        own = _complete(own, ("trainer", "checkpoint"), number)
        for trainer, name in dict.fromkeys((row["trainer"], row["checkpoint"]) for row in own):
            cell = select(own, trainer=trainer, checkpoint=name)
            means = [mean_text(values(cell, m)) for m in ("dice", "precision", "recall", "volume")]
            references = [select(own, trainer=t, checkpoint=c) for t, c in INSIDE_REFERENCES.values()]
            against = [difference_text(paired(r, cell, "dice")) if r else "-" for r in references]
            lines.append([regime, f"`{trainer}`", name, str(len(cell)), *means, *against])
    head = ["error", "trainer", "checkpoint", "seeds", "Dice", "precision", "recall", "volume"]
    return markdown([*head, *(f"Dice minus {name}" for name in INSIDE_REFERENCES)], lines)


def plot(rows: Rows, inside: Rows, path: Path) -> None:
    """In every setting: Dice with the active-passive terms minus Dice + CE, both last, both stopped early."""
    found = {**_gains(rows), **_gains_inside(inside)}
    gains = {title: found[title] for kind in KINDS for title in found if title.startswith(kind)}
    figure = Figure(figsize=(8, 1.2 + 0.28 * len(gains)), layout="constrained")
    axes = figure.add_subplot()
    for i, (name, colour, offset) in enumerate((("last", "C0", -0.15), ("stopped early", "C1", 0.15))):
        drawn = np.array([gain[i] for gain in gains.values()])
        reach = np.nan_to_num(np.abs(drawn[:, 1:].T - drawn[:, 0]))
        places = np.arange(len(gains)) + offset
        axes.errorbar(drawn[:, 0], places, xerr=reach, fmt="o", markersize=4, color=colour, label=name)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(gains)), list(gains))
    axes.invert_yaxis()
    axes.set_xlabel("Dice with the active-passive loss minus Dice with CE")
    axes.legend(loc="upper left")
    figure.savefig(path, dpi=110)


def _gains(rows: Rows) -> dict[str, tuple[Interval, ...]]:
    """Setting -> gain at the last iteration, and of both stopped early."""
    found = {}
    for setting in _settings(rows):
        first, second = (select(_own(rows, *setting), loss=loss) for loss in (REFERENCE, SHOWN))
        if second:
            gains = tuple(paired(of(first), of(second), "dice") for of in (_last, _stopped))
            found[_setting_text(rows, *setting)] = gains
    return found


def _gains_inside(rows: Rows) -> dict[str, tuple[Interval, ...]]:
    """The same inside nnU-Net: of the final checkpoints, and of the best."""
    found = {}
    for regime in _regimes(rows):
        own = [select(rows, regime=regime, trainer=trainer) for trainer in (STOCK, RECIPE)]
        pairs = [[select(part, checkpoint=name) for part in own] for name in ("final", "best")]
        title = f"{regime}, inside nnU-Net ({len(_seeds(own[1]))})"
        found[title] = tuple(paired(first, second, "dice") for first, second in pairs)
    return found


def _setting_text(rows: Rows, regime: str, mirrored: str) -> str:
    seeds = len(_seeds(select(_own(rows, regime, mirrored), loss=SHOWN)))
    augmented = {"no": ", not mirrored", "yes": ""}.get(mirrored, f", {mirrored}'s transforms")
    return f"{regime}{augmented} ({seeds})"
