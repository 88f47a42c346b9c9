"""Lesion-wise fusion: was the lesion found, and where is its edge, are two questions.

The mean of raters mixes them: a lesion that one of three raters found gets one third, as a disputed rim does.
Here a candidate's probability of being a lesion comes from a model of who misses and who invents, and its
outline from those who marked it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.fusion.candidate import Candidate
from nnunet_softlabel.fusion.detection import estimate_detection
from nnunet_softlabel.fusion.detection_model import DetectionModel
from nnunet_softlabel.fusion.lesion_candidates import CandidateMap, find_candidates
from nnunet_softlabel.fusion.mask_components import Extent
from nnunet_softlabel.fusion.rater_votes import RaterVotes, share_excess
from nnunet_softlabel.fusion.voting import mean_vote

# What nobody marked is added only where it is a lesion rather than not.
ADDED_ABOVE = 0.5


def lesion_wise(
    raters: RaterVotes,
    *,
    models: Sequence[DetectionModel] | None = None,
    probabilities: NDArray[Any] | None = None,
    known: Sequence[Sequence[bool | None]] | None = None,
) -> NDArray[Any]:
    """Posterior of being a lesion, times the mean outline of those who marked it.

    Exactly the mean where all raters marked a candidate, in slips of the pen, and everywhere if the model
    says that nobody misses or invents. What half of the raters marked never gets less than the mean, nor does
    anything without a network: marks alone are no evidence against a mark. What nobody marked gets the
    network's probability over its own peak, if it is a lesion rather than not.

    >>> votes = np.array([[[[0, 1, 1]]], [[[0, 0, 1]]], [[[0, 1, 1]]]], bool)  # (raters, channels, y, x)
    >>> raters = RaterVotes(votes, ("ann", "bob", "eve"), spacing_mm=(1.0, 1.0))
    >>> lesion_wise(raters).round(2)
    array([[[0.  , 0.67, 1.  ]]], dtype=float32)

    Args:
        raters: the votes of one case.
        models: one per channel, from all cases. None: of this case alone, which as a rule is the mean.
        probabilities: ``(C, *spatial)`` of a network that did not see the case, or None.
        known: per channel, what somebody adjudicated, candidate by candidate.

    Returns:
        ``(C, *spatial)`` float32; 0 where nobody answered.
    """
    return fuse_lesions(raters, models=models, probabilities=probabilities, known=known).soft


@dataclass(frozen=True)
class FusedLesions:
    """What lesion-wise fusion makes of a case.

    Attributes:
        soft: ``(C, *spatial)`` float32.
        candidates: per channel.
        posteriors: per channel, the probability of each candidate to be a lesion; NaN: the mean stays.
    """

    soft: NDArray[Any]
    candidates: tuple[tuple[Candidate, ...], ...]
    posteriors: tuple[NDArray[Any], ...]


def fuse_lesions(
    raters: RaterVotes,
    *,
    models: Sequence[DetectionModel] | None = None,
    probabilities: NDArray[Any] | None = None,
    known: Sequence[Sequence[bool | None]] | None = None,
) -> FusedLesions:
    """As `lesion_wise`, with the candidates and how they were judged."""
    soft = np.empty(raters.votes.shape[1:], np.float32)
    candidates, posteriors = [], []
    for channel in range(raters.n_channels):
        soft[channel], found, posterior = fuse_channel(
            raters,
            channel,
            model=models[channel] if models else None,
            probability=None if probabilities is None else probabilities[channel],
            known=known[channel] if known else None,
        )
        candidates.append(found)
        posteriors.append(posterior)
    soft = share_excess(soft, exclusive=raters.exclusive)
    return FusedLesions(soft, tuple(candidates), tuple(posteriors))


def fuse_channel(
    raters: RaterVotes,
    channel: int,
    *,
    model: DetectionModel | None = None,
    probability: NDArray[Any] | None = None,
    known: Sequence[bool | None] | None = None,
) -> tuple[NDArray[Any], tuple[Candidate, ...], NDArray[Any]]:
    """One channel of `fuse_lesions`, before classes share 1: label ``(*spatial)``, candidates, posteriors."""
    found = find_candidates(raters, channel, probability)
    posterior = judged(found, model or estimate_detection([found.candidates]), known)
    soft = mean_vote(replace(raters, votes=raters.votes[:, channel : channel + 1]))[0]
    if not np.isnan(posterior).all():
        soft = lesion_label(raters, soft, found, posterior, probability=probability, known=known)
    return soft, found.candidates, posterior


def judged(
    found: CandidateMap, model: DetectionModel, known: Sequence[bool | None] | None = None
) -> NDArray[Any]:
    """``(N,)`` probability of each candidate to be a lesion; NaN where it keeps the mean."""
    looked = model.has_network == any(c.score is not None for c in found.candidates)
    if not model.is_mean and looked:
        return model.posterior(found.candidates, known)
    fixed = known or [None] * len(found.candidates)
    return np.array([np.nan if k is None else float(k) for k in fixed])


def lesion_label(
    raters: RaterVotes,
    mean: NDArray[Any],
    found: CandidateMap,
    posterior: NDArray[Any],
    *,
    probability: NDArray[Any] | None = None,
    known: Sequence[bool | None] | None = None,
) -> NDArray[Any]:
    """The label of one channel.

    Args:
        raters: the votes of one case.
        mean: ``(*spatial)`` of the channel.
        found: its candidates.
        posterior: ``(N,)`` of each; NaN keeps the mean.
        probability: of the network, if there is one.
        known: what somebody adjudicated; such a candidate may be suppressed whoever marked it.

    Returns:
        ``(*spatial)`` float32.
    """
    label = mean.copy()
    flat = label.reshape(-1)
    used = [
        number
        for number, candidate in enumerate(found.candidates)
        if not np.isnan(posterior[number]) and (candidate.is_marked or posterior[number] > ADDED_ABOVE)
    ]
    for number in used:
        for voxels, _ in found.extents[number].pieces():
            flat[voxels] = 0
    for number in used:
        is_adjudicated = known[number] is not None if known else False
        has_floor = _is_never_suppressed(found.candidates[number]) and not is_adjudicated
        for voxels, outline in _outline(raters, found, number, probability):
            values = (posterior[number : number + 1] * outline).astype(np.float32)
            if has_floor:
                values = np.maximum(values, mean.reshape(-1)[voxels])
            flat[voxels] = np.maximum(flat[voxels], values)
    return label


def _outline(
    raters: RaterVotes, found: CandidateMap, number: int, probability: NDArray[Any] | None
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Voxels of a candidate, and float32 what share of its raters, or of the network's peak, each has."""
    extent = found.extents[number]
    if found.candidates[number].is_marked:
        for voxels, counts in extent.pieces():
            yield voxels, (counts / _answering(raters, extent, voxels)).astype(np.float32)
    elif probability is not None:
        values = probability.reshape(-1)
        peak = np.float32(max(values[voxels].max() for voxels, _ in extent.pieces()))
        for voxels, _ in extent.pieces():
            yield voxels, (values[voxels] / peak).astype(np.float32)
    else:
        for voxels, counts in extent.pieces():
            yield voxels, np.ones(counts.size, np.float32)


def _is_never_suppressed(candidate: Candidate) -> bool:
    """True for what half of those who answered marked, and for every mark where no network looked."""
    n_marks = sum(candidate.votes.values())
    return n_marks > 0 and (candidate.score is None or 2 * n_marks >= len(candidate.votes))


def _answering(raters: RaterVotes, extent: Extent, voxels: NDArray[Any]) -> NDArray[Any] | int:
    """``(n,)`` how many of those who marked a candidate answered at a voxel."""
    if raters.answered is None:
        return len(extent.chosen)
    answered = raters.answered.reshape(raters.n_raters, -1)[np.ix_(np.array(sorted(extent.chosen)), voxels)]
    return np.maximum(answered.sum(axis=0), 1)
