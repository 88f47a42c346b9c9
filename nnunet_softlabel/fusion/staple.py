"""Fusion by estimated skill: STAPLE in one case, or with rates pooled over all cases."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.fusion.rater_rates import RaterRates, estimate_rater_rates
from nnunet_softlabel.fusion.rater_votes import RaterVotes, marked_box

# Rates of 0 and 1 are kept this far inside, log-odds within the range of float32's sigmoid.
SMALLEST_RATE = 1e-7
LARGEST_LOG_ODDS = 15.0


def staple(raters: RaterVotes, *, rates: RaterRates | None = None, margin_mm: float = 10.0) -> NDArray[Any]:
    """Posterior probability of each channel, given the votes and the raters' sensitivity and specificity [1].

    Voxels on which all who answered agree keep their answer; only disputed ones are estimated, else all of a
    healthy knee would get a small probability. Channels are treated one by one; exclusive classes that add up
    to more than 1, or that no rater calls background, are then scaled to add up to 1.

    The rates of one case come from the same EM as those of a data set, :func:`estimate_rater_rates`, with the
    prevalence fixed as in [1]. They and the posterior follow those of SimpleITK's ``STAPLE`` (a test compares
    them); the weak prior on rates that the EM has here moves posteriors by up to 0.014. That filter visits
    every voxel in each of up to hundreds of iterations, fewer than 3 million votes per second where raters
    differ much, and knows no unanswered voxels. ``MultiLabelSTAPLE`` returns hard labels with one for
    "undecided", and for two raters calls all they dispute background.

    STAPLE's prevalence is the share of marked voxels, so the result depends on the region: here the box of
    everything marked in the case, widened by ``margin_mm``.

    >>> votes = np.array([[[0, 1, 1]], [[0, 0, 1]], [[0, 1, 1]]], bool)  # (raters, channels, voxels)
    >>> raters = RaterVotes(votes, ("ann", "bob", "eve"), spacing_mm=(1.0,))
    >>> staple(raters).round(2)
    array([[0., 1., 1.]], dtype=float32)

    Args:
        raters: the votes of one case.
        rates: estimated beforehand, say over all cases, by :func:`estimate_rater_rates`. None: of this case.
        margin_mm: around everything marked; without effect if ``rates`` are given.

    Returns:
        ``(C, *spatial)`` float32; 0 where nobody answered.

    References:
        [1] Warfield, Zou and Wells, "Simultaneous truth and performance level estimation (STAPLE)", IEEE
            Transactions on Medical Imaging 23, 2004.
    """
    check_margin(margin_mm)
    if rates is not None and len(rates.prevalence) != raters.n_channels:
        raise ValueError(
            f"rates are for {len(rates.prevalence)} channels, the votes have {raters.n_channels}"
        )
    answers = raters.n_answers()
    counts = raters.n_votes()
    marked = counts > 0
    soft = (marked & (counts == answers)).astype(np.float32)
    disputed = marked & (counts < answers)
    if not disputed.any():
        return soft
    rates = _case_rates(raters, margin_mm) if rates is None else rates
    for channel in range(raters.n_channels):
        where = disputed[channel]
        log_odds = _posterior_log_odds(raters, rates, channel, where)
        soft[channel][where] = 1 / (1 + np.exp(-np.clip(log_odds, -LARGEST_LOG_ODDS, LARGEST_LOG_ODDS)))
    if raters.exclusive and raters.n_channels > 1:
        nobody_says_background = counts.sum(axis=0, dtype=counts.dtype) == answers
        total = soft.sum(axis=0)
        soft /= np.where(nobody_says_background & (total > 0), total, np.maximum(total, 1))
    return soft


def check_margin(margin_mm: float) -> None:
    """Refuse a negative margin."""
    if not margin_mm >= 0:
        raise ValueError(f"margin_mm must not be negative, got {margin_mm}")


def _posterior_log_odds(
    raters: RaterVotes, rates: RaterRates, channel: int, where: NDArray[Any]
) -> NDArray[Any]:
    """``log P(in channel | votes) / P(not)`` of the voxels ``where``, one row."""
    prevalence = np.clip(rates.prevalence[channel], SMALLEST_RATE, 1 - SMALLEST_RATE)
    log_odds = np.full(np.count_nonzero(where), np.log(prevalence / (1 - prevalence)), dtype=np.float32)
    for rater, name in enumerate(raters.names):
        sensitivity, specificity = np.clip(rates.of(name, channel), SMALLEST_RATE, 1 - SMALLEST_RATE)
        yes = np.float32(np.log(sensitivity / (1 - specificity)))
        no = np.float32(np.log((1 - sensitivity) / specificity))
        evidence = np.where(raters.votes[rater, channel][where], yes, no)
        log_odds += evidence if raters.answered is None else evidence * raters.answered[rater][where]
    return log_odds


def _case_rates(raters: RaterVotes, margin_mm: float) -> RaterRates:
    box = marked_box(raters, margin_mm=margin_mm)
    assert box is not None, "a disputed voxel is a marked one"
    return estimate_rater_rates([raters.cropped(box)], has_fixed_prevalence=True)
