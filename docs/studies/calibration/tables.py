"""Tables of the calibration study, and the choice of the map by the rule of DESIGN.md."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from docs.studies.calibration.networks import FOLDS, SEEDS
from docs.studies.shared.numbers import Rows, difference_text, markdown, ranks, select, values, write_tables
from docs.studies.shared.resumable import read_rows
from nnunet_softlabel.report.significance import mean_interval

PAGE = Path(__file__).parent / "tables.md"
PLOT = Path(__file__).parent / "reliability.png"
METRICS = {
    "dice": "Dice",
    "qubiq_dice": "QUBIQ Dice",
    "brier_near": "Brier near",
    "nll_near": "NLL near",
    "ece_near": "ECE near",
    "volume_error_abs": "volume error",
}
DIGITS = {"brier_near": 4, "ece_near": 4}
RAW, ONE, THREE = "raw", "one", "mean of three"
COMPARED = ((RAW, ""), ("affine", "roots"), ("isotonic", "roots"))
FOLDABLE = ("affine", "temperature")
LARGEST_RISE = 0.05  # of the volume error, over the raw networks
COMPARISONS = (  # (label, networks, recalibrated?) minus the same
    (("soft", ONE, False), ("stock", ONE, False)),
    (("stock", ONE, True), ("stock", ONE, False)),
    (("soft", ONE, False), ("stock", ONE, True)),
    (("soft", ONE, True), ("stock", ONE, True)),
    (("soft", ONE, True), ("soft", ONE, False)),
    (("stock", THREE, False), ("stock", ONE, False)),
    (("soft", THREE, False), ("soft", ONE, False)),
    (("soft", THREE, True), ("stock", THREE, True)),
)
GOAL_FOLDS = (0, 1, 2)  # of the trial that set the goals of the default
AVERAGES = (  # (learnt, averaged over) minus the same
    (("default", "nothing"), ("stock", "nothing")),
    (("default", "mirrored images"), ("stock", "mirrored images")),
    (("default", "both"), ("stock", "both")),
    *(
        ((learnt, more), (learnt, less))
        for learnt in ("stock", "default")
        for more, less in (
            ("mirrored images", "nothing"), ("late weights", "nothing"), ("both", "mirrored images")
        )
    ),
)  # fmt: skip
Row = tuple[str, str, bool]


def choice(rows: Rows) -> tuple[list[tuple[str, str, float, float]], tuple[str, str], tuple[str, str]]:
    """Candidates with their rise in volume error and mean rank, the chosen one, the chosen foldable one."""
    cells = list(dict.fromkeys((row["data"], row["label"]) for row in rows))
    names = list(dict.fromkeys((row["method"], row["weight"]) for row in rows if row["method"] != RAW))

    def of(metric: str, method: str, weight: str) -> np.ndarray:
        return np.array(
            [values(select(rows, data=d, label=n, method=method, weight=weight), metric)[0] for d, n in cells]
        )

    raw = of("volume_error_abs", RAW, "")
    rises = np.array([float((of("volume_error_abs", *name) - raw).mean()) for name in names])
    found = []
    for pool in (names, [name for name in names if name[0] in FOLDABLE]):
        kept = [name for name in pool if rises[names.index(name)] <= LARGEST_RISE]
        if not kept:
            kept = [min(pool, key=lambda name: rises[names.index(name)])]
        table = np.hstack([np.array([of(m, *name) for name in kept]) for m in ("nll_near", "brier_near")])
        found.append((kept, ranks(table, higher_is_better=False)))
    (kept, rank), (foldable, foldable_rank) = found
    rank_of = dict(zip(kept, rank.tolist(), strict=True))
    listed = [
        (*name, float(rise), rank_of.get(name, np.nan)) for name, rise in zip(names, rises, strict=True)
    ]
    return listed, kept[int(rank.argmin())], foldable[int(foldable_rank.argmin())]


def screening_table(rows: Rows, data: str, label: str) -> str:
    """Means of every method and weight."""
    lines = [
        [
            f"{row['method']} {row['weight']}".strip(),
            *(f"{float(row[m]):.{DIGITS.get(m, 3)}f}" for m in METRICS),
        ]
        for row in select(rows, data=data, label=label)
    ]
    return markdown(["map, weight", *METRICS.values()], lines)


def rank_table(rows: Rows) -> str:
    """What the rule of choice looks at."""
    listed, chosen, foldable = choice(rows)
    lines = [
        [f"{method} {weight}", f"{rise:+.3f}", "-" if np.isnan(rank) else f"{rank:.2f}"]
        for method, weight, rise, rank in listed
    ]
    note = f"Chosen: {' '.join(chosen)}. Of the maps that can be folded: {' '.join(foldable)}."
    return markdown(["map, weight", "rise in volume error", "mean rank"], lines) + f"\n\n{note}"


def rows_of(rows: Rows, data: str, row: Row, recalibration: str) -> Rows:
    """The cases of a row of the study."""
    label, networks, is_recalibrated = row
    wanted = recalibration if is_recalibrated else RAW
    return select(rows, data=data, label=label, networks=networks, recalibration=wanted)


def by_patient(rows: Rows, metric: str) -> dict[tuple[str, str], tuple[str, float]]:
    """(case, class) -> patient and value, the mean where it was scored several times."""
    found: dict[tuple[str, str], tuple[str, list[float]]] = {}
    for row in rows:
        found.setdefault((row["case"], row["class"]), (row["group"], []))[1].append(
            float(row[metric] or "nan")
        )
    return {key: (group, float(np.mean(numbers))) for key, (group, numbers) in found.items()}


def means_table(rows: Rows, data: str) -> str:
    """The rows of the study, means over cases and classes."""
    own = select(rows, data=data)
    keys = list(dict.fromkeys((row["label"], row["recalibration"], row["networks"]) for row in own))
    lines = []
    for label, recalibration, networks in keys:
        found = select(own, label=label, recalibration=recalibration, networks=networks)
        numbers = [f"{np.nanmean(values(found, m)):.{DIGITS.get(m, 3)}f}" for m in METRICS]
        lines.append([label, recalibration, networks, *numbers])
    return markdown(["label", "recalibration", "networks", *METRICS.values()], lines)


def differences_table(rows: Rows, data: str, recalibration: str) -> str:
    """The comparisons stated in DESIGN.md, paired by case, bootstrap over patients."""
    lines = []
    for first, second in COMPARISONS:
        one, two = (rows_of(rows, data, row, recalibration) for row in (first, second))
        lines.append([f"{title(first)} - {title(second)}", *(difference(two, one, m) for m in METRICS)])
    return markdown(["difference", *METRICS.values()], lines)


def difference(before: Rows, after: Rows, metric: str) -> str:
    """After minus before, paired by case, bootstrap over patients."""
    one, two = by_patient(before, metric), by_patient(after, metric)
    pairs = [(two[key][0], two[key][1] - one[key][1]) for key in two if key in one]
    interval = mean_interval([d for _, d in pairs], [g for g, _ in pairs])
    return difference_text((interval.mean, interval.low, interval.high), DIGITS.get(metric, 3))


def rivals_table(rows: Rows, found: Rows) -> str:
    """Other ways on LIDC beside rows of the study: means, and differences to soft labels of the same seeds.

    A case of several seeds counts with their mean, as in the rows of the study.
    """
    own = select(rows, data="lidc")
    shown: dict[str, Rows] = {
        f"{label}, {networks}": rows_of(own, "lidc", (label, networks, False), "")
        for networks in (ONE, THREE)
        for label in ("stock", "soft")
    }
    shown |= {name: select(found, rival=name) for name in dict.fromkeys(row["rival"] for row in found)}
    reference = shown[f"soft, {ONE}"]
    lines = []
    for name, cell in shown.items():
        about = [name, str(len(seeds_of(cell))), str(len(by_patient(cell, "dice")))]
        lines.append([*about, *(f"{_mean_of(cell, m):.{DIGITS.get(m, 3)}f}" for m in METRICS)])
    differences = [
        [name, *(difference(of_seeds(reference, cell), cell, metric) for metric in METRICS)]
        for name, cell in shown.items()
        if cell is not reference
    ]
    means = markdown(["network", "seeds", "nodules", *METRICS.values()], lines)
    return f"{means}\n\n{markdown(['minus soft, one', *METRICS.values()], differences)}"


def seeds_of(rows: Rows) -> set[str]:
    """Seeds that rows were scored with; the rows without one are means over all."""
    return {row["seed"] for row in rows} - {""} or set(map(str, SEEDS))


def of_seeds(rows: Rows, others: Rows) -> Rows:
    """Those rows whose seeds others have, too."""
    return [row for row in rows if row["seed"] in seeds_of(others)]


def averaging_table(rows: Rows) -> str:
    """What a prediction is averaged over: means, and the comparisons stated in DESIGN.md."""
    cells: dict[tuple[str, str], Rows] = {}
    for row in rows:
        cells.setdefault((row["learnt"], row["averaged"]), []).append(row)
    lines = []
    for folds in (FOLDS, GOAL_FOLDS):
        for name, cell in sorted(cells.items(), reverse=True):
            own = [row for row in cell if int(row["fold"]) in folds]
            if own:
                counts = (len({row["seed"] for row in own}), len(by_patient(own, "dice")))
                means = (f"{_mean_of(own, m):.{DIGITS.get(m, 3)}f}" for m in METRICS)
                lines.append([*name, f"{folds[0]} to {folds[-1]}", *map(str, counts), *means])
    differences = [
        [
            f"{', '.join(first)} - {', '.join(second)}",
            *(difference(cells[second], cells[first], metric) for metric in METRICS),
        ]
        for first, second in AVERAGES
        if first in cells and second in cells
    ]
    head = ["learnt", "averaged over", "folds", "seeds", "nodules", *METRICS.values()]
    return f"{markdown(head, lines)}\n\n{markdown(['difference', *METRICS.values()], differences)}"


def _mean_of(rows: Rows, metric: str) -> float:
    """The mean over cases and classes."""
    return float(np.nanmean([value for _, value in by_patient(rows, metric).values()]))


def title(row: Row) -> str:
    """A row in words."""
    label, networks, is_recalibrated = row
    parts = [label, "recalibrated" if is_recalibrated else "", "x 3" if networks == THREE else ""]
    return " ".join(part for part in parts if part)


def plot(rows: Rows, path: Path, recalibration: str) -> None:
    """Reliability near the object, one network, before and after."""
    data_sets = list(dict.fromkeys(row["data"] for row in rows))
    figure = Figure(figsize=(4 * len(data_sets), 4), layout="constrained")
    for index, data in enumerate(data_sets):
        axes = figure.add_subplot(1, len(data_sets), index + 1)
        axes.plot([0, 1], [0, 1], color="#666666", linestyle="--", linewidth=1)
        for label, colour in (("stock", "#0072B2"), ("soft", "#D55E00")):
            for kind, style in ((RAW, "-"), (recalibration, ":")):
                found = select(rows, data=data, label=label, networks=ONE, recalibration=kind)
                n, p, q = (values(found, column) for column in ("voxels", "sum_p", "sum_q"))
                filled = n > 0
                title = f"{label}, {'raw' if kind == RAW else 'recalibrated'}"
                axes.plot((p / n)[filled], (q / n)[filled], style, marker=".", color=colour, label=title)
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", title=data, xlabel="predicted probability")
        if index == 0:
            axes.set_ylabel("share of the readers")
            axes.legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=80, metadata={"Software": None})


def write(screening: Path, results: Path, reliability: Path, rivals: Path, averaging: Path) -> None:
    """Write ``tables.md`` and ``reliability.png``."""
    screened, rows, others, averaged = map(read_rows, (screening, results, rivals, averaging))
    scored = [f"{method} {weighting}" for method, weighting in COMPARED if weighting]
    parts = {"choice of the map": rank_table(screened)}
    cells = list(dict.fromkeys((row["data"], row["label"]) for row in screened))
    parts |= {f"maps, {d}, {n}": screening_table(screened, d, n) for d, n in cells}
    for data in dict.fromkeys(row["data"] for row in rows):
        parts[f"rows, {data}"] = means_table(rows, data)
        for recalibration in scored:
            parts[f"differences, {data}, {recalibration}"] = differences_table(rows, data, recalibration)
    if others:
        parts["other ways, lidc"] = rivals_table(rows, others)
    if averaged:
        parts["averaged predictions, lidc"] = averaging_table(averaged)
    write_tables(PAGE, parts)
    plot(read_rows(reliability), PLOT, scored[0])  # the one that can be folded
