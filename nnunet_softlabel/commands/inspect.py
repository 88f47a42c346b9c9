"""``nnunet_softlabel inspect``: who disagrees with whom, and where."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_softlabel.command_line import Commands, add_output, add_overwrite, add_processes
from nnunet_softlabel.commands.case_flags import (
    add_file_flags,
    check_file_flags,
    file_options,
    names_all_files,
    print_notes,
    table_of,
    take_rater_datasets,
)
from nnunet_softlabel.errors import UsageError

if TYPE_CHECKING:
    from nnunet_softlabel.cases.case import Case
    from nnunet_softlabel.cases.label_maps import Reading
    from nnunet_softlabel.formats.labels import Labels
    from nnunet_softlabel.formats.soft_labels import PriorsRecord
    from nnunet_softlabel.inspection.records import Understood


@dataclass(frozen=True)
class _Found:
    """What is inspected, how it is read, what priors did to it, what `convert` understood."""

    cases: Sequence[Case]
    labels: Labels
    reading: Reading | None
    title: str
    prior: PriorsRecord | None = None
    understood: Understood | None = None


def add_parser(commands: Commands) -> None:
    """Declare the command's flags."""
    parser = commands.add_parser("inspect", help="Rater agreement of a data set or of a folder of raters.")
    parser.add_argument("-d", metavar="DATASET", help="Data set id or name that `convert` made.")
    parser.add_argument("--split", choices=["Tr", "Ts"], default="Tr", help="Of that data set (default Tr).")
    parser.add_argument(
        "--raters",
        nargs="+",
        default=[],
        metavar="PATTERN",
        help="Without -d: raters' files, 'raters/{case}_rater{rater}.nii.gz', of any format that convert "
        "reads; * and ** are wildcards.",
    )
    parser.add_argument(
        "--labels",
        nargs="+",
        metavar="NAME=VALUE",
        help="Label values in these files: nodule=1, whole=1,2; names of segments: lesion=Lesion.",
    )
    parser.add_argument(
        "--dark-foreground",
        action="store_true",
        help="In place of --labels: the object is black on white, as in some png masks.",
    )
    parser.add_argument(
        "--images",
        nargs="+",
        default=[],
        metavar="PATTERN",
        help="Images, 'images/{case}.nii.gz': their grid is checked, and they are under the pictures.",
    )
    add_file_flags(parser)
    parser.add_argument(
        "--anonymous", action="store_true", help="Rater 1 of one case is not rater 1 of another."
    )
    add_output(parser, "For inspection.json, inspection.csv, inspection.html.", is_required=False)
    add_processes(parser)
    add_overwrite(parser, "Replace an earlier inspection.")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Inspect, print the tables, write the files."""
    take_rater_datasets(args)
    _check_flags(args)

    from nnunet_softlabel.inspection import format_inspection, inspect_raters, write_inspection
    from nnunet_softlabel.inspection.output import check_output

    if args.o is not None:
        check_output(args.o, overwrite=args.overwrite)
    found = _from_dataset(args) if args.d else _from_files(args)
    summary = inspect_raters(
        found.cases,
        labels=found.labels,
        reading=found.reading,
        is_anonymous=args.anonymous,
        prior=found.prior,
        understood=found.understood,
        num_processes=args.np,
        show_progress=True,
    )
    print(format_inspection(summary))
    if args.o is not None:
        write_inspection(
            args.o,
            summary,
            found.cases,
            labels=found.labels,
            reading=found.reading,
            title=found.title,
            overwrite=args.overwrite,
        )
        print(f"Written: {args.o / 'inspection.html'}, inspection.json, inspection.csv")
        if args.d and args.split == "Tr":
            _write_candidates(args, found.cases)


def _write_candidates(args: argparse.Namespace, cases: Sequence[Case]) -> None:
    """The candidates of a lesion-wise data set, as `refine` shows them."""
    from nnunet_softlabel.conversion.record import CANDIDATES_FILE
    from nnunet_softlabel.formats.soft_dataset import SoftDataset
    from nnunet_softlabel.refinement.run import describe

    dataset = SoftDataset.find(args.d)
    if (dataset.folder / CANDIDATES_FILE).is_file():
        describe(dataset, {case.name: case for case in cases}, args.o)
        print(f"Written: {args.o / 'candidates.html'}, candidates.csv, refinement.json")


def _check_flags(args: argparse.Namespace) -> None:
    if args.np < 1:
        raise UsageError("-np takes a number from 1.")
    given = {"--raters": args.raters, "--labels": args.labels, "--images": args.images}
    given |= {"--dark-foreground": args.dark_foreground, "--cases-csv": args.cases_csv}
    given |= {"--rater-datasets": args.rater_datasets}
    if args.d:
        extra = [flag for flag, value in given.items() if value]
        if extra:
            raise UsageError(
                f"-d takes raters, labels and images from the data set; leave out {', '.join(extra)}."
            )
    elif not args.raters and not names_all_files(args):
        raise UsageError("give -d (a converted data set), or --raters (files of raters), or --cases-csv.")
    elif bool(args.labels) == args.dark_foreground:
        raise UsageError("--raters needs either --labels or --dark-foreground.")
    check_file_flags(args)


def _from_dataset(args: argparse.Namespace) -> _Found:
    from nnunet_softlabel.formats.soft_dataset import SoftDataset
    from nnunet_softlabel.inspection import dataset_cases
    from nnunet_softlabel.inspection.understood import understood_of_dataset

    dataset = SoftDataset.find(args.d)
    cases, title = dataset_cases(dataset, args.split), f"Raters of {dataset.folder.name}"
    prior, understood = dataset.about.get("prior"), understood_of_dataset(dataset)
    return _Found(cases, dataset.labels, None, title, prior, understood)


def _from_files(args: argparse.Namespace) -> _Found:
    from nnunet_softlabel.formats.labels import parse_labels
    from nnunet_softlabel.inspection import as_dark, pattern_cases

    labels, values = parse_labels(args.labels or ["object=1"])
    reading = file_options(args).reading(labels, values)
    if names_all_files(args):
        cases = list(table_of(args, (), needs_images=False).cases)
        title = f"Raters of {args.cases_csv or ', '.join(args.rater_datasets)}"
        return _Found(as_dark(cases) if args.dark_foreground else cases, labels, reading, title)
    notes: list[str] = []
    cases = pattern_cases(
        args.raters,
        args.images,
        is_dark=args.dark_foreground,
        rater_axis=args.rater_axis,
        rater_names=args.rater_names,
        extra_files=args.extra_files,
        notes=notes,
    )
    print_notes(notes)
    return _Found(cases, labels, reading, f"Raters in {Path(args.raters[0]).parent}")
