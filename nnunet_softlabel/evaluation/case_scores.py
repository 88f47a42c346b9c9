"""All scores of one case: the model against every reference, and the raters against the same.

Rows of a class (or region), by ``reference``, with ``prediction`` = ``model``, and ``rater`` for the ceiling:

==========  ====================================  ======================================================
reference   model row                             rater row (the ceiling)
==========  ====================================  ======================================================
soft        map against the soft label            mean over raters i: i against the mean of the others
consensus   map against the hard consensus        mean over raters i: i against the others' consensus
rater:NAME  map against what NAME drew            mean over the others i: i against NAME
raters      mean of the rater:NAME rows, and      mean of the rater:NAME rows, and `RATERS_METRICS`
            `RATERS_METRICS`                      of i and the others
truth       map against a known truth             mean over raters i: i against the truth
==========  ====================================  ======================================================

The ceiling for soft and consensus leaves the judged rater out of the fusion, always by mean, whatever the
data set's own fusion: a rater who helps to make the reference would agree with it too well. Others who did
not mark the case, or who did not answer a voxel, do not count there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from numpy.typing import NDArray

from nnunet_softlabel.evaluation.class_views import (
    ClassReferences,
    masks_of_class,
    patterns_of_voxels,
    voxels_of_class,
)
from nnunet_softlabel.evaluation.comparisons import (
    CONSENSUS,
    SOFT,
    TRUTH,
    RaterScores,
    Scores,
    Values,
    model_comparisons,
    model_rows,
    rater_comparisons,
    rater_rows,
)
from nnunet_softlabel.evaluation.known_truth import TrueCase, TrueChannel
from nnunet_softlabel.evaluation.views import all_of
from nnunet_softlabel.evaluation.vote_patterns import VotePatterns
from nnunet_softlabel.formats.encoding import is_member
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.formats.soft_labels import MoveRecord
from nnunet_softlabel.metrics.froc import ScoredLesions, scored_lesions
from nnunet_softlabel.metrics.lesions import case_score
from nnunet_softlabel.metrics.overlap import NAN
from nnunet_softlabel.metrics.raters_together import measure_raters
from nnunet_softlabel.metrics.registry import Comparison, Parameters

Row = dict[str, str | float]
MODEL, RATER = "model", "rater"
KEYS = ("case", "group", "class", "reference", "prediction")
EXTRA = ("case_score", "case_positive")


@dataclass(frozen=True)
class CaseData:
    """One case. Channels of soft label and probabilities are taken one after the other, and not kept.

    Attributes:
        case: its name.
        group: the patient, or "".
        labels: what the channels mean.
        soft: ``(*spatial)`` per channel.
        hard: consensus label map ``(*spatial)``.
        votes: label maps of the raters.
        spacing_mm: in the order of the axes.
        probabilities: foreground ``(*spatial)`` of the model, per channel.
        decision: gives the label map ``(*spatial)`` of the model, when all channels have been taken.
        truth: of the case, if it is known.
    """

    case: str
    group: str
    labels: Labels
    soft: Iterable[NDArray[Any]]
    hard: NDArray[Any]
    votes: VotePatterns
    spacing_mm: tuple[float, ...]
    probabilities: Iterable[NDArray[Any]]
    decision: Callable[[], NDArray[Any]]
    truth: TrueCase | None = None

    @cached_property
    def mask(self) -> NDArray[Any] | None:
        """Voxels that count, None for all."""
        return None if self.labels.ignore is None else self.hard != self.labels.ignore

    @property
    def values(self) -> list[tuple[int, ...]]:
        """Values in label maps, per channel."""
        return list(self.labels.values.values())

    def is_hard(self, index: int) -> NDArray[Any]:
        """Where the consensus is of a channel."""
        return is_member(self.hard, self.values[index])

    def true_channel(self, index: int) -> TrueChannel | None:
        """The truth of a channel, if it is known."""
        return None if self.truth is None else self.truth.channel(index, self.labels)


@dataclass
class CaseScores:
    """Rows of one case, and its share of what is known of all cases together only.

    Attributes:
        case: its name.
        rows: of ``soft_metrics.csv``.
        reliability: class -> place -> table of `reliability`.
        lesions: class -> reference -> the model's lesions, scored.
        truth_moved: file of the truth -> what was done to bring it onto the grid of the image.
    """

    case: str
    rows: list[Row]
    reliability: dict[str, dict[str, NDArray[Any]]]
    lesions: dict[str, dict[str, ScoredLesions]]
    truth_moved: Mapping[str, MoveRecord] = field(default_factory=dict)


@dataclass
class _ClassScores:
    """Of one class or region, before the rows are averaged."""

    model: Scores
    together: Values
    raters: RaterScores
    raters_together: list[Values]
    reliability: dict[str, NDArray[Any]]
    lesions: dict[str, ScoredLesions]


def score_case(data: CaseData, parameters: Parameters, *, with_ceiling: bool = True) -> CaseScores:
    """All rows of one case.

    Metrics of probabilities first, class by class, after which the channels of the class are forgotten.
    Metrics of masks afterwards, since all channels together decide.
    """
    with_ceiling = with_ceiling and bool(data.votes.raters)
    soft, probabilities = iter(data.soft), iter(data.probabilities)
    found = {
        name: _of_probabilities(
            data, index, soft, probabilities, parameters=parameters, with_ceiling=with_ceiling
        )
        for index, name in enumerate(data.labels.names)
    }
    if (
        next(soft, None) is not None or next(probabilities, None) is not None
    ):  # to their ends: there they check
        raise ValueError(f"Case {data.case}: has more channels than labels")
    decision = data.decision()
    rows: list[Row] = []
    for index, (name, scores) in enumerate(found.items()):
        _add_those_of_masks(scores, data, index, decision, parameters=parameters, with_ceiling=with_ceiling)
        by_prediction = {MODEL: model_rows(scores.model, scores.together)}
        if with_ceiling:
            by_prediction[RATER] = rater_rows(scores.raters, scores.raters_together, data.votes.raters)
        for prediction, references in by_prediction.items():
            for reference, values in references.items():
                keys = dict(zip(KEYS, (data.case, data.group, name, reference, prediction), strict=True))
                rows.append({**keys, **values})
    moved = {} if data.truth is None else data.truth.moved
    return CaseScores(
        data.case,
        rows,
        {name: scores.reliability for name, scores in found.items()},
        {name: scores.lesions for name, scores in found.items()},
        moved,
    )


def _of_probabilities(
    data: CaseData,
    index: int,
    soft: Iterator[NDArray[Any]],
    probabilities: Iterator[NDArray[Any]],
    *,
    parameters: Parameters,
    with_ceiling: bool,
) -> _ClassScores:
    """Everything of a class that does not depend on other classes; takes the next channel of both."""
    votes, hard, truth = data.votes, data.is_hard(index), data.true_channel(index)
    references = {CONSENSUS: (hard, data.mask)}
    if truth is not None:
        references[TRUTH] = (truth.mask, all_of(data.mask, truth.answered))
    held = [next(probabilities)]
    lesions = _scored_lesions(references, held[0], parameters)
    of = ClassReferences(index, hard, truth, votes, data.mask, data.spacing_mm)
    view = voxels_of_class(of, next(soft), held.pop(), parameters)  # the only one that holds these arrays
    model, reliability = {}, {}
    for reference, comparison in model_comparisons(view, index, votes):
        model[reference] = view.measure(comparison) | _of_case(comparison)
        if reference == SOFT:
            reliability = {"image": comparison.reliability, "near": comparison.reliability_near}
    members = {name: m[index] for name, m in votes.members.items()}
    together: Values = {}
    assert view.prediction is not None, "the view of a model"
    if members:
        masks = [view.of_patterns(m) for m in members.values()]
        together = measure_raters(masks, view.prediction, view.setting(votes.everybody_answered()))
    found = _ClassScores(
        model=model,
        together=together,
        raters={},
        raters_together=[],
        reliability=reliability,
        lesions=lesions,
    )
    if with_ceiling:
        patterns = patterns_of_voxels(view)
        found.raters = rater_comparisons(patterns, index, votes, data.labels)
        drawn = {name: patterns.of_patterns(m) for name, m in members.items()}
        if len(drawn) > 1:
            setting = patterns.setting(votes.everybody_answered())
            found.raters_together = [
                measure_raters([drawn[other] for other in votes.others(name)], own, setting)
                for name, own in drawn.items()
            ]
    return found


def _of_case(comparison: Comparison) -> Values:
    """How sure the model is of a lesion anywhere, and whether there is one."""
    highest = comparison.far.highest
    score = case_score(comparison.prediction, mask=comparison.mask)
    reference = comparison.reference if comparison.mask is None else comparison.reference[comparison.mask]
    return {
        "case_score": max(score, highest) if score == score else (highest if comparison.far.count else NAN),
        "case_positive": float((reference > 0.5).any()),
    }


def _add_those_of_masks(
    scores: _ClassScores,
    data: CaseData,
    index: int,
    decision: NDArray[Any],
    *,
    parameters: Parameters,
    with_ceiling: bool,
) -> None:
    of = ClassReferences(
        index, data.is_hard(index), data.true_channel(index), data.votes, data.mask, data.spacing_mm
    )
    view = masks_of_class(of, is_member(decision, data.values[index]), parameters)
    for reference, comparison in model_comparisons(view, index, data.votes):
        scores.model[reference] |= view.measure(comparison)
    if with_ceiling:
        for pair, values in rater_comparisons(view, index, data.votes, data.labels).items():
            scores.raters[pair] |= values


def _scored_lesions(
    references: Mapping[str, tuple[NDArray[Any], NDArray[Any] | None]],
    probability: NDArray[Any],
    parameters: Parameters,
) -> dict[str, ScoredLesions]:
    """Reference -> the model's lesions, where voxels count."""
    return {
        name: scored_lesions(
            reference if mask is None else reference & mask,
            probability if mask is None else probability * mask,
            minimum_iou=parameters.minimum_iou,
        )
        for name, (reference, mask) in references.items()
    }
