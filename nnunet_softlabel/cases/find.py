"""Cases to convert: what belongs to one image, and how file patterns become cases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from nnunet_softlabel.arguments import Texts, as_texts
from nnunet_softlabel.cases.case import Case, source_name
from nnunet_softlabel.cases.extra_files import Extra, ExtraFiles
from nnunet_softlabel.cases.files import AnyRaterFiles, SoftFiles, as_rater_files
from nnunet_softlabel.cases.names import check_case_names, check_spelled_alike
from nnunet_softlabel.cases.patterns import CaseMatcher, Pattern
from nnunet_softlabel.cases.raters import RaterChannels, with_raters
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.formats.channels import Channel
from nnunet_softlabel.public import public


@public
def find_cases(
    images: Texts,
    *,
    raters: AnyRaterFiles = (),
    soft: SoftFiles | None = None,
    rois: Mapping[str, str] | None = None,
    ignore: str | None = None,
    extra_files: ExtraFiles = "refuse",
    may_lack_raters: bool = False,
    notes: list[str] | None = None,
) -> list[Case]:
    """Turn file patterns into cases; names come from the first image pattern.

    >>> cases = ns.find_cases("images/{case}.nii.gz", raters="raters/{case}_{rater}.nii.gz")
    >>> cases[0].name, list(cases[0].raters)
    ('knee_000', ['expert', 'resident', 'student'])

    Args:
        images: one pattern with ``{case}`` per channel.
        raters: patterns with ``{case}`` and ``{rater}``, or `RaterFiles` that hold several raters, or one.
        soft: ready probability maps.
        rois: ROI name -> pattern with ``{case}``.
        ignore: pattern with ``{case}`` of masks from which nothing is to be learnt; a case may have none.
        extra_files: whether raters' files, maps and masks without an image are refused or ignored.
        may_lack_raters: keep cases of which no rater has a file; see `with_missing_raters`.
        notes: gets a sentence for everything that was decided, such as the files that are ignored.

    Raises:
        UsageError: for a wrong pattern, or one that fits no file.
        DatasetError: for images without raters, raters without images, missing channels.
    """
    images, drawn = as_texts(images, "images"), as_rater_files(raters, "raters")
    label_names = [] if soft is None else list(soft.labels)
    if not images:
        raise ValueError("images: give a pattern with {case} per channel, or one alone.")
    image_patterns = [Pattern(text, "--images", ["case"]) for text in images]
    rater_patterns, soft_pattern = drawn.parsed(), None if soft is None else soft.parsed()
    mask_patterns = {f"--roi {roi}": Pattern(text, "--roi", ["case"]) for roi, text in (rois or {}).items()}
    ignore_pattern = None if ignore is None else Pattern(ignore, "--ignore", ["case"])
    others = [*rater_patterns, soft_pattern, *mask_patterns.values(), ignore_pattern, *image_patterns[1:]]
    by_case = _without_files_of(
        _files_by_case(image_patterns[0]), [p for p in others if p is not None], label_names
    )
    check_case_names(by_case)
    extra = Extra(extra_files)
    cases = {name: Case(name, [Path(path)]) for name, path in by_case.items()}
    for pattern in image_patterns[1:]:
        for name, path in _files_of_all(cases, pattern, "image", Extra("refuse")).items():
            cases[name] = replace(cases[name], images=[*cases[name].images, path])
    masks = [*mask_patterns.values(), *([] if ignore_pattern is None else [ignore_pattern])]
    mask_files = {path for pattern in masks for path in pattern.files()}
    for pattern in rater_patterns:
        _add_raters(cases, pattern, extra, mask_files=mask_files, channels=drawn.channels)
    if soft is not None and soft.has_channels:
        _add_soft_channels(cases, soft, extra)
        if notes is not None:
            in_order = ", ".join(f"{label} {number}" for label, number in soft.channel_of.items())
            notes.append(f"Channels of --soft {soft.pattern}: {in_order}.")
    elif soft_pattern is not None:
        _add_soft(cases, soft_pattern, label_names, extra)
    for roi, pattern in zip(rois or {}, mask_patterns.values(), strict=True):
        for name, path in _files_of_all(cases, pattern, "mask", extra).items():
            cases[name] = replace(cases[name], rois={**cases[name].rois, roi: path})
    if ignore_pattern is not None:
        for name, path in _known_files(cases, ignore_pattern, "mask", extra).items():
            cases[name] = replace(cases[name], ignore=path)
    if notes is not None:
        notes += extra.notes()
    if not may_lack_raters:
        check_have_raters(cases.values())
    return sorted(cases.values(), key=lambda case: case.name)


def check_have_raters(cases: Iterable[Case]) -> None:
    """Refuse cases without any annotation.

    Raises:
        DatasetError: naming the first and the number of all.
    """
    without = [case for case in cases if not case.raters and not case.soft]
    if without:
        more = "" if len(without) == 1 else f" (as {len(without) - 1} more cases)"
        image = f"image {source_name(without[0].images[0])} " if without[0].images else ""
        raise DatasetError(
            f"Case {without[0].name}: {image}has no rater's file{more}; add one or remove the image."
        )


def _files_by_case(pattern: Pattern, known: Iterable[str] = ()) -> dict[str, str]:
    """Case -> file: a known case where one fits, else what the pattern takes for one."""
    matcher = CaseMatcher(pattern, known)
    found: dict[str, str] = {}
    for path in pattern.files():
        if match := matcher.match(path) or matcher.anything.fullmatch(path):
            if match["case"] in found:
                raise DatasetError(
                    f"Case {match['case']}: {pattern.flag} {pattern.text} fits two files, "
                    f"{found[match['case']]} and {path}; make the pattern narrower, or put {{case}} where "
                    f"they differ."
                )
            found[match["case"]] = path
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


def _known_files(cases: Mapping[str, Case], pattern: Pattern, what: str, extra: Extra) -> dict[str, Path]:
    """Case -> file of the pattern; a file of an unknown case is extra."""
    files = {name: Path(path) for name, path in _files_by_case(pattern, cases).items()}
    own = {str(path) for case in cases.values() for path in case.images if isinstance(path, Path)}
    strangers = {
        str(path): name for name, path in files.items() if name not in cases and str(path) not in own
    }
    check_spelled_alike(pattern.text, strangers.values(), cases)
    if len(strangers) == len(files):
        _refuse_other_names(pattern, strangers, cases)
    for path, name in strangers.items():
        extra.add(path, f"{what} of case {name!r}")
    return {name: path for name, path in files.items() if name in cases}


def _refuse_other_names(pattern: Pattern, strangers: Mapping[str, str], cases: Mapping[str, Case]) -> None:
    """Where no file fits an image, the patterns take different parts of the names for the case."""
    longer = [(path, name) for path, name in strangers.items() if any(case in name for case in cases)]
    shorter = [(path, name) for path, name in strangers.items() if any(name in case for case in cases)]
    if len(strangers) == 1 and not longer and not shorter:
        return  # one file of another case
    path, stranger = (longer or shorter or list(strangers.items()))[0]
    related = (case for case in cases if case in stranger or stranger in case)
    case = cases[next(related, next(iter(cases)))]
    if longer:  # "knee1_seg" of "knee1"
        before, after = stranger.split(case.name, maxsplit=1)
        remedy = f"write {before}{{case}}{after} instead of {{case}} in {pattern.flag}"
    elif shorter:
        before, after = case.name.split(stranger, maxsplit=1)
        remedy = f"write {before}{{case}}{after} instead of {{case}} in --images"
    else:
        remedy = "the two must name cases alike"
    image = f" ({source_name(case.images[0])})" if case.images else ""
    raise UsageError(
        f"{pattern.flag} {pattern.text}: none of its {len(strangers)} files fits an image; to this pattern "
        f"{path} is of case {stranger!r}, an image is of case {case.name!r}{image}: {remedy}."
    )


def _files_of_all(cases: Mapping[str, Case], pattern: Pattern, what: str, extra: Extra) -> dict[str, Path]:
    files = _known_files(cases, pattern, what, extra)
    for name in cases:
        if name not in files:
            raise DatasetError(f"Case {name}: has no {what} that fits {pattern.flag} {pattern.text}; add it.")
    return files


def _add_raters(
    cases: dict[str, Case],
    pattern: Pattern,
    extra: Extra,
    *,
    mask_files: set[str],
    channels: RaterChannels,
) -> None:
    """Add what the pattern finds but images and masks: ``{rater}/{case}`` finds ``bones/{case}``, too."""
    matcher = CaseMatcher(pattern, cases)
    taken = {str(path) for case in cases.values() for path in case.images} | mask_files
    files = [path for path in pattern.files() if path not in taken and matcher.anything.fullmatch(path)]
    if not files:
        raise UsageError(
            f"{pattern.flag} {pattern.text}: fits no file; check the path, and quote the pattern."
        )
    given = {path: match["case"] for path in files if (match := matcher.anything.fullmatch(path))}
    strangers = {path: name for path, name in given.items() if not matcher.match(path)}
    check_spelled_alike(pattern.text, strangers.values(), cases)
    if len(strangers) == len(files):
        _refuse_other_names(pattern, strangers, cases)
    for path in files:
        match = matcher.match(path)
        if match is None:
            extra.add(path, f"rater's file of case {strangers[path]!r}")
            continue
        case = cases[match["case"]]
        found = {match["rater"]: Path(path)} if pattern.has("rater") else channels.raters_of(Path(path))
        cases[case.name] = replace(case, raters=with_raters(case.name, case.raters, found))


def _add_soft_channels(cases: dict[str, Case], maps: SoftFiles, extra: Extra) -> None:
    """Probability maps that are channels of one file per case."""
    assert maps.axis is not None, "has channels"
    for name, path in _files_of_all(cases, maps.parsed(), "file of probability maps", extra).items():
        soft = {label: Channel(path, number - 1, maps.axis) for label, number in maps.channel_of.items()}
        cases[name] = replace(cases[name], soft=soft)


def _add_soft(cases: dict[str, Case], pattern: Pattern, label_names: Sequence[str], extra: Extra) -> None:
    matcher = CaseMatcher(pattern, cases, label_names)
    image_files = {str(path) for case in cases.values() for path in case.images}
    found = {path: matcher.anything.fullmatch(path) for path in pattern.files() if path not in image_files}
    files = {path: match["case"] for path, match in found.items() if match}
    strangers: dict[str, str] = {}
    maps: dict[tuple[str, str], list[str]] = {}
    for path, name in files.items():
        if match := matcher.match(path):
            label = match["label"] if pattern.has("label") else label_names[0]
            maps.setdefault((match["case"], label), []).append(path)
        else:
            strangers[path] = name
    check_spelled_alike(pattern.text, strangers.values(), cases)
    if strangers and len(strangers) == len(files):
        _refuse_other_names(pattern, strangers, cases)
    for path, name in strangers.items():
        extra.add(path, f"soft label of case {name!r}")
    for name, case in cases.items():
        soft = {label: _one_map(pattern, name, label, maps.get((name, label))) for label in label_names}
        cases[name] = replace(case, soft=soft)


def _one_map(pattern: Pattern, case: str, label: str, files: Sequence[str] | None) -> Path:
    if not files:
        missing = pattern.filled(case=case, label=label)
        raise DatasetError(f"Case {case}: no probability map {missing} for label {label}; add it.")
    if len(files) > 1:
        raise DatasetError(
            f"Case {case}: label {label} has two probability maps, {files[0]} and {files[1]}; keep one."
        )
    return Path(files[0])
