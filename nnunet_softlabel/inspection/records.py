"""What `inspect` finds, as ``inspection.json`` holds it; what is not defined is NaN here and null there."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from typing_extensions import NotRequired


class Rates(TypedDict):
    """Of a rater on one class: STAPLE's two, and the share of marked voxels that are right."""

    sensitivity: float
    specificity: float
    precision: float


class RaterSummary(Rates):
    """One rater on one class, over all cases."""

    cases: int
    empty_where_others_marked: int
    dice_with_others: float
    volume_bias: float
    median_volume_ratio: float


class PairSummary(TypedDict):
    """Two raters on one class; ``n`` cases in which either drew something, ``both_empty`` others."""

    raters: list[str]
    mean_dice: float
    lowest_dice: float
    n: int
    both_empty: int


class ClassSummary(TypedDict):
    """All raters on one class, over all cases; ``shared_rates`` of anonymous raters, else ``raters``."""

    mean_dice: float
    kappa: float
    disputed_share: float
    cases_marked: int
    shared_rates: Rates | None
    pairs: list[PairSummary]
    raters: dict[str, RaterSummary]


def dice_of_pairs(found: ClassSummary) -> dict[tuple[str, ...], float]:
    """Two raters, in the order of their names -> mean Dice."""
    return {tuple(pair["raters"]): pair["mean_dice"] for pair in found["pairs"]}


class CaseSummary(TypedDict):
    """One class of one case; ``found_nothing`` names raters who drew nothing where another drew something."""

    volume_mm3: dict[str, float]
    found_nothing: list[str]
    mean_dice: float
    lowest_dice: float
    lowest_pair: list[str] | None
    kappa: float
    marked_mm3: float
    disputed_share: float


# "class" is a word of Python's, so these have no body
OutlyingCase = TypedDict(
    "OutlyingCase", {"case": str, "class": str, "rules": list[str], "reasons": list[str]}
)
OutlyingRater = TypedDict("OutlyingRater", {"rater": str, "class": str, "reason": str})


# one line of ``inspection.csv``; a column that a row lacks is empty there
CaseRow = TypedDict(
    "CaseRow",
    {
        "case": str,
        "class": str,
        "raters": "NotRequired[int]",
        "mean_dice": "NotRequired[float]",
        "lowest_dice": "NotRequired[float]",
        "lowest_pair": "NotRequired[str]",
        "kappa": "NotRequired[float]",
        "marked_mm3": "NotRequired[float]",
        "disputed_share": "NotRequired[float]",
        "stands_out": list[str],
        "problems": list[str],
        "prior_before_mm3": "NotRequired[float]",
        "prior_after_mm3": "NotRequired[float]",
    },
)


class StandOut(TypedDict):
    """Cases and raters to look at first, and the rules by which they were found."""

    cases: list[OutlyingCase]
    raters: list[OutlyingRater]
    rules: dict[str, str]


class RaterGroup(TypedDict):
    """Raters who drew the same in all ``cases`` that they share."""

    raters: list[str]
    cases: int


class CasePair(TypedDict):
    """Two raters who drew the same in one case."""

    case: str
    raters: list[str]


class Identical(TypedDict):
    """Masks that are the same."""

    raters: list[RaterGroup]
    pairs: list[CasePair]


class Problem(TypedDict):
    """What is wrong with a file of a case."""

    case: str
    problem: str


class PriorEffect(TypedDict):
    """Expected volume of a label before and after the priors."""

    before_mm3: float
    after_mm3: float


# case -> label -> effect
PriorEffects = dict[str, dict[str, PriorEffect]]


class Understood(TypedDict):
    """What was found, in the sentences of `convert`."""

    lines: list[str]
    warnings: list[str]


class Compared(TypedDict):
    """What the comparison of the raters found.

    ``raters_missing``: rater -> cases without a readable file of that rater, empty for anonymous raters.
    ``raters_per_case``: number of raters -> how many cases have so many.
    """

    format_version: int
    is_anonymous: bool
    classes: list[str]
    raters: list[str]
    raters_missing: dict[str, list[str]]
    raters_per_case: dict[str, int]
    cases_compared: int
    per_class: dict[str, ClassSummary]
    stand_out: StandOut
    identical: Identical
    problems: list[Problem]
    per_case: dict[str, dict[str, CaseSummary]]


class Inspection(Compared):
    """All of ``inspection.json``."""

    number_of_cases: int
    understood: Understood
    prior: PriorEffects
