"""The files of one case, read and checked: they fit together, or the error says which does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_softlabel.cases.case import Case, Source, source_name
from nnunet_softlabel.conversion.prior_settings import Priors
from nnunet_softlabel.conversion.settings import CaseSettings
from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.images import read_image, read_mask, read_probability
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.formats.predictions import foreground, read_probabilities


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
    """

    images: list[np.ndarray]
    grid: Grid
    rater_maps: dict[str, np.ndarray]
    soft: np.ndarray | None
    ignored: np.ndarray | None = None
    rois: Sequence[np.ndarray] = ()
    probabilities: np.ndarray | None = None


def load_case(case: Case, settings: CaseSettings) -> LoadedCase:
    """Read all files of a case and check that they fit together.

    Raises:
        DatasetError: for a file that is missing, unreadable, on another grid than the image, or holds values
            that are not finite or not named.
    """
    images, grid = _read_images(case, len(settings.channel_names))
    rater_maps = {}
    for rater, source in sorted(case.raters.items()):
        array, own_grid = _read(source, read_mask, f"Case {case.name}: rater {rater}")
        _check_grid(case, grid, own_grid, array, f"rater {rater} ({source_name(source)})")
        rater_maps[rater] = _recode(
            array, settings.mapping, f"Case {case.name}: rater {rater} ({source_name(source)})"
        )
    soft = _read_soft(case, grid, settings.labels) if case.soft else None
    if soft is None and not rater_maps:
        raise DatasetError(
            f"Case {case.name}: has neither raters nor a soft label; add one or remove the case."
        )
    ignored = None
    if case.ignore is not None:
        array, own_grid = _read(case.ignore, read_mask, f"Case {case.name}: ignore mask")
        _check_grid(case, grid, own_grid, array, f"ignore mask ({source_name(case.ignore)})")
        ignored = array != 0
    probabilities = None
    if case.prediction is not None:
        folder, labels = case.prediction.parent, settings.labels
        probabilities = foreground(
            read_probabilities(folder, case.prediction.stem, labels, grid.shape), labels
        )
    rois = _read_rois(case, grid, settings.priors)
    return LoadedCase(images, grid, rater_maps, soft, ignored, rois, probabilities)


def _read_rois(case: Case, grid: Grid, priors: Priors) -> list[np.ndarray]:
    rois = []
    for name in priors.roi.names if priors.roi is not None else ():
        if name not in case.rois:
            raise DatasetError(f"Case {case.name}: has no mask of the ROI {name} (--roi); add it.")
        source = case.rois[name]
        array, own_grid = _read(source, read_mask, f"Case {case.name}: ROI {name}")
        _check_grid(case, grid, own_grid, array, f"ROI {name} ({source_name(source)})")
        rois.append(array != 0)
    if priors.roi is not None and not any(
        roi.any() for roi, weight in zip(rois, priors.roi.in_order(), strict=True) if weight > 0
    ):
        raise DatasetError(
            f"Case {case.name}: ROI {', '.join(priors.roi.names)} is empty, so the whole label would vanish; "
            f"correct the mask, or leave the case out."
        )
    return rois


def _read(source: Source, reader: Any, what: str) -> tuple[np.ndarray, Grid | None]:
    """An array from a file, from memory, or from a function; arrays without geometry have no grid."""
    if isinstance(source, Path):
        return reader(source)
    result = source if isinstance(source, np.ndarray) else source()
    array, grid = result if isinstance(result, tuple) else (result, None)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DatasetError(f"{what}: holds NaN or infinite values; they must be finite numbers.")
    return array, grid


def _read_images(case: Case, num_channels: int) -> tuple[list[np.ndarray], Grid]:
    images: list[np.ndarray] = []
    grid: Grid | None = None
    for source in case.images:
        array, own_grid = _read(source, read_image, f"Case {case.name}: image")
        if own_grid is None:
            if array.ndim != 2:
                raise DatasetError(
                    f"Case {case.name}: a volume in memory needs its Grid; return (array, Grid)."
                )
            own_grid = Grid.flat(array.shape)
        if grid is None:
            grid = own_grid
        else:
            _check_grid(case, grid, own_grid, array, f"image {source_name(source)}")
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


def _check_grid(case: Case, grid: Grid, own: Grid | None, array: np.ndarray, what: str) -> None:
    if own is None:
        difference = None if array.shape == grid.shape else f"shape {array.shape} instead of {grid.shape}"
    else:
        difference = grid.difference(own)
    if difference:
        raise DatasetError(
            f"Case {case.name}: {what} is on another grid than the image: {difference}. "
            f"Resample it onto the image first."
        )


def _recode(array: np.ndarray, mapping: Mapping[int, int], what: str) -> np.ndarray:
    """Label values of the source to those of the data set, by one look-up table."""
    if array.dtype.kind == "f":
        rounded = np.rint(array)
        if (rounded != array).any():
            raise DatasetError(
                f"{what}: holds fractions such as {array[rounded != array][0]:g}; give whole labels."
            )
        array = rounded
    lowest, highest = (int(array.min()), int(array.max())) if array.size else (0, 0)
    dtype = np.uint8 if max(mapping.values()) < 255 else np.uint16
    unknown = np.iinfo(dtype).max
    if lowest < 0 or highest > max(mapping):
        value = lowest if lowest < 0 else highest
        raise DatasetError(
            f"{what}: holds the value {value}, which no --labels entry names; name it or remove it."
        )
    table = np.full(max(mapping) + 1, unknown, dtype=dtype)
    for value, label in mapping.items():
        table[value] = label
    recoded = table[array.astype(np.intp if array.dtype.kind == "f" else array.dtype, copy=False)]
    if recoded.max(initial=0) == unknown:
        value = int(array[recoded == unknown][0])
        raise DatasetError(
            f"{what}: holds the value {value}, which no --labels entry names; name it or remove it."
        )
    return recoded


def _read_soft(case: Case, grid: Grid, labels: Labels) -> np.ndarray:
    channels = []
    for name in labels.names:
        if name not in case.soft:
            raise DatasetError(f"Case {case.name}: no probability map for label {name}; add it.")
        source = case.soft[name]
        array, own_grid = _read(source, read_probability, f"Case {case.name}: soft label {name}")
        _check_grid(case, grid, own_grid, array, f"soft label {source_name(source)}")
        channels.append(array.astype(np.float32, copy=False))
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
    return soft
