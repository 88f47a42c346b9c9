"""Plots of the report, each a PNG in memory. matplotlib without pyplot: no window, no global state."""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from nnunet_softlabel.metrics.registry import BETTER, TITLES
from nnunet_softlabel.report.comparison import PairedDifference
from nnunet_softlabel.report.runs import RECALIBRATED

# Okabe and Ito's colours, which colour-blind readers tell apart
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
GREY = "#666666"
WAY = {"higher": "higher is better", "lower": "lower is better", "zero": "0 is best"}
WIDTH = 4.8  # inches; a plot fills a phone, two or three stand side by side on a screen
DPI = 110
MOST_JOINED = 60  # cases; more lines than that are a grey sheet


def colour(index: int) -> str:
    """The colour of the n-th trainer, or rater."""
    return COLOURS[index % len(COLOURS)]


def short(name: str) -> str:
    """A trainer's name without the prefix that all share.

    >>> short("nnUNetTrainerSoftCE, recalibrated"), short("nnUNetTrainer, recalibrated")
    ('SoftCE, recalibrated', 'nnUNetTrainer, recalibrated')
    """
    own = name.removeprefix("nnUNetTrainer")
    return own if own[:1].isalnum() or own.startswith("_") else name


def png(figure: Figure) -> str:
    """A figure as a ``data:`` address, so that the page needs no other file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _axes(height: float, title: str = "") -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    if title:
        figure.suptitle(_literal(title), x=0.01, ha="left", fontsize=10, fontweight="bold")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
    axes.locator_params(axis="x", nbins=5)
    return figure, axes


def _literal(text: str) -> str:
    """Text in which matplotlib sees no formula."""
    return text.replace("$", r"\$")


def _names_down(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [_literal(textwrap.fill(short(name), 18)) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)


def distribution_plot(metric: str, values: Mapping[str, Sequence[float]], ceiling: float | None) -> str:
    """All cases of every trainer, a box over them, and the raters' own mean as a line."""
    figure, axes = _axes(1.0 + 0.42 * len(values), TITLES[metric])
    rng = np.random.default_rng(0)
    for row, found in enumerate(values.values()):
        points = np.asarray([v for v in found if v == v])
        if not len(points):
            continue
        height = row + rng.uniform(-0.28, 0.28, len(points))
        axes.plot(points, height, ".", color=colour(row), markersize=6, alpha=0.6, markeredgewidth=0)
        axes.boxplot(
            points, positions=[row], orientation="horizontal", widths=0.55, showfliers=False,
            medianprops={"color": "black"},
        )  # fmt: skip
    _names_down(axes, list(values))
    axes.set_xlabel(WAY[BETTER[metric]], fontsize=9)
    if ceiling is not None and ceiling == ceiling:
        low, high = axes.get_xlim()
        axes.set_title(f"raters {ceiling:.3g}", fontsize=8, color=GREY, loc="right")
        if (
            low <= ceiling <= high
        ):  # else the line would squeeze the cases into a corner; its number still stands
            axes.axvline(ceiling, color=GREY, linestyle="--", linewidth=1.2)
    return png(figure)


def paired_plot(metric: str, values: Mapping[str, Mapping[str, float]], ceiling: float) -> str:
    """Every case as a dot per trainer; bar: mean; dashed: the raters among themselves.

    A line joins a case; where cases are many, lines would hide them, and dots stand beside each other.
    """
    figure, axes = _axes(WIDTH * 0.8, f"{TITLES[metric]} ({WAY[BETTER[metric]]})")
    cases = list(dict.fromkeys(case for found in values.values() for case in found))
    joined = np.array([[found.get(case, np.nan) for found in values.values()] for case in cases])
    are_many = len(cases) > MOST_JOINED
    aside = np.random.default_rng(0).uniform(-0.3, 0.3, len(cases)) * are_many
    fade = float(np.clip(4 / np.sqrt(max(len(cases), 1)), 0.12, 0.6))
    for row in () if are_many else joined:
        axes.plot(range(len(row)), row, color=GREY, linewidth=0.8, alpha=fade, zorder=1)
    for index, column in enumerate(joined.T):
        axes.scatter(
            index + aside, column, s=12 if are_many else 34, color=colour(index), alpha=max(fade, 0.4),
            edgecolor="white", linewidth=0 if are_many else 0.4, zorder=2,
        )  # fmt: skip
        defined = column[~np.isnan(column)]
        if len(defined):
            axes.hlines(defined.mean(), index - 0.35, index + 0.35, color="black", linewidth=2.4, zorder=3)
    if ceiling == ceiling:
        axes.axhline(ceiling, color=GREY, linestyle="--", linewidth=1.2, label=f"raters {ceiling:.3g}")
        axes.legend(fontsize=8, frameon=False, loc="best")
    axes.set_xticks(range(len(values)), [_literal(textwrap.fill(short(name), 14)) for name in values])
    axes.set_xlim(-0.6, len(values) - 0.4)
    return png(figure)


def forest_plot(metric: str, tests: Sequence[PairedDifference]) -> str:
    """Difference to the baseline with its interval per trainer; filled where Holm leaves it standing."""
    figure, axes = _axes(1.0 + 0.36 * len(tests), TITLES[metric])
    for row, test in enumerate(tests):
        d = test.difference
        stands = test.is_significant()
        shade = GREY if not stands else (colour(2) if test.better == test.second else colour(1))
        if d.low == d.low:
            axes.plot([d.low, d.high], [row, row], color=shade, linewidth=2)
        axes.plot(d.mean, row, "o", color=shade, markerfacecolor=shade if stands else "white", markersize=7)
        if test.margin is not None:
            axes.axvline(
                -test.margin if BETTER[metric] == "higher" else test.margin, color=GREY, linestyle=":"
            )
    axes.axvline(0, color="black", linewidth=0.8)
    _names_down(axes, [test.second for test in tests])
    side = {"higher": "right is better", "lower": "left is better", "zero": "no better side"}[BETTER[metric]]
    firsts = {test.first for test in tests}
    minus = _literal(short(tests[0].first)) if len(firsts) == 1 else "its own baseline"
    axes.set_xlabel(f"minus {minus}; {side}", fontsize=9)
    return png(figure)


def reliability_plot(title: str, tables: Mapping[str, NDArray[Any]]) -> str:
    """Mean reference against mean probability per bin, a line per trainer; larger dots are more voxels.

    A recalibrated row has the colour of the row it was made from, and a dotted line.
    """
    figure, axes = _axes(WIDTH * 0.98, title)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
    names = list(tables)
    for row, (name, table) in enumerate(tables.items()):
        filled = table[table[:, 0] > 0]
        raw = name.removesuffix(RECALIBRATED)
        line, shade = ("-", row) if raw == name or raw not in names else (":", names.index(raw))
        x, y = filled[:, 1] / filled[:, 0], filled[:, 2] / filled[:, 0]
        size = 6 + 60 * np.sqrt(filled[:, 0] / max(filled[:, 0].sum(), 1))
        axes.plot(x, y, line, color=colour(shade), linewidth=1.5, label=_literal(short(name)))
        axes.scatter(x, y, s=size, color=colour(shade), zorder=3)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set_xlabel("predicted probability", fontsize=9)
    axes.set_ylabel("soft label", fontsize=9)
    axes.legend(fontsize=8, frameon=False, loc="upper left")
    return png(figure)


def histogram(title: str, label: str, values: Sequence[float]) -> str:
    """How many cases have which value between 0 and 1."""
    figure, axes = _axes(WIDTH * 0.55, title)
    axes.hist(values, bins=20, range=(0, 1), color=colour(0), edgecolor="white")
    axes.axvline(float(np.median(values)), color=GREY, linewidth=1, linestyle="--", label="median")
    axes.set_xlim(0, 1)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(label, fontsize=9)
    axes.set_ylabel("cases", fontsize=9)
    axes.legend(fontsize=8, frameon=False)
    return png(figure)


def scatter_plot(metric: str, names: tuple[str, str], pairs: Sequence[tuple[float, float]]) -> str:
    """Every case: baseline across, other trainer up."""
    figure, axes = _axes(WIDTH * 0.85, TITLES[metric])
    points = np.asarray([pair for pair in pairs if pair[0] == pair[0] and pair[1] == pair[1]]).reshape(-1, 2)
    if len(points):
        low, high = points.min(), points.max()
        axes.plot([low, high], [low, high], color=GREY, linewidth=1, linestyle="--")
    axes.plot(points[:, 0], points[:, 1], ".", color=colour(0), alpha=0.5, markeredgewidth=0, markersize=6)
    axes.set_xlabel(_literal(short(names[0])), fontsize=9)
    axes.set_ylabel(_literal(short(names[1])), fontsize=9)
    return png(figure)


def curve_plot(title: str, curves: Mapping[str, Sequence[float]]) -> str:
    """A learning curve per trainer. Colours follow the order of the trainers; an empty curve is left out."""
    figure, axes = _axes(WIDTH * 0.66, title)
    for row, (name, values) in enumerate(curves.items()):
        if len(values):
            epochs, label = np.arange(1, len(values) + 1), _literal(short(name))
            marker = "." if len(values) < 3 else None  # a line needs two points
            axes.plot(epochs, values, color=colour(row), linewidth=1.3, label=label, marker=marker)
    axes.set_xlabel("epoch", fontsize=9)
    axes.legend(fontsize=8, frameon=False)
    return png(figure)


def loss_plot(title: str, curves: Mapping[str, Sequence[float]], trainer: int) -> str:
    """The loss of one trainer: training and validation patches, in the colour of the trainer."""
    figure, axes = _axes(WIDTH * 0.66, title)
    for (name, values), line in zip(curves.items(), ("-", "--"), strict=False):
        epochs, marker = np.arange(1, len(values) + 1), "." if len(values) < 3 else None
        axes.plot(epochs, values, line, color=colour(trainer), linewidth=1.3, label=name, marker=marker)
    axes.set_xlabel("epoch", fontsize=9)
    axes.legend(fontsize=8, frameon=False)
    return png(figure)


def colour_bar() -> str:
    """What the heat on pictures means."""
    figure = Figure(figsize=(2.6, 0.5), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(np.linspace(0, 1, 256)[None], cmap="inferno", aspect="auto", extent=(0, 1, 0, 1))
    axes.axvline(0.5, color="#00E5FF", linewidth=2)
    axes.set_yticks([])
    axes.tick_params(labelsize=8)
    return png(figure)


def panel(
    image: NDArray[Any],
    *,
    aspect: float,
    outlines: Sequence[NDArray[Any]] = (),
    heat: NDArray[Any] | None = None,
) -> str:
    """The image, outlines of masks in the raters' colours, a probability as heat with its 0.5 line."""
    rows, columns = image.shape
    figure = Figure(figsize=(2.4, float(np.clip(2.4 * rows * aspect / columns, 1.0, 4.8))))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    low, high = np.percentile(image, (1, 99))
    show = partial(axes.imshow, aspect=aspect, interpolation="nearest")
    show(image, cmap="gray", vmin=low, vmax=max(high, low + 1e-6))
    if heat is not None:
        show(heat, cmap="inferno", vmin=0, vmax=1, alpha=np.clip(heat * 1.5, 0, 0.65))
        _outline(axes, heat, 0.5, "#00E5FF")
    for index, mask in enumerate(outlines):
        _outline(axes, mask.astype(float), 0.5, colour(index))
    return png(figure)


def _outline(axes: Axes, values: NDArray[Any], level: float, line: str) -> None:
    if values.min() <= level < values.max():
        axes.contour(values, levels=[level], colors=[line], linewidths=1.4)
