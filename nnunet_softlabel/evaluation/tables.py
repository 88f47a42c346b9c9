"""Scores on disk and on the terminal: ``soft_metrics.csv``, ``soft_summary.json``, a table."""

from __future__ import annotations

import csv
import math
import platform
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.evaluation.case_scores import EXTRA, KEYS, MODEL, RATER, CaseScores, Row
from nnunet_softlabel.evaluation.comparisons import CONSENSUS, RATERS, SOFT, TRUTH
from nnunet_softlabel.evaluation.records import (
    LesionDetection,
    Means,
    MetricEntry,
    Metrics,
    Scores,
    Summary,
    ValuesOfCases,
)
from nnunet_softlabel.formats.files import write_csv, write_json
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.metrics.froc import froc, lesion_average_precision
from nnunet_softlabel.metrics.lesions import detection_auc
from nnunet_softlabel.metrics.overlap import mean_of_defined
from nnunet_softlabel.metrics.registry import TITLES

SUMMARY_FILE, METRICS_FILE = "soft_summary.json", "soft_metrics.csv"
COLUMNS = (*KEYS, *TITLES, *EXTRA)
TRAINING = "training"  # column of a benchmark: which fold and seed
SUMMARY_VERSION = 1
PACKAGES = (
    "nnunet-softlabel",
    "nnunetv2",
    "numpy",
    "scipy",
    "surface-distance",
    "connected-components-3d",
    "SimpleITK",
)


def versions() -> dict[str, str]:
    """Versions of what computed the scores."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def summarise(scores: Sequence[CaseScores], *, labels: Labels) -> Scores:
    """Means with their counts, reliability diagrams, detection AUC, and every case."""
    rows = [row for case in scores for row in case.rows]
    return {
        "format_version": SUMMARY_VERSION,
        "classes": list(labels.names),
        "number_of_cases": len(scores),
        "mean": means(rows),
        "detection_auc": _detection(rows),
        "lesion_detection": {name: _lesions(scores, name) for name in labels.names},
        "reliability": {
            name: {
                place: np.sum([case.reliability[name][place] for case in scores], axis=0).tolist()
                for place in ("image", "near")
            }
            for name in labels.names
        },
        "per_case": _nested(rows),
    }


def means(rows: Iterable[Row]) -> Means:
    """Statistics over cases as prediction -> reference -> class -> metric -> entry.

    A case scored more than once (seeds, folds) counts with its mean. NaN is left out; a case that has nothing
    else is counted.
    """
    values: dict[tuple[str, ...], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        prediction, reference, name = (str(row[key]) for key in ("prediction", "reference", "class"))
        for metric in TITLES:
            if metric in row:
                values[prediction, reference, name, metric][str(row["case"])].append(float(row[metric]))
    tree: Means = {}
    for (prediction, reference, name, metric), of_cases in values.items():
        found = [mean_of_defined(own) for own in of_cases.values()]
        defined = [v for v in found if not math.isnan(v)]
        entries = tree.setdefault(prediction, {}).setdefault(reference, {}).setdefault(name, {})
        entries[metric] = {
            "mean": float(np.mean(defined)) if defined else None,
            "std": float(np.std(defined, ddof=1)) if len(defined) > 1 else None,
            "n": len(defined),
            "nan": len(found) - len(defined),
        }
    return tree


def _detection(rows: Iterable[Row]) -> dict[str, dict[str, float | None]]:
    """AUC of the case scores as class -> reference; None if all cases are positive, or all negative."""
    cases: dict[tuple[str, str], list[tuple[bool, float]]] = defaultdict(list)
    for row in rows:
        if row["prediction"] == MODEL and row["reference"] in (SOFT, CONSENSUS, TRUTH):
            pair = bool(row["case_positive"]), float(row["case_score"])
            cases[str(row["class"]), str(row["reference"])].append(pair)
    found: dict[str, dict[str, float | None]] = {}
    for (name, reference), pairs in cases.items():
        known = [(positive, score) for positive, score in pairs if not math.isnan(score)]
        auc = detection_auc([p for p, _ in known], [s for _, s in known])
        found.setdefault(name, {})[reference] = _none_if_nan(auc)
    return found


def _lesions(scores: Sequence[CaseScores], name: str) -> dict[str, LesionDetection]:
    """Reference -> average precision and FROC over all cases; None without a lesion."""
    found: dict[str, LesionDetection] = {}
    for reference in (CONSENSUS, TRUTH):
        cases = [case.lesions[name][reference] for case in scores if reference in case.lesions[name]]
        if not cases:
            continue
        sensitivity = froc(cases)
        found[reference] = {
            "average_precision": _none_if_nan(lesion_average_precision(cases)),
            "froc": {f"{limit:g}": _none_if_nan(value) for limit, value in sensitivity.items()},
            "lesions": sum(case.reference for case in cases),
        }
    return found


def _none_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else value


def _nested(rows: Iterable[Row]) -> ValuesOfCases:
    """Values as case -> class -> reference -> prediction -> metric, NaN as null."""
    tree: ValuesOfCases = {}
    for row in rows:
        case, name, reference = (str(row[key]) for key in ("case", "class", "reference"))
        place = tree.setdefault(case, {}).setdefault(name, {}).setdefault(reference, {})
        values = {name: float(row[name]) for name in (*TITLES, *EXTRA) if name in row}
        place[str(row["prediction"])] = {k: None if math.isnan(v) else v for k, v in values.items()}
    return tree


def write_results(output: Path, scores: Sequence[CaseScores], summary: Summary) -> None:
    """Write both files, each whole or not at all."""
    output.mkdir(parents=True, exist_ok=True)
    write_rows(output / METRICS_FILE, [row for case in scores for row in case.rows])
    write_json(output / SUMMARY_FILE, summary)


def write_rows(path: Path, rows: Iterable[Row], *, more_columns: Sequence[str] = ()) -> None:
    """Write one line per case, class, reference and prediction; a metric that does not apply stays empty."""
    rows = list(rows)
    of_trainings = [TRAINING] if any(TRAINING in row for row in rows) else []
    write_csv(path, (*more_columns, *of_trainings, *COLUMNS), rows)


def read_rows(path: Path) -> list[Row]:
    """Read ``soft_metrics.csv``; metrics that do not apply are left out of their row.

    Raises:
        DatasetError: if it is missing, or no such file.
    """
    if not path.is_file():
        raise DatasetError(f"{path}: no such file; run `nnunet_softlabel evaluate` first.")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames is None or not set(KEYS) <= set(reader.fieldnames):
            raise DatasetError(f"{path}: is no soft_metrics.csv, its columns are {reader.fieldnames}.")
        numbers = {*TITLES, *EXTRA}  # a benchmark adds columns of text
        return [
            {
                k: float(v) if k in numbers else v
                for k, v in line.items()
                if k not in numbers or v not in ("", None)
            }
            for line in reader
        ]


def format_table(summary: Summary) -> str:
    """The table for the terminal: metrics down, references across, the raters' own score in brackets."""
    lines = [
        f"{summary['dataset']}, {summary['number_of_cases']} cases of split {summary['split']}, "
        f"threshold {summary['threshold']['choice']} ({_thresholds(summary)}). "
        f"In brackets: the raters, left out of the reference.",
    ]
    model, rater = summary["mean"][MODEL], summary["mean"].get(RATER, {})
    references = [r for r in (TRUTH, SOFT, CONSENSUS, RATERS) if r in model]
    width = max(len(title) for title in TITLES.values())
    for name in summary["classes"]:
        lines += ["", f"{name:<{width}}" + "".join(f"  {r:>20}" for r in references)]
        for metric, title in TITLES.items():
            cells = [
                _cell(model[r].get(name, {}).get(metric), rater.get(r, {}).get(name, {}).get(metric))
                for r in references
            ]
            lines.append(f"{title:<{width}}" + "".join(f"  {cell:>20}" for cell in cells))
        lines += _notes(name, {r: model[r].get(name, {}) for r in references}, summary)
    for cases, text in (
        (summary["not_evaluated"], "predicted, but not in the split: not scored"),
        (summary["not_predicted"], "in the split, but not predicted"),
    ):
        if cases:
            lines += ["", f"{len(cases)} cases are {text}: {', '.join(cases[:5])}"]
    return "\n".join(lines)


def _thresholds(summary: Summary) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in summary["threshold"]["values"].items())


def _cell(model: MetricEntry | None, rater: MetricEntry | None) -> str:
    if model is None:
        return ""
    ceiling = "" if rater is None else f" ({_number(rater['mean'])})"
    return _number(model["mean"]) + ceiling


def _number(value: float | None) -> str:
    return "-" if value is None else four_digits(value)


def four_digits(value: float) -> str:
    """Four digits; what rounds to 0 has no sign.

    >>> four_digits(-0.00001)
    '0.0000'
    """
    return f"{round(value, 4) + 0.0:.4f}"


def _notes(name: str, references: Mapping[str, Metrics], summary: Summary) -> list[str]:
    """What was left out of the means, and the AUC where it exists."""
    dropped = [
        f"{TITLES[metric]} ({reference}) {entry['nan']}"
        for reference, metrics in references.items()
        for metric, entry in metrics.items()
        if entry["nan"]
    ]
    lines = [f"cases left out as undefined (NaN): {'; '.join(dropped)}"] if dropped else []
    found = summary["detection_auc"].get(name, {})
    lines += [
        f"detection AUC ({reference}): {auc:.4f}" for reference, auc in found.items() if auc is not None
    ]
    for reference, lesions in summary.get("lesion_detection", {}).get(name, {}).items():
        if lesions["average_precision"] is not None:
            found_at = ", ".join(f"{value:.3f} at {limit}" for limit, value in lesions["froc"].items())
            lines.append(
                f"lesion average precision ({reference}, {lesions['lesions']} lesions): "
                f"{lesions['average_precision']:.4f}; share found at false positives per image: {found_at}"
            )
    return lines
