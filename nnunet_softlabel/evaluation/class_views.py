"""Of one class or region of a case: voxels that are listed, those summed up, and the box of its masks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.boxes import bounding_box, enclosing
from nnunet_softlabel.evaluation.known_truth import TrueChannel
from nnunet_softlabel.evaluation.views import MaskView, VoxelView
from nnunet_softlabel.evaluation.vote_patterns import VotePatterns, of_voxels
from nnunet_softlabel.metrics.far import chunks
from nnunet_softlabel.metrics.froc import LEAST_PROBABILITY
from nnunet_softlabel.metrics.near import near_object
from nnunet_softlabel.metrics.overlap import QUBIQ_THRESHOLDS
from nnunet_softlabel.metrics.raters_together import LEAST_LEVEL
from nnunet_softlabel.metrics.registry import Parameters

MANY = 1 << 20  # numbers that are counted by a table of them all


@dataclass(frozen=True)
class ClassReferences:
    """What a model is compared with, in one class.

    Attributes:
        index: of the class among the foreground channels.
        hard: ``(*spatial)`` bool, consensus.
        truth: if one is known.
        votes: of the raters.
        mask: ``(*spatial)`` bool, voxels that count; None for all.
        spacing_mm: in the order of the axes.
    """

    index: int
    hard: NDArray[Any]
    truth: TrueChannel | None
    votes: VotePatterns
    mask: NDArray[Any] | None
    spacing_mm: tuple[float, ...]

    def anyone(self) -> NDArray[Any]:
        """Where any rater marks the class."""
        return of_voxels(self.votes.anyone(self.index), self.votes.codes)


def voxels_of_class(
    of: ClassReferences, soft: NDArray[Any], probability: NDArray[Any], parameters: Parameters
) -> VoxelView:
    """Voxels that anybody marks, that are near such, or that the model finds likely; the others summed up."""
    marked = soft > 0
    marked |= of.hard
    if of.votes.raters:
        marked |= of.anyone()
    near = near_object(marked, spacing_mm=of.spacing_mm, near_mm=parameters.near_mm)
    listed = _listed(of, marked | near, probability, parameters)
    del marked
    is_far = ~listed
    if of.mask is not None:
        listed &= of.mask
        is_far &= of.mask
    listed_soft = soft[listed]
    del soft  # nobody else holds the whole arrays
    far_values, prediction = probability[is_far], probability[listed]
    del probability, is_far
    return VoxelView(
        soft=listed_soft,
        hard=of.hard[listed],
        truth=None if of.truth is None else of.truth.at(listed),
        prediction=prediction,
        near=near[listed],
        codes=of.votes.codes[listed],
        counts=None,
        far_values=far_values,
        spacing_mm=of.spacing_mm,
        parameters=parameters,
    )


def _listed(
    of: ClassReferences, listed: NDArray[Any], probability: NDArray[Any], parameters: Parameters
) -> NDArray[Any]:
    """And what the truth marks or leaves open, what the model finds likely, what a rater did not answer."""
    if of.truth is not None:
        listed |= of.truth.mask
        listed |= of.truth.reference > 0
        if of.truth.answered is not None:
            listed |= ~of.truth.answered
    for piece, p in zip(_flat(listed), _flat(probability), strict=True):
        piece |= p > least_level(parameters)
    answered = of.votes.everybody_answered()
    if answered is not None:
        listed |= ~of_voxels(answered, of.votes.codes)
    return listed


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


def masks_of_class(of: ClassReferences, decision: NDArray[Any], parameters: Parameters) -> MaskView:
    """Masks in the box of what anybody marks or the model decides, and one voxel around it.

    One voxel more, so that a volume does not become a single slice, whose surface is its outline.
    """
    masks = [of.hard, decision, *([] if of.truth is None else [of.truth.mask])]
    if of.votes.raters:
        masks.append(of.anyone())
    box = enclosing([bounding_box(m, margin=1) for m in masks])
    return MaskView(
        hard=of.hard[box],
        truth=None if of.truth is None else of.truth.at(box),
        prediction=decision[box],
        codes=of.votes.codes[box],
        mask=None if of.mask is None else of.mask[box],
        spacing_mm=of.spacing_mm,
        parameters=parameters,
    )
