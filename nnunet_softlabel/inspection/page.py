"""``inspection.html``: one page that stands alone, with pictures of the cases to look at first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.cases.label_maps import Reading
from nnunet_softlabel.cases.rater_maps import RaterMaps
from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.evaluation.tables import versions
from nnunet_softlabel.formats.files import write_text
from nnunet_softlabel.formats.images import read_image
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.inspection.read import read_case
from nnunet_softlabel.inspection.records import ClassSummary, Inspection, dice_of_pairs
from nnunet_softlabel.inspection.verdict import verdict
from nnunet_softlabel.report import figures
from nnunet_softlabel.report.markup import template_environment, with_code
from nnunet_softlabel.report.pictures import slice_through

PICTURED_CASES = 9
# Where nothing is disputed a little weight keeps everything marked within the picture.
MARKED_WEIGHT = 1e-3


@dataclass(frozen=True)
class Picture:
    """A case as pictures.

    Attributes:
        case: its name.
        class_name: whose outlines are shown.
        panels: text and address of each picture.
        raters: name and colour of each.
        reasons: why it stands out.
    """

    case: str
    class_name: str
    panels: Sequence[tuple[str, str]]
    raters: Sequence[tuple[str, str]]
    reasons: Sequence[str] = ()


def write_page(
    path: Path,
    summary: Inspection,
    cases: Sequence[Case],
    *,
    labels: Labels,
    reading: Reading,
    title: str,
) -> None:
    """Write the page, whole or not at all."""
    by_name = {case.name: case for case in cases}
    reasons = {(found["case"], found["class"]): found["reasons"] for found in summary["stand_out"]["cases"]}
    pictures = [
        replace(case_panels(by_name[case], name, labels, reading), reasons=reasons.get((case, name), []))
        for case, name in worst_cases(summary)
    ]
    page = _environment().get_template("inspection.html.jinja").render(
        title=title, summary=summary, pictures=pictures, matrix=_matrix, versions=versions(),
        sentences=verdict(summary), histograms=_histograms(summary),
    )  # fmt: skip
    write_text(path, page)


def _histograms(summary: Inspection) -> list[tuple[str, str]]:
    """Text and address of a picture per class: how many cases have which agreement."""
    found = []
    for name in summary["classes"]:
        values = [classes[name]["mean_dice"] for classes in summary["per_case"].values()]
        defined = [value for value in values if value == value]
        if defined:
            low, middle, high = np.quantile(defined, [0, 0.5, 1])
            text = (
                f"{name}: mean Dice of the raters in each of {len(defined)} cases, lowest {low:.2f}, "
                f"median {middle:.2f}, highest {high:.2f}"
            )
            found.append((text, figures.histogram(f"{name}: agreement", "mean Dice of the raters", defined)))
    return found


def _environment() -> jinja2.Environment:
    found = template_environment("nnunet_softlabel.inspection")
    found.filters["with_code"] = with_code
    found.filters["number"] = lambda value, digits=3: "-" if value != value else f"{value:.{digits}f}"
    found.filters["percent"] = lambda value: "-" if value != value else f"{100 * value:+.1f} %"
    return found


def worst_cases(summary: Inspection) -> list[tuple[str, str]]:
    """Case and class: first those that stand out, then those of the lowest mean Dice."""
    picked = {(found["case"], found["class"]): None for found in summary["stand_out"]["cases"]}
    rest = sorted(
        (measured["mean_dice"], case, name)
        for case, classes in summary["per_case"].items()
        for name, measured in classes.items()
        if measured["mean_dice"] == measured["mean_dice"]
    )
    picked |= {(case, name): None for _, case, name in rest[:PICTURED_CASES]}
    return list(picked)[:PICTURED_CASES]


def _matrix(found: ClassSummary) -> list[tuple[str, list[float | None]]]:
    """Rows of the Dice matrix."""
    raters, values = list(found["raters"]), dice_of_pairs(found)
    return [(row, [values.get((row, c), values.get((c, row))) for c in raters]) for row in raters]


def case_panels(case: Case, class_name: str, labels: Labels, reading: Reading) -> Picture:
    """The image and the raters' outlines: the slice most disputed, and all slices on top of each other."""
    raters = read_case(case, labels, reading).raters
    assert raters is not None  # cases without raters have no numbers, so nobody asks for them
    channel = labels.names.index(class_name)
    cut, aspect = _most_disputed(raters, channel)
    outlines = [mask[cut].copy() for mask, _ in raters.masks(channel)]
    image = _image(case, raters.shape, cut)
    shade = np.asarray(np.sum(outlines, axis=0, dtype=np.float32)) if image is None else image
    panels = [] if image is None else [("image", figures.panel(shade, aspect=aspect))]
    where = "most disputed slice" if len(raters.shape) == 3 else "what each drew"
    panels.append((where, figures.panel(shade, aspect=aspect, outlines=outlines)))
    if len(raters.shape) == 3:
        axis = next(a for a, index in enumerate(cut) if isinstance(index, int))
        window = tuple(index for index in cut if not isinstance(index, int))
        projected = [np.asarray(mask.any(axis=axis))[window] for mask, _ in raters.masks(channel)]
        votes_per_pixel = np.asarray(np.sum(projected, axis=0, dtype=np.float32))
        text = "all slices: outlines of what each marked anywhere"
        panels.append((text, figures.panel(votes_per_pixel, aspect=aspect, outlines=projected)))
    colours = [(rater, figures.colour(index)) for index, rater in enumerate(raters.names)]
    return Picture(case.name, class_name, panels, colours)


def _most_disputed(raters: RaterMaps, channel: int) -> tuple[tuple[int | slice, ...], float]:
    """Where to look at what the raters drew, see `slice_through`."""
    marked, agreed = np.zeros(raters.shape, bool), np.ones(raters.shape, bool)
    for mask, _ in raters.masks(channel):
        marked |= mask
        agreed &= mask
    weight = MARKED_WEIGHT * marked
    weight[marked & ~agreed] = 1.0
    return slice_through(weight, spacing_mm=raters.spacing_mm)


def _image(case: Case, shape: tuple[int, ...], cut: tuple[int | slice, ...]) -> NDArray[Any] | None:
    """First channel of the image in a slice; None if there is none that fits the masks."""
    if not case.images or not isinstance(case.images[0], Path):
        return None
    try:
        image, grid = read_image(case.images[0])
    except DatasetError:
        return None  # it is among the problems
    if image.ndim > len(grid.shape):
        image = image.mean(axis=-1)  # colours
    return image[cut].astype(np.float32) if image.shape == shape else None
