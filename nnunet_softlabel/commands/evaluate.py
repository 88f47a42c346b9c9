"""``nnunet_softlabel evaluate``: probability maps against soft labels, consensus and each rater."""

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
    add_threshold,
    add_threshold_file,
    add_truth,
)


def add_parser(commands: Commands) -> None:
    """Declare the command's flags."""
    parser = commands.add_parser(
        "evaluate", help="Score predicted probabilities against soft labels and raters."
    )
    add_dataset(parser, "holds the references")
    add_predictions(
        parser, "Predictions with .npz (--save_probabilities, or --npz): of folds, or of models to average."
    )
    add_output(parser, "For soft_summary.json, soft_metrics.csv.")
    parser.add_argument(
        "--split", choices=["Tr", "Ts"], default="Tr", help="Where the references are (default Tr)."
    )
    add_threshold(parser, "A number (default 0.5), tuned, or rater-corrected.")
    add_threshold_file(parser)
    add_calibration(parser)
    add_truth(parser)
    add_processes(parser)
    add_overwrite(parser, "Replace earlier results.")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Evaluate and print the table."""
    from nnunet_softlabel.cases.trained_on import ALL, is_fold_all
    from nnunet_softlabel.conversion.grids import moves_in_words
    from nnunet_softlabel.evaluation.run import Scoring, evaluate
    from nnunet_softlabel.evaluation.tables import format_table
    from nnunet_softlabel.evaluation.truth import truth_of_flags
    from nnunet_softlabel.formats.soft_dataset import SoftDataset

    summary = evaluate(
        SoftDataset.find(args.d),
        args.i,
        args.o,
        scoring=Scoring(
            split=args.split,
            threshold=args.threshold,
            threshold_file=args.threshold_file,
            calibration=args.calibration,
            truth=truth_of_flags(args),
        ),
        num_processes=args.np,
        overwrite=args.overwrite,
    )
    print(format_table(summary))
    for folder in args.i:
        if is_fold_all(folder):
            print(f"{folder}: the network of fold {ALL} was trained on these cases; the scores flatter it.")
    for sentence in moves_in_words(summary["truth_moved"]):
        print(f"Truth: {sentence}")
    print(f"Written: {args.o / 'soft_summary.json'}, {args.o / 'soft_metrics.csv'}")
