"""Which cases are of the test set: names, or a file of names (``--test-cases``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nnunet_softlabel.cases.rows import NO, YES, read_rows
from nnunet_softlabel.errors import DatasetError, UsageError


def read_test_names(given: Sequence[str], case_column: str = "case") -> list[str]:
    """Names of test cases: the names themselves, or one file: a name per line, or a table.

    A table has a column of cases and, if wanted, a column ``test`` (1 or 0).

    Raises:
        UsageError: if the file is no text, or names no case.
        DatasetError: if it is a table without that column.
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
    if case_column not in columns:
        raise DatasetError(
            f"--test-cases {path}: has no column {case_column!r}; its columns are {', '.join(columns)}."
        )
    for row in rows:
        if row["test"].lower() not in YES | NO:
            raise DatasetError(f"{row.place}: test is {row['test']!r}; write 1 or 0.")
    chosen = [row for row in rows if "test" not in columns or row["test"].lower() in YES]
    return list(dict.fromkeys(row[case_column] for row in chosen))
