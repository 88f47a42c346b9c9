"""Is one trainer better than another? Paired by case, resampled by patient, corrected over the metrics.

The unit is the case; where cases belong to groups (patients), whole groups are resampled for the interval,
and the rank test takes the mean of each group, so that a patient with many lesions is still one patient.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nnunet_softlabel.evaluation.case_scores import MODEL, Row
from nnunet_softlabel.evaluation.comparisons import CONSENSUS, RATERS, SOFT, TRUTH
from nnunet_softlabel.metrics.overlap import NAN, mean_of_defined
from nnunet_softlabel.metrics.raters_together import RATERS_METRICS
from nnunet_softlabel.metrics.registry import BETTER, METRICS
from nnunet_softlabel.public import public
from nnunet_softlabel.report.significance import (
    CONFIDENCE,
    RESAMPLES,
    Interval,
    group_means,
    holm,
    interval_of_mean,
    patient_of,
    rank_test,
)

# Few and different: every test more makes the correction for all of them harsher.
PRIMARY = (
    "dice", "precision", "recall", "hd95_mm", "nsd", "lesion_f1",
    "soft_dice", "qubiq_dice", "brier_near", "nll_near", "ece_near", "volume_error_abs", "ged",
)  # fmt: skip


# These carry the correction: an overlap, a calibration; and lesions, where cases have several.
PRIMARY_TESTS = ("dice", "brier_near")
LESION_TEST = "lesion_f1"


@dataclass(frozen=True)
class PairedDifference:
    """Second trainer minus first, for one metric, class and reference.

    Attributes:
        difference: mean of the paired differences, with its interval.
        p_value: Wilcoxon signed rank, two-sided; NaN with a reason.
        p_holm: p after Holm's correction over the family of tests.
        family: number of tests in that family.
        is_primary: belongs to that family; else the interval describes, and nothing is tested.
        effect_size: matched-pairs rank-biserial correlation in [-1, 1]; 1 if the second is higher in every
            pair.
        wins: pairs in which the second is better, equal, worse.
        margin: of non-inferiority; None if not asked for.
        non_inferior: whether the second is worse by less than the margin, at the level of the interval.
        dropped: why -> number of cases left out.
        reason: why something could not be computed; empty if all could.
    """

    first: str
    second: str
    metric: str
    class_name: str
    reference: str
    first_mean: float
    second_mean: float
    difference: Interval
    p_value: float
    effect_size: float
    wins: tuple[int, int, int]
    dropped: Mapping[str, int]
    p_holm: float = NAN
    family: int = 0
    is_primary: bool = True
    margin: float | None = None
    non_inferior: bool | None = None
    reason: str = ""

    @property
    def better(self) -> str | None:
        """Name of the better trainer by the mean; None for a tie, or a metric without a direction."""
        sign = {"higher": 1, "lower": -1}.get(BETTER[self.metric], 0) * self.difference.mean
        return None if not sign else (self.second if sign > 0 else self.first)

    def is_significant(self, alpha: float = 0.05) -> bool:
        """True if the difference stands after Holm's correction and its interval excludes 0.

        Ranks and mean can point to opposite sides; such a difference is nobody's win.
        """
        return self.p_holm < alpha and (self.difference.low > 0 or self.difference.high < 0)


@public
@dataclass(frozen=True)
class Bootstrap:
    """How the intervals of `compare` are made.

    >>> Bootstrap(resamples=500).confidence
    0.95

    Attributes:
        confidence: of the intervals.
        resamples: of the patients.
    """

    confidence: float = CONFIDENCE
    resamples: int = RESAMPLES


def home_reference(metric: str) -> str:
    """The reference a metric is reported against: consensus (masks), soft (maps), raters (all together)."""
    if metric in RATERS_METRICS:
        return RATERS
    return CONSENSUS if METRICS[metric].of_masks else SOFT


def case_values(
    rows: Iterable[Row], *, metric: str, class_name: str, reference: str, prediction: str = MODEL
) -> dict[str, tuple[float, str]]:
    """Case -> (value, group). A case scored more than once (seeds) counts with its mean."""
    found: dict[str, list[float]] = defaultdict(list)
    groups: dict[str, str] = {}
    for row in rows:
        if (row["class"], row["reference"], row["prediction"]) == (class_name, reference, prediction):
            case = str(row["case"])
            found[case].append(float(row.get(metric, NAN)))
            groups[case] = str(row.get("group", "")) or case
    return {case: (mean_of_defined(values), groups[case]) for case, values in found.items()}


def compare_pairs(
    rows: Mapping[str, Sequence[Row]],
    pairs: Iterable[tuple[str, str]],
    *,
    reference: str | None = None,
    margins: Mapping[str, float] | None,
    primary: Sequence[str] | None,
) -> list[PairedDifference]:
    """All differences of several pairs of runs.

    Args:
        rows: name of a run -> its rows of ``soft_metrics.csv``.
        pairs: baseline and other, by name.
        reference: as in `compare`.
        margins: as in `compare`.
        primary: metrics that are tested and corrected for; None: `primary_tests` of the baseline.
    """
    return [
        test
        for first, second in pairs
        for test in compare(
            rows[first],
            rows[second],
            names=(first, second),
            reference=reference,
            margins=margins,
            metrics=list(dict.fromkeys((*PRIMARY, *(primary or ())))),
            primary=primary or primary_tests(rows[first]),
        )
    ]


@public
def compare(
    first: Sequence[Row],
    second: Sequence[Row],
    *,
    names: tuple[str, str],
    metrics: Sequence[str] = PRIMARY,
    reference: str | None = None,
    primary: Sequence[str] | None = None,
    margins: Mapping[str, float] | None = None,
    bootstrap: Bootstrap | None = None,
) -> list[PairedDifference]:
    """All differences between two trainers; the primary ones are the family of Holm's correction.

    >>> row = {"class": "lesion", "reference": "consensus", "prediction": "model", "dice": 0.8}
    >>> rows = [{"case": f"case{i}", **row} for i in range(9)]
    >>> better = [{**row, "dice": 0.85 + 0.001 * i} for i, row in enumerate(rows)]
    >>> test = ns.compare(rows, better, names=("stock", "soft"), metrics=["dice"])[0]
    >>> round(test.difference.mean, 3), test.wins
    (0.054, (9, 0, 0))

    Args:
        first: rows of the baseline, as in ``soft_metrics.csv``.
        second: rows of the other trainer.
        names: of both.
        metrics: to test.
        reference: one for all metrics; None takes each metric's `home_reference`.
        primary: metrics that are tested and corrected for; the others only have intervals. None: all.
        margins: metric -> margin of non-inferiority, positive, in the metric's unit.
        bootstrap: how the intervals are made.

    Raises:
        ValueError: for an unknown metric, or a margin that is not positive or has no direction to go with.
    """
    for metric, margin in (margins or {}).items():
        if metric not in BETTER or BETTER[metric] == "zero" or not 0 < margin < math.inf:
            raise ValueError(
                f"margin of {metric!r}: {margin} must be positive and finite, for a metric with a direction"
            )
    unknown = {*metrics, *(primary or ())}.difference(BETTER)
    if unknown:
        raise ValueError(f"unknown metrics {sorted(unknown)}; there are {sorted(BETTER)}")
    classes = list(dict.fromkeys(str(row["class"]) for row in first))
    tests = []
    for class_name in classes:
        for metric in metrics:
            place = {
                "metric": metric,
                "class_name": class_name,
                "reference": reference or home_reference(metric),
            }
            test = _paired_difference(
                case_values(first, **place),
                case_values(second, **place),
                names=names,
                place=place,
                bootstrap=bootstrap or Bootstrap(),
            )
            if test is not None:
                tests.append(_with_margin(test, (margins or {}).get(metric)))
    chosen = [primary is None or test.metric in primary for test in tests]
    adjusted = holm([test.p_value if own else NAN for test, own in zip(tests, chosen, strict=True)])
    family = sum(p == p for p in adjusted)
    return [
        replace(test, p_holm=p, family=family, is_primary=own)
        for test, p, own in zip(tests, adjusted, chosen, strict=True)
    ]


def primary_tests(rows: Iterable[Row]) -> tuple[str, ...]:
    """`PRIMARY_TESTS`, and lesion F1 where the network finds a part of the lesions of some case."""
    own = (row for row in rows if row["prediction"] == MODEL and row["reference"] in (CONSENSUS, TRUTH))
    has_several = any(0 < float(row.get("lesion_recall", NAN)) < 1 for row in own)
    return (*PRIMARY_TESTS, LESION_TEST) if has_several else PRIMARY_TESTS


def _paired_difference(
    first: Mapping[str, tuple[float, str]],
    second: Mapping[str, tuple[float, str]],
    *,
    names: tuple[str, str],
    place: Mapping[str, str],
    bootstrap: Bootstrap,
) -> PairedDifference | None:
    """One test; None if neither trainer has such a row."""
    if not first and not second:
        return None
    pairs: list[tuple[float, float, str]] = []
    dropped: Counter[str] = Counter()
    for case in sorted({*first, *second}):
        a, group_a = first.get(case, (None, ""))
        b, group_b = second.get(case, (None, ""))
        why = _why_dropped(a, b, names)
        if why or a is None or b is None:
            dropped[why] += 1
        else:
            pairs.append((a, b, patient_of(case, names, (group_a, group_b))))
    a_values, b_values = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])
    groups = [p[2] for p in pairs]
    differences = b_values - a_values
    p_value, effect_size, reason = rank_test(group_means(differences, groups))
    sign = -1 if BETTER[place["metric"]] == "lower" else 1
    better, worse = int((sign * differences > 0).sum()), int((sign * differences < 0).sum())
    return PairedDifference(
        first=names[0],
        second=names[1],
        metric=place["metric"],
        class_name=place["class_name"],
        reference=place["reference"],
        first_mean=mean_of_defined(a_values),
        second_mean=mean_of_defined(b_values),
        difference=interval_of_mean(
            differences, groups, confidence=bootstrap.confidence, resamples=bootstrap.resamples
        ),
        p_value=p_value,
        effect_size=effect_size,
        wins=(better, len(pairs) - better - worse, worse),
        dropped=dict(dropped),
        reason=reason,
    )


def _why_dropped(first: float | None, second: float | None, names: tuple[str, str]) -> str:
    if first is None or second is None:
        return f"not scored by {names[0] if first is None else names[1]}"
    undefined = [name for name, value in zip(names, (first, second), strict=True) if math.isnan(value)]
    return f"undefined (NaN) for {' and '.join(undefined)}" if undefined else ""


def _with_margin(test: PairedDifference, margin: float | None) -> PairedDifference:
    if margin is None:
        return test
    bound = test.difference.low if BETTER[test.metric] == "higher" else -test.difference.high
    return replace(test, margin=margin, non_inferior=None if math.isnan(bound) else bound > -margin)
