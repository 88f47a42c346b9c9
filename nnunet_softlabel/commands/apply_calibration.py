"""``nnunet_softlabel apply-calibration``: probability files -> recalibrated probability files."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_softlabel.command_line import (
    Commands,
    add_dataset,
    add_output,
    add_overwrite,
    add_predictions,
    add_processes,
)


def add_parser(commands: Commands) -> None:
    """Declare the command's flags."""
    parser = commands.add_parser(
        "apply-calibration", help="Recalibrate probability files; every other command takes the result."
    )
    add_dataset(parser, "says what channels mean")
    add_predictions(parser, "Predictions with .npz files; of several models the mean is recalibrated.")
    add_output(parser, "For the probabilities and segmentations.")
    parser.add_argument(
        "--calibration-file",
        type=Path,
        metavar="FILE",
        help="Of calibrate; default calibration.json in -i or up to two folders above.",
    )
    add_processes(parser)
    add_overwrite(parser, "Replace earlier files.")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Apply and say what was done."""
    from nnunet_softlabel.evaluation import SEARCHED
    from nnunet_softlabel.evaluation.average import apply_calibration
    from nnunet_softlabel.formats.soft_dataset import SoftDataset

    dataset = SoftDataset.find(args.d)
    found = apply_calibration(
        dataset,
        args.i,
        args.o,
        file=args.calibration_file or SEARCHED,
        num_processes=args.np,
        overwrite=args.overwrite,
    )
    print(f"{len(found.cases)} cases: {found.note}")
    print(f"Written: {args.o}")
