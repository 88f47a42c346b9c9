"""One HTML page that stands alone: tables, tests, plots and pictures of trainers beside each other."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.errors import UsageError
from nnunet_softlabel.evaluation.case_scores import RATER, Row
from nnunet_softlabel.evaluation.tables import METRICS_FILE, SUMMARY_FILE, read_rows, versions
from nnunet_softlabel.formats.files import read_json, refuse_existing, write_text
from nnunet_softlabel.metrics.registry import BETTER, TITLES
from nnunet_softlabel.report import figures
from nnunet_softlabel.report.comparison import PRIMARY, PairedDifference, case_values, home_reference
from nnunet_softlabel.report.pictures import CasePicture
from nnunet_softlabel.report.significance import Interval, mean_interval
from nnunet_softlabel.report.verdict import Sentence, excludes_zero, verdict

MEAN_RESAMPLES = 2000  # of the intervals of means; those of differences come with the tests
SCATTER_METRICS = ("dice", "soft_dice")
PICTURED_CASES, PICTURED_TRAINERS, PLOTTED_CLASSES = 9, 6, 4


@dataclass(frozen=True)
class RunResult:
    """One trainer, over all its folds and seeds.

    Attributes:
        name: the trainer, as the page calls it.
        rows: of ``soft_metrics.csv``, all folds and seeds together.
        reliability: class -> place (image, near) -> summed table of `calibration.reliability`.
        curves: name of a curve -> one value per epoch.
        training_seconds: time of all trainings together.
        peak_memory_gib: the most memory a training took.
        threshold: how probabilities were cut.
        settings: what else tells this run from others.
    """

    name: str
    rows: Sequence[Row]
    reliability: Mapping[str, Mapping[str, NDArray[Any]]] = field(default_factory=dict)
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)
    training_seconds: float | None = None
    peak_memory_gib: float | None = None
    threshold: str = "0.5"
    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_folders(cls, name: str, folders: Sequence[Path], **more: Any) -> RunResult:
        """Collect what `evaluate` wrote into several folders, one per fold and seed."""
        rows: list[Row] = []
        tables: dict[str, dict[str, NDArray[Any]]] = {}
        thresholds: dict[str, None] = {}
        for folder in folders:
            rows += read_rows(folder / METRICS_FILE)
            summary = read_json(folder / SUMMARY_FILE)
            values = ", ".join(f"{k} {v:.3g}" for k, v in summary["threshold"]["values"].items())
            thresholds[f"{summary['threshold']['choice']} ({values})"] = None
            for class_name, places in summary["reliability"].items():
                for place, table in places.items():
                    known = tables.setdefault(class_name, {})
                    known[place] = known.get(place, 0) + np.asarray(table, dtype=np.float64)
        return cls(name, rows, tables, threshold="; ".join(thresholds), **more)

    @property
    def classes(self) -> list[str]:
        """Classes or regions with scores."""
        return list(dict.fromkeys(str(row["class"]) for row in self.rows))

    @property
    def cases(self) -> set[str]:
        """Cases with scores."""
        return {str(row["case"]) for row in self.rows}


def write_report(
    path: Path,
    *,
    title: str,
    runs: Sequence[RunResult],
    comparisons: Sequence[PairedDifference] = (),
    pictures: Sequence[CasePicture] = (),
    metrics: Sequence[str] = PRIMARY,
    plan: Mapping[str, Any] | None = None,
    commands: Sequence[str] = (),
    notes: Sequence[str] = (),
    package_versions: Mapping[str, str] | None = None,
    sentences: Sequence[Sentence] = (),
    overwrite: bool = False,
) -> Path:
    """Write the page.

    Args:
        path: of the HTML file.
        title: first line of the page.
        runs: trainers, the baseline first.
        comparisons: from `statistics.compare`, baseline against each other trainer.
        pictures: at most 9 are shown.
        metrics: rows of the tables, each against its home reference.
        plan: settings that all trainers share.
        commands: that lead to this page.
        notes: what a reader must know, failed trainings for instance.
        package_versions: if they are not those of this environment.
        sentences: the verdict; empty: made from the runs, without the length of their training.
        overwrite: replace an earlier page.

    Raises:
        UsageError: if the page exists, or there is no run.
    """
    refuse_existing([path], overwrite=overwrite)
    if not runs:
        raise UsageError("a report needs at least one evaluated trainer.")
    classes = list(dict.fromkeys(name for run in runs for name in run.classes))
    page = environment().get_template("report.html.jinja").render(
        title=title,
        runs=runs,
        summaries=[class_summary(name, runs, comparisons, metrics) for name in classes],
        plots=[class_plots(name, runs, comparisons, metrics) for name in classes[:PLOTTED_CLASSES]],
        unplotted=classes[PLOTTED_CLASSES:],
        curves=curve_plots(runs),
        pictures=[picture_panels(picture) for picture in pictures[:PICTURED_CASES]],
        plan=plan or {},
        commands=commands,
        notes=notes,
        versions=package_versions or versions(),
        sentences=sentences if sentences else verdict({run.name: run.rows for run in runs}, comparisons),
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page)
    return path


def environment() -> jinja2.Environment:
    """Where templates come from; everything they print is escaped."""
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("nnunet_softlabel.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {
        "number": number, "p_value": p_value, "short": figures.short, "duration": duration, "plain": plain,
    }  # fmt: skip
    found.globals |= {"titles": TITLES, "better": BETTER, "excludes_zero": excludes_zero}
    return found


def class_summary(
    name: str, runs: Sequence[RunResult], comparisons: Sequence[PairedDifference], metrics: Sequence[str]
) -> dict[str, Any]:
    """The table of a class: metrics down, trainers and the raters across; and its tests."""
    tests = [test for test in comparisons if test.class_name == name]
    verdicts = {(test.metric, test.reference, test.second): test for test in tests}
    lines = []
    for metric in metrics:
        reference = home_reference(metric)
        cells = [
            {
                "interval": _interval(run, metric, name, reference),
                "test": verdicts.get((metric, reference, run.name)),
            }
            for run in runs
        ]
        ceiling = _interval(runs[0], metric, name, reference, prediction=RATER)
        lines.append({"metric": metric, "reference": reference, "cells": cells, "ceiling": ceiling})
    pairs: dict[tuple[str, str], list[PairedDifference]] = {}
    for test in tests:
        pairs.setdefault((test.first, test.second), []).append(test)
    return {"name": name, "lines": lines, "pairs": pairs, "counts": {k: _count(v) for k, v in pairs.items()}}


def _interval(
    run: RunResult, metric: str, class_name: str, reference: str, *, prediction: str = "model"
) -> Interval:
    found = case_values(
        run.rows, metric=metric, class_name=class_name, reference=reference, prediction=prediction
    )
    values, groups = [v for v, _ in found.values()], [g for _, g in found.values()]
    return mean_interval(values, groups, resamples=MEAN_RESAMPLES)


def _count(tests: Sequence[PairedDifference]) -> dict[str, int]:
    """How many tests the second trainer wins, loses, leaves open; which could not be made; and intervals."""
    known = [test for test in tests if not math.isnan(test.p_holm)]
    described = [test for test in tests if not test.is_primary]
    stands = [test for test in known if test.is_significant()]
    better = sum(test.better == test.second for test in stands)
    return {
        "better": better,
        "worse": sum(test.better == test.first for test in stands),
        "open": len(known) - len(stands),
        "impossible": len(tests) - len(known) - len(described),
        "described": len(described),
        "outside": sum(excludes_zero(test) for test in described),
    }


def class_plots(
    name: str, runs: Sequence[RunResult], comparisons: Sequence[PairedDifference], metrics: Sequence[str]
) -> dict[str, Any]:
    """All plots of a class, as ``data:`` addresses with a text for those who do not see them."""
    plots: dict[str, Any] = {"name": name, "forest": [], "distribution": [], "reliability": [], "scatter": []}
    for metric in metrics:
        reference = home_reference(metric)
        place = {"metric": metric, "class_name": name, "reference": reference}
        tests = [t for t in comparisons if (t.metric, t.class_name, t.reference) == (metric, name, reference)]
        if tests:
            plots["forest"].append((f"Differences of {TITLES[metric]}", figures.forest_plot(metric, tests)))
        found = {run.name: case_values(run.rows, **place) for run in runs}
        ceiling = [v for v, _ in case_values(runs[0].rows, prediction=RATER, **place).values() if v == v]
        values = {trainer: [v for v, _ in cases.values()] for trainer, cases in found.items()}
        drawn = figures.distribution_plot(metric, values, float(np.mean(ceiling)) if ceiling else None)
        plots["distribution"].append((f"{TITLES[metric]} of all cases", drawn))
        if metric in SCATTER_METRICS:
            baselines = {test.second: test.first for test in comparisons}
            for run in runs[1:]:
                first = baselines.get(run.name, runs[0].name)
                base = found[first]
                pairs = [
                    (base[case][0], value) for case, (value, _) in found[run.name].items() if case in base
                ]
                drawn = figures.scatter_plot(metric, (first, run.name), pairs)
                plots["scatter"].append((f"{TITLES[metric]} of {run.name} against {first}", drawn))
    for where, text in (("near", "Near the object"), ("image", "Whole image")):
        tables = {r.name: r.reliability[name][where] for r in runs if where in r.reliability.get(name, {})}
        if tables:
            plots["reliability"].append((text, figures.reliability_plot(text, tables)))
    return plots


def curve_plots(runs: Sequence[RunResult]) -> list[tuple[str, str]]:
    """One plot per curve that any trainer has."""
    names = dict.fromkeys(name for run in runs for name, values in run.curves.items() if len(values))
    return [
        (name, figures.curve_plot(name, {r.name: r.curves.get(name, ()) for r in runs})) for name in names
    ]


def picture_panels(picture: CasePicture) -> dict[str, Any]:
    """The panels of one case: raters, soft label, then what each trainer says."""
    image, aspect = picture.image, picture.aspect
    raters = list(picture.raters)
    panels = [
        ("image", figures.panel(image, aspect=aspect)),
        (
            f"{len(raters)} raters" if raters else "consensus",
            figures.panel(
                image, aspect=aspect, outlines=list(picture.raters.values()) or [picture.consensus]
            ),
        ),
        ("soft label", figures.panel(image, aspect=aspect, heat=picture.soft)),
    ]
    shown = list(picture.probabilities.items())[:PICTURED_TRAINERS]
    panels += [(figures.short(name), figures.panel(image, aspect=aspect, heat=p)) for name, p in shown]
    return {"case": picture.case, "caption": picture.caption, "panels": panels}


def number(value: float | None) -> str:
    """Three significant digits, or a dash."""
    return "-" if value is None or math.isnan(value) else f"{value:#.3g}".rstrip(".")


def p_value(value: float) -> str:
    """A p-value as papers print it."""
    return "-" if math.isnan(value) else ("< 0.001" if value < 0.001 else f"{value:.3f}")


def duration(seconds: float | None) -> str:
    """Hours and minutes."""
    if seconds is None:
        return "-"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes else f"{seconds:.0f} s"


def plain(value: Any) -> str:
    """A setting in one line."""
    return value if isinstance(value, str) else json.dumps(value, default=str)
