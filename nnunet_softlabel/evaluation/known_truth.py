"""A known truth read: label maps in the data set's values on the grid of its images, or probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.arguments import as_label_texts
from nnunet_softlabel.cases.case import Case, Source, source_name
from nnunet_softlabel.cases.label_maps import (
    LabelMap,
    Reading,
    on_grid,
    read_label_file,
    read_label_map,
    read_probability_map,
    read_source,
)
from nnunet_softlabel.conversion.checks import labels_of
from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.evaluation.truth import Truth, own_flag
from nnunet_softlabel.evaluation.truth_files import files_of_truth, with_dataset
from nnunet_softlabel.evaluation.vote_patterns import VotePatterns
from nnunet_softlabel.formats.channels import Channel
from nnunet_softlabel.formats.class_channels import check_maps
from nnunet_softlabel.formats.encoding import consensus, is_member
from nnunet_softlabel.formats.file_checks import value_step
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.labels import Labels, Values
from nnunet_softlabel.formats.probability_maps import half_step
from nnunet_softlabel.formats.regrid import GridError, Regrid
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from nnunet_softlabel.formats.soft_labels import MoveRecord


@dataclass(frozen=True)
class TrueChannel:
    """The truth of a class or region.

    Attributes:
        reference: probabilities, or the mask, ``(*spatial)``.
        mask: of a truth of probabilities its consensus.
        answered: where the truth says anything; None: everywhere.
    """

    reference: NDArray[Any]
    mask: NDArray[Any]
    answered: NDArray[Any] | None

    def at(self, where: Any) -> TrueChannel:
        """The truth of a part of the voxels: a mask, an index or a box."""
        answered = None if self.answered is None else self.answered[where]
        return TrueChannel(self.reference[where], self.mask[where], answered)


@dataclass(frozen=True)
class TrueCase:
    """The truth of a case.

    Attributes:
        label_map: in the data set's values ``(*spatial)``; of probabilities the consensus.
        soft: foreground probabilities ``(C, *spatial)``, or None if the truth is a label map.
        moved: file -> what was done to bring it onto the grid of the image.
    """

    label_map: NDArray[Any]
    soft: NDArray[Any] | None = None
    moved: Mapping[str, MoveRecord] = field(default_factory=dict)

    def channel(self, index: int, labels: Labels) -> TrueChannel:
        """What is true of a class or region."""
        mask = is_member(self.label_map, labels.values[labels.names[index]])
        answered = None if labels.ignore is None else self.label_map != labels.ignore
        return TrueChannel(mask if self.soft is None else self.soft[index], mask, answered)


@dataclass(frozen=True)
class KnownTruth:
    """A truth whose files are found.

    Attributes:
        truth: what was asked for.
        labels: of the data set.
        values: in the files -> the data set's own.
        cases: name -> its files.
    """

    truth: Truth
    labels: Labels
    values: Values
    cases: Mapping[str, Case]

    @classmethod
    def find(cls, dataset: SoftDataset, truth: Path | Truth, cases: Sequence[str]) -> KnownTruth:
        """Find the files of all cases, and what their values mean.

        Raises:
            DatasetError: if the truth of a case is missing.
            UsageError: for wrong labels.
        """
        truth = with_dataset(Truth.of(truth), dataset)
        found = files_of_truth(truth, dataset, cases)
        return cls(truth, dataset.labels, _values(dataset, truth, found), found)

    def read(self, case: str, grid: Grid) -> TrueCase:
        """The truth of a case on a grid: that of the references.

        Raises:
            DatasetError: for a value that no label has, another grid, or what is no probability.
        """
        files, onto = self.cases[case], _Onto(grid, self.truth.regrid)
        if files.soft:
            soft = np.stack([self._read_map(files.soft[name], onto) for name in self.labels.names])
            what, scale = f"Case {case}: the truth", self.truth.soft_scale
            with own_flag():
                check_maps(files.soft, self.labels, self.values, scale=scale, what=what)
            rounding = sum(half_step(channel, scale) for channel in soft)
            _check_sums(soft, self.labels, case, rounding)
            return TrueCase(consensus(soft, self.labels), soft, onto.moved)
        maps = [self._read_label_map(source, onto) for source in files.raters.values()]
        if len(maps) == 1:
            return TrueCase(maps[0], moved=onto.moved)
        return replace(_mean(maps, self.labels), moved=onto.moved)

    def _read_label_map(self, source: Source, onto: _Onto) -> NDArray[Any]:
        if isinstance(source, Path) and self.truth.has_segments(source):
            reading = Reading(self.values, class_axis=self.truth.class_axis)
            with own_flag():
                label_map = read_label_map(source, self.labels, reading, what=str(source))
        else:
            array, own_grid = read_source(source, read_label_file, source_name(source))
            label_map = LabelMap(_own_values(array, self.values, source), own_grid)
        return onto.fitted(label_map, source)

    def _read_map(self, source: Source, onto: _Onto) -> NDArray[Any]:
        probability = read_probability_map(source, self.truth.soft_scale, what=source_name(source))
        return onto.fitted(probability, source)


@dataclass(frozen=True)
class _Onto:
    """The grid of the references; notes which files were moved there."""

    grid: Grid
    regrid: Regrid | None
    moved: dict[str, MoveRecord] = field(default_factory=dict)

    def fitted(self, label_map: LabelMap, source: Source) -> NDArray[Any]:
        """The array on the grid."""
        try:
            array, move = on_grid(label_map, self.grid, self.regrid)
        except GridError as error:
            array, name = label_map.array, source_name(source)
            if self.regrid is not None or error.is_hopeless:
                raise DatasetError(
                    f"{name}: the truth lies elsewhere than the references ({error}); --regrid cannot mend "
                    f"that: mend its header, or take the file of this image."
                ) from error
            if array.shape != self.grid.shape:
                raise DatasetError(
                    f"{name}: the truth has shape {array.shape}, the soft label {self.grid.shape} ({error}); "
                    f"add --regrid, or resample it onto the image."
                ) from error
            raise DatasetError(
                f"{name}: the truth lies elsewhere than the references ({error}); add --regrid, resample it "
                f"onto the image, or mend its header."
            ) from error
        if move is not None:
            self.moved[source_name(source)] = move.to_json()
        return array


def _mean(maps: Sequence[NDArray[Any]], labels: Labels) -> TrueCase:
    """The mean of raters over those who answered; ignored where nobody did."""
    named = ((str(number), label_map) for number, label_map in enumerate(maps))
    soft, answered = VotePatterns.of(named, labels, maps[0].shape).mean()
    return TrueCase(consensus(soft, labels, None if answered is None else ~answered), soft)


def _check_sums(soft: NDArray[Any], labels: Labels, case: str, rounding: float) -> None:
    total = 0.0 if labels.has_regions else float(soft.sum(axis=0).max(initial=0))
    if total > 1 + max(rounding, 1e-3) + 1e-5:
        raise DatasetError(
            f"Case {case}: the probability maps of the truth sum to {total:.3f}; classes must sum to at most "
            f"1."
        )


def _own_values(array: NDArray[Any], values: Values, source: Source) -> NDArray[Any]:
    path = source.path if isinstance(source, Channel) else source
    is_scaled = isinstance(path, Path) and array.dtype.kind == "f"
    step = min(value_step(path) / 2, 0.25) if is_scaled and isinstance(path, Path) else 0.0
    result = np.zeros(array.shape, np.uint16)
    for value in np.unique(array).tolist():
        whole = round(value) if abs(value - round(value)) <= step else value
        if whole not in values:
            known = sorted(v for v in values if isinstance(v, int))
            hint = "; for probability maps add --soft-scale 1" if 0 < value < 1 else ""
            raise DatasetError(
                f"{source_name(source)}: the truth holds the value {value:g}, which no label has; "
                f"expected {', '.join(map(str, known))}{hint}."
            )
        result[array == value] = values[whole]
    return result


def _values(dataset: SoftDataset, truth: Truth, found: Mapping[str, Case]) -> Values:
    """Values in the files of a truth -> the data set's own: as said, those of the raters, or the own ones.

    If raters' files used other values than the data set (255 became 1), the truth may use either, in all
    files alike: the raters' if they explain every file, else the own ones.

    Raises:
        UsageError: for wrong labels.
    """
    if truth.labels is not None:
        with own_flag():
            return labels_of(dataset.folder, dataset.dataset_json, as_label_texts(truth.labels))[1]
    identity = dataset.labels.own_values
    said: Mapping[str, int] = dataset.about.get("label_values", {})
    named: dict[int | str, int] = {name: int(label) for name, label in said.items() if not name.isdigit()}
    of_raters: dict[int | str, int] = {int(v): int(label) for v, label in said.items() if v.isdigit()}
    of_raters = {value: label for value, label in of_raters.items() if label in identity} | {0: 0}
    if named or all(value == label for value, label in of_raters.items()):
        return identity | named
    plain = [s for case in found.values() for s in case.raters.values() if not _has_segments(truth, s)]
    values: set[float] = set()
    for source in plain:
        values.update(np.unique(read_source(source, read_label_file, source_name(source))[0]).tolist())
    return of_raters if values <= set(of_raters) or not values <= set(identity) else identity


def _has_segments(truth: Truth, source: Source) -> bool:
    return isinstance(source, Path) and truth.has_segments(source)
