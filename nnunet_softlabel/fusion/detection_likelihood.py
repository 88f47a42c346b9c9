"""Likelihood of the raters' marks on candidates, and its gradient: a latent class model with covariates.

A candidate is a lesion or is none. Rater r marks a lesion with probability ``s``, anything else with ``f``::

    logit s = a_r + b * size + tau * u,    u ~ N(0, 1) of the candidate (how hard it is, for all raters)
    logit f = a_r - d_r

What a network sees is a lesion with ``logit = alpha + beta * score``. What it does not see is known only
because somebody marked it: there the likelihood is given that somebody did, and a share of these marks are
lesions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy  # its parts load when used: every worker of `convert` would wait for them
from numpy.typing import NDArray

# Gauss-Hermite nodes of the difficulty.
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(7)
_LOG_WEIGHTS = np.log(_WEIGHTS / _WEIGHTS.sum())
_NEVER = -1e3


@dataclass(frozen=True)
class Evidence:
    """What the likelihood needs of ``N`` candidates and ``P`` pairs of rates.

    Attributes:
        yes: ``(N, P)`` number of raters with these rates who marked the candidate.
        answers: ``(N, P)`` number of those who marked it or not.
        size: ``(N,)`` covariate of the sensitivity.
        score: ``(N,)`` covariate of being a lesion; 0 where ``is_seen`` is False.
        is_seen: ``(N,)`` whether the network sees it.
        known: ``(N,)`` 1 or 0 where somebody adjudicated, else NaN.
    """

    yes: NDArray[Any]
    answers: NDArray[Any]
    size: NDArray[Any]
    score: NDArray[Any]
    is_seen: NDArray[Any]
    known: NDArray[Any]

    def subset(self, chosen: NDArray[Any]) -> Evidence:
        """Some of the candidates."""
        return Evidence(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))


def concatenated(parts: Sequence[Evidence]) -> Evidence:
    """The candidates of all parts, in their order."""
    return Evidence(
        *(np.concatenate([getattr(p, name) for p in parts]) for name in Evidence.__dataclass_fields__)
    )


@dataclass(frozen=True)
class Parameters:
    """Parameters of the likelihood, or its gradient with respect to them.

    Attributes:
        sensitivity: ``(P,)`` a.
        gap: ``(P,)`` d; ``inf``: nobody invents.
        size_slope: b.
        difficulty: tau.
        prior: alpha.
        prior_slope: beta.
        silent: logit of the share of marks that are lesions where the network sees nothing.
    """

    sensitivity: NDArray[Any]
    gap: NDArray[Any]
    size_slope: float = 0.0
    difficulty: float = 0.0
    prior: float = 0.0
    prior_slope: float = 0.0
    silent: float = 0.0


@dataclass(frozen=True)
class Likelihood:
    """Of each candidate.

    Attributes:
        value: ``(N,)`` log-likelihood.
        posterior: ``(N,)`` probability of being a lesion, given the marks.
        gradient: of the summed value.
    """

    value: NDArray[Any]
    posterior: NDArray[Any]
    gradient: Parameters = field(repr=False)


def likelihood(evidence: Evidence, parameters: Parameters) -> Likelihood:
    """Log-likelihood of each candidate, and what follows from it."""
    yes, answers = evidence.yes, evidence.answers
    is_silent = ~evidence.is_seen
    # lesions: (N, P, K) with the nodes of the difficulty last
    has_difficulty = parameters.difficulty > 0
    nodes, log_weights = (_NODES, _LOG_WEIGHTS) if has_difficulty else (np.zeros(1), np.zeros(1))
    eta = (parameters.sensitivity + parameters.size_slope * evidence.size[:, None])[..., None]
    eta = eta + parameters.difficulty * nodes
    none = (answers[..., None] * scipy.special.log_expit(-eta)).sum(
        axis=1
    )  # log P(nobody marks | lesion, node)
    joint = (yes[..., None] * eta).sum(axis=1) + none + log_weights
    lesion = scipy.special.logsumexp(joint, axis=1)
    any_lesion = _log1mexp(scipy.special.logsumexp(none + log_weights, axis=1))
    eta_0 = parameters.sensitivity - parameters.gap
    none_0 = (answers * scipy.special.log_expit(-eta_0)).sum(axis=1)
    marks_0 = np.where(yes > 0, yes * np.maximum(eta_0, _NEVER), 0)
    other = marks_0.sum(axis=1) + none_0
    any_other = _log1mexp(none_0)
    prior = np.where(is_silent, parameters.silent, parameters.prior + parameters.prior_slope * evidence.score)
    log_1 = scipy.special.log_expit(prior) + lesion - np.where(is_silent, any_lesion, 0)
    log_0 = scipy.special.log_expit(-prior) + other - np.where(is_silent, any_other, 0)
    if np.isinf(parameters.gap).all():
        log_0 = np.where(is_silent | (yes.sum(axis=1) > 0), -np.inf, log_0)
    is_known = ~np.isnan(evidence.known)
    log_1 = np.where(is_known & (evidence.known == 0), -np.inf, log_1)
    log_0 = np.where(is_known & (evidence.known == 1), -np.inf, log_0)
    value = np.logaddexp(log_1, log_0)
    with np.errstate(invalid="ignore"):
        posterior = np.where(np.isneginf(value), evidence.known, np.exp(log_1 - value))
    return Likelihood(
        value,
        posterior,
        _gradient(
            evidence,
            parameters,
            posterior,
            prior=prior,
            lesion=_Class(eta, joint - lesion[:, None], none + log_weights - any_lesion[:, None]),
            other=_Class(eta_0, np.zeros(()), none_0 - any_other),
        ),
    )


@dataclass(frozen=True)
class _Class:
    """What the gradient needs of lesions, or of what is none.

    Attributes:
        eta: logit of the probability to be marked; of lesions per node of the difficulty, the last axis.
        log_node: log-probability of each node, given the marks; 0 where there are no nodes.
        log_cut: log of the odds that nobody marks it.
    """

    eta: NDArray[Any]
    log_node: NDArray[Any]
    log_cut: NDArray[Any]


def _gradient(
    evidence: Evidence,
    parameters: Parameters,
    posterior: NDArray[Any],
    *,
    prior: NDArray[Any],
    lesion: _Class,
    other: _Class,
) -> Parameters:
    """Fisher's identity: the gradient of the complete likelihood, averaged over class and difficulty."""
    yes, answers = evidence.yes, evidence.answers
    is_silent = ~evidence.is_seen
    s = scipy.special.expit(lesion.eta)
    at_node = np.exp(lesion.log_node)[:, None]  # (N, 1, K)
    slope = at_node * (yes[..., None] - answers[..., None] * s)
    # the part of log P(somebody marks it), which silent candidates are divided by
    slope -= np.where(is_silent[:, None, None], np.exp(lesion.log_cut)[:, None] * answers[..., None] * s, 0)
    slope *= posterior[:, None, None]
    f = scipy.special.expit(other.eta)
    slope_0 = yes - answers * f
    with np.errstate(over="ignore", invalid="ignore"):
        cut = np.where(is_silent[:, None], np.exp(other.log_cut)[:, None] * answers * f, 0)
    slope_0 = (1 - posterior)[:, None] * (slope_0 - np.nan_to_num(cut))
    by_rater, by_rater_0 = slope.sum(axis=(0, 2)), slope_0.sum(axis=0)
    if np.isinf(parameters.gap).all():
        by_rater_0 = np.zeros_like(by_rater_0)
    change = posterior - scipy.special.expit(prior)
    nodes = _NODES if parameters.difficulty > 0 else np.zeros(1)
    return Parameters(
        sensitivity=by_rater + by_rater_0,
        gap=-by_rater_0,
        size_slope=float((slope.sum(axis=(1, 2)) * evidence.size).sum()),
        difficulty=float((slope.sum(axis=(0, 1)) * nodes).sum()),
        prior=float(change[evidence.is_seen].sum()),
        prior_slope=float((change * evidence.score)[evidence.is_seen].sum()),
        silent=float(change[is_silent].sum()),
    )


def _log1mexp(x: NDArray[Any]) -> NDArray[Any]:
    """``log(1 - exp(x))`` for ``x <= 0``."""
    x = np.minimum(x, -1e-12)
    return np.where(x > -0.7, np.log(-np.expm1(x)), np.log1p(-np.exp(x)))
