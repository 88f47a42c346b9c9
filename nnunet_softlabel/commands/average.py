"""``nnunet_softlabel average``: the mean of several models' probability files."""

from __future__ import annotations

import argparse

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
    parser = commands.add_parser("average", help="Average the probability files of several models.")
    add_dataset(parser, "says what channels mean")
    add_predictions(parser, "Folders with .npz files of the same cases, one per model.")
    add_output(parser, "For the probabilities and segmentations.")
    parser.add_argument(
        "--of",
        choices=["probabilities", "logits"],
        default="probabilities",
        help="What is averaged: probabilities (default, as nnUNetv2_ensemble), or logits, as "
        "nnUNetv2_predict -f 0 1 2 does; their mean is surer, with other volumes.",
    )
    add_processes(parser)
    add_overwrite(parser, "Replace earlier files.")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Average and say what was done."""
    from nnunet_softlabel.evaluation.average import average
    from nnunet_softlabel.formats.soft_dataset import SoftDataset

    dataset = SoftDataset.find(args.d)
    cases = average(
        dataset,
        args.i,
        args.o,
        of=args.of,
        num_processes=args.np,
        overwrite=args.overwrite,
    )
    print(f"{len(cases)} cases: the mean of {len(args.i)} models' {args.of}")
    print(f"Written: {args.o}")
