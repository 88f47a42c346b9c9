"""Lesion-wise fusion: was the lesion found, and where is its edge, are two questions.

The mean of raters mixes them: a lesion that one of three raters found gets one third, as a disputed rim does.
Here a candidate's probability of being a lesion comes from a model of who misses and who invents, and its
outline from those who marked it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.fusion.candidate import Candidate
from nnunet_softlabel.fusion.detection import estimate_detection
from nnunet_softlabel.fusion.detection_model import DetectionModel
from nnunet_softlabel.fusion.lesion_candidates import CandidateMap, find_candidates
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
    soft = mean_vote(replace(raters, votes=raters.votes[:, channel : channel + 1]))[0]
    found = find_candidates(raters, channel, probability)
    posterior = judged(found, model or estimate_detection([found.candidates]), known)
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
    label = mean.ravel().copy()
    n = len(found.candidates)
    is_marked = np.array([c.is_marked for c in found.candidates], bool)
    fixed = np.array([k is not None for k in known], bool) if known else np.zeros(n, bool)
    used = ~np.isnan(posterior) & (is_marked | (posterior > ADDED_ABOVE))
    rows = used[found.candidate]
    candidate, voxel, rater = found.candidate[rows], found.voxel[rows], found.rater[rows]
    # each (candidate, voxel) once, with the number of its raters who marked the voxel
    size = label.size
    pairs, counts = np.unique(candidate * size + voxel, return_counts=True)
    at, where = pairs // size, pairs % size
    outline = np.ones(pairs.size, np.float32)
    chosen = is_marked[at]
    marked_by = _marked_by(raters, candidate, rater)
    outline[chosen] = counts[chosen] / _answering(raters, marked_by, at, where)[chosen]
    if probability is not None and not chosen.all():
        outline[~chosen] = _over_peak(probability, at[~chosen], where[~chosen], n)
    values = (posterior[at] * outline).astype(np.float32)
    # unless somebody adjudicated it
    is_kept = np.array([_is_never_suppressed(c) for c in found.candidates], bool)
    floor = (is_kept & ~fixed)[at] if n else np.zeros(0, bool)
    values[floor] = np.maximum(values[floor], mean.ravel()[where[floor]])
    label[where] = 0
    np.maximum.at(label, where, values)
    return label.reshape(mean.shape)


def _is_never_suppressed(candidate: Candidate) -> bool:
    """True for what half of those who answered marked, and for every mark where no network looked."""
    n_marks = sum(candidate.votes.values())
    return n_marks > 0 and (candidate.score is None or 2 * n_marks >= len(candidate.votes))


def _marked_by(raters: RaterVotes, candidate: NDArray[Any], rater: NDArray[Any]) -> NDArray[Any]:
    """``(N, R)`` whether a rater marked a candidate, from the two of every mark; rater -1 is nobody."""
    marked_by = np.zeros((int(candidate.max(initial=0)) + 1, raters.n_raters), bool)
    inside = rater >= 0
    marked_by[candidate[inside], rater[inside]] = True
    return marked_by


def _answering(
    raters: RaterVotes, marked_by: NDArray[Any], at: NDArray[Any], where: NDArray[Any]
) -> NDArray[Any]:
    """``(P,)`` how many of those who marked candidate ``at`` answered at voxel ``where``."""
    chosen = marked_by[at]
    if raters.answered is not None:
        chosen &= raters.answered.reshape(raters.n_raters, -1)[:, where].T
    return np.maximum(chosen.sum(axis=1), 1)


def _over_peak(probability: NDArray[Any], at: NDArray[Any], where: NDArray[Any], n: int) -> NDArray[Any]:
    values = probability.ravel()[where]
    peak = np.zeros(n, np.float32)
    np.maximum.at(peak, at, values)
    return values / peak[at]
