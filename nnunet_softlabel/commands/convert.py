"""``nnunet_softlabel convert``: raters or probability maps -> a soft-label data set."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict

from nnunet_softlabel.command_line import Commands, add_overwrite, add_processes, dataset_number
from nnunet_softlabel.commands.case_flags import add_file_flags, file_options, take_rater_datasets
from nnunet_softlabel.commands.convert_cases import (
    cases_of_dataset,
    cases_of_files,
    check_flags,
    fusion_options,
)
from nnunet_softlabel.commands.convert_prints import (
    print_cases,
    print_detection,
    print_left_out,
    print_moves,
    print_next,
)
from nnunet_softlabel.commands.convert_priors import add_prior_flags, priors_of

if TYPE_CHECKING:
    from nnunet_softlabel.cases.case import Case
    from nnunet_softlabel.cases.label_maps import FileOptions
    from nnunet_softlabel.conversion.prior_settings import Priors
    from nnunet_softlabel.conversion.settings import Fusion, Running


class _Common(TypedDict):
    """What both kinds of conversion take."""

    labels: list[str]
    files: FileOptions
    fusion: Fusion
    priors: Priors
    running: Running


def add_parser(commands: Commands) -> None:
    """Declare the command's flags."""
    parser = commands.add_parser(
        "convert", help="Fuse raters into soft labels and write an nnU-Net data set."
    )
    parser.add_argument("-d", type=dataset_number, metavar="ID", help="Data set id, 1 to 999.")
    parser.add_argument("-n", metavar="NAME", help="Data set name; the folder is DatasetID_NAME.")
    parser.add_argument(
        "--into", metavar="DATASET", help="Add soft labels to this data set (id or name) instead."
    )
    parser.add_argument(
        "--images",
        nargs="+",
        metavar="PATTERN",
        help="Image files, one pattern per channel: 'images/{case}.nii.gz'. In all patterns * is any part of "
        "a name, ** any folders.",
    )
    parser.add_argument(
        "--channel-names", nargs="+", metavar="NAME", help="nnU-Net's channel names, as CT or T2."
    )
    parser.add_argument(
        "--raters",
        nargs="+",
        default=[],
        metavar="PATTERN",
        help="Raters' files: 'raters/{case}_rater{rater}.nii.gz'; {rater:r1,r2} names those that count. "
        "NIfTI, NRRD, Slicer's .seg.nrrd, DICOM-SEG, PNG, TIFF, BMP.",
    )
    parser.add_argument(
        "--single-rater", action="store_true", help="--raters has no {rater}: one rater per case."
    )
    parser.add_argument(
        "--soft", metavar="PATTERN", help="Ready probability maps: 'prob/{case}_{label}.nii.gz'."
    )
    parser.add_argument(
        "--soft-scale",
        type=float,
        metavar="S",
        help="Value of --soft that is probability 1: 255, or 100.",
    )
    parser.add_argument(
        "--labels",
        nargs="+",
        metavar="NAME=VALUE",
        help="Label values in the raters' files: nodule=1, whole=1,2; names of segments: lesion=Lesion.",
    )
    parser.add_argument(
        "--ignore", metavar="PATTERN", help="Masks of voxels nothing is learnt from: 'ignore/{case}.nii.gz'."
    )
    add_file_flags(parser)
    parser.add_argument(
        "--missing-raters",
        choices=["refuse", "drop", "use-labels"],
        default="refuse",
        help="Cases without any rater: an error (default), left out of training, or --into: the hard label.",
    )
    parser.add_argument(
        "--fusion",
        default="mean",
        metavar="METHOD",
        help="mean (default), weighted, majority, staple, sba, svls, lesion-wise.",
    )
    parser.add_argument(
        "--weights", nargs="+", default=[], metavar="RATER=WEIGHT", help="For --fusion weighted."
    )
    parser.add_argument(
        "--staple-scope",
        choices=["case", "dataset"],
        default="case",
        help="With --fusion staple: raters' rates per case (default) or over all training cases.",
    )
    parser.add_argument(
        "--anonymous-raters",
        action="store_true",
        help="Rater 1 of one case is not rater 1 of another: all share one pair of rates.",
    )
    add_prior_flags(parser)
    parser.add_argument(
        "--min-raters", type=int, default=1, metavar="N", help="Fewer make a case unusable (default 1)."
    )
    parser.add_argument(
        "--few-raters",
        choices=["refuse", "drop"],
        default="refuse",
        help="What happens to such a case (default refuse).",
    )
    parser.add_argument(
        "--groups",
        type=Path,
        metavar="CSV",
        help="Table of the group (patient) of each case: splits keep groups.",
    )
    parser.add_argument(
        "--group-column", metavar="NAME", help="Column of --groups, or of --cases-csv (default group)."
    )
    parser.add_argument(
        "--test-cases",
        nargs="+",
        default=[],
        metavar="CASE",
        help="Cases of the test set, or a text file of names, or a table with columns case and test.",
    )
    add_processes(parser)
    add_overwrite(parser)
    parser.add_argument("--resume", action="store_true", help="Complete a conversion that was interrupted.")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="Read and check all files, print what is found; write nothing.",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Convert and say where the result is."""
    from nnunet_softlabel.conversion.checks import new_dataset
    from nnunet_softlabel.conversion.record import record_dropped
    from nnunet_softlabel.conversion.run import add_soft_labels, convert
    from nnunet_softlabel.conversion.settings import Running

    take_rater_datasets(args)
    check_flags(args)
    given = cases_of_dataset(args) if args.into else cases_of_files(args)
    cases, dataset, channel_names, dropped = given
    fusion = _fusion_of(args)
    kept = print_cases(cases, fusion)
    common: _Common = {
        "labels": args.labels,
        "files": file_options(args),
        "fusion": fusion,
        "priors": priors_of(args, cases),
        "running": Running(args.np, args.overwrite, args.resume, show_progress=True),
    }
    if args.dry_run:
        _print_preview(args, cases, dataset, channel_names, common=common)
        return
    if dataset is not None:
        folder = add_soft_labels(cases, dataset, missing_cases=_missing_cases(args), **common)
        print_moves(folder)
        print_left_out(folder)
        print(f"Soft labels added to {folder}")
        print_detection(folder)
        return
    folder = convert(
        cases,
        new_dataset(args.d, args.n),
        channel_names=channel_names,
        **common,
    )
    record_dropped(folder, dropped)
    print_moves(folder)
    print(f"Data set written to {folder}")
    print_detection(folder)
    print_next(kept, args.d)


def _missing_cases(args: argparse.Namespace) -> Literal["refuse", "drop"]:
    return "drop" if args.missing_raters == "drop" else "refuse"


def _fusion_of(args: argparse.Namespace) -> Fusion:
    from nnunet_softlabel.conversion.settings import Fusion

    return Fusion(
        args.fusion,
        fusion_options(args),
        args.staple_scope,
        args.anonymous_raters,
        min_raters=args.min_raters,
        few_raters=args.few_raters,
    )


def _print_preview(
    args: argparse.Namespace,
    cases: list[Case],
    dataset: Path | None,
    channel_names: list[str],
    *,
    common: _Common,
) -> None:
    from nnunet_softlabel.conversion.checks import check_id_is_free, final_folder, new_dataset
    from nnunet_softlabel.conversion.preview import Target, preview
    from nnunet_softlabel.conversion.summary import with_warnings
    from nnunet_softlabel.formats.dataset_json import read_dataset_json

    final = dataset or final_folder(new_dataset(args.d, args.n))
    if dataset is None:
        check_id_is_free(final)
    target = Target(final, is_new=dataset is None, missing_cases=_missing_cases(args))
    lines, warnings = preview(cases, target, channel_names=channel_names, **common)
    if not (args.overwrite or args.resume) and final.exists():
        if dataset is None:
            warnings.append(f"{final} is already there: `convert` will ask for --overwrite.")
        elif "soft_labels" in read_dataset_json(final):
            warnings.append(f"{final} has soft labels already: `convert` will ask for --overwrite.")
    print(with_warnings([*lines, "Nothing was written: --dry-run."], warnings))
