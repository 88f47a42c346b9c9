"""What may be a lesion: things that raters marked or a network sees, and who marked each of them.

The components of the raters' own masks are joined to candidates where they overlap, not where they touch: two
lesions that lie side by side stay two, though the union of all outlines is one blob.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import scipy  # its parts load when used: every worker of `convert` would wait for them
from numpy.typing import NDArray

from nnunet_softlabel.boxes import Box
from nnunet_softlabel.fusion.candidate import SEEN_ABOVE, Candidate
from nnunet_softlabel.fusion.mask_components import (
    Extent,
    MaskComponents,
    is_overlap,
    overlap,
    pieces_of,
    shared_voxels,
)
from nnunet_softlabel.fusion.rater_votes import RaterVotes

# Components of two raters are one lesion if they share this part of the smaller one.
SHARED_PART = 0.25
# Anything smaller is a slip of the pen: it says nothing about what a rater finds.
FEWEST_VOXELS = 5
# So is what is smaller than this part of a neighbour, and nearer to it than this (or than two voxels).
CRUMB_PART, CRUMB_DISTANCE_MM = 0.1, 3.0


@dataclass(frozen=True)
class CandidateMap:
    """The candidates of one channel of one case, and their voxels.

    Attributes:
        candidates: those that are marked first, each part in the order of their first voxels.
        extents: of each, the marks that belong to it, whose masks are in the order of the raters; or what the
            network sees, where nobody marked it. Marks of no candidate (slips) are in none.
    """

    candidates: tuple[Candidate, ...]
    extents: tuple[Extent, ...]


def find_candidates(
    raters: RaterVotes, channel: int, probability: NDArray[Any] | None = None
) -> CandidateMap:
    """The candidates of one channel.

    Args:
        raters: the votes of one case.
        channel: of the votes.
        probability: ``(*spatial)``, of a network that did not see the case in its training, or None.

    Returns:
        The candidates, and their voxels.
    """
    if probability is not None and probability.shape != raters.spatial_shape:
        raise ValueError(f"probability has shape {probability.shape}, the votes {raters.spatial_shape}")
    masks = [MaskComponents.of(votes[channel]) for votes in raters.counted_votes()]
    groups = _groups(masks)
    kept, with_crumbs = _without_crumbs(groups, raters)
    unmarked: list[Extent] = []
    smooth: NDArray[Any] | None = None
    if probability is not None:
        seen = MaskComponents.of(probability > SEEN_ABOVE)
        smooth = smoothed(probability, raters.spacing_mm)
        unmarked = _unmarked(raters, smooth, _untouched(seen, masks), kept)
    candidates = [
        _candidate(raters, marks, own, smooth) for marks, own in zip(with_crumbs, kept, strict=True)
    ]
    for extent in unmarked:
        assert smooth is not None, "only a network sees what nobody marked"
        candidates.append(_unmarked_candidate(raters, extent, smooth))
    return CandidateMap(tuple(candidates), (*with_crumbs, *unmarked))


def smoothed(probability: NDArray[Any], spacing_mm: Sequence[float]) -> NDArray[Any]:
    """Mean of three voxels along each axis, but not across slices much thicker than a voxel is wide."""
    size = [3 if spacing <= 2 * min(spacing_mm) else 1 for spacing in spacing_mm]
    return scipy.ndimage.uniform_filter(probability.astype(np.float32, copy=False), size, mode="nearest")


def _groups(masks: Sequence[MaskComponents]) -> list[Extent]:
    """Components that belong together, in the order of their first voxels."""
    starts = np.cumsum([0, *(len(mask.boxes) for mask in masks)])
    n_nodes = int(starts[-1])
    if n_nodes == 0:
        return []
    edges = []
    for one, two in combinations(range(len(masks)), 2):
        first, second, shared = shared_voxels(masks[one], masks[two])
        smaller = np.minimum(masks[one].sizes[first], masks[two].sizes[second])
        belong = shared >= SHARED_PART * smaller
        edges.append(np.stack([starts[one] + first[belong], starts[two] + second[belong]]))
    linked = np.concatenate([np.empty((2, 0), int), *edges], axis=1)
    graph = scipy.sparse.coo_array((np.ones(linked.shape[1]), linked), shape=(n_nodes, n_nodes))
    n_groups, group_of = scipy.sparse.csgraph.connected_components(graph, directed=False)
    first_voxel = np.full(n_groups, np.iinfo(np.intp).max)
    np.minimum.at(first_voxel, group_of, np.concatenate([mask.first_voxels() for mask in masks]))
    order = np.argsort(first_voxel, kind="stable")
    mask_of = np.repeat(np.arange(len(masks)), np.diff(starts))
    return [_extent(masks, np.flatnonzero(group_of == group), mask_of, starts) for group in order]


def _extent(
    masks: Sequence[MaskComponents], nodes: NDArray[Any], mask_of: NDArray[Any], starts: NDArray[Any]
) -> Extent:
    """Of nodes, which number the components of all masks from 0."""
    return Extent(
        masks,
        {int(m): nodes[mask_of[nodes] == m] - starts[m] + 1 for m in np.unique(mask_of[nodes])},
    )


def _without_crumbs(groups: Sequence[Extent], raters: RaterVotes) -> tuple[list[Extent], list[Extent]]:
    """Crumbs join a neighbour that the same rater marked, or no candidate at all.

    Returns:
        The groups that are no crumbs, and the same with the crumbs that joined them.
    """
    large = [g for g, group in enumerate(groups) if group.n_voxels >= FEWEST_VOXELS]
    neighbour = {g: _neighbour(g, large, groups, raters) for g in range(len(groups))}
    kept = [g for g in large if neighbour[g] is None]
    joined = {g: dict(groups[g].chosen) for g in kept}
    for crumb, at in neighbour.items():
        if at in joined:
            for rater in groups[at].chosen.keys() & groups[crumb].chosen.keys():
                joined[at][rater] = np.concatenate([joined[at][rater], groups[crumb].chosen[rater]])
    return [groups[g] for g in kept], [Extent(groups[g].masks, joined[g]) for g in kept]


def _neighbour(group: int, others: list[int], groups: Sequence[Extent], raters: RaterVotes) -> int | None:
    """The largest group near this one that is ten times its size; None: this one stands by itself."""
    near = _near([groups[other] for other in others], groups[group], raters)
    return max((others[i] for i in near), key=lambda other: groups[other].n_voxels, default=None)


def _near(lesions: Sequence[Extent], one: Extent, raters: RaterVotes) -> Iterator[int]:
    """Indices of lesions that are ten times the size of this one, and as near to it as to a crumb."""
    reach = max(CRUMB_DISTANCE_MM, 2 * float(min(raters.spacing_mm)))
    around = _surroundings(one, reach, raters)
    for index, lesion in enumerate(lesions):
        if one.n_voxels < CRUMB_PART * lesion.n_voxels and is_overlap(around, lesion.box):
            inside = _places_mm(lesion.voxels(around), raters)
            own = _places_mm(one.voxels(), raters) if inside.size else inside
            if inside.size and scipy.spatial.KDTree(inside).query(own)[0].min() <= reach:
                yield index


def _surroundings(extent: Extent, reach_mm: float, raters: RaterVotes) -> Box:
    """The box of the image that lies within reach of the box around an extent."""
    around = []
    for side, length, step in zip(extent.box, extent.shape, raters.spacing_mm, strict=True):
        places = np.arange(length) * step
        low, high = places[side.start] - reach_mm, places[side.stop - 1] + reach_mm
        inside = np.flatnonzero((places >= low) & (places <= high))
        around.append(slice(int(inside[0]), int(inside[-1]) + 1))
    return tuple(around)


def _places_mm(voxels: NDArray[Any], raters: RaterVotes) -> NDArray[Any]:
    """``(M, axes)`` of flat indices."""
    position = np.unravel_index(voxels, raters.spatial_shape)
    return np.stack([own * step for own, step in zip(position, raters.spacing_mm, strict=True)], axis=1)


def _untouched(seen: MaskComponents, masks: Sequence[MaskComponents]) -> list[Extent]:
    """Components of what the network sees in which no rater marked a voxel; not slips of the network."""
    is_touched = np.zeros(len(seen.boxes) + 1, bool)
    for mask in masks:
        for piece in pieces_of(overlap(mask.box, seen.box)):
            is_touched[seen.within(piece)[mask.within(piece) > 0]] = True
    chosen = 1 + np.flatnonzero(~is_touched[1:] & (seen.sizes >= FEWEST_VOXELS))
    return [Extent([seen], {0: number}) for number in chosen[:, np.newaxis]]


def _unmarked(
    raters: RaterVotes, smooth: NDArray[Any], found: Sequence[Extent], marked: Sequence[Extent]
) -> list[Extent]:
    """Of what the network sees and nobody marked, that which may be a lesion, in the order of first voxels.

    Args:
        raters: the votes of one case.
        smooth: what the network says, smoothed.
        found: what the network sees and nobody marked.
        marked: what raters marked.
    """
    chosen = []
    for extent in found:
        at = _look_at(extent, raters, smooth)
        if (
            at.highest is not None
            and at.highest > SEEN_ABOVE
            and at.share_that_anyone_answered > 0.5
            and not any(True for _ in _near(marked, extent, raters))
        ):
            chosen.append((at.first_voxel, extent))
    return [extent for _, extent in sorted(chosen, key=lambda pair: pair[0])]


def _candidate(raters: RaterVotes, marks: Extent, own: Extent, smooth: NDArray[Any] | None) -> Candidate:
    """Of the marks that belong to it, and the same without crumbs."""
    in_voxels = np.zeros(raters.n_raters, int)
    for rater, numbers in marks.chosen.items():
        in_voxels[rater] = marks.masks[rater].sizes[numbers - 1].sum()
    at = _look_at(own, raters, smooth)
    votes = {
        name: bool(in_voxels[r])
        for r, name in enumerate(raters.names)
        if in_voxels[r] or at.share_answered[r] > 0.5
    }
    size = float(in_voxels[in_voxels > 0].mean() * np.prod(raters.spacing_mm))
    return Candidate(votes, size, at.highest, _centre(own, raters))


def _unmarked_candidate(raters: RaterVotes, extent: Extent, smooth: NDArray[Any]) -> Candidate:
    at = _look_at(extent, raters, smooth)
    votes = {name: False for r, name in enumerate(raters.names) if at.share_answered[r] > 0.5}
    size = float(at.n_voxels * np.prod(raters.spacing_mm))
    return Candidate(votes, size, at.highest, _centre(extent, raters))


@dataclass(frozen=True)
class _Look:
    """What is to be seen in an extent.

    Attributes:
        first_voxel: flat index.
        n_voxels: number.
        share_answered: ``(R,)`` part of the voxels that each rater answered.
        share_that_anyone_answered: part of the voxels.
        highest: of the smoothed probability; None without a network.
    """

    first_voxel: int
    n_voxels: int
    share_answered: NDArray[Any]
    share_that_anyone_answered: float
    highest: float | None


def _look_at(extent: Extent, raters: RaterVotes, smooth: NDArray[Any] | None) -> _Look:
    n, first, by_anyone, highest = 0, -1, 0, []
    by_rater = np.zeros(raters.n_raters, int)
    for voxels, _ in extent.pieces():
        first = first if n else int(voxels[0])
        n += voxels.size
        if raters.answered is not None:
            answered = raters.answered.reshape(raters.n_raters, -1)[:, voxels]
            by_rater += answered.sum(axis=1)
            by_anyone += int(answered.any(axis=0).sum())
        if smooth is not None:
            highest.append(float(smooth.reshape(-1)[voxels].max()))
    if raters.answered is None:
        by_rater[:] = by_anyone = n
    return _Look(first, n, by_rater / n, by_anyone / n, max(highest, default=None))


def _centre(extent: Extent, raters: RaterVotes) -> tuple[int, ...]:
    """The voxel of an extent that is nearest to its centre of mass."""
    shape, n, total = raters.spatial_shape, 0, np.zeros(len(raters.spatial_shape), int)
    for voxels, _ in extent.pieces():
        n += voxels.size
        total += [int(axis.sum()) for axis in np.unravel_index(voxels, shape)]
    nearest: tuple[float, tuple[int, ...]] = (np.inf, ())
    for voxels, _ in extent.pieces():
        positions = np.stack(np.unravel_index(voxels, shape), axis=1)
        distance = (((positions - total / n) * np.asarray(raters.spacing_mm)) ** 2).sum(axis=1)
        at = int(distance.argmin())
        if distance[at] < nearest[0]:
            nearest = (float(distance[at]), tuple(int(i) for i in positions[at]))
    return nearest[1]
