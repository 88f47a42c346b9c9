"""Scores of a case the plain way: every metric on whole arrays, every comparison anew.

`nnunet_softlabel.evaluation.case_scores` lists voxels, sums up the far ones, and counts patterns of votes.
Both must agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.evaluation.case_scores import KEYS, MODEL, RATER, CaseScores, Row
from nnunet_softlabel.evaluation.comparisons import ASYMMETRIC, CONSENSUS, RATERS, SOFT, TRUTH
from nnunet_softlabel.evaluation.known_truth import TrueCase, TrueChannel
from nnunet_softlabel.formats.encoding import channels_of, consensus
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.metrics.calibration import reliability
from nnunet_softlabel.metrics.froc import ScoredLesions, scored_lesions
from nnunet_softlabel.metrics.lesions import case_score
from nnunet_softlabel.metrics.near import near_object
from nnunet_softlabel.metrics.overlap import mean_of_defined
from nnunet_softlabel.metrics.raters_together import Setting, measure_raters
from nnunet_softlabel.metrics.registry import Comparison, Parameters, measure


@dataclass(frozen=True)
class WholeCase:
    """One case with all its arrays; see `CaseData`."""

    case: str
    group: str
    labels: Labels
    soft: NDArray[Any]
    hard: NDArray[Any]
    raters: Mapping[str, NDArray[Any]]
    spacing_mm: tuple[float, ...]
    probabilities: NDArray[Any]
    decision: NDArray[Any]
    truth: TrueCase | None = None


@dataclass(frozen=True)
class RaterMembers:
    """Raters of a case: membership ``(C, *spatial)`` of each, and the voxels each answered (None: all)."""

    members: dict[str, NDArray[Any]]
    answered: dict[str, NDArray[Any] | None]

    @classmethod
    def of(cls, maps: Mapping[str, NDArray[Any]], labels: Labels) -> RaterMembers:
        """From label maps in the data set's values."""
        answered = {name: None if labels.ignore is None else m != labels.ignore for name, m in maps.items()}
        return cls({name: channels_of(m, labels) for name, m in maps.items()}, answered)

    def others(self, name: str) -> list[str]:
        """All raters but this one."""
        return [other for other in self.members if other != name]

    def mean_of(self, names: Sequence[str]) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Mean of these raters over those who answered, and where anyone did (None: everywhere)."""
        answered = [a for name in names if (a := self.answered[name]) is not None]
        if not answered:
            return np.asarray(np.mean([self.members[n] for n in names], axis=0, dtype=np.float32)), None
        count = np.sum(answered, axis=0)
        votes = np.sum([self.members[n] & a for n, a in zip(names, answered, strict=True)], axis=0)
        return (votes / np.maximum(count, 1)).astype(np.float32), count > 0


def score_whole_case(data: WholeCase, parameters: Parameters, *, with_ceiling: bool = True) -> CaseScores:
    """All rows of one case."""
    rows: list[Row] = []
    tables: dict[str, dict[str, NDArray[Any]]] = {}
    lesions: dict[str, dict[str, ScoredLesions]] = {}
    everyone = RaterMembers.of(data.raters, data.labels)
    mask = None if data.labels.ignore is None else data.hard != data.labels.ignore
    hard = channels_of(data.hard, data.labels)
    decision = channels_of(data.decision, data.labels)
    truths = (
        None
        if data.truth is None
        else [data.truth.channel(index, data.labels) for index in range(len(data.labels.names))]
    )
    for index, name in enumerate(data.labels.names):
        marked = (data.soft[index] > 0) | hard[index]
        for members in everyone.members.values():
            marked |= members[index]
        near = near_object(marked, spacing_mm=data.spacing_mm, near_mm=parameters.near_mm)
        channel = _Channel(
            index=index,
            soft=data.soft[index],
            hard=hard[index],
            truth=None if truths is None else truths[index],
            probability=data.probabilities[index],
            decision=decision[index],
            near=near,
            mask=mask,
            spacing_mm=data.spacing_mm,
            parameters=parameters,
        )
        found = {MODEL: model_scores(channel, everyone)}
        if with_ceiling and everyone.members:
            found[RATER] = ceiling_scores(channel, everyone, data.labels)
        for prediction, scores in found.items():
            for reference, values in scores.items():
                keys = dict(zip(KEYS, (data.case, data.group, name, reference, prediction), strict=True))
                rows.append({**keys, **values})
        lesions[name] = _scored_lesions(channel)
        bins, near_mask = parameters.bins, near if mask is None else near & mask
        tables[name] = {
            "image": reliability(channel.soft, channel.probability, bins=bins, mask=mask),
            "near": reliability(channel.soft, channel.probability, bins=bins, mask=near_mask),
        }
    return CaseScores(data.case, rows, tables, lesions)


def _scored_lesions(channel: _Channel) -> dict[str, ScoredLesions]:
    """Reference -> the model's lesions, where voxels count."""
    references = {CONSENSUS: (channel.hard, channel.mask)}
    if channel.truth is not None:
        masks = [mask for mask in (channel.mask, channel.truth.answered) if mask is not None]
        references[TRUTH] = (channel.truth.mask, np.logical_and.reduce(masks) if masks else None)
    return {
        name: scored_lesions(
            reference if mask is None else reference & mask,
            channel.probability if mask is None else channel.probability * mask,
            minimum_iou=channel.parameters.minimum_iou,
        )
        for name, (reference, mask) in references.items()
    }


@dataclass(frozen=True)
class _Channel:
    """One class or region of a case."""

    index: int
    soft: NDArray[Any]
    hard: NDArray[Any]
    truth: TrueChannel | None
    probability: NDArray[Any]
    decision: NDArray[Any]
    near: NDArray[Any]
    mask: NDArray[Any] | None
    spacing_mm: tuple[float, ...]
    parameters: Parameters

    def setting(self, raters: RaterMembers) -> Setting:
        """Of the metrics of all raters together: where every one of them answered."""
        volume = float(np.prod(self.spacing_mm))
        masks = [m for m in (self.mask, *raters.answered.values()) if m is not None]
        mask = np.logical_and.reduce(masks) if masks else None
        return Setting(voxel_volume_mm3=volume, levels=self.parameters.ged_levels, mask=mask)

    def compare(
        self,
        reference: NDArray[Any],
        prediction: NDArray[Any],
        hard_prediction: NDArray[Any],
        *masks: NDArray[Any] | None,
        hard_reference: NDArray[Any] | None = None,
    ) -> Comparison:
        counted = [m for m in (self.mask, *masks) if m is not None]
        is_mask = hard_reference is None and reference.dtype == bool
        return Comparison(
            reference=reference,
            prediction=prediction,
            hard_reference=reference if is_mask else hard_reference,
            hard_prediction=hard_prediction,
            spacing_mm=self.spacing_mm,
            parameters=self.parameters,
            near=self.near,
            mask=np.logical_and.reduce(counted) if counted else None,
        )

    def compare_truth(
        self,
        truth: TrueChannel,
        prediction: NDArray[Any],
        decision: NDArray[Any],
        *masks: NDArray[Any] | None,
    ) -> Comparison:
        """As `compare`; a truth of probabilities has a mask, too."""
        masks = (truth.answered, *masks)
        return self.compare(truth.reference, prediction, decision, *masks, hard_reference=truth.mask)


def model_scores(channel: _Channel, raters: RaterMembers) -> dict[str, dict[str, float]]:
    """Reference -> metric -> value of the model."""

    def scores_of(comparison: Comparison) -> dict[str, float]:
        reference, scores = comparison.reference, measure(comparison)
        scores["case_score"] = case_score(channel.probability, mask=comparison.mask)
        counted = reference if comparison.mask is None else reference[comparison.mask]
        scores["case_positive"] = float((counted > 0.5).any())
        return scores

    def against(reference: NDArray[Any], *masks: NDArray[Any] | None) -> dict[str, float]:
        return scores_of(channel.compare(reference, channel.probability, channel.decision, *masks))

    found = {SOFT: against(channel.soft), CONSENSUS: against(channel.hard)}
    if channel.truth is not None:
        found[TRUTH] = scores_of(channel.compare_truth(channel.truth, channel.probability, channel.decision))
    for name, members in raters.members.items():
        found[f"rater:{name}"] = against(members[channel.index], raters.answered[name])
    if raters.members:
        found[RATERS] = average(
            scores for reference, scores in found.items() if reference.startswith("rater:")
        )
        masks = [members[channel.index] for members in raters.members.values()]
        found[RATERS] |= measure_raters(masks, channel.probability, channel.setting(raters))
    return found


def ceiling_scores(channel: _Channel, raters: RaterMembers, labels: Labels) -> dict[str, dict[str, float]]:
    """Reference -> metric -> value of the raters themselves; see the table above."""
    found: dict[str, dict[str, float]] = {}
    if channel.truth is not None:
        found[TRUTH] = average(
            measure(
                channel.compare_truth(
                    channel.truth, m[channel.index], m[channel.index], raters.answered[name]
                )
            )
            for name, m in raters.members.items()
        )
    if len(raters.members) < 2:
        return found
    fused: dict[str, list[dict[str, float]]] = {SOFT: [], CONSENSUS: []}
    for name, members in raters.members.items():
        mean, answered = raters.mean_of(raters.others(name))
        masks = (raters.answered[name], answered)
        own = members[channel.index]
        agreed = channels_of(consensus(mean, labels), labels)[channel.index]
        fused[SOFT].append(measure(channel.compare(mean[channel.index], own, own, *masks)))
        fused[CONSENSUS].append(measure(channel.compare(agreed, own, own, *masks)))
    found |= {reference: average(scores) for reference, scores in fused.items()}
    pairs = _pair_scores(channel, raters)
    for name in raters.members:
        found[f"rater:{name}"] = average(pairs[other, name] for other in raters.others(name))
    found[RATERS] = average(pairs.values())
    found[RATERS] |= average(
        measure_raters(
            [raters.members[other][channel.index] for other in raters.others(name)],
            raters.members[name][channel.index],
            channel.setting(raters),
        )
        for name in raters.members
    )
    return found


def _pair_scores(channel: _Channel, raters: RaterMembers) -> dict[tuple[str, str], dict[str, float]]:
    """(prediction, reference) -> scores; what is symmetric is computed once per pair."""
    names = list(raters.members)
    pairs: dict[tuple[str, str], dict[str, float]] = {}
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            a, b = raters.members[first][channel.index], raters.members[second][channel.index]
            answered = raters.answered[first], raters.answered[second]
            there = channel.compare(b, a, a, *answered)
            back = channel.compare(a, b, b, *answered)
            pairs[first, second] = measure(there)
            pairs[second, first] = pairs[first, second] | measure(back, names=ASYMMETRIC)
    return pairs


def average(scores: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Mean per metric, NaN left out; NaN only where all are."""
    rows = list(scores)
    return {name: mean_of_defined(row[name] for row in rows) for name in (rows[0] if rows else ())}
