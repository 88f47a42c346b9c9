"""The columns of a table of cases under the names that the reader knows."""

from __future__ import annotations

import re
from pathlib import Path

from nnunet_softlabel.cases.rows import Row, column_named
from nnunet_softlabel.errors import DatasetError

KNOWN_COLUMNS = ("case", "image", "rater", "mask", "group", "test", "ignore", "label")
PREFIXES = ("image", "rater", "label", "roi")


def with_known_columns(rows: list[Row], columns: list[str]) -> tuple[list[Row], list[str]]:
    """``Case`` or ``IMAGE:T2`` mean ``case`` and ``image:T2``; names of raters stay as they are."""
    renamed: dict[str, str] = {}
    for column in columns:
        prefix, colon, name = column.partition(":")
        known = prefix.lower() in (PREFIXES if colon else KNOWN_COLUMNS)
        new = prefix.lower() + colon + name if known or re.fullmatch(r"(?i)image_\d{4}", column) else column
        renamed[column] = column if new in columns or new in renamed.values() else new
    rows = [Row(row.place, {renamed[c]: value for c, value in row.fields.items()}) for row in rows]
    return rows, list(renamed.values())


def with_groups_of(
    path: Path, rows: list[Row], columns: list[str], group_column: str
) -> tuple[list[Row], list[str]]:
    """The column of groups under its usual name.

    Raises:
        DatasetError: if it is not there, or another has that name.
    """
    column = column_named(group_column, columns)
    if column is None:
        raise DatasetError(
            f"--cases-csv {path}: has no column {group_column!r}; its columns are {', '.join(columns)} "
            f"(--group-column)."
        )
    if "group" in columns:
        raise DatasetError(
            f"--cases-csv {path}: has the columns group and {column}; keep one, or leave out --group-column."
        )
    rows = [Row(row.place, {"group" if c == column else c: v for c, v in row.fields.items()}) for row in rows]
    return rows, ["group" if c == column else c for c in columns]
