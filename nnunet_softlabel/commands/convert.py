"""``nnunet_softlabel convert``: raters or probability maps -> a soft-label data set."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_softlabel.command_line import Commands, add_overwrite, add_processes
from nnunet_softlabel.commands.case_flags import (
    add_file_flags,
    check_file_flags,
    file_options,
    found_cases,
    names_all_files,
    take_rater_datasets,
)
from nnunet_softlabel.commands.convert_priors import add_prior_flags, priors_of, roi_patterns
from nnunet_softlabel.errors import UsageError

if TYPE_CHECKING:
    from nnunet_softlabel.cases.case import Case
    from nnunet_softlabel.formats.soft_labels import SoftLabels


def add_parser(commands: Commands) -> None:
    """Declare the command's flags."""
    parser = commands.add_parser(
        "convert", help="Fuse raters into soft labels and write an nnU-Net data set."
    )
    parser.add_argument("-d", type=int, metavar="ID", help="Data set id, 1 to 999.")
    parser.add_argument("-n", metavar="NAME", help="Data set name; the folder is DatasetID_NAME.")
    parser.add_argument(
        "--into", metavar="DATASET", help="Add soft labels to this data set (id or name) instead."
    )
    parser.add_argument(
        "--images",
        nargs="+",
        metavar="PATTERN",
        help="Image files, one pattern per channel: 'images/{case}.nii.gz'.",
    )
    parser.add_argument(
        "--channel-names", nargs="+", metavar="NAME", help="nnU-Net's channel names, as CT or T2."
    )
    parser.add_argument(
        "--raters",
        nargs="+",
        default=[],
        metavar="PATTERN",
        help="Raters' files: 'raters/{case}_rater{rater}.nii.gz'.",
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
        "--group-column", default="group", metavar="NAME", help="Column of --groups (default group)."
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
    from nnunet_softlabel.conversion.run import add_soft_labels, convert
    from nnunet_softlabel.conversion.settings import Fusion
    from nnunet_softlabel.conversion.summary import summary_of_cases, with_warnings

    take_rater_datasets(args)
    _check_flags(args)
    cases, dataset, channel_names = _into(args) if args.into else _cases(args)
    print(with_warnings(*summary_of_cases(cases)))
    if args.dry_run:
        _print_preview(args, cases, dataset, channel_names)
        return
    common: dict[str, Any] = {
        "labels": args.labels,
        "files": file_options(args),
        "fusion": Fusion(args.fusion, _fusion_options(args), args.staple_scope, args.anonymous_raters),
        "priors": priors_of(args, cases),
        "min_raters": args.min_raters,
        "num_processes": args.np,
        "overwrite": args.overwrite,
        "resume": args.resume,
        "show_progress": True,
    }
    if dataset is not None:
        dropping: Any = "drop" if args.missing_raters == "drop" else "refuse"
        folder = add_soft_labels(cases, dataset, missing_cases=dropping, **common)
        _print_moves(folder)
        _print_left_out(folder)
        print(f"Soft labels added to {folder}")
        _print_detection(folder)
        return
    folder = convert(
        cases,
        dataset_id=args.d,
        name=args.n,
        channel_names=channel_names,
        few_raters=args.few_raters,
        **common,
    )
    _print_moves(folder)
    print(f"Data set written to {folder}")
    _print_detection(folder)
    print(f"Next: nnUNetv2_plan_and_preprocess -d {args.d} --verify_dataset_integrity")


def _print_preview(
    args: argparse.Namespace, cases: list[Case], dataset: Path | None, channel_names: list[str]
) -> None:
    from nnunet_softlabel.conversion.preview import preview
    from nnunet_softlabel.conversion.summary import with_warnings

    lines, warnings = preview(
        cases,
        labels=args.labels,
        channel_names=channel_names,
        files=file_options(args),
        dataset=dataset,
        min_raters=args.min_raters,
        few_raters=args.few_raters,
        num_processes=args.np,
        show_progress=True,
    )
    print(with_warnings([*lines, "Nothing was written: --dry-run."], warnings))


def _print_detection(dataset: Path) -> None:
    """What lesion-wise fusion decided, a line per label and per rater."""
    from nnunet_softlabel.conversion.record import detection_models

    for label, model in detection_models(dataset).items():
        print(f"{label}: {model.name} ({model.reason})")
        for rater, (sensitivity, inventions) in model.rates().items() if not model.is_mean else ():
            print(
                f"  rater {rater}: finds {sensitivity:.2f} of the lesions, marks {inventions:.2f} of the rest"
            )


def _print_left_out(folder: Path) -> None:
    from nnunet_softlabel.formats.soft_dataset import SoftDataset

    left_out = SoftDataset(folder).about["dropped_cases"]
    if left_out:
        print(
            f"{len(left_out)} cases stay in the data set and are not trained on: splits_final.json in "
            f"nnUNet_preprocessed leaves them out, and our trainers with -f all, too."
        )


def _print_contents(about: SoftLabels) -> None:
    from nnunet_softlabel.conversion.summary import contents_in_words, with_warnings

    if about["source"] == "raters" and "summary" in about:
        print(with_warnings(*contents_in_words(about["summary"])))


def _print_moves(folder: Path) -> None:
    from nnunet_softlabel.conversion.grids import moves_in_words
    from nnunet_softlabel.formats.soft_dataset import SoftDataset

    about = SoftDataset(folder).about
    for sentence in moves_in_words(about["moved"]):
        print(sentence)
    _print_contents(about)


def _check_flags(args: argparse.Namespace) -> None:
    if not args.raters and not args.soft and not names_all_files(args):
        raise UsageError(
            "give --raters (annotations to fuse), --soft (ready probability maps) or --cases-csv (a table)."
        )
    check_file_flags(args)
    needed = {"-d": args.d, "-n": args.n, "--images": args.images, "--channel-names": args.channel_names}
    needed |= {"--labels": args.labels}
    if args.into:
        extra = [flag for flag, value in needed.items() if value is not None and flag != "--labels"]
        extra += ["--groups"] * bool(args.groups) + ["--test-cases"] * bool(args.test_cases)
        if extra:
            raise UsageError(
                f"--into takes images and cases from the data set; leave out {', '.join(extra)}."
            )
        if args.few_raters == "drop":
            raise UsageError(
                "--into cannot drop cases for few raters; leave out --few-raters drop (--missing-raters drop "
                "leaves out cases without any)."
            )
    else:
        if names_all_files(args):  # it names images, and may name channels
            del needed["--images"], needed["--channel-names"]
        missing = [flag for flag, value in needed.items() if value is None]
        if missing:
            raise UsageError(f"missing: {', '.join(missing)}.")


def _cases(args: argparse.Namespace) -> tuple[list[Case], None, list[str]]:
    """Cases, no data set, and channel names."""
    from nnunet_softlabel.cases.groups import read_groups, with_groups, with_test_cases
    from nnunet_softlabel.cases.table import read_test_names
    from nnunet_softlabel.formats.labels import channels_of_labels, parse_labels

    channels = channels_of_labels(*parse_labels(args.labels))
    found = found_cases(args, args.images or [], roi_patterns(args), channels)
    cases = found.cases
    if args.groups is not None:
        groups = read_groups(args.groups, case_column=args.case_column, group_column=args.group_column)
        cases = with_groups(cases, groups, str(args.groups))
    if args.test_cases:
        cases = with_test_cases(cases, read_test_names(args.test_cases, args.case_column))
    channel_names = args.channel_names or found.channel_names
    if not channel_names:
        raise UsageError("missing: --channel-names (or name the columns of the table image:T2).")
    return cases, None, list(channel_names)


def _into(args: argparse.Namespace) -> tuple[list[Case], Path, list[str]]:
    """Cases of a data set that is there, its folder, and its channel names."""
    from nnunet_softlabel.cases.patterns import literal
    from nnunet_softlabel.conversion.checks import check_takes_soft_labels, labels_of
    from nnunet_softlabel.conversion.exchange import put_back
    from nnunet_softlabel.formats.dataset_json import read_dataset_json
    from nnunet_softlabel.formats.labels import channels_of_labels
    from nnunet_softlabel.formats.nnunet_folders import environment_folder, find_dataset

    dataset = find_dataset(environment_folder("nnUNet_raw"), args.into)
    put_back(dataset)  # its own raters may be what is fused
    content = read_dataset_json(dataset)
    check_takes_soft_labels(dataset, content)
    ending, channel_names = content["file_ending"], list(content["channel_names"].values())
    if args.ignore and "ignore" not in content["labels"]:
        raise UsageError(
            f"--ignore: {dataset.name} has no ignore label; add it to its dataset.json and hard labels."
        )
    images = [f"{literal(dataset / 'imagesTr')}/{{case}}_{i:04d}{ending}" for i in range(len(channel_names))]
    found = found_cases(
        args,
        images,
        roi_patterns(args),
        channels_of_labels(*labels_of(dataset, content, args.labels)),
        hard_label=lambda case: dataset / "labelsTr" / f"{case}{ending}",
    )
    return found.cases, dataset, channel_names


def _fusion_options(args: argparse.Namespace) -> dict[str, Any]:
    if not args.weights:
        return {}
    if args.fusion != "weighted":
        raise UsageError(f"--weights belongs to --fusion weighted, not to {args.fusion}.")
    if args.weights == ["agreement"]:
        return {"weights": "agreement"}
    weights = {}
    for text in args.weights:
        rater, _, number = text.rpartition("=")
        try:
            weights[rater] = float(number)
        except ValueError:
            weights[rater] = -1.0
        if not rater or weights[rater] < 0:
            raise UsageError(
                f"--weights {text}: expected RATER=WEIGHT with a weight of at least 0, or `agreement`."
            )
    return {"weights": weights}
