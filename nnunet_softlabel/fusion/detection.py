"""Who misses lesions and who invents them: a model chosen on held-out cases, from "nobody" upwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy  # its parts load when used: every worker of `convert` would wait for them
from numpy.typing import NDArray

from nnunet_softlabel.fusion.candidate import Candidate
from nnunet_softlabel.fusion.detection_fit import SLIP, STRUCTURES, Fit, fit, held_out
from nnunet_softlabel.fusion.detection_likelihood import Evidence, concatenated, likelihood
from nnunet_softlabel.fusion.detection_model import MEAN_MODEL, DetectionModel, evidence_of
from nnunet_softlabel.fusion.rater_rates import ANYONE

FOLDS = 5
# Fewer say nothing about rates.
FEWEST_CASES, FEWEST_MARKED = 10, 20
# Without a network, two raters cannot tell a missed lesion from an invented one.
IDENTIFYING_RATERS = 3
# Starts that fit alike but disagree more than this about what is a lesion leave the matter open.
LARGEST_DISAGREEMENT = 0.1
# Sensitivity must exceed the rate of inventions by this.
LEAST_GAP = 0.05
# The network's score must raise the log-likelihood by this (p < .015) where inventions are told from lesions.
LEAST_HELP = 3.0


@dataclass(frozen=True)
class _Readers:
    """What all models of a channel share.

    Attributes:
        names: of the rates.
        log_size: mean and standard deviation of the logarithm of the candidates' size.
        has_network: a network looked at the cases.
    """

    names: Sequence[str]
    log_size: tuple[float, float]
    has_network: bool


def estimate_detection(
    cases: Sequence[Sequence[Candidate]],
    *,
    shared: bool = False,
    groups: Sequence[str] | None = None,
    known: Sequence[Sequence[bool | None]] | None = None,
    doubt: str | None = None,
) -> DetectionModel:
    """Fit every model to the candidates of all cases and choose one; the same in whatever order cases come.

    The models are nested: nobody misses or invents; misses; misses by size and by a difficulty that all
    raters share; the two with inventions. The one that is likeliest on held-out cases is chosen, if it is
    better than the first by more than two standard errors and can be trusted: else the label is the mean, and
    `reason` says why. Without a network only the first and "misses and inventions" are tried: marks alone
    cannot tell small lesions that are missed from small things that are invented, and "every mark is a
    lesion" does most harm.

    Args:
        cases: candidates of one channel, case by case.
        shared: raters are anonymous and share one pair of rates.
        groups: of each case (patients); None: each case is its own.
        known: what somebody adjudicated, candidate by candidate; None where nobody did.
        doubt: why the label is to be the mean whatever the candidates say; None: let them say.

    Returns:
        The model.
    """
    groups = [str(i) for i in range(len(cases))] if groups is None else list(groups)
    candidates = [c for case in cases for c in case]
    names = [ANYONE] if shared else sorted({rater for c in candidates for rater in c.votes})
    marked = [c for c in candidates if c.is_marked]
    sizes = np.log([c.size_mm for c in marked]) if marked else np.zeros(1)
    log_size = (float(sizes.mean()), float(max(sizes.std(), 0.05)))
    fixed = None if known is None else [k for case in known for k in case]
    evidence = evidence_of(candidates, names, log_size, fixed)
    readers = _Readers(names, log_size, any(c.score is not None for c in candidates))
    doubt = doubt or _too_little(cases, marked)
    if doubt:
        return _mean_model(readers, doubt)
    index = {group: i for i, group in enumerate(sorted(set(groups)))}
    group_of = np.repeat([index[g] for g in groups], [len(case) for case in cases])
    return _chosen(evidence, group_of, readers)


def _too_little(cases: Sequence[Sequence[Candidate]], marked: Sequence[Candidate]) -> str | None:
    """Why nothing can be said; None if something can."""
    n_cases = sum(any(c.is_marked for c in case) for case in cases)
    if n_cases < FEWEST_CASES or len(marked) < FEWEST_MARKED:
        return (
            f"{len(marked)} marked candidates in {n_cases} cases are too few to judge raters by "
            f"({FEWEST_MARKED} in {FEWEST_CASES} are needed): the label is the mean"
        )
    several = sum(len(c.votes) >= 2 for c in marked)
    if 2 * several <= len(marked):
        return "most candidates were read by one rater: the label is the mean"
    if not any(c.score is not None for c in marked):
        enough = sum(len(c.votes) >= IDENTIFYING_RATERS for c in marked)
        if 2 * enough <= len(marked):
            return (
                "two raters without a network cannot tell a missed lesion from an invented one: "
                "the label is the mean"
            )
    if all(all(c.votes.values()) for c in marked):
        return "all raters marked every candidate: the label is the mean"
    return None


def _chosen(evidence: Evidence, group_of: NDArray[Any], readers: _Readers) -> DetectionModel:
    n_groups = int(group_of.max()) + 1
    fold = group_of % FOLDS
    tried = [s for s in STRUCTURES if readers.has_network or s.is_known_without_network]
    fits, scores = [], []
    for structure in tried:
        found = fit(structure, evidence)
        if found.objective > -1e9:  # else: an adjudicated invention, and a model without any
            fits.append(found)
            scores.append(np.bincount(group_of, held_out(structure, evidence, fold, found), n_groups))
    order = sorted(range(1, len(fits)), key=lambda i: -scores[i].sum())
    notes: list[str] = []
    for number in order:
        if not _is_better(scores[number], scores[0], errors=2):
            break
        if notes and _is_better(scores[order[0]], scores[number]):
            break  # what cannot be trusted fits better than what is left
        doubt = _doubt(fits[number], evidence)
        if doubt is None:
            gain = scores[number].sum() - scores[0].sum()
            reason = f"held-out log-likelihood {gain:+.1f} against nobody missing or inventing"
            return _model(fits[number], readers, "; ".join([reason, *notes]))
        notes.append(f"not {fits[number].structure.name}: {doubt}")
    reason = "; ".join(notes) or "held-out cases speak for no other"
    return _mean_model(readers, f"{reason}: the label is the mean")


def _is_better(one: NDArray[Any], other: NDArray[Any], *, errors: float = 1) -> bool:
    """By more than some standard errors of the difference, summed over groups, and more than one unit."""
    difference = one - other
    error = np.sqrt(difference.size) * difference.std(ddof=1)
    return bool(difference.sum() > max(errors * error, 1.0))


def _doubt(found: Fit, evidence: Evidence) -> str | None:
    """Why a fit is not to be trusted, or None."""
    p = found.parameters
    s, f = scipy.special.expit(p.sensitivity), scipy.special.expit(p.sensitivity - p.gap)
    if (s - f < LEAST_GAP).any():
        return "a rater marks lesions hardly more often than anything else"
    own = likelihood(evidence, p).posterior
    marked = evidence.yes.sum(axis=1) > 0
    for rival in found.rivals:
        other = likelihood(evidence, rival).posterior
        if np.abs(own - other)[marked].mean() > LARGEST_DISAGREEMENT:
            return "two solutions fit alike and disagree"
    if found.structure.has_inventions and (evidence.is_seen & marked).any():
        if found.objective - _blind(found, evidence, own).objective < LEAST_HELP:
            return "what the network sees does not tell lesions from inventions"
    return None


def _blind(found: Fit, evidence: Evidence, posterior: NDArray[Any]) -> Fit:
    """The fit of a blind network: no slope, and marks are as real whether it sees them or not."""
    blind = replace(evidence, score=np.zeros_like(evidence.score))
    seen_marks = posterior[evidence.is_seen & (evidence.yes.sum(axis=1) > 0)]
    share = float(scipy.special.logit(np.clip(seen_marks.mean(), 0.02, 0.98)))
    if share <= found.parameters.silent:
        return fit(found.structure, blind)
    return fit(found.structure, blind, (replace(found.parameters, silent=share),), held=("silent",))


def _mean_model(readers: _Readers, reason: str) -> DetectionModel:
    """The model whose label is the mean; its rates are those of slips."""
    slip = float(scipy.special.logit(1 - SLIP))
    finds, invents = dict.fromkeys(readers.names, slip), dict.fromkeys(readers.names, -slip)
    return DetectionModel(
        MEAN_MODEL, reason, finds, invents, 0.0, 0.0, 0.0, 1.0, slip, readers.log_size, readers.has_network
    )


def _model(found: Fit, readers: _Readers, reason: str) -> DetectionModel:
    p = found.parameters
    invents = (p.sensitivity - p.gap).tolist() if np.isfinite(p.gap).all() else None
    return DetectionModel(
        found.structure.name,
        reason,
        dict(zip(readers.names, p.sensitivity.tolist(), strict=True)),
        dict(zip(readers.names, invents, strict=True)) if invents else {},
        p.size_slope,
        p.difficulty,
        p.prior,
        p.prior_slope,
        p.silent,
        readers.log_size,
        readers.has_network,
    )


def bootstrapped_rates(
    model: DetectionModel,
    cases: Sequence[Sequence[Candidate]],
    groups: Sequence[str],
    *,
    known: Sequence[Sequence[bool | None]] | None = None,
    n: int = 100,
) -> dict[str, NDArray[Any]]:
    """Rates of the same model fitted to groups drawn with replacement.

    Args:
        model: from `estimate_detection`, and not the mean.
        cases: its candidates, case by case.
        groups: of each case.
        known: what somebody adjudicated, as the model was given it.
        n: number of draws.

    Returns:
        Rater -> ``(n, 2)`` sensitivity and rate of inventions.
    """
    structure = next(s for s in STRUCTURES if s.name == model.name)
    names, rng = tuple(model.sensitivity), np.random.default_rng(0)
    said = known if known is not None else [[None] * len(case) for case in cases]
    members: dict[str, list[tuple[Candidate, bool | None]]] = {}
    for case, of_case, group in zip(cases, said, groups, strict=True):
        members.setdefault(group, []).extend(zip(case, of_case, strict=True))
    evidences = [
        evidence_of([c for c, _ in pairs], names, model.log_size, [k for _, k in pairs])
        for _, pairs in sorted(members.items())
        if pairs
    ]
    readers = _Readers(names, model.log_size, model.has_network)
    drawn = []
    for _ in range(n):
        chosen = [evidences[i] for i in rng.integers(len(evidences), size=len(evidences))]
        found = fit(structure, concatenated(chosen), (model.parameters(),))
        drawn.append(_model(found, readers, "").rates())
    return {name: np.array([rates[name] for rates in drawn]) for name in names}
