"""What is known of who misses lesions and who invents them, and what it says of a candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, TypedDict, cast

import numpy as np
import scipy  # its parts load when used: every worker of `convert` would wait for them
from numpy.typing import NDArray

from nnunet_softlabel.fusion.candidate import SEEN_ABOVE, Candidate
from nnunet_softlabel.fusion.detection_fit import STRUCTURES
from nnunet_softlabel.fusion.detection_likelihood import Evidence, Parameters, likelihood
from nnunet_softlabel.fusion.rater_rates import ANYONE

if TYPE_CHECKING:
    from typing_extensions import NotRequired

MEAN_MODEL = STRUCTURES[0].name


class DetectionJson(TypedDict):
    """A `DetectionModel` as JSON keeps it."""

    name: str
    reason: str
    sensitivity: dict[str, float]
    inventions: dict[str, float]
    size_slope: float
    difficulty: float
    prior: float
    prior_slope: float
    silent: float
    log_size: tuple[float, float]
    has_network: NotRequired[bool]


@dataclass(frozen=True)
class DetectionModel:
    """What is known of the detection of one channel's lesions; plain numbers, so that JSON can keep it.

    Attributes:
        name: which errors the model knows; :data:`MEAN_MODEL` means that the label is the mean.
        reason: why this one, in a sentence.
        sensitivity: rater -> logit of the probability to mark a lesion of usual size and difficulty.
        inventions: rater -> logit of the probability to mark what is none; empty: nobody invents.
        size_slope: per standard deviation of the logarithm of the size.
        difficulty: standard deviation of what makes a lesion hard for all raters.
        prior: logit of the probability that what the network barely sees is a lesion.
        prior_slope: per unit of the network's logit above that.
        silent: logit of the share of marks that are lesions where the network sees nothing, or there is none.
        log_size: mean and standard deviation of the logarithm of the size.
        has_network: a network looked at the cases; one where it did not keeps the mean.
    """

    name: str
    reason: str
    sensitivity: Mapping[str, float]
    inventions: Mapping[str, float]
    size_slope: float
    difficulty: float
    prior: float
    prior_slope: float
    silent: float
    log_size: tuple[float, float]
    has_network: bool = False

    @property
    def is_mean(self) -> bool:
        """True if the label is the mean, bit for bit."""
        return self.name == MEAN_MODEL

    def posterior(
        self, candidates: Sequence[Candidate], known: Sequence[bool | None] | None = None
    ) -> NDArray[Any]:
        """Probability of each candidate to be a lesion, ``(N,)``.

        Args:
            candidates: of one channel.
            known: what somebody adjudicated, None where nobody did.
        """
        evidence = evidence_of(candidates, tuple(self.sensitivity), self.log_size, known, may_be_unknown=True)
        return likelihood(evidence, self.parameters()).posterior

    def parameters(self) -> Parameters:
        """Of the likelihood."""
        gap = [a - self.inventions.get(rater, -np.inf) for rater, a in self.sensitivity.items()]
        return Parameters(
            np.array(list(self.sensitivity.values())), np.array(gap), self.size_slope, self.difficulty,
            self.prior, self.prior_slope, self.silent,
        )  # fmt: skip

    def rates(self) -> dict[str, tuple[float, float]]:
        """Rater -> probability to mark a lesion of usual size, and to mark what is none."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(15)
        weights = weights / weights.sum()
        return {
            rater: (
                float(weights @ scipy.special.expit(a + self.difficulty * nodes)),
                float(scipy.special.expit(self.inventions[rater])) if self.inventions else 0.0,
            )
            for rater, a in self.sensitivity.items()
        }

    def to_json(self) -> DetectionJson:
        """Plain values."""
        return cast(DetectionJson, asdict(self))

    @classmethod
    def from_json(cls, content: DetectionJson) -> DetectionModel:
        """Inverse of `to_json`."""
        mean, spread = content["log_size"]
        return replace(cls(**content), log_size=(mean, spread))


def evidence_of(
    candidates: Sequence[Candidate],
    names: Sequence[str],
    log_size: tuple[float, float],
    known: Sequence[bool | None] | None = None,
    *,
    may_be_unknown: bool = False,
) -> Evidence:
    """Candidates as arrays.

    Args:
        candidates: of one channel, of any number of cases.
        names: of the rates; :data:`ANYONE` stands for all raters.
        log_size: mean and standard deviation of the logarithm of the size.
        known: what somebody adjudicated.
        may_be_unknown: pass over raters without rates; False: an error.
    """
    yes, answers = (np.zeros((len(candidates), len(names))) for _ in range(2))
    column = {name: i for i, name in enumerate(names)}
    for row, candidate in enumerate(candidates):
        for rater, vote in candidate.votes.items():
            at = column.get(ANYONE if ANYONE in column else rater)
            if at is None and may_be_unknown:
                continue
            assert at is not None, f"rater {rater} has no rates"
            yes[row, at] += vote
            answers[row, at] += 1
    marked = np.array([c.is_marked for c in candidates], bool)
    size = (np.log([c.size_mm for c in candidates]) - log_size[0]) / log_size[1]
    seen = np.array([c.is_seen for c in candidates], bool)
    score = np.clip(np.array([c.score or SEEN_ABOVE for c in candidates], float), SEEN_ABOVE, 0.99)
    fixed = [np.nan if k is None else float(k) for k in known or [None] * len(candidates)]
    return Evidence(
        yes,
        answers,
        np.where(
            marked, np.clip(size, -3, 3), 0
        ),  # what nobody marked has the network's size: judge as usual
        scipy.special.logit(score) - scipy.special.logit(SEEN_ABOVE),
        seen,
        np.asarray(fixed, float),
    )
