"""Fitting the latent class model of detection: penalised maximum likelihood from several starts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import scipy  # its parts load when used: every worker of `convert` would wait for them
from numpy.typing import NDArray

from nnunet_softlabel.fusion.detection_likelihood import Evidence, Parameters, likelihood

# Where nobody misses or invents, readers still slip: in at most one lesion, or one mark, of twenty.
SLIP = 0.05
# Weak priors: (mean, standard deviation) of logits; raters are alike to within RATERS_SPREAD. Inventions are
# rare: misses that readers share otherwise pass for inventions of whoever misses least.
SENSITIVITY, INVENTIONS, RATERS_SPREAD = (1.0, 2.0), (-3.0, 0.75), 1.0
PRIOR, SILENT, SLOPES_SPREAD = (0.0, 2.0), (0.5, 1.5), 1.0
BOUNDS = {
    "sensitivity": (-5.0, 5.0),
    "gap": (0.3, 12.0),  # a rater who marks lesions as often as anything else says nothing
    "size_slope": (0.0, 3.0),
    "difficulty": (0.0, 2.5),
    "prior": (-8.0, 8.0),
    "prior_slope": (0.0, 5.0),
    "silent": (-6.0, 6.0),
}
# (sensitivity, gap, share of silent marks that are lesions), as logits
STARTS = tuple(product((0.0, 1.5), (2.0, 4.0), (-0.5, 1.5)))
CERTAIN = 30.0


@dataclass(frozen=True)
class Structure:
    """Which errors a model knows.

    Attributes:
        name: in words.
        has_misses: raters miss lesions.
        has_difficulty: they miss what is small, and what is hard for all of them.
        has_inventions: they mark what is no lesion.
    """

    name: str
    has_misses: bool = False
    has_difficulty: bool = False
    has_inventions: bool = False

    @property
    def is_known_without_network(self) -> bool:
        """True if marks alone may tell its parameters, and little is lost where they do not."""
        return self.has_misses == self.has_inventions and not self.has_difficulty

    def free(self, evidence: Evidence) -> tuple[str, ...]:
        """Parameters to be estimated."""
        names = ["sensitivity"] + ["gap"] * (self.has_inventions or not self.has_misses)
        names += ["size_slope", "difficulty"] * self.has_difficulty
        if evidence.is_seen.any():
            names += ["prior", "prior_slope"]
        return tuple(names + ["silent"] * ("gap" in names and not evidence.is_seen.all()))

    def bounds(self, name: str) -> tuple[float, float]:
        """Of a parameter; tight where nobody misses or invents."""
        low, high = BOUNDS[name]
        if self.has_misses or name not in ("sensitivity", "gap", "silent"):
            return low, high
        slip = float(scipy.special.logit(1 - SLIP))
        return (BOUNDS["sensitivity"][1] + slip if name == "gap" else slip), high


# From the mean on; each is more than those before it.
STRUCTURES = (
    Structure("nobody misses or invents"),
    Structure("misses", has_misses=True),
    Structure("misses by difficulty", has_misses=True, has_difficulty=True),
    Structure("misses and inventions", has_misses=True, has_inventions=True),
    Structure("misses by difficulty and inventions", True, True, True),
)


@dataclass(frozen=True)
class Fit:
    """A fitted model.

    Attributes:
        structure: what it knows.
        parameters: estimated, or as the structure has them.
        objective: log-likelihood and log-prior.
        rivals: parameters from other starts whose objective is nearly as good.
    """

    structure: Structure
    parameters: Parameters
    objective: float
    rivals: tuple[Parameters, ...] = ()


def fit(
    structure: Structure,
    evidence: Evidence,
    starts: tuple[Parameters, ...] | None = None,
    *,
    held: tuple[str, ...] = (),
) -> Fit:
    """Maximise the penalised likelihood; the best of several starts.

    Args:
        structure: of the model.
        evidence: of all candidates.
        starts: parameters to start from; None: the usual ones.
        held: names of parameters that stay what they are.
    """
    names = tuple(name for name in structure.free(evidence) if name not in held)
    n_rates = evidence.yes.shape[1]
    begin = starts or tuple(
        _start(structure, n_rates, s) for s in STARTS[: None if structure.has_misses else 1]
    )
    results = []
    for start in begin:
        found = scipy.optimize.minimize(
            _objective, _pack(start, names), args=(start, names, evidence), jac=True, method="L-BFGS-B",
            bounds=[structure.bounds(n) for n in names for _ in range(np.size(getattr(start, n)))],
            options={"maxiter": 200},
        )  # fmt: skip
        results.append((float(found.fun), _unpack(found.x, start, names)))
    results.sort(key=lambda result: result[0])
    best = results[0][0]
    rivals = tuple(parameters for value, parameters in results[1:] if value < best + 1.0)
    return Fit(structure, results[0][1], -best, rivals)


def _start(structure: Structure, n_rates: int, logits: tuple[float, float, float]) -> Parameters:
    """Where a search begins, one of `STARTS`."""
    if not structure.has_misses:
        slip = float(scipy.special.logit(1 - SLIP))
        return Parameters(np.full(n_rates, 4.0), np.full(n_rates, 9.0), prior_slope=1.0, silent=slip)
    sensitivity, gap, silent = logits
    return Parameters(
        np.full(n_rates, sensitivity),
        np.full(n_rates, gap if structure.has_inventions else np.inf),
        size_slope=0.2 if structure.has_difficulty else 0.0,
        difficulty=0.5 if structure.has_difficulty else 0.0,
        prior_slope=1.0,
        silent=silent if structure.has_inventions else CERTAIN,
    )


def _objective(
    x: NDArray[Any], start: Parameters, names: tuple[str, ...], evidence: Evidence
) -> tuple[float, NDArray[Any]]:
    """Minus the penalised log-likelihood, and its gradient."""
    parameters = _unpack(x, start, names)
    found = likelihood(evidence, parameters)
    penalty, slope = _penalty(parameters, names)
    value = float(found.value.sum()) - penalty
    if not np.isfinite(value):
        return 1e10, np.zeros_like(x)
    return -value, -(_pack(found.gradient, names) - slope)


def _penalty(parameters: Parameters, names: tuple[str, ...]) -> tuple[float, NDArray[Any]]:
    """Minus the log-prior, and its gradient in the order of the names."""
    total, slopes = 0.0, dict[str, NDArray[Any]]()
    for name in names:
        if name == "gap":
            value, slope = _penalty_of_rates(parameters.sensitivity - parameters.gap, INVENTIONS)
            slopes["sensitivity"] += slope
            slopes[name] = -slope
        elif name == "sensitivity":
            value, slopes[name] = _penalty_of_rates(parameters.sensitivity, SENSITIVITY)
        else:
            mean, spread = {"prior": PRIOR, "silent": SILENT}.get(name, (0.0, SLOPES_SPREAD))
            off = (getattr(parameters, name) - mean) / spread
            value, slopes[name] = off**2 / 2, np.array([off / spread])
        total += value
    return total, np.concatenate(list(slopes.values()))


def _penalty_of_rates(logits: NDArray[Any], prior: tuple[float, float]) -> tuple[float, NDArray[Any]]:
    mean, spread = prior
    off, middle = logits - logits.mean(), (logits.mean() - mean) / spread
    value = float((off**2).sum() / (2 * RATERS_SPREAD**2) + middle**2 / 2)
    return value, off / RATERS_SPREAD**2 + middle / spread / logits.size


def _pack(parameters: Parameters, names: tuple[str, ...]) -> NDArray[Any]:
    return np.concatenate([np.atleast_1d(getattr(parameters, name)) for name in names])


def _unpack(x: NDArray[Any], start: Parameters, names: tuple[str, ...]) -> Parameters:
    ends = np.cumsum([np.size(getattr(start, name)) for name in names])
    parts = zip(names, np.split(x, ends[:-1]), strict=True)
    return replace(start, **{name: _parameter(name, part) for name, part in parts})


def _parameter(name: str, part: NDArray[Any]) -> Any:
    """One field of `Parameters`: an array of each rater's, or a number."""
    return part.copy() if name in ("sensitivity", "gap") else float(part[0])


def held_out(structure: Structure, evidence: Evidence, fold: NDArray[Any], begin: Fit) -> NDArray[Any]:
    """``(N,)`` log-likelihood of each candidate under a model fitted to the other folds.

    Args:
        structure: of the model.
        evidence: of all candidates.
        fold: ``(N,)`` number.
        begin: the fit to all candidates, to start from.
    """
    values = np.zeros(fold.size)
    for number in np.unique(fold):
        inside = fold == number
        found = fit(structure, evidence.subset(~inside), (begin.parameters, *begin.rivals[:1]))
        values[inside] = likelihood(evidence.subset(inside), found.parameters).value
    return values
