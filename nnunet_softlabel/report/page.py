"""One HTML page that stands alone: tables, tests, plots and pictures of trainers beside each other."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

import jinja2
import numpy as np

from nnunet_softlabel.cases.groups import FEWEST_GROUPS
from nnunet_softlabel.errors import UsageError
from nnunet_softlabel.evaluation.case_scores import RATER
from nnunet_softlabel.evaluation.tables import versions
from nnunet_softlabel.formats.files import refuse_existing, write_text
from nnunet_softlabel.metrics.registry import BETTER, TITLES
from nnunet_softlabel.public import public
from nnunet_softlabel.report import figures
from nnunet_softlabel.report.comparison import (
    PRIMARY,
    PRIMARY_TESTS,
    PairedDifference,
    case_values,
    home_reference,
)
from nnunet_softlabel.report.difference_text import excludes_zero, has_too_few
from nnunet_softlabel.report.findings import Findings, Provenance
from nnunet_softlabel.report.markup import template_environment, with_code
from nnunet_softlabel.report.methods import facts, methods_text
from nnunet_softlabel.report.pictures import CasePicture
from nnunet_softlabel.report.plots import class_plots, curve_plots, picture_panels, primary_plots
from nnunet_softlabel.report.runs import RunResult
from nnunet_softlabel.report.significance import T_BELOW, Interval, interval_of_mean
from nnunet_softlabel.report.verdict import verdict

MEAN_RESAMPLES = 2000  # of the intervals of means; those of differences come with the tests
PICTURED_CASES, PLOTTED_CLASSES = 9, 4


@public
def write_report(
    path: Path,
    found: Findings,
    *,
    title: str,
    metrics: Sequence[str] = PRIMARY,
    pictures: Sequence[CasePicture] = (),
    provenance: Provenance | None = None,
    test: Findings | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the page.

    >>> summary = ns.evaluate(501, "predictions", "scores_b", num_processes=1)
    >>> found = ns.Findings([ns.RunResult.from_folders("SoftCE", ["scores_b"])])
    >>> ns.write_report("report.html", found, title="Knees", metrics=["dice"]).name
    'report.html'

    Args:
        path: of the HTML file.
        found: on the validation cases.
        title: first line of the page.
        metrics: rows of the tables, each against its home reference.
        pictures: at most 9 are shown.
        provenance: plan, commands and versions.
        test: what was found on test images; shown first.
        overwrite: replace an earlier page.

    Raises:
        UsageError: if the page exists, or there is no run.
    """
    refuse_existing([path], overwrite=overwrite)
    runs, comparisons = found.runs, found.comparisons
    if not runs:
        raise UsageError("a report needs at least one evaluated trainer.")
    origin = provenance or Provenance()
    package_versions = origin.package_versions or versions()
    classes = found.classes
    primary = list(dict.fromkeys(test.metric for test in comparisons if test.is_primary))
    primary.sort(key=lambda metric: metric not in PRIMARY_TESTS)
    page = environment().get_template("report.html.jinja").render(
        title=title,
        runs=runs,
        summaries=[class_summary(name, runs, comparisons, metrics) for name in classes],
        primary={name: primary_plots(name, runs, primary or PRIMARY_TESTS) for name in classes},
        plots=[class_plots(name, runs, comparisons, metrics) for name in classes[:PLOTTED_CLASSES]],
        unplotted=classes[PLOTTED_CLASSES:],
        test=test,
        test_summaries=held_out_summaries(test, metrics),
        curves=curve_plots(runs),
        pictures=[picture_panels(picture) for picture in pictures[:PICTURED_CASES]],
        colour_bar=figures.colour_bar(),
        has_recalibrated=any(run.name.endswith(figures.RECALIBRATED) for run in runs),
        plan=origin.plan,
        facts=facts(origin.plan, runs),
        methods=methods_text(runs, comparisons, metrics, origin.plan, versions=package_versions)
        + (held_out_methods(test) if test else ""),
        commands=origin.commands,
        notes=found.notes,
        versions=package_versions,
        sentences=found.sentences or verdict({run.name: run.rows for run in runs}, comparisons),
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page)
    return path


def held_out_methods(test: Findings) -> str:
    """A sentence on the test images for the methods of the page."""
    return (
        f" {len(test.cases)} test images, which no network had seen, were predicted by each fold; single "
        f"folds were scored, and the mean of the folds' probabilities."
    )


def held_out_summaries(test: Findings | None, metrics: Sequence[str]) -> list[Summary]:
    """The tables of the test set, one per class; empty without one."""
    if test is None:
        return []
    return [class_summary(name, test.runs, test.comparisons, metrics) for name in test.classes]


def environment() -> jinja2.Environment:
    """Where templates come from; everything they print is escaped."""
    found = template_environment("nnunet_softlabel.report")
    found.filters |= {
        "number": number,
        "mean_text": mean_text,
        "range_text": range_text,
        "p_value": p_value,
        "short": figures.short,
        "duration": duration,
        "plain": plain,
        "with_code": with_code,
    }
    found.globals |= {"titles": TITLES, "better": BETTER, "way": figures.WAY, "excludes_zero": excludes_zero}
    found.globals |= {"most_joined": figures.MOST_JOINED, "fewest": FEWEST_GROUPS, "t_below": T_BELOW}
    return found


class Cell(TypedDict):
    """A trainer's mean of a metric, and the test against the baseline."""

    interval: Interval
    test: PairedDifference | None


class Line(TypedDict):
    """A metric of the table: one cell per trainer, and the raters."""

    metric: str
    reference: str
    cells: list[Cell]
    ceiling: Interval


class Summary(TypedDict):
    """The table of a class; ``pairs`` is two trainers -> their tests, ``counts`` how many stand."""

    name: str
    lines: list[Line]
    has_ceiling: bool
    pairs: dict[tuple[str, str], list[PairedDifference]]
    counts: dict[tuple[str, str], dict[str, int]]


def class_summary(
    name: str, runs: Sequence[RunResult], comparisons: Sequence[PairedDifference], metrics: Sequence[str]
) -> Summary:
    """The table of a class: metrics down, trainers and the raters across; and its tests."""
    tests = [test for test in comparisons if test.class_name == name]
    verdicts = {(test.metric, test.reference, test.second): test for test in tests}
    lines: list[Line] = []
    for metric in metrics:
        reference = home_reference(metric)
        cells: list[Cell] = [
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
    return {
        "name": name,
        "lines": lines,
        "has_ceiling": any(line["ceiling"].n for line in lines),
        "pairs": pairs,
        "counts": {pair: _count(own) for pair, own in pairs.items()},
    }


def _interval(
    run: RunResult, metric: str, class_name: str, reference: str, *, prediction: str = "model"
) -> Interval:
    found = case_values(
        run.rows, metric=metric, class_name=class_name, reference=reference, prediction=prediction
    )
    values, groups = [v for v, _ in found.values()], [g for _, g in found.values()]
    return interval_of_mean(values, groups, resamples=MEAN_RESAMPLES)


def _count(tests: Sequence[PairedDifference]) -> dict[str, int]:
    """How many tests the second trainer wins, loses, leaves open; which could not be made; and intervals."""
    known = [test for test in tests if not math.isnan(test.p_holm)]
    others = [test for test in tests if not test.is_primary]
    described = [test for test in others if not math.isnan(test.difference.low)]
    stands = [test for test in known if test.is_significant()]
    better = sum(test.better == test.second for test in stands)
    return {
        "better": better,
        "worse": sum(test.better == test.first for test in stands),
        "open": len(known) - len(stands),
        "impossible": len(tests) - len(known) - len(others),
        "described": len(described),
        "outside": sum(excludes_zero(test) for test in described),
        "too_few": sum(has_too_few(test) for test in tests),
    }


def decimals(interval: Interval) -> int:
    """Digits after the point that show three of the mean, or of the interval where the mean is next to 0."""
    size = max(abs(interval.mean), interval.high - interval.low if interval.low == interval.low else 0.0)
    return 2 if not size > 0 else int(np.clip(2 - math.floor(math.log10(size)), 0, 4))


def mean_text(interval: Interval) -> str:
    """The mean, with as many digits as its interval."""
    return "-" if math.isnan(interval.mean) else _fixed(interval.mean, decimals(interval))


def range_text(interval: Interval) -> str:
    """The interval, with as many digits as its mean; empty without one."""
    if math.isnan(interval.low):
        return ""
    digits = decimals(interval)
    return f"{_fixed(interval.low, digits)} to {_fixed(interval.high, digits)}"


def _fixed(value: float, digits: int) -> str:
    return f"{round(value, digits) + 0.0:.{digits}f}"


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
