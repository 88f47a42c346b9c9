"""One class over all cases, and one case, as plain numbers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nnunet_softlabel.fusion import RaterRates
from nnunet_softlabel.inspection.measures import CaseMeasures, Pair, fleiss_kappa
from nnunet_softlabel.inspection.outliers import median_or_nan, total_volume_bias
from nnunet_softlabel.inspection.records import CaseSummary, ClassSummary, PairSummary, RaterSummary, Rates
from nnunet_softlabel.metrics.overlap import NAN, mean_of_defined

ANY_PAIR = "any pair"


def rates_of(rates: RaterRates | None, channel: int) -> dict[str, Rates]:
    if rates is None:
        return {}
    return {rater: _rate(rates, rater, channel) for rater in rates.sensitivity}


def _rate(rates: RaterRates, rater: str, channel: int) -> Rates:
    """Sensitivity, specificity, and the share of marked voxels that are right, by Bayes' rule."""
    sensitivity, specificity = rates.sensitivity[rater][channel], rates.specificity[rater][channel]
    prevalence = rates.prevalence[channel]
    right, wrong = sensitivity * prevalence, (1 - specificity) * (1 - prevalence)
    # EM stops at 1e-7; what lies beyond depends on which process was first.
    return {
        "sensitivity": round(sensitivity, 7),
        "specificity": round(specificity, 7),
        "precision": round(right / (right + wrong), 7),
    }


def class_summary(
    cases: Mapping[str, CaseMeasures],
    rates: Mapping[str, Rates] | None,
    all_rates: RaterRates | None,
    channel: int,
) -> ClassSummary:
    """Means over cases of one class; ``rates`` is None for anonymous raters."""
    pairs = _pairs(cases, is_anonymous=rates is None)
    shared = rates_of(all_rates, channel) if rates is None else {}
    return {
        "mean_dice": mean_of_defined([case.mean_dice for case in cases.values()]),
        "kappa": fleiss_kappa(np.sum([case.coincidences for case in cases.values()], axis=0)),
        "disputed_share": mean_of_defined([case.disputed_share for case in cases.values()]),
        "cases_marked": sum(case.marked_mm3 > 0 for case in cases.values()),
        "shared_rates": next(iter(shared.values()), None),
        "pairs": pairs,
        "raters": {} if rates is None else {r: _rater_summary(r, cases, rates) for r in sorted(rates)},
    }


def _pairs(cases: Mapping[str, CaseMeasures], *, is_anonymous: bool) -> list[PairSummary]:
    values: dict[Pair, list[float]] = {}
    for case in cases.values():
        for (first, second), value in case.dice.items():
            pair = (ANY_PAIR, ANY_PAIR) if is_anonymous else (first, second)
            values.setdefault(pair, []).append(value)
    return [
        {
            "raters": list(pair),
            "mean_dice": mean_of_defined(found),
            "lowest_dice": min((v for v in found if v == v), default=NAN),
            "n": sum(v == v for v in found),
            "both_empty": sum(v != v for v in found),
        }
        for pair, found in sorted(values.items())
    ]


def _rater_summary(rater: str, cases: Mapping[str, CaseMeasures], rates: Mapping[str, Rates]) -> RaterSummary:
    own = [case for case in cases.values() if rater in case.volume_mm3]
    return {
        "cases": len(own),
        "empty_where_others_marked": sum(case.found_nothing(rater) for case in own),
        "dice_with_others": mean_of_defined([case.with_others(rater) for case in own]),
        "volume_bias": total_volume_bias(rater, own),
        "median_volume_ratio": median_or_nan([case.volume_ratio(rater) for case in own]),
        **rates[rater],
    }


def case_summary(case: CaseMeasures) -> CaseSummary:
    lowest = case.lowest_pair
    return {
        "volume_mm3": dict(case.volume_mm3),
        "found_nothing": [rater for rater in case.volume_mm3 if case.found_nothing(rater)],
        "mean_dice": case.mean_dice,
        "lowest_dice": case.dice[lowest] if lowest else NAN,
        "lowest_pair": list(lowest) if lowest else None,
        "kappa": fleiss_kappa(case.coincidences),
        "marked_mm3": case.marked_mm3,
        "disputed_share": case.disputed_share,
    }
