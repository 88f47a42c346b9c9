"""``nnunet_softlabel convert``: raters or probability maps -> a soft-label data set."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from nnunet_softlabel.commands.convert_priors import add_prior_flags, priors_of, roi_patterns
from nnunet_softlabel.errors import UsageError


def add_parser(commands: argparse._SubParsersAction) -> None:
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
        "--labels",
        nargs="+",
        metavar="NAME=VALUE",
        help="Label values in the raters' files: nodule=1, whole=1,2.",
    )
    parser.add_argument(
        "--ignore", metavar="PATTERN", help="Masks of voxels nothing is learnt from: 'ignore/{case}.nii.gz'."
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
        "--groups", type=Path, metavar="CSV", help="Which group (patient) a case is in: splits keep groups."
    )
    parser.add_argument(
        "--case-column", default="case", metavar="NAME", help="Column of --groups (default case)."
    )
    parser.add_argument(
        "--group-column", default="group", metavar="NAME", help="Column of --groups (default group)."
    )
    parser.add_argument(
        "--test-cases",
        nargs="+",
        default=[],
        metavar="CASE",
        help="Cases of the test set, or a text file of names.",
    )
    parser.add_argument("-np", type=int, default=min(8, os.cpu_count() or 1), metavar="N", help="Processes.")
    parser.add_argument("--overwrite", action="store_true", help="Replace what is there.")
    parser.add_argument("--resume", action="store_true", help="Complete a conversion that was interrupted.")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Convert and say where the result is."""
    from nnunet_softlabel.conversion.run import add_soft_labels, convert

    _check_flags(args)
    common: dict[str, Any] = {
        "fusion": args.fusion,
        "fusion_options": _fusion_options(args),
        "staple_scope": args.staple_scope,
        "has_anonymous_raters": args.anonymous_raters,
        "priors": priors_of(args),
        "min_raters": args.min_raters,
        "num_processes": args.np,
        "overwrite": args.overwrite,
        "resume": args.resume,
        "show_progress": True,
    }
    if args.into:
        folder = add_soft_labels(*_into(args), labels=args.labels, **common)
        print(f"Soft labels added to {folder}")
        _print_detection(folder)
        return
    folder = convert(
        _cases(args),
        dataset_id=args.d,
        name=args.n,
        labels=args.labels,
        channel_names=args.channel_names,
        few_raters=args.few_raters,
        **common,
    )
    print(f"Data set written to {folder}")
    _print_detection(folder)
    print(f"Next: nnUNetv2_plan_and_preprocess -d {args.d} --verify_dataset_integrity")


def _print_detection(dataset: Path) -> None:
    """What lesion-wise fusion decided, a line per label and per rater."""
    from nnunet_softlabel.conversion.record import detection_models

    for label, model in detection_models(dataset).items():
        print(f"{label}: {model.name} ({model.reason})")
        for rater, (sensitivity, inventions) in model.rates().items() if not model.is_mean else ():
            print(
                f"  rater {rater}: finds {sensitivity:.2f} of the lesions, marks {inventions:.2f} of the rest"
            )


def _check_flags(args: argparse.Namespace) -> None:
    if not args.raters and not args.soft:
        raise UsageError("give --raters (annotations to fuse) or --soft (ready probability maps).")
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
            raise UsageError("--into cannot drop cases of a data set; leave out --few-raters.")
    else:
        missing = [flag for flag, value in needed.items() if value is None]
        if missing:
            raise UsageError(f"missing: {', '.join(missing)}.")


def _cases(args: argparse.Namespace) -> list[Any]:
    from nnunet_softlabel.cases.find import find_cases
    from nnunet_softlabel.cases.groups import read_groups, with_groups, with_test_cases
    from nnunet_softlabel.formats.labels import parse_labels

    cases = find_cases(
        args.images,
        raters=args.raters,
        soft=args.soft,
        rois=roi_patterns(args),
        ignore=args.ignore,
        label_names=parse_labels(args.labels)[0].names,
        has_single_rater=args.single_rater,
    )
    if args.groups is not None:
        groups = read_groups(args.groups, case_column=args.case_column, group_column=args.group_column)
        cases = with_groups(cases, groups, str(args.groups))
    return with_test_cases(cases, _test_names(args.test_cases)) if args.test_cases else cases


def _test_names(given: list[str]) -> list[str]:
    """The names themselves, or the lines of the one file that is given."""
    if len(given) > 1 or not Path(given[0]).is_file():
        return given
    try:
        lines = Path(given[0]).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UsageError(
            f"--test-cases {given[0]}: is no text file; write one case name per line."
        ) from error
    return [line.strip() for line in lines if line.strip()]


def _into(args: argparse.Namespace) -> tuple[list[Any], Path]:
    from nnunet_softlabel.cases.find import find_cases
    from nnunet_softlabel.formats.files import read_json
    from nnunet_softlabel.formats.labels import Labels
    from nnunet_softlabel.formats.nnunet_folders import environment_folder, find_dataset

    dataset = find_dataset(environment_folder("nnUNet_raw"), args.into)
    content = read_json(dataset / "dataset.json")
    channels = range(len(content["channel_names"]))
    names = Labels.from_dataset_json(content).names
    if args.ignore and "ignore" not in content["labels"]:
        raise UsageError(
            f"--ignore: {dataset.name} has no ignore label; add it to its dataset.json and hard labels."
        )
    images = [
        str(dataset / "imagesTr" / f"{{case}}_{channel:04d}{content['file_ending']}") for channel in channels
    ]
    cases = find_cases(
        images,
        raters=args.raters,
        soft=args.soft,
        rois=roi_patterns(args),
        ignore=args.ignore,
        label_names=names,
        has_single_rater=args.single_rater,
    )
    return cases, dataset


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
