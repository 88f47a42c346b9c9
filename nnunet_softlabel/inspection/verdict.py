"""What an inspection says in words: do the raters agree, where not, and who is missing?"""

from __future__ import annotations

from collections.abc import Mapping

from nnunet_softlabel.inspection.records import CaseSummary, ClassSummary, Compared

# Below LITTLE of what anyone marked, soft labels hardly differ from hard ones; from MUCH on they surely do.
LITTLE, MUCH = 0.02, 0.1
OFTEN = (
    0.1  # of the marked cases: lesions that one rater marks and another does not are a matter of their own
)
MOST_NAMES = 5


def verdict(summary: Compared) -> list[str]:
    """Sentences for the top of the page and of the terminal's tables."""
    sentences = []
    for name, found in summary["per_class"].items():
        sentences += _agreement(name, found)
        cases = {case: classes[name] for case, classes in summary["per_case"].items()}
        sentences += _missed(name, cases)
    sentences += _who_is_missing(summary)
    if summary["stand_out"]["raters"]:
        raters = sorted({found["rater"] for found in summary["stand_out"]["raters"]})
        sentences.append(
            f"Rater{_s(raters)} {', '.join(raters)} stand{_s(raters, verb=True)} out; see below."
        )
    return sentences


def _agreement(name: str, found: ClassSummary) -> list[str]:
    share = found["disputed_share"]
    if share != share:
        return [f"{name}: no rater marked anything."]
    if share >= MUCH:
        meaning = "soft labels have something to learn"
    elif share >= LITTLE:
        meaning = "soft labels can change little"
    else:
        meaning = "the raters agree, and soft labels hardly differ from hard ones"
    return [f"{name}: {share:.0%} of what anyone marked is disputed: {meaning}."]


def _missed(name: str, cases: Mapping[str, CaseSummary]) -> list[str]:
    """Whether raters disagree on what is there, and not only on where its edge is."""
    marked = [found for found in cases.values() if any(found["volume_mm3"].values())]
    disputed = [found for found in marked if found["found_nothing"]]
    if len(disputed) < max(1.0, OFTEN * len(marked)):
        return []
    return [
        f"{name}: in {len(disputed)} of {len(marked)} marked cases one rater marked nothing where another "
        f"did. This is no matter of outlines: try `convert --fusion lesion-wise`, or `refine` after a first "
        f"training."
    ]


def _who_is_missing(summary: Compared) -> list[str]:
    if summary["is_anonymous"]:
        numbers = summary["raters_per_case"]
        if len(numbers) < 2:
            return []
        counts = [f"{n} cases have {raters}" for raters, n in numbers.items()]
        return [f"Cases have different numbers of raters: {', '.join(counts)}."]
    return [
        f"Rater {rater} is missing in {len(cases)} case{_s(cases)}: {', '.join(cases[:MOST_NAMES])}"
        f"{f' and {len(cases) - MOST_NAMES} more' if len(cases) > MOST_NAMES else ''}."
        for rater, cases in summary["raters_missing"].items()
    ]


def _s(things: list[str], *, verb: bool = False) -> str:
    return "s" if (len(things) == 1) == verb else ""
