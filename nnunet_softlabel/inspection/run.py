"""All cases together: one pass over the files, then everything `inspect` knows as plain numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from nnunet_softlabel.arguments import LabelTexts
from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.cases.label_maps import FileOptions, Reading, labels_and_reading
from nnunet_softlabel.cases.raters import check_are_no_outputs, check_raters_are_there
from nnunet_softlabel.cases.sizes import processes_for_cases
from nnunet_softlabel.errors import UsageError
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.fusion import RaterCounts, RaterRates
from nnunet_softlabel.inspection.measures import CaseMeasures, Pair, compare_raters
from nnunet_softlabel.inspection.outliers import RULES, Finding, outlying_cases, outlying_raters
from nnunet_softlabel.inspection.read import read_case
from nnunet_softlabel.inspection.records import (
    Compared,
    Identical,
    Inspection,
    OutlyingCase,
    PriorEffects,
    RaterGroup,
    Understood,
)
from nnunet_softlabel.inspection.summaries import case_summary, class_summary, rates_of
from nnunet_softlabel.inspection.understood import understood_of_cases
from nnunet_softlabel.processes import run_jobs
from nnunet_softlabel.public import public

FORMAT_VERSION = 1


@dataclass(frozen=True)
class _Looked:
    """What a worker found in a case; votes are counted there, for only the counts travel."""

    case: str
    raters: tuple[str, ...]
    problems: tuple[str, ...]
    measures: tuple[CaseMeasures, ...] = ()
    identical: tuple[Pair, ...] = ()
    counts: RaterCounts | None = None


@public
def inspect_raters(
    cases: Sequence[Case],
    *,
    labels: LabelTexts | Labels,
    reading: Reading | FileOptions | None = None,
    is_anonymous: bool = False,
    prior: Mapping[str, Any] | None = None,
    understood: Understood | None = None,
    num_processes: int = 1,
    show_progress: bool = False,
) -> Inspection:
    """Compare the raters of all cases.

    >>> cases = ns.find_cases("images/{case}.nii.gz", raters="raters/{case}_{rater}.nii.gz")
    >>> found = ns.inspect_raters(cases, labels={"lesion": 1})
    >>> found["number_of_cases"], sorted(found["raters"])
    (4, ['expert', 'resident', 'student'])

    Args:
        cases: with raters' masks as files or arrays; images are needed for their grid only.
        labels: what the channels mean, also as `convert` takes it: the values in the raters' files.
        reading: how the files are read, also as `FileOptions`.
        is_anonymous: rater 1 of one case is not rater 1 of another: rates are shared, nothing is said of a
            rater over several cases.
        prior: ``prior`` of a data set's ``soft_labels``, see `prior_effects`.
        understood: what is known of the cases; None: what these cases tell.
        num_processes: processes that read.
        show_progress: print a progress bar on stderr.

    Returns:
        Numbers, lists and dictionaries, as ``inspection.json`` holds them (NaN is None there).

    Raises:
        UsageError: if there is nothing to compare.
        DatasetError: if a rater is the output of a program.
    """
    labels, reading = labels_and_reading(labels, reading)
    check_are_no_outputs(cases)
    check_raters_are_there(reading.of_rater, cases, "--rater-labels")
    looked: dict[str, _Looked] = {}
    jobs = [(case, labels, reading) for case in cases]
    results = run_jobs(
        _look_at,
        jobs,
        processes_for_cases(cases, num_processes, labels, "inspect"),
        names=[f"Case {case.name}" for case in cases],
        title="Inspecting",
        show_progress=show_progress,
    )
    rates = _estimated(results, looked, is_anonymous)
    looked = dict(sorted(looked.items()))
    if not any(len(case.raters) > 1 for case in looked.values()):
        problem = next(
            (f" ({c.case}: {c.problems[0].rstrip('.')})" for c in looked.values() if c.problems), ""
        )
        raise UsageError(f"no case has two raters whose masks can be compared{problem}.")
    compared = _summary(looked, rates, labels, is_anonymous)
    return {
        **compared,
        "number_of_cases": len(cases),
        "understood": understood or understood_of_cases(cases, compared["per_class"]),
        "prior": prior_effects(prior),
    }


def _summary(
    looked: Mapping[str, _Looked], rates: RaterRates | None, labels: Labels, is_anonymous: bool
) -> Compared:
    by_class = {
        name: {case.case: case.measures[index] for case in looked.values() if len(case.raters) > 1}
        for index, name in enumerate(labels.names)
    }
    numbers = Counter(len(case.raters) for case in looked.values())
    findings = [found for name, measured in by_class.items() for found in outlying_cases(name, measured)]
    raters = [] if is_anonymous else [f for name, m in by_class.items() for f in outlying_raters(name, m)]
    return {
        "format_version": FORMAT_VERSION,
        "is_anonymous": is_anonymous,
        "classes": list(labels.names),
        "raters": (names := sorted({rater for case in looked.values() for rater in case.raters})),
        "raters_missing": {} if is_anonymous else _missing(names, looked),
        "raters_per_case": {str(n): numbers[n] for n in sorted(numbers)},
        "cases_compared": sum(len(case.raters) > 1 for case in looked.values()),
        "per_class": {
            name: class_summary(measured, None if is_anonymous else rates_of(rates, index), rates, index)
            for index, (name, measured) in enumerate(by_class.items())
        },
        "stand_out": {
            "cases": _by_case(findings, by_class),
            "raters": [{"rater": f.name, "class": f.class_name, "reason": f.reason} for f in raters],
            "rules": RULES,
        },
        "identical": _identical(list(looked.values()), is_anonymous),
        "problems": [{"case": c.case, "problem": text} for c in looked.values() for text in c.problems],
        "per_case": {
            case: {name: case_summary(measured[case]) for name, measured in by_class.items()}
            for case in next(iter(by_class.values()))
        },
    }


def _missing(raters: Sequence[str], looked: Mapping[str, _Looked]) -> dict[str, list[str]]:
    """Rater -> cases without a readable file of that rater; raters who lack none are left out."""
    lacking = {rater: [name for name, case in looked.items() if rater not in case.raters] for rater in raters}
    return {rater: cases for rater, cases in lacking.items() if cases}


def _look_at(case: Case, labels: Labels, reading: Reading) -> _Looked:
    read = read_case(case, labels, reading)
    if read.raters is None:
        return _Looked(case.name, (), read.problems)
    measures, identical = compare_raters(read.raters)
    counts = read.raters.counts()
    return _Looked(case.name, read.raters.names, read.problems, tuple(measures), tuple(identical), counts)


def _estimated(
    results: Iterator[_Looked], looked: dict[str, _Looked], is_anonymous: bool
) -> RaterRates | None:
    """The raters' rates; everything else of the cases is kept in ``looked``."""
    total: RaterCounts | None = None
    for result in results:
        looked[result.case] = replace(result, counts=None)
        if result.counts is not None:
            total = result.counts if total is None else total + result.counts
    return None if total is None else total.estimate(shared=is_anonymous)


def _by_case(
    findings: Sequence[Finding], by_class: Mapping[str, Mapping[str, CaseMeasures]]
) -> list[OutlyingCase]:
    """All reasons of a case and class together; cases without overlap first, then by their mean Dice."""
    cases: dict[tuple[str, str], OutlyingCase] = {}
    for found in findings:
        entry: OutlyingCase = {"case": found.name, "class": found.class_name, "rules": [], "reasons": []}
        entry = cases.setdefault((found.name, found.class_name), entry)
        entry["rules"] += [] if found.rule in entry["rules"] else [found.rule]
        entry["reasons"].append(found.reason)

    def urgency(entry: OutlyingCase) -> tuple[bool, float, str]:
        value = by_class[entry["class"]][entry["case"]].mean_dice
        return "no overlap" not in entry["rules"], value if value == value else 2.0, entry["case"]

    return sorted(cases.values(), key=urgency)


def _identical(looked: Sequence[_Looked], is_anonymous: bool) -> Identical:
    """Raters who always drew the same, and the other pairs of identical masks."""
    groups = [] if is_anonymous else _identical_raters(looked)
    return {
        "raters": groups,
        "pairs": [
            {"case": case.case, "raters": list(pair)}
            for case in looked
            for pair in case.identical
            if not any(set(pair) <= set(group["raters"]) for group in groups)
        ],
    }


def _identical_raters(looked: Sequence[_Looked]) -> list[RaterGroup]:
    """Groups of raters who drew the same in all cases they share, and anything at all in one."""
    shared: dict[Pair, int] = {}
    same: dict[Pair, int] = {}
    marked: dict[Pair, int] = {}
    for case in looked:
        empty = {r for r in case.raters if all(m.volume_mm3[r] == 0 for m in case.measures)}
        for pair in combinations(case.raters, 2):
            shared[pair] = shared.get(pair, 0) + 1
            same[pair] = same.get(pair, 0) + (pair in case.identical or empty.issuperset(pair))
            marked[pair] = marked.get(pair, 0) + (pair in case.identical)
    groups: list[RaterGroup] = []
    for pair in sorted(pair for pair, n in shared.items() if same[pair] == n and marked[pair]):
        known = next((group for group in groups if set(pair) & set(group["raters"])), None)
        if known is None:
            groups.append({"raters": list(pair), "cases": shared[pair]})
        else:
            known["raters"] = sorted({*known["raters"], *pair})
    return groups


def prior_effects(prior: Mapping[str, Any] | None) -> PriorEffects:
    """Case -> label -> expected volume before and after the priors, where the data set recorded it."""
    if not prior:
        return {}
    records = prior["records"] if isinstance(prior.get("records"), dict) else prior
    found: PriorEffects = {}
    for case, record in sorted(records.items()):
        if isinstance(record, dict) and {"before", "after"} <= set(record):
            before, after = record["before"], record["after"]
            found[case] = {
                label: {"before_mm3": float(before[label]), "after_mm3": float(after[label])}
                for label in before
            }
    return found
