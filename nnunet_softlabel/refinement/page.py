"""``candidates.html``: candidates as pictures, most doubtful first, to be judged with a click each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.evaluation.tables import versions
from nnunet_softlabel.formats.encoding import is_member
from nnunet_softlabel.formats.files import write_text
from nnunet_softlabel.formats.images import read_image
from nnunet_softlabel.formats.predictions import foreground_channels, probability_channels
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from nnunet_softlabel.refinement.candidates import COLUMNS, JudgedCandidate, csv_row
from nnunet_softlabel.refinement.summary import RefinementSummary
from nnunet_softlabel.report import figures

PICTURED = 60
# Half the side of a picture: this many radii of a ball of the candidate's size, and never fewer voxels.
RADII, FEWEST_VOXELS = 3.0, 12


@dataclass(frozen=True)
class Picture:
    """A candidate as pictures.

    Attributes:
        found: the candidate.
        panels: text and address of each picture.
        row: its line of ``candidates.csv``.
        raters: name, colour, and whether the rater marked it (None: no answer).
    """

    found: JudgedCandidate
    panels: Sequence[tuple[str, str]]
    row: Mapping[str, str]
    raters: Sequence[tuple[str, str, bool | None]]


def write_page(
    path: Path,
    dataset: SoftDataset,
    cases: Mapping[str, Case],
    *,
    candidates: Sequence[JudgedCandidate],
    summary: RefinementSummary,
) -> None:
    """Write the page, whole or not at all.

    Args:
        path: of the page.
        dataset: whose candidates they are.
        cases: its training cases, with predictions if there are any.
        candidates: the most doubtful first.
        summary: what was found.
    """
    chosen = candidates[:PICTURED]
    pictures: dict[tuple[str, str, int], Picture] = {}
    for case in dict.fromkeys(c.case for c in chosen):  # each case is read once
        own = [c for c in chosen if c.case == case]
        pictures |= _pictures(dataset, cases[case], own)
    page = _environment().get_template("candidates.html.jinja").render(
        title=f"Candidates of {dataset.folder.name}", summary=summary, n_all=len(candidates),
        pictures=[pictures[c.case, c.label, c.number] for c in chosen],
        columns=COLUMNS, versions=versions(),
    )  # fmt: skip
    write_text(path, page)


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("nnunet_softlabel.refinement", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _pictures(
    dataset: SoftDataset, case: Case, candidates: Sequence[JudgedCandidate]
) -> dict[tuple[str, str, int], Picture]:
    image, grid = read_image(dataset.image_files(case.name)[0])
    if image.ndim > len(grid.shape):
        image = image.mean(axis=-1)  # colours
    windows = [_window(c, grid.spacing_of_axes_mm) for c in candidates]
    shades = [image[cut].astype(np.float32) for cut, _ in windows]
    shape = image.shape
    del image
    parts: dict[str, list[NDArray[Any]]] = {}  # what each rater drew in each window
    for rater, path in dataset.rater_files(case.name).items():
        label_map, _ = dataset.read(path)
        parts[rater] = [label_map[cut].copy() for cut, _ in windows]
    seen = _seen_by_network(dataset, case, candidates, [cut for cut, _ in windows], shape=shape)
    drawn = {}
    for index, (c, shade, (_, aspect)) in enumerate(zip(candidates, shades, windows, strict=True)):
        values = dataset.labels.values[c.label]
        outlines = [is_member(own[index], values) for own in parts.values()]
        panels = [
            ("image", figures.panel(shade, aspect=aspect)),
            ("raters", figures.panel(shade, aspect=aspect, outlines=outlines)),
        ]
        if index in seen:
            panels.append(("network", figures.panel(shade, aspect=aspect, heat=seen[index])))
        votes = [(r, figures.colour(i), c.candidate.votes.get(r)) for i, r in enumerate(parts)]
        drawn[c.case, c.label, c.number] = Picture(c, panels, csv_row(c), votes)
    return drawn


def _seen_by_network(
    dataset: SoftDataset,
    case: Case,
    candidates: Sequence[JudgedCandidate],
    cuts: Sequence[tuple[slice | int, ...]],
    *,
    shape: tuple[int, ...],
) -> dict[int, NDArray[Any]]:
    """Number of a candidate -> probabilities around it; empty without a prediction."""
    found: dict[int, NDArray[Any]] = {}
    if case.prediction is not None:
        labels = dataset.labels
        channels = probability_channels(case.prediction.parent, case.prediction.stem, labels, shape)
        for name, channel in zip(labels.names, foreground_channels(channels, labels), strict=True):
            for number, (c, cut) in enumerate(zip(candidates, cuts, strict=True)):
                if c.label == name:
                    found[number] = channel[cut].copy()
    return found


def _window(
    candidate: JudgedCandidate, spacing_mm: tuple[float, ...]
) -> tuple[tuple[slice | int, ...], float]:
    """The slice through the candidate's centre, cut out around it, and the aspect of its pixels."""
    radius_mm = candidate.candidate.size_mm ** (1 / len(spacing_mm))
    cut: list[slice | int] = [
        slice(max(0, c - reach), c + reach + 1)
        for c, reach in (
            (c, max(FEWEST_VOXELS, int(RADII * radius_mm / s)))
            for c, s in zip(candidate.candidate.centre, spacing_mm, strict=True)
        )
    ]
    sides = list(spacing_mm)
    if len(sides) > 2:
        axis = int(np.argmax(spacing_mm))  # across the thickest slices
        cut[axis] = candidate.candidate.centre[axis]
        del sides[axis]
    return tuple(cut), float(sides[0] / sides[1])
