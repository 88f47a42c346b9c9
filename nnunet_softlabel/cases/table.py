"""A table (CSV) of cases and their files: ``--cases-csv``; the same reader serves ``--groups``."""

from __future__ import annotations

import csv
import io
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_softlabel.cases.case import SINGLE_RATER, Case
from nnunet_softlabel.cases.names import check_case_names, check_file_name
from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.files import check_is_no_pipe
from nnunet_softlabel.public import public

SEPARATORS = (",", ";", "\t")
YES, NO = {"1", "yes", "true", "x", "test", "ts"}, {"", "0", "no", "false", "train", "tr"}
KNOWN_COLUMNS = ("case", "image", "rater", "mask", "group", "test", "ignore", "label")
PREFIXES = ("image", "rater", "label", "roi")


@dataclass(frozen=True)
class Row:
    """A row of a table: its place, for messages, and its fields without the blanks around them."""

    place: str
    fields: Mapping[str, str]

    def __getitem__(self, column: str) -> str:
        return self.fields.get(column, "")


def read_rows(path: Path, flag: str) -> tuple[list[Row], list[str]]:
    """Rows and columns of a table with a header, separated by comma, semicolon or tab.

    A byte order mark, CRLF, blanks around fields, and a first line ``sep=;`` (Excel) are understood; empty
    rows are skipped. Rows are numbered as a spreadsheet shows them: the header is row 1.

    Raises:
        DatasetError: if it cannot be read, a row has more fields than the header, or a column is there twice.
    """
    check_is_no_pipe(path)
    try:
        raw = path.read_bytes()
        encoding = "utf-16" if raw.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
        text = raw.decode(encoding)
        said = re.match(r"\s*\"?sep=([,;\t])\"?[ \t]*(?=\r|\n)", text, re.IGNORECASE)
        text = text if said is None else "\n" + text[said.end() :].removeprefix("\r").removeprefix("\n")
        header_line = next((line for line in text.splitlines() if line.strip()), "")
        separator = max(SEPARATORS, key=header_line.count) if said is None else said[1]
        reader = csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True)
        rows = [[field.strip() for field in row] for row in reader]
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
        if any(row[len(columns) :]):
            raise DatasetError(
                f"{path}, row {number}: has more fields than the header; put quotes around a field that "
                f"holds {separator!r}."
            )
        found.append(Row(f"{path}, row {number}", dict(zip(columns, row, strict=False))))
    return found, columns


@dataclass(frozen=True)
class CaseTable:
    """What a table says.

    Attributes:
        cases: sorted by name.
        channel_names: of columns ``image:T2``, in their order; empty for ``image``, ``image_0001``.
        ignored_columns: columns that were not used.
    """

    cases: Sequence[Case]
    channel_names: tuple[str, ...] = ()
    ignored_columns: tuple[str, ...] = ()


@public
def read_case_table(
    path: Path, *, case_column: str = "case", needs_images: bool = True, label_names: Sequence[str] = ()
) -> CaseTable:
    """Read cases from a table, in long form (a row per mask) or wide form (a column per rater).

    Columns: ``case``; ``image``, or ``image_0000``, ``image_0001``, ..., or ``image:T2``, ...; in long form
    ``rater`` and ``mask``, or ``label`` and ``mask`` for probability maps; in wide form ``rater:NAME`` (or
    any other name, if no column begins with ``rater:``) and ``label:NAME``; optional ``group``, ``test``,
    ``ignore``, ``roi:NAME``. Relative paths count from the folder of the table.

    Examples:
        >>> table = ns.read_case_table("cases.csv")  # columns case, image, rater, mask
        >>> [case.name for case in table.cases][:2]
        ['knee_000', 'knee_001']

    Args:
        path: the table.
        case_column: name of the column of cases.
        needs_images: False if images come from elsewhere.
        label_names: what the column ``label`` may hold; empty: anything.

    Raises:
        DatasetError: naming the row of what does not fit, and files that are not there.
    """
    rows, columns = _with_known_columns(*read_rows(path, "--cases-csv"))
    layout = _Layout.of(path, columns, case_column, needs_images=needs_images)
    collected: dict[str, _Collected] = {}
    for row in rows:
        name = row[case_column]
        if not name:
            raise DatasetError(f"{row.place}: has no {case_column}; fill the cell or remove the row.")
        _collect(collected.setdefault(name, _Collected()), row, layout, path.parent)
    if not collected:
        raise DatasetError(f"--cases-csv {path}: has no row under its header; add one.")
    check_case_names(collected)
    for name, found in collected.items() if label_names else ():
        for stranger in sorted(set(found.soft) - set(label_names)):
            raise DatasetError(
                f"--cases-csv {path}: case {name} has a map of label {stranger!r}, which --labels does not "
                f"name."
            )
    cases = [_case(name, found, layout, path) for name, found in sorted(collected.items())]
    return CaseTable(cases, layout.channel_names, layout.ignored)


def _with_known_columns(rows: list[Row], columns: list[str]) -> tuple[list[Row], list[str]]:
    """``Case`` or ``IMAGE:T2`` mean ``case`` and ``image:T2``; names of raters stay as they are."""
    renamed: dict[str, str] = {}
    for column in columns:
        prefix, colon, name = column.partition(":")
        known = prefix.lower() in (PREFIXES if colon else KNOWN_COLUMNS)
        new = prefix.lower() + colon + name if known or re.fullmatch(r"(?i)image_\d{4}", column) else column
        renamed[column] = column if new in columns or new in renamed.values() else new
    rows = [Row(row.place, {renamed[c]: value for c, value in row.fields.items()}) for row in rows]
    return rows, list(renamed.values())


@dataclass(frozen=True)
class _Layout:
    """Which column means what; names are those of the header."""

    images: tuple[str, ...]
    channel_names: tuple[str, ...]
    is_long: bool
    rater_columns: Mapping[str, str]  # column -> rater
    label_columns: Mapping[str, str]  # column -> label
    rois: Mapping[str, str]  # column -> ROI
    ignored: tuple[str, ...]

    @classmethod
    def of(cls, path: Path, columns: Sequence[str], case_column: str, *, needs_images: bool) -> _Layout:
        if case_column not in columns:
            raise DatasetError(
                f"--cases-csv {path}: has no column {case_column!r}; its columns are {', '.join(columns)} "
                f"(--case-column)."
            )
        numbered = sorted(c for c in columns if re.fullmatch(r"image_\d{4}", c))
        named = [c for c in columns if c.startswith("image:")]
        images = [*(["image"] if "image" in columns else []), *numbered, *named]
        if needs_images and not images:
            raise DatasetError(
                f"--cases-csv {path}: has no column of images; add image, or image_0000, image_0001, or "
                f"image:T2."
            )
        if named and len(named) < len(images):
            raise DatasetError(
                f"--cases-csv {path}: mixes image:NAME with other image columns; use one kind."
            )
        others = [c for c in columns if c not in (*KNOWN_COLUMNS, *images, case_column) and c]
        rois = _prefixed(others, "roi:")
        labels = _prefixed(others, "label:")
        raters = _prefixed(others, "rater:")
        rest = tuple(c for c in others if c not in {*rois, *labels, *raters})
        is_long = "mask" in columns
        if is_long and (raters or labels):
            raise DatasetError(
                f"--cases-csv {path}: has a column mask (a row per mask) and {', '.join((*raters, *labels))} "
                f"(a column per mask); use one form."
            )
        if not is_long and not raters and not labels:
            raters, rest = {column: column for column in rest}, ()
        return cls(
            tuple(images), tuple(c.removeprefix("image:") for c in named), is_long, raters, labels, rois, rest
        )


def _prefixed(columns: Sequence[str], prefix: str) -> dict[str, str]:
    return {c: c.removeprefix(prefix).strip() for c in columns if c.startswith(prefix)}


@dataclass
class _Collected:
    """What the rows of one case say, each with the row that said it first."""

    said: dict[str, tuple[str, str]] = field(default_factory=dict)  # column -> value, place
    raters: dict[str, Path] = field(default_factory=dict)
    soft: dict[str, Path] = field(default_factory=dict)


def _collect(found: _Collected, row: Row, layout: _Layout, base: Path) -> None:
    for column in (*layout.images, *layout.rois, "group", "test", "ignore"):
        value = row[column]
        if not value:
            continue
        before, place = found.said.setdefault(column, (value, row.place))
        if before != value:
            raise DatasetError(
                f"{row.place}: {column} is {value!r}, but {before!r} in {place.rpartition(', ')[2]} of the "
                f"same case; keep one."
            )
    if layout.is_long:
        _collect_mask(found, row, base)
    for column, rater in layout.rater_columns.items():
        if row[column]:
            _add(found.raters, rater, _file(row, column, base, is_rater=True), row, what="rater")
    for column, label in layout.label_columns.items():
        if row[column]:
            _add(found.soft, label, _file(row, column, base), row, what="label")


def _collect_mask(found: _Collected, row: Row, base: Path) -> None:
    rater, label = row["rater"], row["label"]
    if not row["mask"]:
        if rater or label:
            raise DatasetError(
                f"{row.place}: has no mask for {rater or label}; fill the cell or remove the row."
            )
        return
    if rater and label:
        raise DatasetError(
            f"{row.place}: has a rater and a label; a label is for probability maps, which have no rater: "
            f"leave one empty."
        )
    path = _file(row, "mask", base)
    if label:
        _add(found.soft, label, path, row, what="label")
    else:
        _add(found.raters, rater or SINGLE_RATER, path, row, what="rater")


def _add(known: dict[str, Path], name: str, path: Path, row: Row, *, what: str) -> None:
    check_file_name(name, f"{row.place}: {what}")
    if name in known:
        raise DatasetError(
            f"{row.place}: {what} {name} has two files for this case, {known[name]} and {path}; keep one."
        )
    known[name] = path


def _file(row: Row, column: str, base: Path, *, is_rater: bool = False) -> Path:
    given = os.path.expanduser(row[column])
    path = base / given
    if not path.exists():
        # a table of Windows has backslashes; macOS stores an accent as a character of its own
        texts = [unicodedata.normalize(form, given.replace("\\", "/")) for form in ("NFC", "NFD")]
        path = next((base / text for text in texts if (base / text).exists()), path)
    if not path.exists():
        hint = "; if this column is no rater's, name the raters' columns rater:NAME" if is_rater else ""
        raise DatasetError(f"{row.place}: {column}: no such file {path}; correct the cell{hint}.")
    return path


def _case(name: str, found: _Collected, layout: _Layout, path: Path) -> Case:
    rows = {column: Row(place, {column: value}) for column, (value, place) in found.said.items()}
    missing = [column for column in layout.images if column not in rows]
    if missing:
        raise DatasetError(f"--cases-csv {path}: case {name} has no {missing[0]}; fill one cell of its rows.")
    test = rows.get("test", Row(str(path), {}))
    if test["test"].lower() not in YES | NO:
        raise DatasetError(f"{test.place}: test is {test['test']!r}; write 1 or 0.")
    return Case(
        name,
        [_file(rows[column], column, path.parent) for column in layout.images],
        raters=found.raters,
        soft=found.soft,
        rois={roi: _file(rows[c], c, path.parent) for c, roi in layout.rois.items() if c in rows},
        group=rows["group"]["group"] if "group" in rows else None,
        is_test=test["test"].lower() in YES,
        ignore=_file(rows["ignore"], "ignore", path.parent) if "ignore" in rows else None,
    )
