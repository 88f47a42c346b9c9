"""``nnunet_softlabel env``: the line that lets nnU-Net find our trainers; what to paste into a report."""

from __future__ import annotations

import argparse
import shlex

from nnunet_softlabel.command_line import Commands
from nnunet_softlabel.training.trainer_path import trainer_path


def add_parser(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "env",
        help='Print the export line for eval "$(nnunet_softlabel env)", or --report: what this machine has.',
    )
    parser.add_argument(
        "--report",
        action="store_true",
        help="Print versions, nnU-Net's variables and the device instead, for a report of a fault.",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Print the line, or the report."""
    if args.report:
        from nnunet_softlabel.environment import describe_environment

        print(describe_environment())
    else:
        print(f"export nnUNet_extTrainer={shlex.quote(trainer_path())}")
