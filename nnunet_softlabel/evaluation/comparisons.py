"""Who is compared with whom in a case, and which rows that makes; `case_scores` lists them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from nnunet_softlabel.evaluation.views import View
from nnunet_softlabel.evaluation.vote_patterns import VotePatterns
from nnunet_softlabel.formats.encoding import channels_of, consensus
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.metrics.overlap import mean_of_defined
from nnunet_softlabel.metrics.registry import METRICS, Comparison

SOFT, CONSENSUS, RATERS, TRUTH = "soft", "consensus", "raters", "truth"
ASYMMETRIC = frozenset(name for name, metric in METRICS.items() if not metric.is_symmetric)

Values = dict[str, float]
Scores = dict[str, Values]  # reference -> metric -> value
RaterScores = dict[tuple[str, str], Values]  # (reference, rater) -> metric -> value


def of_rater(name: str) -> str:
    """The reference that a rater drew."""
    return f"rater:{name}"


def model_comparisons(view: View, index: int, votes: VotePatterns) -> Iterator[tuple[str, Comparison]]:
    """The model and each reference."""
    assert view.prediction is not None, "the model is compared"
    if view.soft is not None:
        yield SOFT, view.compare(view.soft, view.prediction)
    yield CONSENSUS, view.compare(view.hard, view.prediction)
    if view.truth is not None:
        yield TRUTH, view.compare_truth(view.truth, view.prediction)
    for name, members in votes.members.items():
        answered = votes.answered[name]
        mask = None if answered is None else view.of_patterns(answered)
        yield of_rater(name), view.compare(view.of_patterns(members[index]), view.prediction, mask)


def rater_comparisons(view: View, index: int, votes: VotePatterns, labels: Labels) -> RaterScores:
    """Each rater and each reference, measured."""
    found: RaterScores = {}
    for name, members in votes.members.items():
        own = view.of_patterns(members[index])
        answered = votes.answered[name]
        mask = None if answered is None else view.of_patterns(answered)
        if view.truth is not None:
            found[TRUTH, name] = view.measure(view.compare_truth(view.truth, own, mask))
        if len(votes.raters) < 2:
            continue
        mean, anybody = votes.mean_of(votes.others(name))
        masks = (mask, None if anybody is None else view.of_patterns(anybody))
        agreed = channels_of(consensus(mean, labels), labels)[index]
        if not view.is_of_masks:
            found[SOFT, name] = view.measure(view.compare(view.of_patterns(mean[index]), own, *masks))
        found[CONSENSUS, name] = view.measure(view.compare(view.of_patterns(agreed), own, *masks))
    return found | dict(_pairs(view, index, votes))


def _pairs(view: View, index: int, votes: VotePatterns) -> Iterator[tuple[tuple[str, str], Values]]:
    """Scores of every rater against every other; what is symmetric is computed once per pair."""
    for i, first in enumerate(votes.raters):
        for second in votes.raters[i + 1 :]:
            a, b = (view.of_patterns(votes.members[name][index]) for name in (first, second))
            answered = [votes.answered[name] for name in (first, second)]
            masks = [None if mask is None else view.of_patterns(mask) for mask in answered]
            there = view.measure(view.compare(b, a, *masks))
            yield (of_rater(second), first), there
            back = view.measure(view.compare(a, b, *masks), names=ASYMMETRIC)
            yield (of_rater(first), second), there | back


def model_rows(scores: Scores, together: Values) -> Scores:
    """The rows of the model; ``together`` are its metrics against all raters at once."""
    of_raters = [values for reference, values in scores.items() if reference.startswith("rater:")]
    return scores | ({RATERS: average(of_raters) | together} if of_raters else {})


def rater_rows(scores: RaterScores, together: Iterable[Values], raters: Sequence[str]) -> Scores:
    """The rows of the raters: means over those who are held against the same reference."""
    order = [TRUTH, SOFT, CONSENSUS, *map(of_rater, raters)]
    references = sorted({reference for reference, _ in scores}, key=order.index)
    rows = {r: average(values for (other, _), values in scores.items() if other == r) for r in references}
    pairs = [values for (reference, _), values in scores.items() if reference.startswith("rater:")]
    return rows | ({RATERS: average(pairs) | average(together)} if pairs else {})


def average(scores: Iterable[Mapping[str, float]]) -> Values:
    """Mean per metric, NaN left out; NaN only where all are."""
    rows = list(scores)
    return {name: mean_of_defined(row[name] for row in rows) for name in (rows[0] if rows else ())}
