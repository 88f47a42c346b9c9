"""``nnunet_softlabel tune-threshold``: choose the decision threshold on validation cases."""

from __future__ import annotations

import argparse

from nnunet_softlabel.command_line import (
    Commands,
    add_calibration,
    add_dataset,
    add_output,
    add_overwrite,
    add_predictions,
    add_processes,
    add_truth,
)


def add_parser(commands: Commands) -> None:
    """Declare the command's flags."""
    parser = commands.add_parser("tune-threshold", help="Choose the decision threshold on validation cases.")
    add_dataset(parser, "holds the references")
    add_predictions(
        parser, "Validation folders with .npz, of one or more folds; cases in several are averaged."
    )
    add_output(parser, "The result; fold_X/thresholds.json is found by evaluate.", is_file=True)
    parser.add_argument(
        "--against",
        choices=["consensus", "raters", "truth"],
        default="consensus",
        help="The reference (default consensus); truth needs --truth.",
    )
    add_truth(
        parser, "The files of --against truth: a folder, a pattern with {case}, a table (CSV), a data set."
    )
    parser.add_argument(
        "--beta", type=float, default=1.0, help="Of F-beta; 1 (default) is Dice, more favours recall."
    )
    add_calibration(parser)
    add_processes(parser)
    add_overwrite(parser, "Replace an earlier result.")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Tune and print the thresholds."""
    from nnunet_softlabel.evaluation.truth import truth_of_flags
    from nnunet_softlabel.evaluation.tuning import TuningGoal, format_tuned, tune_threshold
    from nnunet_softlabel.formats.soft_dataset import SoftDataset

    found = tune_threshold(
        SoftDataset.find(args.d),
        args.i,
        args.o,
        goal=TuningGoal(args.against, truth_of_flags(args), args.beta),
        calibration=args.calibration,
        num_processes=args.np,
        overwrite=args.overwrite,
    )
    print(format_tuned(found))
    print(f"Written: {args.o}")
