"""Fusion by counting votes: mean, weighted mean, majority."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.fusion.rater_votes import RaterVotes


def mean_vote(raters: RaterVotes) -> NDArray[Any]:
    """Share of the answering raters who marked the voxel: ``q_c = n_c / n``.

    >>> votes = np.array([[[0, 1, 1]], [[0, 0, 1]], [[0, 1, 1]]], bool)  # (raters, channels, voxels)
    >>> raters = RaterVotes(votes, ("ann", "bob", "eve"), spacing_mm=(1.0,))
    >>> mean_vote(raters).round(2)
    array([[0.  , 0.67, 1.  ]], dtype=float32)

    Args:
        raters: the votes of one case.

    Returns:
        ``(C, *spatial)`` float32; 0 where nobody answered.
    """
    answers = raters.n_answers()
    soft = raters.n_votes().astype(np.float32)
    soft /= np.maximum(answers, np.uint8(1), dtype=np.float32)
    return soft


def weighted_vote(
    raters: RaterVotes, *, weights: Mapping[str, float] | Literal["agreement"] = "agreement"
) -> NDArray[Any]:
    """Weighted share of the answering raters who marked the voxel: ``sum_r w_r v_rc / sum_r w_r``.

    >>> votes = np.array([[[0, 1, 1]], [[0, 0, 1]], [[0, 1, 1]]], bool)  # (raters, channels, voxels)
    >>> raters = RaterVotes(votes, ("ann", "bob", "eve"), spacing_mm=(1.0,))
    >>> weighted_vote(raters, weights={"ann": 2, "bob": 1, "eve": 1})
    array([[0.  , 0.75, 1.  ]], dtype=float32)

    Args:
        raters: the votes of one case.
        weights: of each rater, by name (names that did not rate this case are passed over), or "agreement":
            :func:`agreement_weights` of this case.

    Returns:
        ``(C, *spatial)`` float32; 0 where nobody of positive weight answered.
    """
    if weights == "agreement":
        weights = agreement_weights(raters)
    chosen = _weights_in_order(raters, weights)
    soft = np.zeros(raters.votes.shape[1:], dtype=np.float32)
    # Summed in the same order as the votes, so that a unanimous voxel gets exactly 1.
    total = np.zeros(() if raters.answered is None else raters.spatial_shape, dtype=np.float32)
    for rater, (weight, votes) in enumerate(zip(chosen, raters.counted_votes(), strict=True)):
        np.add(soft, weight, out=soft, where=votes)
        total += weight if raters.answered is None else weight * raters.answered[rater]
    soft /= np.where(total > 0, total, np.float32(1))
    return soft


def agreement_weights(raters: RaterVotes) -> dict[str, float]:
    """Mean Dice of each rater with the others, over all channels and the voxels that both answered.

    Two empty annotations agree (Dice 1). All weigh 1 where there is one rater, or no two overlap.

    >>> votes = np.array([[[0, 1, 1]], [[0, 0, 1]], [[0, 1, 1]]], bool)  # (raters, channels, voxels)
    >>> raters = RaterVotes(votes, ("ann", "bob", "eve"), spacing_mm=(1.0,))
    >>> {name: round(weight, 2) for name, weight in agreement_weights(raters).items()}
    {'ann': 0.83, 'bob': 0.67, 'eve': 0.83}
    """
    return weights_of_overlaps(raters.names, pair_overlaps(raters))


def pair_overlaps(raters: RaterVotes) -> NDArray[Any]:
    """``(R, R, 2)`` voxels that two raters both marked, and the sum of what each marked.

    Over all channels, and the voxels that both answered. Of parts of an image, add them up.
    """
    overlaps = np.zeros((raters.n_raters, raters.n_raters, 2), np.int64)
    for first in range(raters.n_raters):
        for second in range(first + 1, raters.n_raters):
            overlaps[first, second] = overlaps[second, first] = raters.overlap_of_pair(first, second)
    return overlaps


def weights_of_overlaps(names: Sequence[str], overlaps: NDArray[Any]) -> dict[str, float]:
    """`agreement_weights` from `pair_overlaps`."""
    both, total = overlaps[..., 0], overlaps[..., 1]
    # two who marked nothing agree
    dice = np.where(total > 0, 2 * both / np.maximum(total, 1), 1.0)
    np.fill_diagonal(dice, np.nan)
    weights = np.ones(1) if len(names) == 1 else np.nanmean(dice, axis=1)
    if not weights.any():
        weights = np.ones(len(names))
    return dict(zip(names, weights.tolist(), strict=True))


def majority_vote(raters: RaterVotes) -> NDArray[Any]:
    """1 where most of the answering raters marked the voxel, else 0; a tie goes to the background.

    Classes: the class with strictly more votes than every other class and than the background; where two lead
    alike, the voxel is background. Regions: more than half of the answering raters.

    >>> votes = np.array([[[0, 1, 1]], [[0, 0, 1]], [[0, 1, 1]]], bool)  # (raters, channels, voxels)
    >>> raters = RaterVotes(votes, ("ann", "bob", "eve"), spacing_mm=(1.0,))
    >>> majority_vote(raters)
    array([[0., 1., 1.]], dtype=float32)

    Args:
        raters: the votes of one case.

    Returns:
        ``(C, *spatial)`` float32 of 0 and 1; 0 where nobody answered.
    """
    counts = raters.n_votes()
    answers = raters.n_answers()
    if not raters.exclusive or raters.n_channels == 1:
        # Unlike 2 * counts > answers, this cannot overflow small integers.
        return (counts > answers - np.minimum(counts, answers)).astype(np.float32)
    background = answers - counts.sum(axis=0, dtype=counts.dtype)
    leading = counts == counts.max(axis=0)
    is_won = (counts.max(axis=0) > background) & (leading.sum(axis=0, dtype=np.uint8) == 1)
    return (leading & is_won).astype(np.float32)


def _weights_in_order(raters: RaterVotes, weights: Mapping[str, float]) -> NDArray[Any]:
    missing = [name for name in raters.names if name not in weights]
    if missing:
        raise ValueError(f"weights lack {', '.join(missing)}: give one weight per rater")
    given = np.array([weights[name] for name in raters.names], dtype=np.float64)
    # only their ratio counts; sums of huge ones would overflow
    is_extreme = np.isfinite(given).all() and (given.max() > 1e6 or 0 < given.max() < 1e-6)
    chosen = (given / given.max() if is_extreme else given).astype(np.float32)
    if not np.isfinite(chosen).all() or (chosen < 0).any() or not chosen.any():
        raise ValueError(
            f"weights of {raters.names} must be finite, not negative, and not all 0, got {chosen.tolist()}"
        )
    return chosen
