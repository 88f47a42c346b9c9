"""What may be a lesion: things that raters marked or a network sees, and who marked each of them.

The components of the raters' own masks are joined to candidates where they overlap, not where they touch: two
lesions that lie side by side stay two, though the union of all outlines is one blob.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import cc3d
import numpy as np
import scipy  # its parts load when used: every worker of `convert` would wait for them
from numpy.typing import NDArray

from nnunet_softlabel.fusion.candidate import SEEN_ABOVE, Candidate
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
        voxel: ``(M,)`` flat index of a voxel.
        rater: ``(M,)`` index of the rater who marked it; -1 where nobody did and the network sees it.
        candidate: ``(M,)`` index of the candidate that the mark belongs to. Marks of no candidate (slips) are
            not in the three arrays.
    """

    candidates: tuple[Candidate, ...]
    voxel: NDArray[Any]
    rater: NDArray[Any]
    candidate: NDArray[Any]


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
    marks = _marks(raters, channel)
    smooth = None if probability is None else smoothed(probability, raters.spacing_mm)
    groups, voxels_of = _without_crumbs(*_groups(marks), marks, raters)
    unmarked: list[NDArray[Any]] = []
    if probability is not None and smooth is not None:
        unmarked = _unmarked(raters, (probability, smooth), marks, voxels_of)
    candidates, parts = [], []
    for number, group in enumerate(groups):
        chosen = np.isin(marks.node, group)
        raters_of_marks = marks.rater[chosen]
        candidates.append(_candidate(raters, raters_of_marks, voxels_of[number], smooth))
        parts.append((marks.voxel[chosen], raters_of_marks))
    for voxels in unmarked:
        assert smooth is not None, "only a network sees what nobody marked"
        candidates.append(_unmarked_candidate(raters, voxels, smooth))
        parts.append((voxels, np.full(voxels.size, -1)))
    numbers = [np.full(v.size, i) for i, (v, _) in enumerate(parts)]
    return CandidateMap(
        tuple(candidates),
        np.concatenate([np.empty(0, np.intp), *(v for v, _ in parts)]),
        np.concatenate([np.empty(0, np.intp), *(r for _, r in parts)]),
        np.concatenate([np.empty(0, np.intp), *numbers]),
    )


def smoothed(probability: NDArray[Any], spacing_mm: Sequence[float]) -> NDArray[Any]:
    """Mean of three voxels along each axis, but not across slices much thicker than a voxel is wide."""
    size = [3 if spacing <= 2 * min(spacing_mm) else 1 for spacing in spacing_mm]
    return scipy.ndimage.uniform_filter(probability.astype(np.float32, copy=False), size, mode="nearest")


@dataclass(frozen=True)
class _Marks:
    """Every voxel that a rater marked, with the component of the rater's mask it lies in.

    Attributes:
        voxel: ``(M,)`` flat index.
        rater: ``(M,)`` index.
        node: ``(M,)`` number of the component, over all raters.
        sizes: ``(number of components,)`` in voxels.
    """

    voxel: NDArray[Any]
    rater: NDArray[Any]
    node: NDArray[Any]
    sizes: NDArray[Any]


def _marks(raters: RaterVotes, channel: int) -> _Marks:
    empty: NDArray[Any] = np.empty(0, np.intp)
    voxel, rater, node, sizes = ([empty] for _ in range(4))
    n_nodes = 0
    for number, votes in enumerate(raters.counted_votes()):
        mask = votes[channel]
        where = np.flatnonzero(mask)
        if where.size == 0:
            continue
        components = _components(mask)
        own = components.ravel()[where].astype(np.intp) - 1
        voxel.append(where)
        rater.append(np.full(where.size, number))
        node.append(own + n_nodes)
        sizes.append(np.bincount(own))
        n_nodes += sizes[-1].size
    return _Marks(*map(np.concatenate, (voxel, rater, node, sizes)))


def _components(mask: NDArray[Any]) -> NDArray[Any]:
    return cc3d.connected_components(np.ascontiguousarray(mask), connectivity=26 if mask.ndim == 3 else 8)


def _groups(marks: _Marks) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    """Components that belong together, and the voxels of each group, in the order of their first voxels."""
    n_nodes = marks.sizes.size
    if n_nodes == 0:
        return [], []
    voxels, row = np.unique(marks.voxel, return_inverse=True)
    nodes = np.full((int(marks.rater.max()) + 1, voxels.size), -1)
    nodes[marks.rater, row] = marks.node
    edges = []
    for one, two in combinations(nodes, 2):
        both = (one >= 0) & (two >= 0)
        pairs, shared = np.unique(one[both] * n_nodes + two[both], return_counts=True)
        first, second = pairs // n_nodes, pairs % n_nodes
        belong = shared >= SHARED_PART * np.minimum(marks.sizes[first], marks.sizes[second])
        edges.append(np.stack([first[belong], second[belong]]))
    linked = np.concatenate([np.empty((2, 0), int), *edges], axis=1)
    graph = scipy.sparse.coo_array((np.ones(linked.shape[1]), linked), shape=(n_nodes, n_nodes))
    n_groups, group_of = scipy.sparse.csgraph.connected_components(graph, directed=False)
    first_voxel = np.full(n_groups, np.iinfo(np.intp).max)
    np.minimum.at(first_voxel, group_of[marks.node], marks.voxel)
    order = np.argsort(first_voxel, kind="stable")
    groups = [np.flatnonzero(group_of == g) for g in order]
    return groups, [np.unique(marks.voxel[np.isin(marks.node, group)]) for group in groups]


def _without_crumbs(
    groups: list[NDArray[Any]], voxels_of: list[NDArray[Any]], marks: _Marks, raters: RaterVotes
) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    """Crumbs join a neighbour that the same rater marked, or no candidate at all."""
    large = [g for g, voxels in enumerate(voxels_of) if voxels.size >= FEWEST_VOXELS]
    neighbour = {g: _neighbour(g, large, voxels_of, raters) for g in range(len(groups))}
    kept = [g for g in large if neighbour[g] is None]
    rater_of = np.zeros(marks.sizes.size, int)
    rater_of[marks.node] = marks.rater
    joined = {g: [groups[g]] for g in kept}
    for crumb, at in neighbour.items():
        if at in joined:
            own = groups[at]
            joined[at].append(groups[crumb][np.isin(rater_of[groups[crumb]], rater_of[own])])
    return [np.concatenate(joined[g]) for g in kept], [voxels_of[g] for g in kept]


def _neighbour(
    group: int, others: list[int], voxels_of: list[NDArray[Any]], raters: RaterVotes
) -> int | None:
    """The largest group near this one that is ten times its size; None: this one stands by itself."""
    own = voxels_of[group]
    near = []
    for other in others:
        if own.size < CRUMB_PART * voxels_of[other].size and is_near(own, voxels_of[other], raters):
            near.append(other)
    return max(near, key=lambda other: voxels_of[other].size, default=None)


def is_near(one: NDArray[Any], two: NDArray[Any], raters: RaterVotes) -> bool:
    """True if two sets of voxels (flat indices) lie as near to each other as a crumb to its lesion."""
    spacing = np.asarray(raters.spacing_mm)
    reach = max(CRUMB_DISTANCE_MM, 2 * float(spacing.min()))
    first, second = (np.stack(np.unravel_index(v, raters.spatial_shape), 1) * spacing for v in (one, two))
    inside = (second >= first.min(0) - reach) & (second <= first.max(0) + reach)
    second = second[inside.all(axis=1)]
    return second.size > 0 and bool(scipy.spatial.KDTree(second).query(first)[0].min() <= reach)


def _unmarked(
    raters: RaterVotes,
    maps: tuple[NDArray[Any], NDArray[Any]],
    marks: _Marks,
    voxels_of: list[NDArray[Any]],
) -> list[NDArray[Any]]:
    """What the network sees and nobody marked: voxels (flat indices) of each; its map, and smoothed."""
    probability, smooth = maps
    components = _components(probability > SEEN_ABOVE).ravel()
    is_touched = np.zeros(int(components.max(initial=0)) + 1, bool)
    is_touched[components[marks.voxel]] = True
    is_touched[0] = True
    where = np.flatnonzero(~is_touched[components])
    order = np.argsort(components[where], kind="stable")
    _, starts = np.unique(components[where][order], return_index=True)
    found = [part for part in np.split(where[order], starts[1:]) if part.size >= FEWEST_VOXELS]
    answered = None if raters.answered is None else raters.answered.any(axis=0).ravel()
    return [
        part
        for part in sorted(found, key=lambda part: int(part[0]))
        if smooth.ravel()[part].max() > SEEN_ABOVE
        and (answered is None or answered[part].mean() > 0.5)
        and not any(part.size < CRUMB_PART * v.size and is_near(part, v, raters) for v in voxels_of)
    ]


def _candidate(
    raters: RaterVotes, of_marks: NDArray[Any], voxels: NDArray[Any], smooth: NDArray[Any] | None
) -> Candidate:
    """Of voxels, and the rater of each mark in them."""
    in_voxels = np.bincount(of_marks, minlength=raters.n_raters)
    votes = {
        name: bool(in_voxels[r])
        for r, name in enumerate(raters.names)
        if in_voxels[r] or _answered(raters, r, voxels)
    }
    size = float(in_voxels[in_voxels > 0].mean() * np.prod(raters.spacing_mm))
    score = None if smooth is None else float(smooth.ravel()[voxels].max())
    return Candidate(votes, size, score, _centre(voxels, raters))


def _unmarked_candidate(raters: RaterVotes, voxels: NDArray[Any], smooth: NDArray[Any]) -> Candidate:
    votes = {name: False for r, name in enumerate(raters.names) if _answered(raters, r, voxels)}
    size = float(voxels.size * np.prod(raters.spacing_mm))
    return Candidate(votes, size, float(smooth.ravel()[voxels].max()), _centre(voxels, raters))


def _answered(raters: RaterVotes, rater: int, voxels: NDArray[Any]) -> bool:
    return raters.answered is None or bool(raters.answered[rater].ravel()[voxels].mean() > 0.5)


def _centre(voxels: NDArray[Any], raters: RaterVotes) -> tuple[int, ...]:
    """The voxel of these that is nearest to their centre of mass."""
    positions = np.stack(np.unravel_index(voxels, raters.spatial_shape), axis=1)
    offset = (positions - positions.mean(axis=0)) * np.asarray(raters.spacing_mm)
    return tuple(int(i) for i in positions[(offset**2).sum(axis=1).argmin()])
