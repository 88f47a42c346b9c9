"""``nnunet_softlabel demo``: the whole way on a generated knee phantom, on a CPU, in minutes."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_softlabel.command_line import Commands, add_output, add_overwrite


def add_parser(commands: Commands) -> None:
    """Declare the command's flags."""
    parser = commands.add_parser("demo", help="Raters to report on generated knees, on a CPU, in minutes.")
    add_output(parser, "A new folder.", default=Path("nnunet_softlabel_demo"))
    parser.add_argument("--seed", type=int, default=0, help="Same seed, same data (default 0).")
    parser.add_argument("--epochs", type=int, default=8, metavar="N", help="Of every trainer (default 8).")
    parser.add_argument("--iterations", type=int, default=80, metavar="N", help="Per epoch (default 80).")
    variant = parser.add_mutually_exclusive_group()
    variant.add_argument(
        "--anatomy",
        action="store_true",
        help="The label also knows the bone, and that lesions are bright.",
    )
    variant.add_argument(
        "--refine",
        action="store_true",
        help="Readers who miss lesions; three folds, lesion-wise labels, and a second round on them.",
    )
    add_overwrite(parser, "Use a folder that is not empty.")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the demo."""
    from nnunet_softlabel.demo import DemoSize, demo

    demo(
        args.o,
        size=DemoSize(epochs=args.epochs, iterations=args.iterations),
        seed=args.seed,
        overwrite=args.overwrite,
        variant="refine" if args.refine else "anatomy" if args.anatomy else "mean",
    )
