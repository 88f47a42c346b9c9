"""A table (CSV) of cases and their files: ``--cases-csv``; the same reader serves ``--groups``."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_softlabel.arguments import Texts, as_texts
from nnunet_softlabel.cases.case import Case, Source, source_name
from nnunet_softlabel.cases.columns import KNOWN_COLUMNS, with_groups_of, with_known_columns
from nnunet_softlabel.cases.names import check_case_names, check_file_name
from nnunet_softlabel.cases.raters import RaterChannels
from nnunet_softlabel.cases.rows import NO, YES, Row, column_named, read_rows
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.formats.channels import ChannelAxis
from nnunet_softlabel.public import public


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
    path: Path,
    *,
    case_column: str = "case",
    group_column: str = "group",
    needs_images: bool = True,
    label_names: Sequence[str] = (),
    rater_axis: ChannelAxis | None = None,
    rater_names: Texts = (),
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
        group_column: name of the column of groups (patients), which a table may lack under its usual name.
        needs_images: False if images come from elsewhere.
        label_names: what the column ``label`` may hold; empty: anything.
        rater_axis: masks of rows without rater hold a channel per rater along this axis.
        rater_names: names of these channels; none: 1, 2, 3, ...

    Raises:
        UsageError: for an axis of raters where every row names its rater.
        DatasetError: naming the row of what does not fit, and files that are not there.
    """
    channels = RaterChannels(rater_axis, tuple(as_texts(rater_names, "rater_names")))
    rows, columns = with_known_columns(*read_rows(path, "--cases-csv"))
    case_column = column_named(case_column, columns) or case_column
    if group_column != "group":
        rows, columns = with_groups_of(path, rows, columns, group_column)
    layout = _Layout.of(path, columns, case_column, needs_images=needs_images)
    if rater_axis is not None and not (layout.is_long and any(_has_channels(row) for row in rows)):
        raise UsageError(
            f"--cases-csv {path}: --rater-axis is for masks without rater, and every mask of the table has "
            f"one; give a column mask and leave the rater empty, or leave out --rater-axis."
        )
    collected: dict[str, _Collected] = {}
    for row in rows:
        name = row[case_column]
        if not name:
            raise DatasetError(f"{row.place}: has no {case_column}; fill the cell or remove the row.")
        found = collected.setdefault(name, _Collected())
        _collect(found, row, layout, path.parent)
        if layout.is_long:
            _collect_mask(found, row, path.parent, channels)
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
        if not columns:
            raise DatasetError(f"--cases-csv {path}: is empty; write a header and a row per mask.")
        if case_column not in columns:
            raise DatasetError(
                f"--cases-csv {path}: has no column {case_column!r}; its columns are {', '.join(columns)} "
                f"(--case-column)."
            )
        numbered = sorted(c for c in columns if re.fullmatch(r"image_\d{4}", c))
        named = [c for c in columns if c.startswith("image:")]
        _check_numbers(path, numbered, has_first="image" in columns)
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


def _check_numbers(path: Path, numbered: Sequence[str], *, has_first: bool) -> None:
    """Refuse a gap in ``image_0000``, ``image_0001``: a column may be misspelt."""
    numbers = [int(column[-4:]) for column in numbered]
    firsts = (1,) if has_first else (0, 1)
    if numbers and (numbers[0] not in firsts or numbers != [*range(numbers[0], numbers[0] + len(numbers))]):
        raise DatasetError(
            f"--cases-csv {path}: has the columns {', '.join((*['image'] * has_first, *numbered))}; number "
            f"them without a gap, image_0000, image_0001."
        )


def _prefixed(columns: Sequence[str], prefix: str) -> dict[str, str]:
    return {c: c.removeprefix(prefix).strip() for c in columns if c.startswith(prefix)}


@dataclass
class _Collected:
    """What the rows of one case say, each with the row that said it first."""

    said: dict[str, tuple[str, str]] = field(default_factory=dict)  # column -> value, place
    raters: dict[str, Source] = field(default_factory=dict)
    soft: dict[str, Source] = field(default_factory=dict)


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
    for column, rater in layout.rater_columns.items():
        if row[column]:
            _add(found.raters, rater, _file(row, column, base, is_rater=True), row, what="rater")
    for column, label in layout.label_columns.items():
        if row[column]:
            _add(found.soft, label, _file(row, column, base), row, what="label")


def _has_channels(row: Row) -> bool:
    """True if the row has a mask of which neither a rater nor a label is named."""
    return bool(row["mask"]) and not row["rater"] and not row["label"]


def _collect_mask(found: _Collected, row: Row, base: Path, channels: RaterChannels) -> None:
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
    elif _has_channels(row):
        for name, source in _raters_in(path, row, channels).items():
            _add(found.raters, name, source, row, what="rater")
    else:
        _add(found.raters, rater, path, row, what="rater")


def _raters_in(path: Path, row: Row, channels: RaterChannels) -> Mapping[str, Source]:
    """One rater without name, or a rater per channel of the file."""
    try:
        return channels.raters_of(path)
    except DatasetError as error:
        raise DatasetError(f"{row.place}: {error}") from error


def _add(known: dict[str, Source], name: str, source: Source, row: Row, *, what: str) -> None:
    check_file_name(name, f"{row.place}: {what}")
    if known.get(name) == source:
        raise DatasetError(f"{row.place}: {what} {name} is there twice, with one file; remove a row.")
    if name in known:
        raise DatasetError(
            f"{row.place}: {what} {name} has two files for this case, {source_name(known[name])} and "
            f"{source_name(source)}; keep one."
        )
    known[name] = source


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
    if path.is_dir():
        raise DatasetError(f"{row.place}: {column}: {path} is a folder; name a file of it.")
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
