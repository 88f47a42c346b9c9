"""Pictures of cases: which ones, which slice, and what is drawn on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.evaluation.case_scores import Row
from nnunet_softlabel.evaluation.references import References
from nnunet_softlabel.formats.encoding import is_member
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.images import read_image
from nnunet_softlabel.formats.predictions import foreground_channels, probability_channels
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from nnunet_softlabel.metrics.registry import TITLES
from nnunet_softlabel.report.comparison import case_values, home_reference

SMALLEST_SIDE = 40  # pixels of a picture, or the whole image


@dataclass(frozen=True)
class CasePicture:
    """A slice of a case, cut out around the object; all arrays ``(rows, columns)``.

    Attributes:
        case: its name.
        caption: why it is shown.
        image: first channel.
        raters: rater -> mask.
        consensus: mask.
        soft: probability of the reference.
        probabilities: trainer -> predicted probability.
        aspect: height of a pixel over its width.
        scores: trainer -> what stands under its picture, such as "Dice 0.81".
    """

    case: str
    caption: str
    image: NDArray[Any]
    raters: Mapping[str, NDArray[Any]]
    consensus: NDArray[Any]
    soft: NDArray[Any]
    probabilities: Mapping[str, NDArray[Any]]
    aspect: float
    scores: Mapping[str, str] = field(default_factory=dict)


def pick_cases(rows: Sequence[Row], *, class_name: str, metric: str = "dice") -> dict[str, str]:
    """Case -> caption for the best, median and worst case of a trainer; fewer where cases are few."""
    found = case_values(rows, metric=metric, class_name=class_name, reference=home_reference(metric))
    ordered = sorted((value, case) for case, (value, _) in found.items() if value == value)
    if not ordered or ordered[0][0] == ordered[-1][0]:  # a network that marks nothing has no best case
        return {case: f"{TITLES[metric]}: {value:.3f}" for value, case in ordered[:1] if len(ordered) == 1}
    places = {"worst": 0, "median": len(ordered) // 2, "best": len(ordered) - 1}
    picked: dict[str, str] = {}
    for word in ("best", "median", "worst"):
        value, case = ordered[places[word]]
        picked.setdefault(case, f"{word} {TITLES[metric]}: {value:.3f}")
    return picked


def case_picture(
    dataset: SoftDataset,
    case: str,
    predictions: Mapping[str, Path],
    *,
    class_name: str,
    split: str = "Tr",
    caption: str = "",
    scores: Mapping[str, str] | None = None,
) -> CasePicture:
    """Read one case and cut out the slice with most of the object.

    Args:
        dataset: holds image and references.
        case: its name.
        predictions: trainer -> folder with its ``CASE.npz``.
        class_name: the class or region shown.
        split: Tr or Ts.
        caption: why it is shown.
        scores: trainer -> what stands under its picture.
    """
    images = dataset.image_files(case, split)
    if not images:
        raise DatasetError(f"Case {case}: {dataset.folder} has no image of it in images{split}.")
    index = dataset.labels.names.index(class_name)
    references = References.of(dataset, case, split=split)
    shape, values = references.hard.shape, dataset.labels.values[class_name]
    soft = channel_at(references.soft(), index)
    cut, aspect = slice_through(soft, spacing_mm=references.grid.spacing_of_axes_mm)
    soft = soft[cut].copy()
    image, _ = dataset.read(images[0], _read_grey)
    if image.shape != shape:
        raise DatasetError(f"Case {case}: its image has shape {image.shape}, its soft label {shape}.")
    image = image[cut].astype(np.float32)
    return CasePicture(
        case=case,
        caption=caption,
        image=image,
        raters={name: is_member(drawn[cut], values) for name, drawn in references.raters()},
        consensus=is_member(references.hard[cut], values),
        soft=soft,
        probabilities={
            name: channel_at(
                foreground_channels(
                    probability_channels(folder, case, dataset.labels, shape), dataset.labels
                ),
                index,
                cut,
            )
            for name, folder in predictions.items()
        },
        aspect=aspect,
        scores=scores or {},
    )


def channel_at(
    channels: Iterator[NDArray[Any]], index: int, cut: tuple[slice | int, ...] = ()
) -> NDArray[Any]:
    """A part of one of the channels, all of which are read, and checked, but not kept."""
    found = [channel[cut].copy() for k, channel in enumerate(channels) if k == index]
    return found[0]


def _read_grey(path: Path) -> tuple[NDArray[Any], Grid]:
    image, grid = read_image(path)
    return (
        image.mean(axis=-1) if image.ndim > len(grid.shape) else image
    ), grid  # colours have one axis more


def slice_through(
    soft: NDArray[Any], *, spacing_mm: tuple[float, ...]
) -> tuple[tuple[slice | int, ...], float]:
    """Where to cut: across the axis of the thickest slices, where the object is largest, with room around it.

    Returns:
        An index into ``(*spatial)`` arrays that leaves two axes, and the aspect of their pixels.
    """
    axis = None if soft.ndim == 2 else int(np.argmax(spacing_mm))
    flat, spacing = soft, list(spacing_mm)
    if axis is not None:
        area = soft.sum(axis=tuple(a for a in range(soft.ndim) if a != axis))
        level = int(area.argmax()) if area.any() else soft.shape[axis] // 2
        flat = soft.take(level, axis=axis)
        del spacing[axis]
    cut: list[slice | int] = [_window(flat.max(axis=1) > 0), _window(flat.max(axis=0) > 0)]
    if axis is not None:
        cut.insert(axis, level)
    return tuple(cut), float(spacing[0] / spacing[1])


def _window(occupied: NDArray[Any]) -> slice:
    """The occupied part of an axis with as much room on either side as half of it; all of an empty axis."""
    where = np.flatnonzero(occupied)
    if not len(where):
        return slice(0, len(occupied))
    size = max(2 * (where[-1] + 1 - where[0]), SMALLEST_SIDE)
    middle = (where[-1] + 1 + where[0]) // 2
    start = int(np.clip(middle - size // 2, 0, max(len(occupied) - size, 0)))
    return slice(start, int(min(start + size, len(occupied))))
