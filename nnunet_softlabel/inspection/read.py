"""Where raters' masks come from, and what is wrong with the files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_softlabel.cases.case import Case, Source
from nnunet_softlabel.cases.find import find_cases
from nnunet_softlabel.cases.patterns import Pattern
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.formats.encoding import channels_of
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.images import is_flat, read_image, read_mask
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from nnunet_softlabel.fusion import RaterVotes


@dataclass(frozen=True)
class ReadCase:
    """The raters of a case that can be compared.

    Attributes:
        votes: of the raters whose masks have one shape; None if there is no rater left.
        problems: what is wrong, one sentence each.
    """

    votes: RaterVotes | None
    problems: tuple[str, ...]


def dataset_cases(dataset: SoftDataset, split: str = "Tr") -> list[Case]:
    """The cases of a converted data set with their raters.

    Raises:
        DatasetError: if no case has a rater.
    """
    cases = [
        Case(name, dataset.image_files(name, split)[:1], raters=dict(dataset.rater_files(name, split)))
        for name in dataset.cases(split)
    ]
    if not any(case.raters for case in cases):
        raise DatasetError(
            f"{dataset.folder}: raterLabels{split} holds no rater's mask; there is nothing to compare."
        )
    return cases


def pattern_cases(raters: Sequence[str], images: Sequence[str] = (), *, is_dark: bool = False) -> list[Case]:
    """Cases from file patterns; without images, names come from the raters' files.

    Args:
        raters: patterns with ``{case}`` and ``{rater}``.
        images: patterns with ``{case}``; what is read is the first one's.
        is_dark: masks are inverted: the object (label 1) is darker than half of full scale.

    Raises:
        UsageError: for a wrong pattern, or one that fits no file.
        DatasetError: for images without raters, and raters without images.
    """
    cases = find_cases(images, raters=raters) if images else _cases_of_raters(raters)
    if not is_dark:
        return cases
    return [
        Case(
            case.name, case.images, {rater: partial(_read_dark, path) for rater, path in case.raters.items()}
        )
        for case in cases
    ]


def _cases_of_raters(texts: Sequence[str]) -> list[Case]:
    found: dict[str, dict[str, Source]] = {}
    for text in texts:
        pattern = Pattern(text, "--raters", ["case", "rater"])
        if not pattern.has("rater"):
            raise UsageError(f"--raters {text}: needs {{rater}} where the rater's name stands.")
        regex, files = pattern.regex(), 0
        for path in pattern.files():
            if match := regex.fullmatch(path):
                files += 1
                known = found.setdefault(match["case"], {})
                if match["rater"] in known:
                    raise DatasetError(
                        f"Case {match['case']}: rater {match['rater']} has two files, "
                        f"{known[match['rater']]} and {path}; keep one."
                    )
                known[match["rater"]] = Path(path)
        if not files:
            raise UsageError(f"--raters {text}: fits no file; check the path, and quote the pattern.")
    return [Case(name, [], raters=raters) for name, raters in sorted(found.items())]


def _read_dark(path: Source) -> tuple[np.ndarray, Grid]:
    """1 where the mask is dark, whatever its full scale: some files have 1 bit (0, 1), others 8 (0, 255)."""
    assert isinstance(path, Path)  # patterns find files
    array, grid = read_mask(path)
    highest = array.max(initial=0)
    full_scale = next(scale for scale in (1, 255, 65535, float("inf")) if highest <= scale)
    return (array < full_scale / 2).astype(np.uint8), grid


def read_case(case: Case, labels: Labels, mapping: Mapping[int, int]) -> ReadCase:
    """Read the raters of a case; what is wrong with a file is reported and does not stop the others.

    Masks of the image's size whose geometry differs are compared all the same, voxel by voxel.

    Args:
        case: the files.
        labels: what the channels mean.
        mapping: label value in the files -> label value in ``labels``.
    """
    problems: list[str] = []
    reference, name_of_reference = _image_grid(case, problems), "the image"
    maps: dict[str, np.ndarray] = {}
    spacing_mm: tuple[float, ...] = ()
    for rater, source in sorted(case.raters.items()):
        try:
            array, grid = _read(source)
            array = _recoded(array, mapping)
        except DatasetError as error:
            problems.append(f"{rater}: {error}")
            continue
        if reference is None:
            reference, name_of_reference = grid, f"rater {rater}"
        difference = reference.difference(grid)
        if difference:
            problems.append(f"{rater}: another grid than {name_of_reference}: {difference}")
        if array.shape == reference.shape:
            maps[rater], spacing_mm = array, reference.spacing_of_axes_mm
    if not maps:
        return ReadCase(None, tuple(problems))
    return ReadCase(_votes(maps, labels, spacing_mm), tuple(problems))


def _votes(maps: Mapping[str, np.ndarray], labels: Labels, spacing_mm: tuple[float, ...]) -> RaterVotes:
    answered = None
    if labels.ignore is not None:
        answered = np.stack([array != labels.ignore for array in maps.values()])
        answered = None if answered.all() else answered
    return RaterVotes(
        np.stack([channels_of(array, labels) for array in maps.values()]),
        tuple(maps),
        spacing_mm,
        answered=answered,
        exclusive=not labels.has_regions,
    )


def _read(source: Source) -> tuple[np.ndarray, Grid]:
    if isinstance(source, Path):
        return read_mask(source)
    result = source if isinstance(source, np.ndarray) else source()
    if isinstance(result, tuple):
        return result
    unit = (1.0,) * result.ndim
    return result, Grid(result.shape[::-1], unit, (0.0,) * result.ndim, unit, has_geometry=False)


def _recoded(array: np.ndarray, mapping: Mapping[int, int]) -> np.ndarray:
    """Label values of the files to those of the data set."""
    recoded = np.zeros(array.shape, dtype=np.uint8 if max(mapping.values()) < 256 else np.uint16)
    known = array == 0
    for value, label in mapping.items():
        if value:
            here = array == value
            recoded[here] = label
            known |= here
    if not known.all():
        raise DatasetError(f"holds the value {array[~known][0]:g}, which no --labels entry names")
    return recoded


def _image_grid(case: Case, problems: list[str]) -> Grid | None:
    """The grid of the image without its voxels; None if there is no image, or none that can be read."""
    if not case.images:
        return None
    source = case.images[0]
    if not isinstance(source, Path):
        return _read(source)[1]
    try:
        if is_flat(source):
            return read_image(source)[1]
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(source))
        reader.ReadImageInformation()
    except DatasetError as error:
        problems.append(f"image: {error}")
    except RuntimeError as error:
        problems.append(f"image: {source}: cannot be read ({str(error).strip().splitlines()[-1][:200]})")
    else:
        return Grid(reader.GetSize(), reader.GetSpacing(), reader.GetOrigin(), reader.GetDirection())
    return None
