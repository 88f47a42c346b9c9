"""Cases of which no rater has a file: refused, dropped, or filled from the hard label that is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.cases.extra_files import ExtraFiles
from nnunet_softlabel.cases.find import check_have_raters
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.public import public

MissingRaters = Literal["refuse", "drop", "use-labels"]


def with_annotations_of(
    cases: Sequence[Case],
    table: Sequence[Case],
    *,
    source: str,
    extra_files: ExtraFiles = "refuse",
    notes: list[str] | None = None,
) -> list[Case]:
    """Cases whose images are known, with the annotations that a table gives them.

    Raises:
        DatasetError: if the table has a case without image, unless such are to be ignored.
    """
    given = {case.name: case for case in table}
    strangers = sorted(set(given) - {case.name for case in cases})
    if strangers and extra_files == "refuse":
        raise DatasetError(
            f"{source}: case {strangers[0]!r} has no image; remove its rows, or leave such cases out with "
            f"--extra-files ignore."
        )
    if strangers and notes is not None:
        notes.append(f"Ignored, since they have no image: the cases {', '.join(strangers)} of {source}.")
    return [replace(given[c.name], images=c.images) if c.name in given else c for c in cases]


@public
def with_missing_raters(
    cases: Sequence[Case],
    handling: MissingRaters,
    *,
    hard_label: Callable[[str], Path] | None = None,
    notes: list[str] | None = None,
) -> list[Case]:
    """Decide what becomes of cases without raters and without probability maps.

    Examples:
        >>> cases = [ns.Case("knee1", "1.nii.gz"), ns.Case("knee2", "2.nii.gz", raters={"anna": "a.nii.gz"})]
        >>> [case.name for case in ns.with_missing_raters(cases, "drop")]
        ['knee2']

    Args:
        cases: some may have no rater.
        handling: "refuse" is an error, "drop" leaves them out, "use-labels" takes their hard label.
        hard_label: the file of a case's hard label, in the data set's values; for "use-labels".
        notes: gets a sentence that says how many cases it was.

    Raises:
        UsageError: for "use-labels" where there are no hard labels.
        DatasetError: for a case that stays without a label.
    """
    if handling not in get_args(MissingRaters):
        raise UsageError(f"--missing-raters {handling}: choose {', '.join(get_args(MissingRaters))}.")
    without = [case for case in cases if not case.raters and not case.soft]
    if handling == "use-labels" and hard_label is None:
        raise UsageError("--missing-raters use-labels: belongs to --into, whose data set has hard labels.")
    if not without or handling == "refuse":
        check_have_raters(cases)
        return list(cases)
    names = ", ".join(case.name for case in without)
    if handling == "drop":
        if notes is not None:
            notes.append(f"Left out, since no rater has a file: {len(without)} cases ({names}).")
        return [case for case in cases if case.raters or case.soft]
    assert hard_label is not None  # checked above
    for case in without:
        if not hard_label(case.name).is_file():
            raise DatasetError(
                f"Case {case.name}: has neither a rater's file nor the hard label {hard_label(case.name)}; "
                f"add one."
            )
    if notes is not None:
        notes.append(
            f"Filled from the hard label, since no rater has a file: {len(without)} cases ({names})."
        )
    return [case if case.raters or case.soft else replace(case, hard=hard_label(case.name)) for case in cases]
