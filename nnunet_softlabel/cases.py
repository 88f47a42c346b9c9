"""Cases to convert: what belongs to one image, and how file patterns become cases."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from glob import escape, glob
from pathlib import Path

import numpy as np

from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.soft_labels import check_case_names

# A file, the array itself, or a function that makes the array: a script that must recode masks passes a function,
# so that a process of the pool does the reading.
Source = Path | np.ndarray | Callable[[], np.ndarray]
SINGLE_RATER = "rater"


@dataclass(frozen=True)
class Case:
    """One image and what is known about it.

    Attributes:
        name: nnU-Net's case identifier.
        images: one per channel, on the same grid.
        raters: rater name -> label map in the raters' values, on the grid of the image.
        soft: label name -> ready probability map; replaces fusion.
        rois: ROI name -> mask, for priors.
        group: patient or other unit that must not be on both sides of a split.
        is_test: goes to ``imagesTs`` and is never trained on.
    """

    name: str
    images: Sequence[Source]
    raters: Mapping[str, Source] = field(default_factory=dict)
    soft: Mapping[str, Source] = field(default_factory=dict)
    rois: Mapping[str, Source] = field(default_factory=dict)
    group: str | None = None
    is_test: bool = False


class Pattern:
    """A path with placeholders, as in ``raters/{case}_rater{rater}.nii.gz``.

    Raises:
        UsageError: for an unknown placeholder, or if ``{case}`` is missing.
    """

    def __init__(self, text: str, flag: str, placeholders: Sequence[str]) -> None:
        self.text, self.flag = str(Path(text).expanduser()), flag
        self.parts = re.split(r"\{(\w+)\}", self.text)
        unknown = set(self.parts[1::2]) - set(placeholders)
        if unknown:
            known = ", ".join(f"{{{name}}}" for name in placeholders)
            raise UsageError(f"{flag} {text}: unknown placeholder {{{min(unknown)}}}; known are {known}.")
        if "case" not in self.parts[1::2]:
            raise UsageError(f"{flag} {text}: needs {{case}} where the case's name stands, as in {{case}}.nii.gz.")

    def has(self, placeholder: str) -> bool:
        """True if the placeholder occurs."""
        return placeholder in self.parts[1::2]

    def files(self) -> list[str]:
        """All files that fit, whatever the placeholders stand for."""
        found = glob("".join("*" if i % 2 else escape(part) for i, part in enumerate(self.parts)))
        return sorted(path for path in found if Path(path).is_file())

    def regex(self, **choices: Iterable[str]) -> re.Pattern[str]:
        """A regular expression with a group per placeholder, restricted to ``choices`` where given."""
        seen: set[str] = set()
        expression = ""
        for i, part in enumerate(self.parts):
            if not i % 2:
                expression += re.escape(part)
            elif part in seen:
                expression += f"(?P={part})"
            else:
                seen.add(part)
                # longest first, so that of the names `a` and `a_b` the file `a_b_1` belongs to `a_b`
                names = sorted(choices[part], key=lambda name: (-len(name), name)) if part in choices else None
                inner = "|".join(map(re.escape, names)) if names is not None else "[^/]+"
                expression += f"(?P<{part}>{inner})"
        return re.compile(expression)


def find_cases(
    images: Sequence[str],
    *,
    raters: Sequence[str] = (),
    soft: str | None = None,
    rois: Mapping[str, str] | None = None,
    label_names: Sequence[str] = (),
    has_single_rater: bool = False,
) -> list[Case]:
    """Turn file patterns into cases; names come from the first image pattern.

    Args:
        images: one pattern with ``{case}`` per channel.
        raters: patterns with ``{case}`` and ``{rater}``.
        soft: pattern with ``{case}`` and ``{label}`` of ready probability maps.
        rois: ROI name -> pattern with ``{case}``.
        label_names: what ``{label}`` may stand for.
        has_single_rater: allows rater patterns without ``{rater}``.

    Raises:
        UsageError: for a wrong pattern, or one that fits no file.
        DatasetError: for images without raters, raters without images, missing channels.
    """
    rater_patterns = [_rater_pattern(text, has_single_rater) for text in raters]
    image_patterns = [Pattern(text, "--images", ["case"]) for text in images]
    by_case = _files_by_case(image_patterns[0])
    if rater_patterns:
        by_case = _without_rater_files(by_case, rater_patterns)
    cases = {name: Case(name, [Path(path)]) for name, path in by_case.items()}
    check_case_names(cases)
    for pattern in image_patterns[1:]:
        files = _files_by_case(pattern)
        for name, case in cases.items():
            if name not in files:
                raise DatasetError(f"Case {name}: has no image that fits --images {pattern.text}; add or remove it.")
            cases[name] = replace(case, images=[*case.images, Path(files[name])])
    for rater_pattern in rater_patterns:
        _add_raters(cases, rater_pattern)
    if soft is not None:
        _add_soft(cases, Pattern(soft, "--soft", ["case", "label"]), label_names)
    for roi, text in (rois or {}).items():
        files = _files_by_case(Pattern(text, "--roi", ["case"]))
        for name, case in cases.items():
            if name not in files:
                raise DatasetError(f"Case {name}: has no mask that fits --roi {roi}={text}; add it.")
            cases[name] = replace(case, rois={**case.rois, roi: Path(files[name])})
    for name, case in cases.items():
        if not case.raters and not case.soft:
            raise DatasetError(f"Case {name}: image {case.images[0]} has no rater's file; add one or remove the image.")
    return sorted(cases.values(), key=lambda case: case.name)


def _rater_pattern(text: str, has_single_rater: bool) -> Pattern:
    pattern = Pattern(text, "--raters", ["case", "rater"])
    if not pattern.has("rater") and not has_single_rater:
        raise UsageError(
            f"--raters {text}: needs {{rater}} where the rater's name stands; for one rater per case add --single-rater."
        )
    return pattern


def _files_by_case(pattern: Pattern) -> dict[str, str]:
    regex = pattern.regex()
    found: dict[str, str] = {}
    for path in pattern.files():
        match = regex.fullmatch(path)
        if match:
            found[match["case"]] = path
    if not found:
        raise UsageError(f"{pattern.flag} {pattern.text}: fits no file; check the path, and quote the pattern.")
    return found


def _without_rater_files(images: dict[str, str], patterns: Sequence[Pattern]) -> dict[str, str]:
    """Drop what the image pattern caught although it is a rater's file of another case (same folder, same ending)."""
    rater_files = set()
    for pattern in patterns:
        regex = pattern.regex(case=images)
        for path in pattern.files():
            match = regex.fullmatch(path)
            if match and images[match["case"]] != path:
                rater_files.add(path)
    return {name: path for name, path in images.items() if path not in rater_files}


def _add_raters(cases: dict[str, Case], pattern: Pattern) -> None:
    known, anything = pattern.regex(case=cases), pattern.regex()
    image_files = {str(path) for case in cases.values() for path in case.images}
    files = [path for path in pattern.files() if path not in image_files]
    for path in files:
        match = known.fullmatch(path)
        if match is None:
            stranger = anything.fullmatch(path)
            if stranger is None:
                continue
            raise DatasetError(f"{path}: rater's file of case {stranger['case']!r}, which has no image; add or remove it.")
        case, rater = cases[match["case"]], match["rater"] if pattern.has("rater") else SINGLE_RATER
        if rater in case.raters:
            raise DatasetError(f"Case {case.name}: rater {rater} has two files, {case.raters[rater]} and {path}.")
        cases[case.name] = replace(case, raters={**case.raters, rater: Path(path)})
    if not files:
        raise UsageError(f"--raters {pattern.text}: fits no file; check the path, and quote the pattern.")


def _add_soft(cases: dict[str, Case], pattern: Pattern, label_names: Sequence[str]) -> None:
    if not pattern.has("label") and len(label_names) > 1:
        raise UsageError(f"--soft {pattern.text}: needs {{label}}, since there are {len(label_names)} labels.")
    for name, case in cases.items():
        files = {}
        for label in label_names:
            text = "".join(
                part if not i % 2 else {"case": name, "label": label}[part] for i, part in enumerate(pattern.parts)
            )
            if not Path(text).is_file():
                raise DatasetError(f"Case {name}: no probability map {text} for label {label}; add it.")
            files[label] = Path(text)
        cases[name] = replace(case, soft=files)


def read_groups(path: Path, *, case_column: str = "case", group_column: str = "group") -> dict[str, str]:
    """Read which group (patient) each case belongs to from a CSV file with a header.

    Raises:
        DatasetError: if the file cannot be read, lacks a column, or gives a case two groups.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"--groups {path}: cannot be read ({error}).") from error
    groups: dict[str, str] = {}
    for row in rows:
        for column, flag in ((case_column, "--case-column"), (group_column, "--group-column")):
            if row.get(column) is None:
                raise DatasetError(f"{path}: has no column {column!r}; its columns are {', '.join(row)} ({flag}).")
        case, group = row[case_column], row[group_column]
        if groups.setdefault(case, group) != group:
            raise DatasetError(f"{path}: case {case} is in the groups {groups[case]!r} and {group!r}; keep one.")
    return groups


def with_groups(cases: Iterable[Case], groups: Mapping[str, str], source: str) -> list[Case]:
    """Give every case its group.

    Raises:
        DatasetError: if a case has none.
    """
    grouped = []
    for case in cases:
        if case.name not in groups:
            raise DatasetError(f"{source}: has no row for case {case.name}; add one.")
        grouped.append(replace(case, group=groups[case.name]))
    return grouped


def with_test_cases(cases: Sequence[Case], names: Iterable[str]) -> list[Case]:
    """Mark the named cases as test cases.

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
    test_groups = {case.group for case in marked if case.is_test and case.group is not None}
    for case in marked:
        if not case.is_test and case.group in test_groups:
            raise DatasetError(
                f"--test-cases: group {case.group} has case {case.name} in training and others in the test set; "
                f"put whole groups on one side."
            )
    return marked
