"""One class or region of a case, as metrics need it: voxels near marks one by one, raters by pattern, masks.

Metrics of probabilities ask which values meet, never where. So voxels that nobody marks, with probabilities
below all levels at which maps are cut, are summed up (`FarVoxels`); the others are listed. Raters among
themselves need each pattern of their votes once, with its count. Only metrics of masks need the image, in the
box of the masks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.evaluation.known_truth import TrueChannel
from nnunet_softlabel.evaluation.vote_patterns import VotePatterns, of_voxels
from nnunet_softlabel.metrics.boxes import bounding_box, enclosing
from nnunet_softlabel.metrics.far import NOTHING, FarVoxels, chunks
from nnunet_softlabel.metrics.froc import LEAST_PROBABILITY
from nnunet_softlabel.metrics.near import near_object
from nnunet_softlabel.metrics.overlap import QUBIQ_THRESHOLDS
from nnunet_softlabel.metrics.raters_together import LEAST_LEVEL, Setting
from nnunet_softlabel.metrics.registry import OF_DECISION, Comparison, Parameters, measure
from nnunet_softlabel.metrics.shapes import Shapes

MANY = 1 << 20  # numbers that are counted by a table of them all


@dataclass(frozen=True)
class VoxelView:
    """Lists of voxels, or of patterns with their counts; of voxels that do not count there are none.

    Attributes:
        soft: label.
        hard: consensus.
        truth: if one is known.
        prediction: probabilities of the model.
        near: True near the object.
        codes: patterns of the votes.
        counts: voxels that each entry stands for, None: one.
        far_values: probabilities of the voxels that are not listed.
        spacing_mm: in the order of the axes.
        parameters: of the metrics.
    """

    is_of_masks: ClassVar[bool] = False
    soft: NDArray[Any] | None
    hard: NDArray[Any]
    truth: TrueChannel | None
    prediction: NDArray[Any] | None
    near: NDArray[Any]
    codes: NDArray[Any]
    counts: NDArray[Any] | None
    far_values: NDArray[Any] | None
    spacing_mm: tuple[float, ...]
    parameters: Parameters

    def of_patterns(self, table: NDArray[Any]) -> NDArray[Any]:
        """What the patterns of the listed voxels have."""
        return of_voxels(table, self.codes)

    def compare(
        self,
        reference: NDArray[Any],
        prediction: NDArray[Any],
        *masks: NDArray[Any] | None,
        hard_reference: NDArray[Any] | None = None,
    ) -> Comparison:
        """Metrics of probabilities; the decision is not known yet."""
        mask = all_of(*masks)
        return Comparison(
            reference=reference,
            prediction=prediction,
            hard_reference=reference if reference.dtype == bool else hard_reference,
            hard_prediction=None,
            spacing_mm=self.spacing_mm,
            parameters=self.parameters,
            near=self.near,
            mask=mask,
            counts=self.counts,
            far=self.far_beside(mask),
        )

    def compare_truth(
        self, truth: TrueChannel, prediction: NDArray[Any], *masks: NDArray[Any] | None
    ) -> Comparison:
        """As `compare`; a truth of probabilities has a mask, too."""
        return self.compare(truth.reference, prediction, truth.answered, *masks, hard_reference=truth.mask)

    def measure(self, comparison: Comparison, *, names: frozenset[str] | None = None) -> dict[str, float]:
        """All but those that need a decision."""
        return measure(comparison, names=names)

    def far_beside(self, mask: NDArray[Any] | None) -> FarVoxels:
        """The voxels that are not listed, beside the listed ones of a mask."""
        if self._far is NOTHING or mask is None:
            return self._far
        assert self.prediction is not None, "sums are of a model's map"
        assert self.far_values is not None, "sums are of a model's map"
        return self._far.beside(self.prediction[mask], self.far_values, bins=self.parameters.bins)

    @cached_property
    def _far(self) -> FarVoxels:
        if self.prediction is None or self.far_values is None:
            return NOTHING
        bins = self.parameters.bins
        return FarVoxels.of(self.far_values, bins=bins).beside(self.prediction, self.far_values, bins=bins)

    @property
    def setting(self) -> Setting:
        """Of the metrics of all raters together."""
        volume, levels = float(np.prod(self.spacing_mm)), self.parameters.ged_levels
        return Setting(voxel_volume_mm3=volume, levels=levels, counts=self.counts, far=self._far)


@dataclass(frozen=True)
class MaskView:
    """Masks in the box of them all, as they lie in the image.

    Attributes:
        hard: consensus.
        truth: if one is known.
        prediction: decision of the model.
        codes: patterns of the votes.
        mask: voxels that count, None for all.
        spacing_mm: in the order of the axes.
        parameters: of the metrics.
    """

    is_of_masks: ClassVar[bool] = True
    hard: NDArray[Any]
    truth: TrueChannel | None
    prediction: NDArray[Any] | None
    codes: NDArray[Any]
    mask: NDArray[Any] | None
    spacing_mm: tuple[float, ...]
    parameters: Parameters
    soft: NDArray[Any] | None = None

    def of_patterns(self, table: NDArray[Any]) -> NDArray[Any]:
        """What the patterns of the voxels have."""
        return of_voxels(table, self.codes)

    @cached_property
    def _shapes(self) -> Shapes:
        return Shapes(self.spacing_mm)

    def compare(
        self, reference: NDArray[Any], prediction: NDArray[Any], *masks: NDArray[Any] | None
    ) -> Comparison:
        """Metrics of masks alone."""
        return Comparison(
            reference=reference,
            prediction=prediction,
            hard_reference=reference,
            hard_prediction=prediction,
            spacing_mm=self.spacing_mm,
            parameters=self.parameters,
            near=reference,
            mask=all_of(self.mask, *masks),
            shapes=self._shapes,
        )

    def compare_truth(
        self, truth: TrueChannel, prediction: NDArray[Any], *masks: NDArray[Any] | None
    ) -> Comparison:
        """As `compare`, with the mask of the truth."""
        return self.compare(truth.mask, prediction, truth.answered, *masks)

    def measure(self, comparison: Comparison, *, names: frozenset[str] | None = None) -> dict[str, float]:
        """Those that need masks of both, as they lie in the image."""
        return measure(comparison, names=OF_DECISION if names is None else OF_DECISION & names)


View = VoxelView | MaskView


def all_of(*masks: NDArray[Any] | None) -> NDArray[Any] | None:
    """Where all masks are True; None stands for everywhere."""
    given = [mask for mask in masks if mask is not None]
    return np.logical_and.reduce(given) if given else None


def marks_of_class(index: int, soft: NDArray[Any], hard: NDArray[Any], votes: VotePatterns) -> NDArray[Any]:
    """What the soft label, the consensus or any rater marks as a class."""
    marked = soft > 0
    marked |= hard
    if votes.raters:
        marked |= of_voxels(votes.anyone(index), votes.codes)
    return marked


def voxels_of_class(
    soft: NDArray[Any],
    hard: NDArray[Any],
    truth: TrueChannel | None,
    probability: NDArray[Any],
    *,
    index: int,
    votes: VotePatterns,
    mask: NDArray[Any] | None,
    spacing_mm: tuple[float, ...],
    parameters: Parameters,
) -> VoxelView:
    """Voxels that anybody marks, that are near such, or that the model finds likely; the others summed up."""
    marked = marks_of_class(index, soft, hard, votes)
    near = near_object(marked, spacing_mm=spacing_mm, near_mm=parameters.near_mm)
    listed = marked
    listed |= near
    if truth is not None:
        listed |= truth.mask
        listed |= truth.reference > 0
        if truth.answered is not None:
            listed |= ~truth.answered
    for piece, p in zip(_flat(listed), _flat(probability), strict=True):
        piece |= p > least_level(parameters)
    answered = votes.everybody_answered()
    if answered is not None:
        listed |= ~of_voxels(answered, votes.codes)
    is_far = ~listed
    if mask is not None:
        listed &= mask
        is_far &= mask
    return VoxelView(
        soft=soft[listed],
        hard=hard[listed],
        truth=None if truth is None else truth.at(listed),
        prediction=probability[listed],
        near=near[listed],
        codes=votes.codes[listed],
        counts=None,
        far_values=probability[is_far],
        spacing_mm=spacing_mm,
        parameters=parameters,
    )


def least_level(parameters: Parameters) -> float:
    """The lowest probability at which a metric cuts a map."""
    return min(0.5 / parameters.ged_levels, LEAST_PROBABILITY, LEAST_LEVEL, *QUBIQ_THRESHOLDS)


def patterns_of_voxels(view: VoxelView) -> VoxelView:
    """The same voxels as patterns of votes, truth and nearness, with the count of each.

    The far voxels are one pattern more, the last: everybody answered, nobody marks anything.
    """
    assert view.far_values is not None, "patterns are made of a model's view"
    values: NDArray[Any] = np.zeros(1)
    columns: list[NDArray[Any]] = [view.near]
    if view.truth is not None:
        answered = view.truth.answered
        columns += [view.truth.mask, np.ones_like(view.near) if answered is None else answered]
        values, place = np.unique(view.truth.reference, return_inverse=True)
        columns.append(place.astype(np.min_scalar_type(len(values))))
    width = 8 * len(values)
    size = (int(view.codes.max(initial=0)) + 1) * width
    found, counts = _counted(chunks(view.codes, *columns), width, size)
    codes, kind = np.divmod(found, width)
    truth = None
    if view.truth is not None:
        truth = TrueChannel(
            reference=np.append(values[kind // 8], values.dtype.type(0)),
            mask=np.append((kind & 2) > 0, False),
            answered=None if view.truth.answered is None else np.append((kind & 4) > 0, True),
        )
    return VoxelView(
        soft=None,
        hard=np.zeros(len(codes) + 1, bool),
        truth=truth,
        prediction=None,
        near=np.append((kind & 1) > 0, False),
        codes=np.append(codes, 0),
        counts=np.append(counts, len(view.far_values)),
        far_values=None,
        spacing_mm=view.spacing_mm,
        parameters=view.parameters,
    )


def _counted(
    pieces: Iterator[tuple[NDArray[Any], ...]], width: int, size: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Numbers ``code * width + near + 2 mask + 4 answered + 8 place`` that are there, and how often."""
    numbers = (
        codes.astype(np.int64) * width + sum(c.astype(np.int64) << k for k, c in enumerate(kinds))
        for codes, *kinds in pieces
    )
    if size > MANY:
        return np.unique(np.concatenate([np.zeros(0, np.int64), *numbers]), return_counts=True)
    counts = np.zeros(size, np.intp)
    for piece in numbers:
        counts += np.bincount(piece, minlength=size)
    found = np.flatnonzero(counts)
    return found, counts[found]


def _flat(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    return (piece for (piece,) in chunks(array))


def masks_of_class(
    hard: NDArray[Any],
    truth: TrueChannel | None,
    decision: NDArray[Any],
    *,
    index: int,
    votes: VotePatterns,
    mask: NDArray[Any] | None,
    spacing_mm: tuple[float, ...],
    parameters: Parameters,
) -> MaskView:
    """Masks in the box of what anybody marks or the model decides, and one voxel around it.

    One voxel more, so that a volume does not become a single slice, whose surface is its outline.
    """
    masks = [hard, decision, *([] if truth is None else [truth.mask])]
    if votes.raters:
        masks.append(of_voxels(votes.anyone(index), votes.codes))
    box = enclosing([bounding_box(m, margin=1) for m in masks])
    return MaskView(
        hard=hard[box],
        truth=None if truth is None else truth.at(box),
        prediction=decision[box],
        codes=votes.codes[box],
        mask=None if mask is None else mask[box],
        spacing_mm=spacing_mm,
        parameters=parameters,
    )
