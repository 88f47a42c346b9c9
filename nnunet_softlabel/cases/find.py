"""Cases to convert: what belongs to one image, and how file patterns become cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from nnunet_softlabel.cases.case import SINGLE_RATER, Case
from nnunet_softlabel.cases.names import check_case_names, check_file_name
from nnunet_softlabel.cases.patterns import CaseMatcher, Pattern
from nnunet_softlabel.errors import DatasetError, UsageError


def find_cases(
    images: Sequence[str],
    *,
    raters: Sequence[str] = (),
    soft: str | None = None,
    rois: Mapping[str, str] | None = None,
    ignore: str | None = None,
    label_names: Sequence[str] = (),
    has_single_rater: bool = False,
) -> list[Case]:
    """Turn file patterns into cases; names come from the first image pattern.

    Args:
        images: one pattern with ``{case}`` per channel.
        raters: patterns with ``{case}`` and ``{rater}``.
        soft: pattern with ``{case}`` and ``{label}`` of ready probability maps.
        rois: ROI name -> pattern with ``{case}``.
        ignore: pattern with ``{case}`` of masks from which nothing is to be learnt; a case may have none.
        label_names: what ``{label}`` may stand for.
        has_single_rater: allows rater patterns without ``{rater}``.

    Raises:
        UsageError: for a wrong pattern, or one that fits no file.
        DatasetError: for images without raters, raters without images, missing channels.
    """
    image_patterns = [Pattern(text, "--images", ["case"]) for text in images]
    rater_patterns = [_rater_pattern(text, has_single_rater) for text in raters]
    soft_pattern = None if soft is None else _soft_pattern(soft, label_names)
    mask_patterns = {f"--roi {roi}": Pattern(text, "--roi", ["case"]) for roi, text in (rois or {}).items()}
    ignore_pattern = None if ignore is None else Pattern(ignore, "--ignore", ["case"])
    others = [*rater_patterns, soft_pattern, *mask_patterns.values(), ignore_pattern, *image_patterns[1:]]
    by_case = _without_files_of(
        _files_by_case(image_patterns[0]), [p for p in others if p is not None], label_names
    )
    check_case_names(by_case)
    cases = {name: Case(name, [Path(path)]) for name, path in by_case.items()}
    for pattern in image_patterns[1:]:
        for name, path in _files_of_all(cases, pattern, "image").items():
            cases[name] = replace(cases[name], images=[*cases[name].images, path])
    masks = [*mask_patterns.values(), *([] if ignore_pattern is None else [ignore_pattern])]
    mask_files = {path for pattern in masks for path in pattern.files()}
    for pattern in rater_patterns:
        _add_raters(cases, pattern, mask_files)
    if soft_pattern is not None:
        _add_soft(cases, soft_pattern, label_names)
    for roi, pattern in zip(rois or {}, mask_patterns.values(), strict=True):
        for name, path in _files_of_all(cases, pattern, "mask").items():
            cases[name] = replace(cases[name], rois={**cases[name].rois, roi: path})
    if ignore_pattern is not None:
        for name, path in _known_files(cases, ignore_pattern, "mask").items():
            cases[name] = replace(cases[name], ignore=path)
    for name, case in cases.items():
        if not case.raters and not case.soft:
            raise DatasetError(
                f"Case {name}: image {case.images[0]} has no rater's file; add one or remove the image."
            )
    return sorted(cases.values(), key=lambda case: case.name)


def _rater_pattern(text: str, has_single_rater: bool) -> Pattern:
    pattern = Pattern(text, "--raters", ["case", "rater"])
    if not pattern.has("rater") and not has_single_rater:
        raise UsageError(
            f"--raters {text}: needs {{rater}} where the rater's name stands; "
            f"for one rater per case add --single-rater."
        )
    return pattern


def _soft_pattern(text: str, label_names: Sequence[str]) -> Pattern:
    pattern = Pattern(text, "--soft", ["case", "label"])
    if not pattern.has("label") and len(label_names) > 1:
        raise UsageError(f"--soft {text}: needs {{label}}, since there are {len(label_names)} labels.")
    return pattern


def _files_by_case(pattern: Pattern) -> dict[str, str]:
    regex = pattern.regex()
    found = {match["case"]: path for path in pattern.files() if (match := regex.fullmatch(path))}
    if not found:
        raise UsageError(
            f"{pattern.flag} {pattern.text}: fits no file; check the path, and quote the pattern."
        )
    return found


def _without_files_of(
    images: dict[str, str], patterns: Sequence[Pattern], label_names: Sequence[str]
) -> dict[str, str]:
    """Drop what the image pattern caught although it is another file of a case (same folder, same ending)."""
    own = {path: name for name, path in images.items()}
    strangers = set()
    for pattern in patterns:
        matcher = CaseMatcher(pattern, images, label_names)
        for path in pattern.files():
            match = matcher.match(path) if path in own else None
            if match and match["case"] != own[path]:
                strangers.add(own[path])
    return {name: path for name, path in images.items() if name not in strangers}


def _known_files(cases: Mapping[str, Case], pattern: Pattern, what: str) -> dict[str, Path]:
    """Case -> file of the pattern; a file of an unknown case is an error."""
    files = {name: Path(path) for name, path in _files_by_case(pattern).items()}
    own = {str(path) for case in cases.values() for path in case.images if isinstance(path, Path)}
    for name in files:
        if name not in cases and str(files[name]) not in own:
            raise DatasetError(
                f"{files[name]}: {what} of case {name!r}, which has no image; add or remove it."
            )
    return {name: path for name, path in files.items() if name in cases}


def _files_of_all(cases: Mapping[str, Case], pattern: Pattern, what: str) -> dict[str, Path]:
    files = _known_files(cases, pattern, what)
    for name in cases:
        if name not in files:
            raise DatasetError(f"Case {name}: has no {what} that fits {pattern.flag} {pattern.text}; add it.")
    return files


def _add_raters(cases: dict[str, Case], pattern: Pattern, mask_files: set[str]) -> None:
    """Add what the pattern finds but images and masks: ``{rater}/{case}`` finds ``bones/{case}``, too."""
    matcher = CaseMatcher(pattern, cases)
    taken = {str(path) for case in cases.values() for path in case.images} | mask_files
    files = [path for path in pattern.files() if path not in taken and matcher.anything.fullmatch(path)]
    if not files:
        raise UsageError(
            f"{pattern.flag} {pattern.text}: fits no file; check the path, and quote the pattern."
        )
    for path in files:
        match = matcher.match(path)
        if match is None:
            stranger = pattern.regex().fullmatch(path)
            assert stranger is not None  # the files are those that match
            raise DatasetError(
                f"{path}: rater's file of case {stranger['case']!r}, which has no image; add or remove it."
            )
        case, rater = cases[match["case"]], match["rater"] if pattern.has("rater") else SINGLE_RATER
        check_file_name(rater, f"Case {case.name}: rater")
        if rater in case.raters:
            raise DatasetError(
                f"Case {case.name}: rater {rater} has two files, {case.raters[rater]} and {path}; keep one."
            )
        cases[case.name] = replace(case, raters={**case.raters, rater: Path(path)})


def _add_soft(cases: dict[str, Case], pattern: Pattern, label_names: Sequence[str]) -> None:
    matcher = CaseMatcher(pattern, cases, label_names)
    image_files = {str(path) for case in cases.values() for path in case.images}
    for path in pattern.files():
        stranger = None if path in image_files or matcher.match(path) else matcher.anything.fullmatch(path)
        if stranger is not None:
            raise DatasetError(
                f"{path}: soft label of case {stranger['case']!r}, which has no image; add or remove it."
            )
    for name, case in cases.items():
        files = {label: Path(pattern.filled(case=name, label=label)) for label in label_names}
        for label, file in files.items():
            if not file.is_file():
                raise DatasetError(f"Case {name}: no probability map {file} for label {label}; add it.")
        cases[name] = replace(case, soft=files)
