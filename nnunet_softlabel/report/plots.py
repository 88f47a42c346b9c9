"""Which plots and pictures the page shows, each with a text for those who do not see it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypedDict

import numpy as np

from nnunet_softlabel.evaluation.case_scores import RATER
from nnunet_softlabel.metrics.overlap import mean_of_defined
from nnunet_softlabel.metrics.registry import TITLES
from nnunet_softlabel.report import figures
from nnunet_softlabel.report.comparison import PRIMARY_TESTS, PairedDifference, case_values, home_reference
from nnunet_softlabel.report.pictures import CasePicture
from nnunet_softlabel.report.runs import RunResult

SCATTER_METRICS = ("dice", "soft_dice")
PICTURED_TRAINERS = 6
MOST_PRIMARY = 2  # of the figure at the head of the page


class ClassPlots(TypedDict):
    """The plots of a class, each a text and an address."""

    name: str
    forest: list[tuple[str, str]]
    distribution: list[tuple[str, str]]
    reliability: list[tuple[str, str]]
    scatter: list[tuple[str, str]]


def class_plots(
    name: str, runs: Sequence[RunResult], comparisons: Sequence[PairedDifference], metrics: Sequence[str]
) -> ClassPlots:
    """All plots of a class, as ``data:`` addresses with a text for those who do not see them."""
    plots: ClassPlots = {"name": name, "forest": [], "distribution": [], "reliability": [], "scatter": []}
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


def primary_plots(
    name: str, runs: Sequence[RunResult], primary: Sequence[str] = PRIMARY_TESTS
) -> list[tuple[str, str]]:
    """The metrics that decide, case by case: text and address of a picture each."""
    plots = []
    for metric in primary[:MOST_PRIMARY]:
        place = {"metric": metric, "class_name": name, "reference": home_reference(metric)}
        values = {
            run.name: {case: value for case, (value, _) in case_values(run.rows, **place).items()}
            for run in runs
        }
        ceiling = [v for v, _ in case_values(runs[0].rows, prediction=RATER, **place).values() if v == v]
        means = ", ".join(f"{n} {mean_of_defined(v.values()):.3g}" for n, v in values.items())
        joined = ", a line joins a case" if max(map(len, values.values())) <= figures.MOST_JOINED else ""
        text = f"{TITLES[metric]} of {name} in every case{joined}; means: {means}"
        plots.append((text, figures.paired_plot(metric, values, mean_of_defined(ceiling))))
    return plots


LOSSES = {"train_losses": "training", "val_losses": "validation"}
CURVES = {
    "mean_fg_dice": ("Pseudo Dice", "Dice of the validation patches of every epoch"),
    "ema_fg_dice": ("Pseudo Dice, moving average", "Dice of the validation patches, averaged over epochs"),
    "lrs": ("Learning rate", "learning rate of every epoch"),
}


def curve_plots(runs: Sequence[RunResult]) -> list[tuple[str, str]]:
    """Curves that trainers share on one plot; losses, which are different functions, on one per trainer."""
    names = dict.fromkeys(name for run in runs for name, values in run.curves.items() if len(values))
    plots = []
    for name in names:
        if name not in LOSSES:
            title, text = CURVES.get(name, (name, f"{name} of every epoch"))
            drawn = figures.curve_plot(title, {r.name: r.curves.get(name, ()) for r in runs})
            plots.append((f"{title}: {text}, a line per trainer", drawn))
    for row, run in enumerate(runs):
        losses = {text: run.curves[name] for name, text in LOSSES.items() if len(run.curves.get(name, ()))}
        if losses:
            title = f"Loss of {figures.short(run.name)}"
            which = " and ".join(losses)
            text = f"{title}: {which}, of every epoch. Losses of other trainers are other functions"
            plots.append((text, figures.loss_plot(title, losses, row)))
    return plots


class Panel(NamedTuple):
    """A picture: what stands under it, its address, and a text for those who do not see it."""

    caption: str
    address: str
    text: str


class PicturePanels(TypedDict):
    """The pictures of a case; ``legend`` is name and colour of each rater."""

    case: str
    caption: str
    panels: list[Panel]
    legend: list[tuple[str, str]]


def picture_panels(picture: CasePicture) -> PicturePanels:
    """The panels of one case: raters, soft label, then what each trainer says; and the legend."""
    image, aspect = picture.image, picture.aspect
    raters = list(picture.raters)
    outlines = list(picture.raters.values()) or [picture.consensus]
    who = f"{len(raters)} raters" if raters else "consensus"
    panels = [
        Panel("image", figures.panel(image, aspect=aspect), "the image alone"),
        Panel(who, figures.panel(image, aspect=aspect, outlines=outlines), f"outlines of {who}"),
        Panel("soft label", figures.panel(image, aspect=aspect, heat=picture.soft), "the soft label as heat"),
    ]
    for name, p in list(picture.probabilities.items())[:PICTURED_TRAINERS]:
        score = picture.scores.get(name, "")
        caption = f"{figures.short(name)}{f', {score}' if score else ''}"
        drawn = figures.panel(image, aspect=aspect, heat=p)
        panels.append(Panel(caption, drawn, f"probability of {name} as heat{f', {score}' if score else ''}"))
    legend = [(name, figures.colour(index)) for index, name in enumerate(raters or ["consensus"])]
    return {"case": picture.case, "caption": picture.caption, "panels": panels, "legend": legend}
