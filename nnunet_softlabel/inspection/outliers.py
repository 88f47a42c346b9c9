"""Which cases and raters stand out, and why: rules that a few bad ones cannot hide behind.

Cases: Iglewicz and Hoaglin's modified z-score, `modified_z`, beyond `LIMIT`. Raters are too few for that:
they stand out by fixed, stated amounts. These are rules to look somewhere, not tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.inspection.measures import CaseMeasures

LIMIT = 3.5
FEWEST_VALUES = 5
RATER_GAP = 0.1  # of Dice
RATER_BIAS = 0.2  # of the others' volume

RULES = {
    "no overlap": "two raters of a case both drew something, and their Dice is 0",
    "low agreement": f"mean pairwise Dice of the case, modified z-score below -{LIMIT}",
    "one apart": (
        f"a rater's mean Dice with the others minus theirs among themselves, over all cases and raters, "
        f"modified z-score below -{LIMIT}"
    ),
    "volume": f"log of a rater's volume over the median of the others', modified z-score beyond {LIMIT}",
    "rater apart": f"median over cases of the same difference of Dice below -{RATER_GAP}",
    "rater's volume": (
        f"median over cases of the volume over the median of the others', more than {RATER_BIAS:.0%} off 1"
    ),
}


@dataclass(frozen=True)
class Finding:
    """A case, or a rater, that stands out on one class."""

    name: str
    class_name: str
    rule: str
    reason: str


def modified_z(values: Sequence[float] | NDArray[Any]) -> NDArray[Any]:
    """``0.6745 (x - median) / MAD``; NaN stay NaN, and so does all if fewer than 5 values are defined [1].

    If more than half of the values are equal (MAD 0), the mean absolute deviation takes its place:
    ``(x - median) / (1.2533 MeanAD)``; 0 if all are equal.

    References:
        [1] Iglewicz and Hoaglin, "How to Detect and Handle Outliers", ASQC Quality Press 1993.
    """
    array = np.asarray(values, dtype=np.float64)
    defined = array[~np.isnan(array)]
    if defined.size < FEWEST_VALUES:
        return np.full(array.shape, np.nan)
    distance = np.abs(defined - np.median(defined))
    scale = float(np.median(distance)) / 0.6745 or 1.2533 * float(distance.mean())
    return (array - np.median(defined)) / scale if scale > 0 else array * 0


def outlying_cases(class_name: str, cases: Mapping[str, CaseMeasures]) -> list[Finding]:
    """Cases that stand out on one class."""
    return [
        *_without_overlap(class_name, cases),
        *_low_agreement(class_name, cases),
        *_one_apart(class_name, cases),
        *_volumes(class_name, cases),
    ]


def _without_overlap(class_name: str, cases: Mapping[str, CaseMeasures]) -> list[Finding]:
    found = []
    for name, case in cases.items():
        for (first, second), value in case.dice.items():
            shared = case.volume_answered_mm3
            if value == 0 and shared[first, second] > 0 and shared[second, first] > 0:
                reason = f"raters {first} and {second} drew different things (Dice 0)"
                found.append(Finding(name, class_name, "no overlap", reason))
    return found


def _low_agreement(class_name: str, cases: Mapping[str, CaseMeasures]) -> list[Finding]:
    values = np.array([case.mean_dice for case in cases.values()])
    median = np.nanmedian(values) if not np.isnan(values).all() else np.nan
    return [
        Finding(name, class_name, "low agreement", f"mean Dice {value:.3f}, median of the cases {median:.3f}")
        for name, value, z in zip(cases, values, modified_z(values), strict=True)
        if z < -LIMIT
    ]


def _one_apart(class_name: str, cases: Mapping[str, CaseMeasures]) -> list[Finding]:
    keys = [(name, rater) for name, case in cases.items() for rater in case.volume_mm3]
    gaps = [cases[name].with_others(rater) - cases[name].among_others(rater) for name, rater in keys]
    found = []
    for (name, rater), z in zip(keys, modified_z(gaps), strict=True):
        if z < -LIMIT:
            case = cases[name]
            reason = (
                f"rater {rater} agrees with the others by {case.with_others(rater):.3f}, "
                f"they among themselves by {case.among_others(rater):.3f}"
            )
            found.append(Finding(name, class_name, "one apart", reason))
    return found


def _volumes(class_name: str, cases: Mapping[str, CaseMeasures]) -> list[Finding]:
    """Empty masks are left to the rules on Dice: the logarithm of nothing is no volume."""
    keys = [
        (name, rater) for name, case in cases.items() for rater, mm3 in case.volume_mm3.items() if mm3 > 0
    ]
    ratios = np.array([cases[name].volume_ratio(rater) or np.nan for name, rater in keys])
    return [
        Finding(name, class_name, "volume", f"rater {rater} drew {ratio:.2f} times the others' median volume")
        for (name, rater), ratio, z in zip(keys, ratios, modified_z(np.log(ratios)), strict=True)
        if abs(z) > LIMIT
    ]


def outlying_raters(class_name: str, cases: Mapping[str, CaseMeasures]) -> list[Finding]:
    """Raters who stand out on one class; only where names mean the same person in all cases."""
    found = []
    for rater in sorted({rater for case in cases.values() for rater in case.volume_mm3}):
        own = [case for case in cases.values() if rater in case.volume_mm3]
        gap = median_or_nan([case.with_others(rater) - case.among_others(rater) for case in own])
        if gap < -RATER_GAP:
            reason = f"agrees with the others by {-gap:.3f} less than they among themselves (median)"
            found.append(Finding(rater, class_name, "rater apart", reason))
        ratio = median_or_nan([case.volume_ratio(rater) for case in own])
        if abs(ratio - 1) > RATER_BIAS:
            reason = f"draws {ratio:.2f} times the volume of the others (median)"
            found.append(Finding(rater, class_name, "rater's volume", reason))
    return found


def median_or_nan(values: Sequence[float]) -> float:
    """Median of the values that are defined."""
    defined = [value for value in values if value == value]
    return float(np.median(defined)) if defined else float("nan")


def total_volume_bias(rater: str, cases: Sequence[CaseMeasures]) -> float:
    """The rater's volume over all cases, over the sum of the others' means, minus 1; NaN without others.

    Both are those of the voxels that the rater and another answered.
    """
    mine = others = 0.0
    for case in cases:
        shared = case.volume_answered_mm3
        names = [name for name in case.volume_mm3 if name != rater]
        if names:
            mine += float(np.mean([shared[rater, name] for name in names]))
            others += float(np.mean([shared[name, rater] for name in names]))
    return mine / others - 1 if others > 0 else float("nan")
