"""What `convert` understood, or would understand, for the page of `inspect`: the same sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.conversion.summary import contents_in_words, summary_of_cases
from nnunet_softlabel.formats.files import expecting_shape
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from nnunet_softlabel.inspection.records import ClassSummary, Understood


def understood_of_dataset(dataset: SoftDataset) -> Understood:
    """All cases of a data set, whatever its split, and what ``dataset.json`` says of their files."""
    groups = dataset.about.get("groups") or {}
    cases = [
        Case(
            name,
            [],
            raters=dict(dataset.rater_files(name, split)),
            group=groups.get(name),
            is_test=split == "Ts",
        )
        for split in ("Tr", "Ts")
        for name in dataset.cases(split)
    ]
    lines, warnings = summary_of_cases(cases)
    summary = dataset.about.get("summary")  # data sets of earlier versions have none
    if summary is not None:
        with expecting_shape(dataset.folder / "dataset.json", "convert the data set again"):
            more_lines, more_warnings = contents_in_words(summary)
        lines, warnings = lines + more_lines, warnings + more_warnings
    return {"lines": lines, "warnings": warnings}


def understood_of_cases(cases: Sequence[Case], per_class: Mapping[str, ClassSummary]) -> Understood:
    """Cases that no conversion has divided yet, and what was seen in their files."""
    lines, warnings = summary_of_cases(cases, has_split=any(case.is_test for case in cases))
    absent = [name for name, found in per_class.items() if not found["cases_marked"]]
    return {"lines": lines, "warnings": warnings + [f"Label {name} occurs in no file." for name in absent]}
