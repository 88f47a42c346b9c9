"""``nnunet_softlabel apply-threshold``: probability files -> segmentations at a chosen decision threshold."""

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
)


def add_parser(commands: Commands) -> None:
    """Declare the command's flags."""
    parser = commands.add_parser(
        "apply-threshold", help="Make segmentations of probabilities at another threshold."
    )
    add_dataset(parser, "says what channels mean")
    add_predictions(parser, "Predictions with .npz files; of several models the mean is cut.")
    add_output(parser, "For the segmentations.")
    add_threshold(parser, "A number, tuned (see tune-threshold), or rater-corrected.", default=None)
    add_threshold_file(parser)
    add_calibration(parser)
    add_processes(parser)
    add_overwrite(parser, "Replace earlier segmentations.")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Apply and say how many."""
    from nnunet_softlabel.evaluation.apply_threshold import ImageFiles, apply_threshold
    from nnunet_softlabel.evaluation.thresholds import choose_threshold
    from nnunet_softlabel.formats.soft_dataset import SoftDataset

    dataset = SoftDataset.find(args.d)
    threshold = choose_threshold(args.threshold, dataset, threshold_file=args.threshold_file)
    files = apply_threshold(
        args.i,
        args.o,
        threshold,
        dataset.labels,
        files=ImageFiles(ending=dataset.file_ending, reader=dataset.reader, dataset=dataset),
        calibration=args.calibration,
        num_processes=args.np,
        overwrite=args.overwrite,
    )
    print(f"{len(files)} segmentations written to {args.o}")
