"""``nnunet_softlabel calibrate``: recalibrate a model's probabilities on its folds' validation cases."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from nnunet_softlabel.command_line import Commands, add_dataset, add_output, add_overwrite, add_processes
from nnunet_softlabel.errors import UsageError

METHODS = ("affine", "temperature", "isotonic", "none")


def add_parser(commands: Commands) -> None:
    """Declare the command's flags."""
    parser = commands.add_parser(
        "calibrate", help="Fit a map that makes a model's probabilities mean what the raters say."
    )
    add_dataset(parser, "holds the references")
    parser.add_argument("-c", metavar="CONFIGURATION", help="Of the model, such as 3d_fullres.")
    parser.add_argument("-tr", metavar="TRAINER", help="Of the model, such as nnUNetTrainer.")
    parser.add_argument(
        "-p", default="nnUNetPlans", metavar="PLANS", help="Plans identifier, default nnUNetPlans."
    )
    parser.add_argument(
        "-f", nargs="+", metavar="FOLD", help="Folds, default all with validation probabilities (--npz)."
    )
    parser.add_argument(
        "-i",
        nargs="+",
        type=Path,
        metavar="DIR",
        help="Instead of -c and -tr: folders with .npz, one per fold; cases in several are averaged.",
    )
    add_output(
        parser,
        "The result; default calibration.json beside the folds, where the other commands find it.",
        is_required=False,
        is_file=True,
    )
    parser.add_argument(
        "--method",
        choices=METHODS,
        default="isotonic",
        help="isotonic (default): any rising curve; affine: a * logit + b per class, which export-stock can "
        "fold into the network; temperature: one a; none: only the scores.",
    )
    parser.add_argument(
        "--against",
        choices=["raters", "consensus", "soft"],
        default="raters",
        help="What probabilities should mean: the raters' mean (default), their hard consensus, or the soft "
        "label as it was fused.",
    )
    add_processes(parser)
    add_overwrite(parser, "Replace an earlier result.")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Fit, print the scores before and after, and say what was written."""
    from nnunet_softlabel.evaluation.calibrate import NO_METHOD, FitTarget, calibrate, page_beside
    from nnunet_softlabel.evaluation.calibration_scores import format_scores
    from nnunet_softlabel.formats.files import refuse_existing
    from nnunet_softlabel.formats.soft_dataset import SoftDataset
    from nnunet_softlabel.report.calibration_page import calibration_page

    folders, file = _folders(args)
    page = page_beside(file)
    if page == file:
        raise UsageError(f"-o {file}: the page with the diagrams takes this name; end the file in .json.")
    if args.method != NO_METHOD:
        refuse_existing([page], overwrite=args.overwrite, advice="choose another place, or pass --overwrite")
    found = calibrate(
        SoftDataset.find(args.d),
        folders,
        file,
        method=args.method,
        target=FitTarget(against=args.against),
        num_processes=args.np,
        overwrite=args.overwrite,
        page_of=partial(calibration_page, file=file),
    )
    cases = sum(len(part["cases"]) for part in found["parts"].values())
    drawn = found["voxels_drawn"]
    print(f"{cases} cases in {len(found['parts'])} parts; each part is recalibrated by the others.")
    if found["without_raters"]:
        print(f"Left out, for they have a hard label and no rater: {len(found['without_raters'])} cases.")
    if found["models_averaged"] > 1:
        print(f"The mean of {found['models_averaged']} models' probabilities is recalibrated.")
    print(
        f"{drawn['in_all']} voxels drawn, {drawn['of_a_case_at_most']} of a case at most, weighted so that "
        f"all voxels count; a voxel of a case weighs 1 / the root of the object's volume."
    )
    print(format_scores(found))
    if found["written"]:
        print(f"Written: {file}\nReliability before and after: {page}")
    else:
        print(f"Not written: {found['why']}.")
    if found["removed"]:
        print(f"The earlier map {file} is removed, with its page: --overwrite asked for another one.")


def _folders(args: argparse.Namespace) -> tuple[list[Path], Path]:
    """Validation folders, and the file beside them."""
    if args.i is not None:
        if args.c or args.tr or args.f:
            raise UsageError("-i names the folders; leave out -c, -tr and -f.")
        if args.o is None:
            raise UsageError("-i: say with -o where calibration.json goes, best beside the model.")
        return args.i, args.o
    if not (args.c and args.tr):
        raise UsageError("name the model with -c and -tr, or folders of validation cases with -i.")
    from nnunet_softlabel.cases.trained_on import ALL
    from nnunet_softlabel.evaluation.calibration_file import FILE_NAME
    from nnunet_softlabel.formats.nnunet_folders import environment_folder, find_dataset, missing_model

    results = find_dataset(environment_folder("nnUNet_results"), args.d)
    model = results / f"{args.tr}__{args.p}__{args.c}"
    if not model.is_dir():
        raise UsageError(missing_model(args.tr, model))
    there = sorted(
        path.parent.name.removeprefix("fold_")
        for path in model.glob("fold_*/validation")
        if any(path.glob("*.npz"))
    )
    folds = args.f or [fold for fold in there if fold != ALL] or there  # fold all alone is refused later
    if not folds:
        raise UsageError(
            f"{model}: no fold has validation probabilities; train with `nnUNetv2_train --npz`, or make them "
            f"with `nnUNetv2_train ... --val --npz`."
        )
    if ALL in there and ALL not in folds:
        print(f"fold_{ALL} is left out: its network was trained on every case.")
    return [model / f"fold_{fold}" / "validation" for fold in folds], args.o or model / FILE_NAME
