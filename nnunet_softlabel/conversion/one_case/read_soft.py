"""Ready soft labels of one case, and hard labels that stand in for raters: read, checked, packed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.cases.case import Case, source_name
from nnunet_softlabel.cases.label_maps import (
    LabelMap,
    Reading,
    on_grid,
    read_label_map,
    read_probability_map,
)
from nnunet_softlabel.conversion.settings import CaseSettings
from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.class_channels import check_maps
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.formats.packed import PackedMap, marked_chunks, stacked
from nnunet_softlabel.formats.probability_maps import half_step
from nnunet_softlabel.formats.regrid import GridError, Moved

LARGEST_EXCESS = 1e-2  # of an inner region over an outer one: a network's two channels are not exact


@dataclass(frozen=True)
class Onto:
    """Where the files of a case go: onto the grid of its image; notes which were moved."""

    case: Case
    grid: Grid
    settings: CaseSettings
    moved: dict[str, Moved] = field(default_factory=dict)

    def fitted(self, label_map: LabelMap, what: str) -> NDArray[Any]:
        """The array on the grid of the image; what was done for it is noted in ``moved``.

        Raises:
            GridError: if it cannot be brought there.
        """
        try:
            array, move = on_grid(label_map, self.grid, self.settings.reading.regrid)
        except GridError as error:
            remedy = "Add --regrid nearest (or linear), or resample it onto the image"
            if self.settings.reading.regrid is not None or error.is_hopeless:
                remedy = "--regrid cannot mend that: mend its header, or take the file of this image"
            raise GridError(
                f"Case {self.case.name}: {what} is on another grid than the image: {error}. {remedy}."
            ) from error
        if move is not None:
            self.moved[what.partition(" (")[0]] = move
        return array


def read_hard(onto: Onto) -> tuple[list[PackedMap], NDArray[Any] | None]:
    """A hard label that stands in for raters, as probabilities; and where it is ignored.

    Raises:
        DatasetError: if there is none, or it cannot be read.
    """
    case, labels = onto.case, onto.settings.labels
    if case.hard is None:
        raise DatasetError(
            f"Case {case.name}: has neither raters nor a soft label; add one or remove the case."
        )
    what = f"hard label ({source_name(case.hard)})"
    label_map = read_label_map(case.hard, labels, Reading.of(labels), what=f"Case {case.name}: {what}")
    # what is done to it is not noted: the file is one of the data set
    array = Onto(case, onto.grid, onto.settings).fitted(label_map, what)
    ignored = None if labels.ignore is None else array == labels.ignore
    soft = [PackedMap.of(np.isin(array, own).astype(np.float32)) for own in labels.values.values()]
    return soft, ignored


def read_soft(onto: Onto) -> list[PackedMap]:
    """Ready foreground probabilities, one map per channel.

    Raises:
        DatasetError: for a file that is missing or unreadable, or holds no probabilities.
    """
    case, settings = onto.case, onto.settings
    channels, labels, rounding = [], settings.labels, 0.0
    for name in labels.names:
        if name not in case.soft:
            raise DatasetError(f"Case {case.name}: no probability map for label {name}; add it.")
        source = case.soft[name]
        probability = read_probability_map(
            source, settings.reading.soft_scale, what=f"Case {case.name}: soft label {name}"
        )
        rounding += half_step(probability.array, settings.reading.soft_scale)
        channels.append(PackedMap.of(onto.fitted(probability, f"soft label {name} ({source_name(source)})")))
    _check_range(case, channels)
    check_maps(
        case.soft,
        labels,
        settings.reading.values,
        scale=settings.reading.soft_scale,
        what=f"Case {case.name}: soft labels",
    )
    if labels.has_regions:
        _check_nested(case, channels, labels)
    else:
        _share_one(case, channels, rounding)
    return channels


def _check_range(case: Case, soft: Sequence[PackedMap]) -> None:
    for index in marked_chunks(soft):
        values = stacked(soft, index)
        if values.min(initial=0) < 0 or values.max(initial=0) > 1:
            raise DatasetError(f"Case {case.name}: soft labels outside [0, 1]; rescale them.")


def _share_one(case: Case, soft: Sequence[PackedMap], rounding: float) -> None:
    """Classes must sum to 1; takes off the rounding of 8 and 16 bit files, in place."""
    chunks = list(marked_chunks(soft))
    highest = max((float(stacked(soft, index).sum(axis=0).max(initial=0)) for index in chunks), default=0.0)
    if highest > 1 + max(rounding, 1e-3) + 1e-5:
        raise DatasetError(
            f"Case {case.name}: the soft labels of its classes sum to {highest:.3f}; "
            f"classes must sum to at most 1."
        )
    for index in chunks if highest > 1 else []:
        values = stacked(soft, index)
        values /= np.maximum(values.sum(axis=0), 1)
        for packed, own in zip(soft, values, strict=True):
            packed.put(index, own)


def _check_nested(case: Case, soft: Sequence[PackedMap], labels: Labels) -> None:
    """Refuse a region that is likelier than one that contains it."""
    chunks = list(marked_chunks(soft))
    for (inner, values), probability in zip(labels.values.items(), soft, strict=True):
        for (outer, others), larger in zip(labels.values.items(), soft, strict=True):
            if set(values) < set(others):
                excess = max(
                    (float((probability.get(i) - larger.get(i)).max(initial=0)) for i in chunks), default=0.0
                )
                if excess > LARGEST_EXCESS:
                    raise DatasetError(
                        f"Case {case.name}: region {inner} is likelier than {outer}, which contains it, by "
                        f"up to {excess:.3f}; correct the probability maps."
                    )
