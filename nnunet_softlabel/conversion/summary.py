"""What `convert` understood: before the work from names of files, afterwards from what they hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.cases.splits import NUM_FOLDS
from nnunet_softlabel.conversion.case_records import CaseRecord
from nnunet_softlabel.conversion.settings import Fusion, lacks_raters
from nnunet_softlabel.formats.soft_labels import SummaryOfContents

FEW_CASES = 0.2  # a rater with a smaller share of the cases may be another folder that fits the pattern
MOST_NAMES = 5


def summary_of_cases(cases: Sequence[Case], *, has_split: bool = True) -> tuple[list[str], list[str]]:
    """What was found: sentences, and warnings.

    Args:
        cases: of the conversion.
        has_split: some are for training, others for testing.
    """
    tests = [case for case in cases if case.is_test]
    groups = {case.group for case in cases if case.group is not None}
    split = f": {len(cases) - len(tests)} for training, {len(tests)} for testing" if has_split else ""
    lines = [f"{len(cases)} cases{split}."]
    if groups:
        lines.append(f"{len(groups)} groups (patients).")
    maps = sum(bool(case.soft) for case in cases)
    if maps:
        lines.append(f"{maps} cases have ready probability maps.")
    warnings: list[str] = []
    raters = sorted({rater for case in cases for rater in case.raters})
    for rater in raters:
        having = [case for case in cases if rater in case.raters]
        lacking = [case.name for case in cases if rater not in case.raters]
        lines.append(f"Rater {rater}: {len(having)} cases{_without(lacking)}.")
        if len(raters) > 1 and tests and len(tests) < len(cases) and all(case.is_test for case in having):
            warnings.append(f"Rater {rater} has test cases only; is it a folder of predictions?")
        elif len(having) < FEW_CASES * len(cases):
            warnings.append(f"Rater {rater} has {len(having)} of {len(cases)} cases only.")
    if raters and not maps and all(len(case.raters) < 2 for case in cases):
        warnings.append("No case has two raters: all labels will be hard.")
    warnings += _shared_files(cases)
    return lines, warnings


def without_few_raters(cases: Sequence[Case], fusion: Fusion) -> tuple[list[Case], list[str]]:
    """The cases that a conversion keeps, and a sentence that names those that it drops."""
    if fusion.few_raters == "refuse":
        return list(cases), []
    dropped = [case.name for case in cases if lacks_raters(case, fusion.min_raters)]
    kept = [case for case in cases if not lacks_raters(case, fusion.min_raters)]
    count = f"{len(dropped)} cases" if len(dropped) > 1 else "1 case"
    what = f"fewer than {fusion.min_raters} raters: {count} ({_names(dropped)})"
    return kept, [f"Left out, for {what}; dataset.json lists them."] if dropped else []


def too_few_for_folds(cases: Sequence[Case]) -> list[str]:
    """A warning if nnU-Net's own split of a new data set will fail; groups (patients) have another split."""
    training = sum(not case.is_test for case in cases)
    if training >= NUM_FOLDS or any(case.group is not None for case in cases):
        return []
    return [
        f"{training} training cases are too few for nnU-Net's {NUM_FOLDS} folds: train the fold `all`, or "
        f"convert with groups (patients), for which the folds are made here."
    ]


def _shared_files(cases: Sequence[Case]) -> list[str]:
    """Files that stand for two cases: a slip of a table, or one image on both sides of a split."""
    images = [(case.name, source) for case in cases for source in case.images]
    masks = [(case.name, source) for case in cases for source in case.raters.values()]
    warnings = []
    for what, sources in (("image", images), ("rater's file", masks)):
        owner: dict[Path, str] = {}
        for name, source in sources:
            if isinstance(source, Path) and owner.setdefault(source, name) != name:
                warnings.append(f"Cases {owner[source]} and {name} have the same {what}, {source}.")
    return warnings[:MOST_NAMES]


def _without(names: Sequence[str]) -> str:
    return f", not {_names(names)}" if names else ""


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return f"{', '.join(names[:MOST_NAMES])}{more}"


def summary_of_contents(records: Sequence[CaseRecord]) -> SummaryOfContents:
    """What the files hold, for ``dataset.json``: disputed share, empty labels, raters who are one.

    Args:
        records: of the cases that were converted.
    """
    total: Counter[str] = Counter()
    for record in records:
        total.update(record.get("expected_voxels", {}))
    drawn = {name for record in records for name in record.get("drawn_labels", ())}
    marked = sum(record["marked_mm3"] for record in records)
    disputed = sum(record["disputed_share"] * record["marked_mm3"] for record in records)
    shared: dict[tuple[str, str], bool] = {}
    for record in records:
        for first, second, is_same in record.get("pairs", []):
            shared[first, second] = shared.get((first, second), True) and is_same
    return {
        "disputed_share": round(disputed / marked, 6) if marked else 0.0,
        "labels_in_no_file": [name for name, voxels in total.items() if not voxels and name not in drawn],
        "vanished_labels": [name for name, voxels in total.items() if not voxels and name in drawn],
        "identical_raters": [list(pair) for pair, is_same in shared.items() if is_same],
    }


def contents_in_words(summary: SummaryOfContents) -> tuple[list[str], list[str]]:
    """The summary of `summary_of_contents`: sentences, and warnings."""
    share = 100 * summary["disputed_share"]
    lines = [f"Raters dispute {share:.1f} % of what any of them marked, all cases together."]
    warnings = [f"Label {name} occurs in no file." for name in summary["labels_in_no_file"]]
    warnings += [
        f"Label {name} was drawn, and fusion and priors left nothing of it."
        for name in summary.get("vanished_labels", ())
    ]
    if summary["disputed_share"] >= 1:
        warnings.append("No voxel is marked by all raters of its case; does {rater} stand for persons?")
    warnings += [
        f"Raters {first} and {second} drew the same in all their cases; are their files copies?"
        for first, second in summary["identical_raters"]
    ]
    return lines, warnings


def with_warnings(lines: Sequence[str], warnings: Sequence[str]) -> str:
    """The text that is printed; warnings stand out."""
    return "\n".join([*lines, *(f"WARNING: {warning}" for warning in warnings)])
