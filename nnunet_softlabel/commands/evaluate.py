"""``nnunet_softlabel evaluate``: probability maps against soft labels, consensus and each rater."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_softlabel.command_line import add_output, add_overwrite, add_processes, add_threshold, add_truth

SEARCHED = "beside the predictions"  # evaluation.ensemble.SEARCHED, which is slow to import


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Declare the command's flags."""
    parser = commands.add_parser(
        "evaluate", help="Score predicted probabilities against soft labels and raters."
    )
    parser.add_argument(
        "-d", required=True, metavar="DATASET", help="Data set id or name: holds the references."
    )
    parser.add_argument(
        "-i",
        required=True,
        type=Path,
        nargs="+",
        metavar="DIR",
        help="Predictions with .npz (--save_probabilities, or --npz): of folds, or of models to average.",
    )
    add_output(parser, "For soft_summary.json, soft_metrics.csv.")
    parser.add_argument(
        "--split", choices=["Tr", "Ts"], default="Tr", help="Where the references are (default Tr)."
    )
    add_threshold(parser, "A number (default 0.5), tuned, or rater-corrected.")
    parser.add_argument(
        "--threshold-file",
        type=Path,
        metavar="FILE",
        help="For --threshold tuned; rater_rates.json of refine for rater-corrected.",
    )
    parser.add_argument(
        "--calibration",
        nargs="?",
        type=Path,
        const=Path(SEARCHED),
        metavar="FILE",
        help="Recalibrate first (see calibrate); without FILE: the one in -i or up to two folders up.",
    )
    add_truth(parser, "A known truth, one more reference: a folder, a pattern with {case}, or a table (CSV).")
    parser.add_argument(
        "--truth-labels",
        nargs="+",
        metavar="NAME=VALUE",
        help="Values, or names of segments, in the files of --truth.",
    )
    parser.add_argument(
        "--regrid", choices=["nearest", "linear"], help="Put files of --truth on the grid of the image."
    )
    add_processes(parser)
    add_overwrite(parser, "Replace earlier results.")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Evaluate and print the table."""
    from nnunet_softlabel.evaluation.run import evaluate
    from nnunet_softlabel.evaluation.tables import format_table
    from nnunet_softlabel.evaluation.truth import truth_of_flags
    from nnunet_softlabel.formats.soft_dataset import SoftDataset

    summary = evaluate(
        SoftDataset.find(args.d),
        args.i,
        args.o,
        split=args.split,
        threshold=args.threshold,
        threshold_file=args.threshold_file,
        calibration=args.calibration,
        truth=truth_of_flags(args.truth, args.truth_labels, args.regrid),
        num_processes=args.np,
        overwrite=args.overwrite,
    )
    print(format_table(summary))
    print(f"Written: {args.o / 'soft_summary.json'}, {args.o / 'soft_metrics.csv'}")
