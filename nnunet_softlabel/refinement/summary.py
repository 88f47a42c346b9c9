"""What a refinement found of raters: who finds, misses and invents, with intervals over patients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.cases.groups import FEWEST_GROUPS
from nnunet_softlabel.fusion.detection import bootstrapped_rates
from nnunet_softlabel.fusion.detection_model import DetectionModel
from nnunet_softlabel.refinement.candidates import JudgedCandidate

if TYPE_CHECKING:
    from typing_extensions import NotRequired

DRAWS = 100
LISTED_CASES = 10


class IntervalOfRate(TypedDict):
    """Of a rater: value, low and high end of each rate."""

    sensitivity: list[float]
    inventions: list[float]


class LabelSummary(TypedDict):
    """Of a label; the second half is there where the model is not the mean.

    Attributes:
        model: which errors it knows.
        reason: why this one.
        candidates: their number; of these ``marked_by_nobody`` and ``marked_by_one``.
        held_though_marked_by_nobody: of these, how many the label holds; likewise of one.
        caution: if the intervals are drawn from too few patients.
        rates: rater -> intervals.
        raters: rater -> found, missed, invented -> number, low and high end.
    """

    model: str
    reason: str
    candidates: int
    marked_by_nobody: int
    marked_by_one: int
    held_though_marked_by_nobody: NotRequired[int]
    held_though_marked_by_one: NotRequired[int]
    caution: NotRequired[str]
    rates: NotRequired[dict[str, IntervalOfRate]]
    raters: NotRequired[dict[str, dict[str, list[float]]]]


class RefinementSummary(TypedDict):
    """All of ``refinement.json``; ``cases_to_look_at`` is case -> doubtful candidates."""

    labels: dict[str, LabelSummary]
    cases_to_look_at: dict[str, int]


def summarise(
    candidates: Sequence[JudgedCandidate],
    models: Mapping[str, DetectionModel],
    groups: Mapping[str, str],
    *,
    is_anonymous: bool = False,
) -> RefinementSummary:
    """What to print: each rater's lesions found, missed, invented, with 95 % intervals over groups.

    Args:
        candidates: of the training cases.
        models: label -> model.
        groups: case -> patient.
        is_anonymous: all raters together.
    """
    doubtful = Counter[str]()
    for c in candidates:
        doubtful[c.case] += c.doubt > 0.4
    return {
        "labels": {
            label: _of_label([c for c in candidates if c.label == label], model, groups, is_anonymous)
            for label, model in models.items()
        },
        "cases_to_look_at": {case: n for case, n in doubtful.most_common(LISTED_CASES) if n},
    }


def _of_label(
    candidates: Sequence[JudgedCandidate],
    model: DetectionModel,
    groups: Mapping[str, str],
    is_anonymous: bool,
) -> LabelSummary:
    summary: LabelSummary = {
        "model": model.name,
        "reason": model.reason,
        "candidates": len(candidates),
        "marked_by_nobody": sum(not c.marked_by for c in candidates),
        "marked_by_one": sum(len(c.marked_by) == 1 for c in candidates),
    }
    judged = [c for c in candidates if c.posterior is not None]
    if model.is_mean or not judged:
        return summary
    summary["held_though_marked_by_nobody"] = sum(
        c.posterior is not None and c.posterior > 0.5 and not c.marked_by for c in judged
    )
    summary["held_though_marked_by_one"] = sum(
        c.posterior is not None and c.posterior > 0.5 and len(c.marked_by) == 1 and len(c.candidate.votes) > 1
        for c in judged
    )
    patients = len({groups[c.case] for c in judged})
    if patients < FEWEST_GROUPS:
        summary["caution"] = (
            f"Do not rely on these intervals: they are drawn from {patients} patients, and {FEWEST_GROUPS} "
            f"are the least."
        )
    drawn = _drawn_rates(judged, model, groups)
    summary["rates"] = {
        rater: {
            "sensitivity": [round(s, 4), *_interval(drawn[rater][:, 0])],
            "inventions": [round(f, 4), *_interval(drawn[rater][:, 1])],
        }
        for rater, (s, f) in model.rates().items()
    }
    summary["raters"] = _counts(judged, groups, is_anonymous)
    return summary


def _drawn_rates(
    judged: Sequence[JudgedCandidate], model: DetectionModel, groups: Mapping[str, str]
) -> dict[str, NDArray[Any]]:
    by_case: dict[str, list[JudgedCandidate]] = {}
    for c in sorted(judged, key=lambda c: (c.case, c.number)):
        by_case.setdefault(c.case, []).append(c)
    return bootstrapped_rates(
        model,
        [[c.candidate for c in case] for case in by_case.values()],
        [groups[name] for name in by_case],
        known=[[c.adjudicated for c in case] for case in by_case.values()],
        n=DRAWS,
    )


def _counts(
    judged: Sequence[JudgedCandidate], groups: Mapping[str, str], is_anonymous: bool
) -> dict[str, dict[str, list[float]]]:
    """Rater -> expected number of lesions found and missed, and of inventions, with intervals."""
    index = {group: i for i, group in enumerate(sorted({groups[c.case] for c in judged}))}
    raters = sorted({rater for c in judged for rater in c.candidate.votes})
    names = ["*"] if is_anonymous else raters
    sums = np.zeros((len(names), 3, len(index)))
    for c in judged:
        p = c.posterior if c.posterior is not None else 0.0
        for rater, vote in c.candidate.votes.items():
            at = 0 if is_anonymous else raters.index(rater)
            sums[at, :, index[groups[c.case]]] += (p * vote, p * (1 - vote), (1 - p) * vote)
    rng = np.random.default_rng(0)
    weights = rng.multinomial(len(index), np.full(len(index), 1 / len(index)), size=1000)
    return {
        name: {
            what: [round(float(sums[r, k].sum()), 1), *_interval(sums[r, k] @ weights.T, digits=1)]
            for k, what in enumerate(("found", "missed", "invented"))
        }
        for r, name in enumerate(names)
    }


def _interval(values: NDArray[Any], *, digits: int = 4) -> list[float]:
    return [round(float(v), digits) for v in np.quantile(values, (0.025, 0.975))]


def format_summary(summary: RefinementSummary) -> str:
    """Lines for the terminal."""
    lines = []
    for label, found in summary["labels"].items():
        lines.append(f"{label}: {found['model']} ({found['reason']})")
        lines.append(
            f"  {found['candidates']} candidates, {found['marked_by_one']} marked by one rater, "
            f"{found['marked_by_nobody']} by nobody"
        )
        if "raters" not in found:
            continue
        lines.append(
            f"  the label now holds {found['held_though_marked_by_one']} that one rater marked and "
            f"{found['held_though_marked_by_nobody']} that nobody marked"
        )
        for rater, counts in found["raters"].items():
            parts = [f"{what} {n:.0f} ({low:.0f} to {high:.0f})" for what, (n, low, high) in counts.items()]
            rates = found["rates"].get(rater)
            share = (
                ""
                if rates is None
                else " = {:.2f} ({:.2f} to {:.2f}) of the lesions".format(*rates["sensitivity"])
            )
            lines.append(f"  rater {rater}: " + ", ".join(parts) + (f"; finds{share[2:]}" if share else ""))
        if "caution" in found:
            lines.append(f"  {found['caution']}")
    if summary["cases_to_look_at"]:
        cases = ", ".join(f"{case} ({n})" for case, n in summary["cases_to_look_at"].items())
        lines.append(f"cases to look at (doubtful candidates): {cases}")
    return "\n".join(lines)
