"""Rows of a table with a header, whatever program wrote it: the one reader of all tables of cases."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.files import check_is_no_pipe

SEPARATORS = (",", ";", "\t")
YES, NO = {"1", "yes", "true", "x", "test", "ts"}, {"", "0", "no", "false", "train", "tr"}


def _cell(text: str) -> str:
    """A field without blanks around it; ``n/a`` is BIDS' empty cell."""
    text = text.strip()
    return "" if text.lower() == "n/a" else text


@dataclass(frozen=True)
class Row:
    """A row of a table: its place, for messages, and its fields without the blanks around them."""

    place: str
    fields: Mapping[str, str]

    def __getitem__(self, column: str) -> str:
        return self.fields.get(column, "")


def column_named(wanted: str, columns: Sequence[str]) -> str | None:
    """The column of this name; else the one that differs in capitals alone, if there is one."""
    if wanted in columns:
        return wanted
    alike = [column for column in columns if column.lower() == wanted.lower()]
    return alike[0] if len(alike) == 1 else None


def read_rows(path: Path, flag: str) -> tuple[list[Row], list[str]]:
    """Rows and columns of a table with a header, separated by comma, semicolon or tab.

    A byte order mark, CRLF, blanks around fields, a first line ``sep=;`` (Excel) and ``n/a`` (BIDS) are
    understood; empty rows are skipped. Rows are numbered as a spreadsheet shows them: the header is row 1.

    Raises:
        DatasetError: if it cannot be read, a row has more fields than the header, or a column is there twice.
    """
    check_is_no_pipe(path)
    if not path.is_file():
        raise DatasetError(f"{flag} {path}: {'is a folder' if path.is_dir() else 'no such file'}.")
    try:
        raw = path.read_bytes()
        encoding = "utf-16" if raw.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
        text = raw.decode(encoding)
        said = re.match(r"\s*\"?sep=([,;\t])\"?[ \t]*(?=\r|\n)", text, re.IGNORECASE)
        text = text if said is None else "\n" + text[said.end() :].removeprefix("\r").removeprefix("\n")
        header_line = next((line for line in text.splitlines() if line.strip()), "")
        header_line = re.sub(r'"[^"]*"', "", header_line)  # a quoted name may hold separators
        separator = max(SEPARATORS, key=header_line.count) if said is None else said[1]
        reader = csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True)
        rows = [[_cell(field) for field in row] for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{flag} {path}: cannot be read ({error}); save it as CSV in UTF-8.") from error
    filled = [(number, row) for number, row in enumerate(rows, start=1) if any(row)]
    columns = filled[0][1] if filled else []
    while columns and not columns[-1]:
        columns = columns[:-1]
    twice = next((column for column in columns if columns.count(column) > 1), None)
    if twice is not None:
        raise DatasetError(f"{path}: has two columns {twice!r}; keep one.")
    found = []
    for number, row in filled[1:]:
        others = [other for other in SEPARATORS if other != separator and other in row[0]]
        if len(row) == 1 < len(columns) and others:
            raise DatasetError(
                f"{path}, row {number}: is separated by {others[0]!r}, the header by {separator!r}; use one."
            )
        if any("\n" in cell for cell in row):
            raise DatasetError(f"{path}, row {number}: a field holds a line break; close its quotes.")
        if any(row[len(columns) :]):
            raise DatasetError(
                f"{path}, row {number}: has more fields than the header; put quotes around a field that "
                f"holds {separator!r}."
            )
        found.append(Row(f"{path}, row {number}", dict(zip(columns, row, strict=False))))
    return found, columns
