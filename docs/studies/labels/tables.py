"""Tables of the study of labels, from results.csv into tables.md."""

from __future__ import annotations

from pathlib import Path

from docs.studies.shared.numbers import Rows, select, values, write_tables
from docs.studies.shared.resumable import read_rows
from nnunet_softlabel.report.significance import mean_interval
from nnunet_softlabel.simulation.simulated_raters import RATER_REGIMES

PAGE = Path(__file__).parent / "tables.md"
CONTRASTS = (1.0, 0.5, 0.15, 0.0)
METRICS = ("brier_per_mille", "soft_dice", "dice", "lesion_recall", "lesion_precision", "healthy_ml")
TITLES = {
    "brier_per_mille": "Brier, 1e-3 (lower)",
    "soft_dice": "soft Dice",
    "dice": "Dice at 0.5",
    "lesion_recall": "lesion recall",
    "lesion_precision": "lesion precision",
    "healthy_ml": "ml in healthy knees (lower)",
}
SEES_THE_IMAGE = ("mean + roi + intensity",)  # the others are the same at any contrast
DIFFERENCES = (
    ("mean", "staple (dataset)", "pooled STAPLE, against mean"),
    ("staple (case)", "staple (dataset)", "pooled STAPLE, against STAPLE per case"),
    ("mean", "mean + roi", "roi, against mean"),
    ("mean + roi", "mean + roi + intensity", "intensity, against roi"),
    ("mean", "mean + roi + intensity", "roi and intensity, against mean"),
)


def write(path: Path) -> None:
    """Rewrite tables.md."""
    rows = read_rows(path)
    usual = CONTRASTS[0]
    dim = (
        "Only this label depends on the image. Lesion model: mean and standard deviation, in spreads of\n"
        "the normal marrow.\n\n"
    )
    by_knee = (
        "A star: the interval leaves out 0. Knees where a number is undefined in one of the labels are\n"
        "left out.\n\n"
    )
    write_tables(
        PAGE,
        {
            f"Every label, lesion contrast {usual:g}": every_label(rows),
            "The intensity prior where lesions are less bright, or not at all": dim + less_bright(rows),
            "What a prior or pooled rates change, knee by knee": by_knee + differences(rows),
        },
    )


def every_label(rows: Rows) -> str:
    """Means of every label, at the usual contrast."""
    usual = CONTRASTS[0]
    methods = dict.fromkeys(row["method"] for row in rows)
    lines = [_values(rows, regime, usual, method, method) for regime in RATER_REGIMES for method in methods]
    return "\n".join([_head("error", "label"), *lines])


def less_bright(rows: Rows) -> str:
    """The label that sees the image, at every contrast."""
    lines = [
        _values(rows, regime, contrast, method, _with_model(rows, regime, contrast, method))
        for regime in RATER_REGIMES
        for contrast in CONTRASTS
        for method in SEES_THE_IMAGE
    ]
    return "\n".join([_head("error", "contrast, lesion model"), *lines])


def differences(rows: Rows) -> str:
    """Paired by knee: mean difference with its interval; a star where the interval leaves out 0."""
    n_knees = _number_of_knees(rows)
    lines = []
    for regime in RATER_REGIMES:
        for first, second, title in DIFFERENCES:
            for contrast in CONTRASTS if second in SEES_THE_IMAGE else CONTRASTS[:1]:
                base = _cell(rows, regime, CONTRASTS[0], first)
                found = _cell(rows, regime, contrast, second)
                cells = (
                    ["refused"]
                    if _is_refused(found)
                    else [_difference(base, found, m, n_knees) for m in METRICS]
                )
                at = f"{contrast:g}" if second in SEES_THE_IMAGE else "any"
                lines.append(f"| {regime} | {at} | {title} | " + " | ".join(cells) + " |")
    return "\n".join([_head("error", "contrast", "what"), *lines])


def _head(*names: str) -> str:
    cells = [*names, *(TITLES[m] for m in METRICS)]
    return f"| {' | '.join(cells)} |\n|{'---|' * len(cells)}"


def _with_model(rows: Rows, regime: str, contrast: float, method: str) -> str:
    note = _cell(rows, regime, contrast, method)[0]["note"]
    return f"{contrast:g}" + note.replace("lesion model", ",") * note.startswith("lesion model")


def _values(rows: Rows, regime: str, contrast: float, method: str, title: str) -> str:
    found, n_knees = _cell(rows, regime, contrast, method), _number_of_knees(rows)
    cells = ["refused"] if _is_refused(found) else [_interval(found, m, n_knees) for m in METRICS]
    return f"| {regime} | {title} | " + " | ".join(cells) + " |"


def _cell(rows: Rows, regime: str, contrast: float, method: str) -> Rows:
    return select(rows, regime=regime, contrast=f"{contrast:g}", method=method)


def _is_refused(rows: Rows) -> bool:
    return rows[0]["note"].startswith("refused")


def _number_of_knees(rows: Rows) -> int:
    return len({row["seed"] for row in rows if row["seed"]})


def _interval(rows: Rows, metric: str, n_knees: int) -> str:
    found = mean_interval(values(rows, metric))
    return f"{found.mean:.3f} ({found.low:.3f} to {found.high:.3f})" + _number_of(found.n, n_knees)


def _difference(base: Rows, other: Rows, metric: str, n_knees: int) -> str:
    found = mean_interval(values(other, metric) - values(base, metric))
    star = " *" if found.low > 0 or found.high < 0 else ""
    text = f"{found.mean:+.3f} ({found.low:+.3f} to {found.high:+.3f}){star}"
    return text + _number_of(found.n, n_knees)


def _number_of(n: int, n_knees: int) -> str:
    return "" if n == n_knees else f", n = {n}"
