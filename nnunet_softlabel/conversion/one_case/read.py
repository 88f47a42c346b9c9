"""The files of one case, read and checked: they fit together, or the error says which does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.cases.case import Case, Source, source_name
from nnunet_softlabel.cases.label_maps import (
    LabelMap,
    Reading,
    on_grid,
    read_label_map,
    read_region,
    read_source,
)
from nnunet_softlabel.conversion.settings import CaseSettings
from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.encoding import channels_of
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.images import read_image
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.formats.predictions import foreground, read_probabilities
from nnunet_softlabel.formats.probability_maps import as_probability, read_probability
from nnunet_softlabel.formats.regrid import GridError, Moved, difference_in_words

LARGEST_EXCESS = 1e-2  # of an inner region over an outer one: a network's two channels are not exact


@dataclass(frozen=True)
class LoadedCase:
    """A case in memory, checked.

    Attributes:
        images: one array per file.
        grid: where the voxels lie.
        rater_maps: rater -> label map in the data set's values.
        soft: ready foreground probabilities ``(C, *spatial)``, or None if they are to be fused.
        ignored: bool ``(*spatial)``, True where nothing is to be learnt whatever raters say, or None.
        rois: bool masks of the ROIs that the priors name, in their order.
        probabilities: ``(C, *spatial)`` of a network that did not see the case, or None.
        moved: "rater 1" -> what was done to bring it onto the grid, for files that lay on another.
    """

    images: list[NDArray[Any]]
    grid: Grid
    rater_maps: dict[str, NDArray[Any]]
    soft: NDArray[Any] | None
    ignored: NDArray[Any] | None = None
    rois: Sequence[NDArray[Any]] = ()
    probabilities: NDArray[Any] | None = None
    moved: Mapping[str, Moved] = field(default_factory=dict)


def load_case(case: Case, settings: CaseSettings) -> LoadedCase:
    """Read all files of a case and check that they fit together.

    Raises:
        DatasetError: for a file that is missing, unreadable, on another grid than the image, or holds values
            that are not finite or not named.
    """
    images, grid = _read_images(case, len(settings.channel_names))
    onto = _Onto(case, grid, settings)
    rater_maps = {}
    for rater, source in sorted(case.raters.items()):
        what = f"rater {rater} ({source_name(source)})"
        label_map = read_label_map(
            source, settings.labels, settings.reading, what=f"Case {case.name}: {what}", rater=rater
        )
        rater_maps[rater] = _fitted(onto, label_map, what)
    soft = _read_soft(onto) if case.soft else None
    ignored = None
    if case.ignore is not None:
        ignored = _read_region(onto, case.ignore, "ignore mask")
    if soft is None and not rater_maps:
        soft, nobody = _read_hard(case, grid, settings)
        ignored = nobody if ignored is None or nobody is None else ignored | nobody
    rois = _read_rois(onto)
    return LoadedCase(
        images, grid, rater_maps, soft, ignored, rois, _read_prediction(case, grid, settings), onto.moved
    )


def _read_prediction(case: Case, grid: Grid, settings: CaseSettings) -> NDArray[Any] | None:
    """Foreground probabilities of a network that did not see the case."""
    if case.prediction is None:
        return None
    folder, labels = case.prediction.parent, settings.labels
    return foreground(read_probabilities(folder, case.prediction.stem, labels, grid.shape), labels)


@dataclass(frozen=True)
class _Onto:
    """Where the files of a case go: onto the grid of its image; notes which were moved."""

    case: Case
    grid: Grid
    settings: CaseSettings
    moved: dict[str, Moved] = field(default_factory=dict)


def _fitted(onto: _Onto, label_map: LabelMap, what: str) -> NDArray[Any]:
    """The array on the grid of the image; what was done for it is noted in ``onto.moved``."""
    try:
        array, move = on_grid(label_map, onto.grid, onto.settings.reading.regrid)
    except GridError as error:
        remedy = "Add --regrid nearest (or linear), or resample it onto the image"
        if onto.settings.reading.regrid is not None:
            remedy = "--regrid cannot mend that: mend its header, or take the file of this image"
        raise GridError(
            f"Case {onto.case.name}: {what} is on another grid than the image: {error}. {remedy}."
        ) from error
    if move is not None:
        onto.moved[what.partition(" (")[0]] = move
    return array


def _read_region(onto: _Onto, source: Source, what: str) -> NDArray[Any]:
    array, own_grid = read_region(source, f"Case {onto.case.name}: {what}")
    label_map = LabelMap(array.astype(np.uint8), own_grid)
    return _fitted(onto, label_map, f"{what} ({source_name(source)})") != 0


def _read_hard(case: Case, grid: Grid, settings: CaseSettings) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """A hard label that stands in for raters, as probabilities; and where it is ignored."""
    if case.hard is None:
        raise DatasetError(
            f"Case {case.name}: has neither raters nor a soft label; add one or remove the case."
        )
    labels = settings.labels
    what = f"hard label ({source_name(case.hard)})"
    label_map = read_label_map(case.hard, labels, Reading.of(labels), what=f"Case {case.name}: {what}")
    array = _fitted(_Onto(case, grid, settings), label_map, what)
    ignored = None if labels.ignore is None else array == labels.ignore
    return channels_of(array, labels).astype(np.float32), ignored


def _read_rois(onto: _Onto) -> list[NDArray[Any]]:
    case, priors, rois = onto.case, onto.settings.priors, []
    for name in priors.roi.names if priors.roi is not None else ():
        if name not in case.rois:
            raise DatasetError(f"Case {case.name}: has no mask of the ROI {name} (--roi); add it.")
        rois.append(_read_region(onto, case.rois[name], f"ROI {name}"))
    if priors.roi is not None and not any(
        roi.any() for roi, weight in zip(rois, priors.roi.in_order(), strict=True) if weight > 0
    ):
        raise DatasetError(
            f"Case {case.name}: ROI {', '.join(priors.roi.names)} is empty, so the whole label would vanish; "
            f"correct the mask, or leave the case out."
        )
    return rois


def _read_images(case: Case, num_channels: int) -> tuple[list[NDArray[Any]], Grid]:
    images: list[NDArray[Any]] = []
    grid: Grid | None = None
    for source in case.images:
        array, own_grid = read_source(source, read_image, f"Case {case.name}: image")
        if own_grid is None:
            if array.ndim != 2:
                raise DatasetError(
                    f"Case {case.name}: a volume in memory needs its Grid; return (array, Grid)."
                )
            own_grid = Grid.flat(array.shape)
        if grid is None:
            grid = own_grid
        else:
            _check_grid(case, grid, own_grid, f"image {source_name(source)}")
        images.append(array)
    if grid is None:
        raise DatasetError(f"Case {case.name}: has no image.")
    found = sum(array.shape[-1] if array.ndim > len(grid.shape) else 1 for array in images)
    if found != num_channels:
        raise DatasetError(
            f"Case {case.name}: {found} channels in {', '.join(map(source_name, case.images))}, but "
            f"{num_channels} channel names; name every channel (a colour image has three or four), or store "
            f"the image as grey."
        )
    return images, grid


def _check_grid(case: Case, grid: Grid, own: Grid, what: str) -> None:
    """Images of several channels must fit as they are: regridding is for masks."""
    if grid.difference(own):
        raise GridError(
            f"Case {case.name}: {what} is on another grid than the image: {difference_in_words(grid, own)}. "
            f"Resample it onto the first image."
        )


def _read_soft(onto: _Onto) -> NDArray[Any]:
    case, settings = onto.case, onto.settings
    channels, labels = [], settings.labels
    reader = partial(read_probability, scale=settings.reading.soft_scale)
    for name in labels.names:
        if name not in case.soft:
            raise DatasetError(f"Case {case.name}: no probability map for label {name}; add it.")
        source = case.soft[name]
        array, own_grid = read_source(source, reader, f"Case {case.name}: soft label {name}")
        if not isinstance(source, Path):
            array = as_probability(array, source_name(source), settings.reading.soft_scale)
        label_map = LabelMap(array.astype(np.float32, copy=False), own_grid)
        channels.append(_fitted(onto, label_map, f"soft label {name} ({source_name(source)})"))
    soft = np.stack(channels)
    if soft.min(initial=0) < 0 or soft.max(initial=0) > 1:
        raise DatasetError(f"Case {case.name}: soft labels outside [0, 1]; rescale them.")
    if not labels.has_regions:
        total = soft.sum(axis=0)
        if total.max(initial=0) > 1 + 1e-3:
            raise DatasetError(
                f"Case {case.name}: the soft labels of its classes sum to {total.max():.3f}; "
                f"classes must sum to at most 1."
            )
        soft /= np.maximum(total, 1)  # takes off rounding of 16 bit files
    else:
        _check_nested(case, soft, labels)
    return soft


def _check_nested(case: Case, soft: NDArray[Any], labels: Labels) -> None:
    """Refuse a region that is likelier than one that contains it."""
    for (inner, values), probability in zip(labels.values.items(), soft, strict=True):
        for (outer, others), larger in zip(labels.values.items(), soft, strict=True):
            if set(values) < set(others):
                excess = float((probability - larger).max(initial=0))
                if excess > LARGEST_EXCESS:
                    raise DatasetError(
                        f"Case {case.name}: region {inner} is likelier than {outer}, which contains it, by "
                        f"up to {excess:.3f}; correct the probability maps."
                    )
