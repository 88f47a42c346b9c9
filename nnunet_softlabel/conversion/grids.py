"""Files on another grid than their image: all of them in one message, and what was done about them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from nnunet_softlabel.cases.case import Case, Source, source_name
from nnunet_softlabel.conversion.settings import CaseSettings
from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.grid_words import difference_in_words
from nnunet_softlabel.formats.images import read_grid
from nnunet_softlabel.formats.regrid import MISSES, GridError, fits, percent
from nnunet_softlabel.formats.slicer import is_slicer_file
from nnunet_softlabel.formats.soft_labels import MoveRecord

MOST_NAMED = 30
NAMES = {
    "turned": "turned (axes in another order or direction, no voxel changed)",
    "placed": "placed where they belong (stored as a box, no voxel changed)",
}


@contextmanager
def naming_all_grids(cases: Sequence[Case], settings: CaseSettings) -> Iterator[None]:
    """Let an error about one file's grid name all files on another grid, each with its difference.

    Raises:
        GridError: in place of the error about one.
    """
    try:
        yield
    except GridError as error:
        found = [] if settings.reading.regrid else differences(cases)
        if len(found) < 2:
            raise
        named = "; ".join(found[:MOST_NAMED])
        rest = f"; and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
        missing = " Those that miss the image need another file." if MISSES in named else ""
        raise GridError(
            f"{len(found)} files are on another grid than their image. {named}{rest}. Add --regrid nearest "
            f"(or linear), or resample them onto their images.{missing}"
        ) from error


def differences(cases: Sequence[Case]) -> list[str]:
    """A sentence for every file of which the header alone says that it does not fit its image."""
    found = []
    for case in cases:
        grid = _grid_of(case.images[0]) if case.images else None
        files = {f"rater {rater}": source for rater, source in sorted(case.raters.items())}
        files |= {f"soft label {label}": source for label, source in case.soft.items()}
        files |= {f"ROI {roi}": source for roi, source in case.rois.items()}
        files |= {} if case.ignore is None else {"ignore mask": case.ignore}
        for what, source in files.items():
            own = _grid_of(source)
            if grid is None or own is None:
                continue
            is_cropped = isinstance(source, Path) and is_slicer_file(source)
            if not fits(own, grid, is_cropped=is_cropped):
                words = difference_in_words(grid, own)
                found.append(f"Case {case.name}, {what} ({source_name(source)}): {words}")
    return found


def _grid_of(source: Source) -> Grid | None:
    """The grid of a file; None for what is in memory, and for files that cannot be read."""
    if not isinstance(source, Path):
        return None
    try:
        return read_grid(source)
    except DatasetError:
        return None


def moves_in_words(moved: Mapping[str, Mapping[str, MoveRecord]]) -> list[str]:
    """Sentences for how many files were moved onto their image's grid, how, and how far.

    Args:
        moved: of ``dataset.json``: case -> file -> how, difference, shift_mm.
    """
    by_how: dict[str, list[tuple[float, str]]] = {}
    cut: list[tuple[float, str]] = []
    for case, files in moved.items():
        for what, move in files.items():
            by_how.setdefault(move["how"], []).append((move["shift_mm"], f"case {case}, {what}"))
            if move.get("outside"):
                cut.append((move["outside"], f"case {case}, {what}"))
    sentences = []
    for how, files_moved in sorted(by_how.items()):
        distance, where = max(files_moved)
        number = f"{len(files_moved)} file{'s were' if len(files_moved) > 1 else ' was'}"
        if how in NAMES:
            sentences.append(f"{number} {NAMES[how]}; the first: {files_moved[0][1]}.")
        else:
            sentences.append(
                f"{number} put on the grid of the image (--regrid {how}); voxels moved by {distance:.3g} mm "
                f"at most ({where})."
            )
    if cut:
        share, where = max(cut)
        sentences.append(
            f"{len(cut)} file{'s mark' if len(cut) > 1 else ' marks'} voxels outside the image, which were "
            f"cut off: {percent(share)} at most ({where})."
        )
    return sentences
