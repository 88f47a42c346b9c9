"""Where raters' masks come from, and what is wrong with the files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.cases.case import Case, Source, source_name
from nnunet_softlabel.cases.extra_files import ExtraFiles
from nnunet_softlabel.cases.files import RaterFiles
from nnunet_softlabel.cases.find import find_cases
from nnunet_softlabel.cases.label_maps import LabelMap, Reading, on_grid, read_label_map, read_source
from nnunet_softlabel.cases.rater_maps import RaterMaps
from nnunet_softlabel.cases.raters import cases_of_raters
from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.channels import ChannelAxis
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.images import read_grid, read_image, read_mask
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.formats.packed import PackedMap
from nnunet_softlabel.formats.regrid import NO_SPACING, GridError, directions, offset_voxels, turned
from nnunet_softlabel.formats.soft_dataset import SoftDataset


@dataclass(frozen=True)
class ReadCase:
    """The raters of a case that can be compared.

    Attributes:
        raters: whose masks have one shape; None if there is no rater left.
        problems: what is wrong, one sentence each.
    """

    raters: RaterMaps | None
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


def pattern_cases(
    raters: Sequence[str],
    images: Sequence[str] = (),
    *,
    is_dark: bool = False,
    rater_axis: ChannelAxis | None = None,
    rater_names: Sequence[str] = (),
    extra_files: ExtraFiles = "refuse",
    notes: list[str] | None = None,
) -> list[Case]:
    """Cases from file patterns; without images, names come from the raters' files.

    Args:
        raters: patterns with ``{case}`` and ``{rater}``.
        images: patterns with ``{case}``; what is read is the first one's.
        is_dark: see `as_dark`.
        rater_axis: see `find_cases`, like the arguments after it.
        rater_names: see there.
        extra_files: see there.
        notes: see there.

    Raises:
        UsageError: for a wrong pattern, or one that fits no file.
        DatasetError: for images without raters, and raters without images.
    """
    if images:
        cases = find_cases(
            images,
            raters=RaterFiles(raters, axis=rater_axis, names=rater_names),
            extra_files=extra_files,
            notes=notes,
        )
    else:
        cases = cases_of_raters(raters, rater_axis=rater_axis, rater_names=rater_names)
    return as_dark(cases) if is_dark else cases


def as_dark(cases: Sequence[Case]) -> list[Case]:
    """The same cases with inverted masks: the object (label 1) is darker than half of full scale."""
    return [
        replace(case, raters={rater: partial(_read_dark, path) for rater, path in case.raters.items()})
        for case in cases
    ]


def _read_dark(path: Source) -> tuple[NDArray[Any], Grid]:
    """1 where the mask is dark, whatever its full scale: some files have 1 bit (0, 1), others 8 (0, 255)."""
    array, grid = read_source(path, read_mask, source_name(path))
    grid = grid or Grid.without_geometry(array.shape)
    highest = array.max(initial=0)
    full_scale = next(scale for scale in (1, 255, 65535, float("inf")) if highest <= scale)
    return (array < full_scale / 2).astype(np.uint8), grid


def read_case(case: Case, labels: Labels, reading: Reading) -> ReadCase:
    """Read the raters of a case; what is wrong with a file is reported and does not stop the others.

    Masks of the image's size whose geometry differs are compared all the same, voxel by voxel. Without an
    image, boxes are compared in the smallest grid that holds all.

    Args:
        case: the files.
        labels: what the channels mean.
        reading: how the files are read.
    """
    problems: list[str] = []
    reference, name_of_reference = _image_grid(case, problems), "the image"
    read = _label_maps(case, labels, reading, problems)
    first: dict[str, LabelMap] = {}
    has_image = reference is not None
    if not has_image:
        for rater, label_map in read:
            first[rater] = label_map
            if not label_map.is_cropped:
                reference, name_of_reference = _grid_of(label_map), f"rater {rater}"
                break
        else:
            reference, name_of_reference = _grid_of_boxes(first, problems), "other raters"
    maps: dict[str, PackedMap] = {}
    for rater, label_map in chain(first.items(), read):
        assert reference is not None  # there is a label map
        try:
            array, moved = on_grid(label_map, reference, reading.regrid)
        except GridError as error:
            problems.append(f"rater {rater}: another grid than {name_of_reference}: {error}")
            if label_map.is_cropped and not has_image:
                continue
            array, moved = label_map.array, None
        if moved is not None and moved.how != "placed":
            problems.append(f"rater {rater}: {moved.in_words()} (another grid than {name_of_reference})")
        if array.shape == reference.shape:
            maps[rater] = PackedMap.of(array)
    if not maps or reference is None:
        return ReadCase(None, tuple(problems))
    return ReadCase(RaterMaps(maps, labels, reference.spacing_of_axes_mm), tuple(problems))


def _label_maps(
    case: Case, labels: Labels, reading: Reading, problems: list[str]
) -> Iterator[tuple[str, LabelMap]]:
    """Rater and label map, one after the other; what cannot be read is a problem."""
    for rater, source in sorted(case.raters.items()):
        try:
            yield rater, read_label_map(source, labels, reading, what=source_name(source), rater=rater)
        except DatasetError as error:
            problems.append(f"rater {rater}: {error}")


def _grid_of(label_map: LabelMap) -> Grid:
    """Its grid, or one without geometry."""
    return label_map.grid or Grid.without_geometry(label_map.array.shape)


def _grid_of_boxes(boxes: dict[str, LabelMap], problems: list[str]) -> Grid | None:
    """The smallest grid that holds all boxes of a case; takes out those of unknown slices.

    Boxes on other voxels than the first one's are left out of account, and refused later.
    """
    for rater in [rater for rater, box in boxes.items() if not box.has_slice_spacing]:
        problems.append(f"rater {rater}: {NO_SPACING}; give the images, too (--images)")
        del boxes[rater]
    if not boxes:
        return None
    grids = [_grid_of(box) for box in boxes.values()]
    low, high = np.zeros(len(grids[0].size)), np.array(grids[0].size)
    for box, grid in zip(boxes.values(), grids, strict=True):
        upright = turned(box.array, grid, grids[0])
        start = None if upright is None else offset_voxels(upright[1], grids[0])
        if upright is not None and start is not None:
            low = np.minimum(low, np.rint(start))
            high = np.maximum(high, np.rint(start) + upright[1].size)
    origin = np.asarray(grids[0].origin) + directions(grids[0]) @ (low * grids[0].spacing_mm)
    return replace(
        grids[0], size=tuple((high - low).astype(int).tolist()), origin=tuple(map(float, origin.tolist()))
    )


def _image_grid(case: Case, problems: list[str]) -> Grid | None:
    """The grid of the image without its voxels; None if there is no image, or none that can be read."""
    if not case.images:
        return None
    source = case.images[0]
    if not isinstance(source, Path):
        array, grid = read_source(source, read_image, "image")
        return grid or Grid.without_geometry(array.shape)
    try:
        return read_grid(source)
    except DatasetError as error:
        problems.append(f"image: {error}")
        return None
