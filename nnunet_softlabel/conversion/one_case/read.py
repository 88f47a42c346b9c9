"""The files of one case, read and checked: they fit together, or the error says which does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.cases.case import Case, Source, source_name
from nnunet_softlabel.cases.label_maps import LabelMap, read_label_map, read_region, read_source
from nnunet_softlabel.cases.rater_maps import RaterMaps
from nnunet_softlabel.conversion.one_case.read_soft import Onto, read_hard, read_soft
from nnunet_softlabel.conversion.settings import CaseSettings
from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.channel_store import ChannelStore
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.grid_words import difference_in_words
from nnunet_softlabel.formats.images import file_ending, is_flat, read_image
from nnunet_softlabel.formats.packed import PackedMap
from nnunet_softlabel.formats.predictions import foreground_channels, probability_channels
from nnunet_softlabel.formats.regrid import GridError, Moved


@dataclass(frozen=True)
class LoadedCase:
    """A case in memory, checked; what grows with raters and labels is packed.

    Attributes:
        images: one array per file; None for a file that is copied, and of which no prior asks the voxels.
        grid: where the voxels lie.
        raters: their label maps in the data set's values, or None if there is no rater.
        soft: ready foreground probabilities, one map per channel, or None if they are to be fused.
        ignored: bool, True where nothing is to be learnt whatever raters say, or None.
        rois: bool masks of the ROIs that the priors name, in their order.
        probabilities: foreground channels of a network that did not see the case, or None.
        moved: "rater 1" -> what was done to bring it onto the grid, for files that lay on another.
    """

    images: list[NDArray[Any] | None]
    grid: Grid
    raters: RaterMaps | None
    soft: list[PackedMap] | None
    ignored: PackedMap | None = None
    rois: Sequence[NDArray[Any]] = ()
    probabilities: ChannelStore | None = None
    moved: Mapping[str, Moved] = field(default_factory=dict)

    @property
    def rater_maps(self) -> Mapping[str, PackedMap]:
        """Rater -> label map; empty without raters."""
        return {} if self.raters is None else self.raters.maps


def load_case(case: Case, settings: CaseSettings) -> LoadedCase:
    """Read all files of a case and check that they fit together.

    Raises:
        DatasetError: for a file that is missing, unreadable, on another grid than the image, or holds values
            that are not finite or not named.
    """
    images, grid = _read_images(case, settings)
    onto = Onto(case, grid, settings)
    rater_maps = {}
    for rater, source in sorted(case.raters.items()):
        what = f"rater {rater} ({source_name(source)})"
        label_map = read_label_map(
            source, settings.labels, settings.reading, what=f"Case {case.name}: {what}", rater=rater
        )
        rater_maps[rater] = PackedMap.of(onto.fitted(label_map, what))
    soft = read_soft(onto) if case.soft else None
    ignored = None
    if case.ignore is not None:
        ignored = _read_region(onto, case.ignore, "ignore mask")
    if soft is None and not rater_maps:
        soft, nobody = read_hard(onto)
        ignored = nobody if ignored is None or nobody is None else ignored | nobody
    raters = RaterMaps(rater_maps, settings.labels, grid.spacing_of_axes_mm) if rater_maps else None
    rois = _read_rois(onto)
    return LoadedCase(
        images,
        grid,
        raters,
        soft,
        None if ignored is None else PackedMap.of(ignored),
        rois,
        _read_prediction(case, grid, settings),
        onto.moved,
    )


def _read_prediction(case: Case, grid: Grid, settings: CaseSettings) -> ChannelStore | None:
    """Foreground probabilities of a network that did not see the case."""
    if case.prediction is None:
        return None
    folder, labels = case.prediction.parent, settings.labels
    channels = probability_channels(folder, case.prediction.stem, labels, grid.shape)
    return ChannelStore(foreground_channels(channels, labels), len(labels.names), grid.shape)


def _read_region(onto: Onto, source: Source, what: str) -> NDArray[Any]:
    array, own_grid = read_region(source, f"Case {onto.case.name}: {what}")
    label_map = LabelMap(array.astype(np.uint8), own_grid)
    return onto.fitted(label_map, f"{what} ({source_name(source)})") != 0


def _read_rois(onto: Onto) -> list[NDArray[Any]]:
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


def _read_images(case: Case, settings: CaseSettings) -> tuple[list[NDArray[Any] | None], Grid]:
    images: list[NDArray[Any] | None] = []
    grid: Grid | None = None
    found, num_channels = 0, len(settings.channel_names)
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
        found += array.shape[-1] if array.ndim > len(grid.shape) else 1
        images.append(array if _is_needed(source, settings) else None)
        del array  # before the next is read
    if grid is None:
        raise DatasetError(f"Case {case.name}: has no image.")
    if found != num_channels:
        raise DatasetError(
            f"Case {case.name}: {found} channels in {', '.join(map(source_name, case.images))}, but "
            f"{num_channels} channel names; name every channel (a colour image has three or four), or store "
            f"the image as grey."
        )
    return images, grid


def _is_needed(source: Source, settings: CaseSettings) -> bool:
    """False for a volume whose file is copied as it is, and of whose voxels no prior asks."""
    is_copied = isinstance(source, Path) and not is_flat(source) and file_ending(source) == settings.ending
    return settings.priors.intensity is not None or not is_copied


def _check_grid(case: Case, grid: Grid, own: Grid, what: str) -> None:
    """Images of several channels must fit as they are: regridding is for masks."""
    if grid.difference(own):
        raise GridError(
            f"Case {case.name}: {what} is on another grid than the image: {difference_in_words(grid, own)}. "
            f"Resample it onto the first image."
        )
