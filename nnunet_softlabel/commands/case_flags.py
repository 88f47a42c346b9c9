"""The flags that say which files the user has; `convert` and `inspect` share them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_softlabel.errors import UsageError

if TYPE_CHECKING:
    from nnunet_softlabel.cases.case import Case
    from nnunet_softlabel.cases.label_maps import FileOptions
    from nnunet_softlabel.cases.table import CaseTable


def add_file_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of files that a pattern alone cannot express."""
    parser.add_argument(
        "--cases-csv",
        type=Path,
        metavar="FILE",
        help="Table of files in place of patterns: columns case, image, rater, mask (docs/layouts.md).",
    )
    parser.add_argument(
        "--rater-datasets",
        nargs="+",
        default=[],
        metavar="DATASET",
        help="In place of patterns: nnU-Net data sets (id or name), one per rater; labels match by name.",
    )
    parser.add_argument(
        "--case-column",
        metavar="NAME",
        help="Column of cases in --cases-csv, --groups and --test-cases (default case).",
    )
    parser.add_argument(
        "--extra-files",
        choices=["refuse", "ignore"],
        default="refuse",
        help="Raters' files whose case has no image (default refuse).",
    )

    parser.add_argument(
        "--rater-axis",
        choices=["first", "last"],
        help="One file per case with a channel per rater (--raters without {rater}, or rows of --cases-csv "
        "without rater): last in a 4D volume or RGB image, first in a TIFF stack.",
    )
    parser.add_argument(
        "--rater-names", nargs="+", default=[], metavar="NAME", help="Of these channels (default 1 2 3 ...)."
    )
    parser.add_argument(
        "--class-axis",
        choices=["first", "last"],
        help="A file has a channel per class: --labels lesion=1 bone=2 are the first and second channel.",
    )
    parser.add_argument(
        "--rater-labels",
        nargs="+",
        default=[],
        metavar="RATER:NAME=VALUE",
        help="For raters who use other values than --labels says: r2:lesion=3 r2:bone=1.",
    )
    parser.add_argument(
        "--regrid",
        choices=["nearest", "linear"],
        help="Put masks on another grid on that of their image, by physical position; else they are refused.",
    )


def file_options(args: argparse.Namespace) -> FileOptions:
    """How files are read."""
    from nnunet_softlabel.cases.label_maps import FileOptions

    soft_scale = getattr(args, "soft_scale", None)
    return FileOptions(args.rater_labels, args.regrid, args.class_axis, soft_scale)


def take_rater_datasets(args: argparse.Namespace) -> None:
    """Let the data sets of ``--rater-datasets`` say what labels, channels and values are.

    Raises:
        UsageError: for flags that the data sets answer.
    """
    if not args.rater_datasets:
        return
    from nnunet_softlabel.cases.rater_datasets import read_rater_datasets
    from nnunet_softlabel.formats.nnunet_folders import environment_folder, find_dataset

    given = {"--labels": args.labels, "--rater-labels": args.rater_labels, "--cases-csv": args.cases_csv}
    given |= {"--channel-names": getattr(args, "channel_names", None), "--into": getattr(args, "into", None)}
    extra = [flag for flag, value in given.items() if value]
    if extra:
        raise UsageError(f"--rater-datasets says all about the files; leave out {', '.join(extra)}.")
    raw = environment_folder("nnUNet_raw")
    found = read_rater_datasets([find_dataset(raw, dataset) for dataset in args.rater_datasets])
    args.labels, args.rater_labels, args.channel_names = found.labels, found.rater_labels, found.channel_names
    args.cases_of_datasets = found.cases
    print_notes(found.notes)


def names_all_files(args: argparse.Namespace) -> bool:
    """True if a table or data sets stand in for patterns."""
    return args.cases_csv is not None or bool(args.rater_datasets)


def check_file_flags(args: argparse.Namespace) -> None:
    """Refuse patterns beside a table.

    Raises:
        UsageError: naming the flags.
    """
    patterns = {"--images": args.images, "--raters": args.raters, "--roi": getattr(args, "roi", None)}
    patterns |= {"--soft": getattr(args, "soft", None), "--ignore": getattr(args, "ignore", None)}
    groups, tests = getattr(args, "groups", None), getattr(args, "test_cases", None)
    if args.case_column is not None and not (args.cases_csv or groups or tests):
        raise UsageError("--case-column: belongs to a table, as of --cases-csv; add one.")
    if getattr(args, "group_column", None) is not None and not (args.cases_csv or groups):
        raise UsageError("--group-column: belongs to --groups or --cases-csv; add one.")
    if args.rater_names and args.rater_axis is None:
        raise UsageError("--rater-names belongs to --rater-axis; add it.")
    if args.rater_axis is not None and args.class_axis is not None:
        raise UsageError("--rater-axis and --class-axis: a file has one axis of channels; give one of them.")
    if names_all_files(args):
        patterns |= {"--rater-axis": args.rater_axis if args.rater_datasets else None}
        extra = [flag for flag, value in patterns.items() if value]
        if extra:
            flag = "--rater-datasets" if args.rater_datasets else "--cases-csv"
            raise UsageError(f"{flag} names all files; leave out {', '.join(extra)}.")


def table_of(args: argparse.Namespace, label_names: Sequence[str], *, needs_images: bool) -> CaseTable:
    """The `CaseTable` of ``--cases-csv``, or of ``--rater-datasets``."""
    from nnunet_softlabel.cases.table import CaseTable, read_case_table

    if args.rater_datasets:
        return CaseTable(args.cases_of_datasets)
    table = read_case_table(
        args.cases_csv,
        case_column=args.case_column or "case",
        group_column=_group_column_of_table(args),
        needs_images=needs_images,
        label_names=label_names,
        rater_axis=args.rater_axis,
        rater_names=args.rater_names,
    )
    if table.ignored_columns:
        print(f"Columns of {args.cases_csv} that are not used: {', '.join(table.ignored_columns)}")
    return table


def _group_column_of_table(args: argparse.Namespace) -> str:
    """``--group-column`` is of the table of ``--groups``, if there is one."""
    column = None if getattr(args, "groups", None) else getattr(args, "group_column", None)
    return column or "group"


@dataclass(frozen=True)
class FoundCases:
    """What the flags find: cases, channel names if a table has them, and who is left out without raters."""

    cases: list[Case]
    channel_names: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()


def print_notes(notes: Sequence[str]) -> None:
    """Say what was decided for the user."""
    for note in notes:
        print(note)


def found_cases(
    args: argparse.Namespace,
    images: Sequence[str],
    rois: Mapping[str, str],
    label_channels: Mapping[str, int],
    *,
    hard_label: Callable[[str], Path] | None = None,
) -> FoundCases:
    """The cases that the patterns of ``convert`` find, or those of its table.

    Args:
        args: the flags.
        images: patterns; of the data set with ``--into``, empty with a table that names the images.
        rois: ROI name -> pattern.
        label_channels: label -> its channel, where a file has a channel per label.
        hard_label: where the hard label of a case is, with ``--into``.
    """
    from nnunet_softlabel.cases.files import RaterFiles, SoftFiles
    from nnunet_softlabel.cases.find import find_cases
    from nnunet_softlabel.cases.missing import with_missing_raters

    label_names = list(label_channels)
    notes: list[str] = []
    cases: Sequence[Case]
    channel_names: tuple[str, ...] = ()
    if names_all_files(args) and images:
        from nnunet_softlabel.cases.missing import with_annotations_of

        cases = with_annotations_of(
            find_cases(images, may_lack_raters=True),
            table_of(args, label_names, needs_images=False).cases,
            source=f"--cases-csv {args.cases_csv}",
            extra_files=args.extra_files,
            notes=notes,
        )
    elif names_all_files(args):
        table = table_of(args, label_names, needs_images=True)
        cases, channel_names = table.cases, table.channel_names
    else:
        cases = find_cases(
            images,
            raters=RaterFiles(args.raters, args.single_rater, args.rater_axis, args.rater_names),
            soft=None if args.soft is None else SoftFiles(args.soft, label_channels, args.class_axis),
            rois=rois,
            ignore=args.ignore,
            extra_files=args.extra_files,
            may_lack_raters=True,
            notes=notes,
        )
    kept = with_missing_raters(cases, args.missing_raters, hard_label=hard_label, notes=notes)
    print_notes(notes)
    dropped = sorted({case.name for case in cases} - {case.name for case in kept})
    return FoundCases(list(kept), channel_names, tuple(dropped))
