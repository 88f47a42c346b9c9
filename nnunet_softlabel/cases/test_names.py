"""Which cases are of the test set: names, or a file of names (``--test-cases``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nnunet_softlabel.cases.rows import NO, YES, column_named, read_rows
from nnunet_softlabel.errors import DatasetError, UsageError


def read_test_names(given: Sequence[str], case_column: str = "case") -> list[str]:
    """Names of test cases: the names themselves, or one file: a name per line, or a table.

    A table has a column of cases alone, or also a column ``test`` (1 or 0).

    Raises:
        UsageError: if the file is no text, or names no case.
        DatasetError: if it is a table without these columns, or says two things of a case.
    """
    names = _test_names(given, case_column)
    if not names:
        raise UsageError(f"--test-cases {given[0]}: names no case; fill the file, or leave out the flag.")
    return names


def _test_names(given: Sequence[str], case_column: str) -> list[str]:
    if len(given) > 1 or not Path(given[0]).is_file():
        return list(given)
    path = Path(given[0])
    if path.suffix.lower() not in (".csv", ".tsv"):
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise UsageError(
                f"--test-cases {path}: is no text file; write one case name per line."
            ) from error
        return [line.strip() for line in lines if line.strip()]
    rows, columns = read_rows(path, "--test-cases")
    case, test = column_named(case_column, columns), column_named("test", columns)
    if case is None:
        raise DatasetError(
            f"--test-cases {path}: has no column {case_column!r}; its columns are {', '.join(columns)}."
        )
    if test is None and len(columns) > 1:
        others = ", ".join(column for column in columns if column != case)
        raise DatasetError(
            f"--test-cases {path}: has no column test, but {others}; add it (1 or 0), or leave the column "
            f"{case} alone."
        )
    said: dict[str, tuple[str, str]] = {}  # case -> what the column test says first, and where
    for row in rows:
        value = "1" if test is None else row[test]
        if not row[case]:
            raise DatasetError(f"{row.place}: has no {case_column}; fill the cell or remove the row.")
        if value.lower() not in YES | NO:
            raise DatasetError(f"{row.place}: test is {value!r}; write 1 or 0.")
        if not value:  # an empty cell, as in a table with a row per mask
            continue
        before, place = said.setdefault(row[case], (value, row.place))
        if (before.lower() in YES) != (value.lower() in YES):
            raise DatasetError(
                f"{row.place}: test is {value!r}, but {before!r} in {place.rpartition(', ')[2]} of the same "
                f"case; keep one."
            )
    return [name for name, (value, _) in said.items() if value.lower() in YES]
