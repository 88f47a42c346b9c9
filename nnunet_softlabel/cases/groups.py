"""Which case is of which patient, and which cases are put aside for testing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.cases.rows import column_named, read_rows
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.public import public

FEWEST_GROUPS = 6  # for an interval or a test: with fewer, none of signs or ranks can give p < 0.05


@public
def read_groups(path: Path, *, case_column: str = "case", group_column: str = "group") -> dict[str, str]:
    """Read which group (patient) each case belongs to from a table with a header (see `read_rows`).

    >>> ns.read_groups("patients.csv", group_column="patient")["knee_002"]
    'p1'

    Raises:
        DatasetError: if the file cannot be read, lacks a column, or gives a case two groups.
    """
    rows, columns = read_rows(path, "--groups")
    found = []
    for wanted, flag in ((case_column, "--case-column"), (group_column, "--group-column")):
        column = column_named(wanted, columns)
        if column is None:
            raise DatasetError(
                f"{path}: has no column {wanted!r}; its columns are {', '.join(columns)} ({flag})."
            )
        found.append(column)
    groups: dict[str, str] = {}
    for row in rows:
        case, group = (row[column] for column in found)
        if not case:
            raise DatasetError(f"{row.place}: has no {case_column}; fill the cell or remove the row.")
        if not group:
            raise DatasetError(f"{row.place}: case {case} has no {group_column}; fill the cell.")
        if groups.setdefault(case, group) != group:
            raise DatasetError(
                f"{row.place}: case {case} is in the groups {groups[case]!r} and {group!r}; keep one."
            )
    return groups


@public
def with_groups(cases: Iterable[Case], groups: Mapping[str, str], source: str) -> list[Case]:
    """Give every case its group.

    Examples:
        >>> cases = [ns.Case("knee1", "knee1.nii.gz"), ns.Case("knee2", "knee2.nii.gz")]
        >>> cases = ns.with_groups(cases, {"knee1": "anna", "knee2": "ben"}, "patients.csv")
        >>> [case.group for case in cases]
        ['anna', 'ben']

    Raises:
        DatasetError: if a case has none.
    """
    grouped = []
    for case in cases:
        if case.name not in groups:
            raise DatasetError(f"{source}: has no row for case {case.name}; add one.")
        grouped.append(replace(case, group=groups[case.name]))
    return grouped


@public
def with_test_cases(cases: Sequence[Case], names: Iterable[str]) -> list[Case]:
    """Mark the named cases as test cases.

    Examples:
        >>> cases = [ns.Case("knee1", "knee1.nii.gz"), ns.Case("knee2", "knee2.nii.gz")]
        >>> [case.is_test for case in ns.with_test_cases(cases, "knee2")]
        [False, True]

    Raises:
        UsageError: for an unknown name, or if nothing is left to train on.
        DatasetError: if a group would be on both sides.
    """
    chosen = set(names)
    unknown = chosen - {case.name for case in cases}
    if unknown:
        raise UsageError(f"--test-cases: no case is named {min(unknown)!r}.")
    marked = [replace(case, is_test=case.is_test or case.name in chosen) for case in cases]
    if all(case.is_test for case in marked):
        raise UsageError("--test-cases: nothing is left to train on.")
    check_groups_are_whole(marked)
    return marked


def check_groups_are_whole(cases: Sequence[Case]) -> None:
    """Refuse a group that is both trained on and tested on.

    Raises:
        DatasetError: naming a case of it.
    """
    test_groups = {case.group for case in cases if case.is_test and case.group is not None}
    for case in cases:
        if not case.is_test and case.group in test_groups:
            raise DatasetError(
                f"--test-cases: group {case.group} has case {case.name} in training and others in the "
                f"test set; put whole groups on one side."
            )
