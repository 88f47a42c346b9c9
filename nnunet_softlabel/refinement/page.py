"""``candidates.html``: candidates as pictures, most doubtful first, to be judged with a click each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.evaluation.tables import versions
from nnunet_softlabel.formats.encoding import channels_of
from nnunet_softlabel.formats.files import write_text
from nnunet_softlabel.formats.images import read_image
from nnunet_softlabel.formats.predictions import foreground, read_probabilities
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from nnunet_softlabel.refinement.candidates import COLUMNS, JudgedCandidate, csv_row
from nnunet_softlabel.refinement.summary import RefinementSummary
from nnunet_softlabel.report import figures
from nnunet_softlabel.report.pictures import slice_through

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
    raters = dataset.read_raters(case.name)
    maps = None
    if case.prediction is not None:
        folder, labels = case.prediction.parent, dataset.labels
        maps = foreground(read_probabilities(folder, case.prediction.stem, labels, image.shape), labels)
    drawn = {}
    for c in candidates:
        channel = dataset.labels.names.index(c.label)
        cut, aspect = _window(c, image.shape, grid.spacing_of_axes_mm)
        outlines = [channels_of(m[cut], dataset.labels)[channel] for m in raters.values()]
        shade = image[cut].astype(np.float32)
        panels = [
            ("image", figures.panel(shade, aspect=aspect)),
            ("raters", figures.panel(shade, aspect=aspect, outlines=outlines)),
        ]
        if maps is not None:
            panels.append(("network", figures.panel(shade, aspect=aspect, heat=maps[channel][cut])))
        votes = [(r, figures.colour(i), c.candidate.votes.get(r)) for i, r in enumerate(raters)]
        drawn[c.case, c.label, c.number] = Picture(c, panels, csv_row(c), votes)
    return drawn


def _window(
    candidate: JudgedCandidate, shape: tuple[int, ...], spacing_mm: tuple[float, ...]
) -> tuple[tuple[slice | int, ...], float]:
    """The slice through the candidate's centre, cut out around it, and the aspect of its pixels."""
    radius_mm = candidate.candidate.size_mm ** (1 / len(shape))
    box = tuple(
        slice(max(0, c - reach), c + reach + 1)
        for c, reach in (
            (c, max(FEWEST_VOXELS, int(RADII * radius_mm / s)))
            for c, s in zip(candidate.candidate.centre, spacing_mm, strict=True)
        )
    )
    weight = np.zeros(shape, np.float32)
    weight[candidate.candidate.centre] = 1
    cut, aspect = slice_through(weight, spacing_mm=spacing_mm)
    return tuple(c if isinstance(c, int) else box[axis] for axis, c in enumerate(cut)), aspect
