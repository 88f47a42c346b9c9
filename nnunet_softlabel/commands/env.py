"""``nnunet_softlabel env``: the line that lets nnU-Net find our trainers."""

from __future__ import annotations

import argparse
import shlex

from nnunet_softlabel.training.trainer_path import trainer_path


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Declare the command."""
    parser = commands.add_parser("env", help='Print the export line for eval "$(nnunet_softlabel env)".')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Print the line."""
    print(f"export nnUNet_extTrainer={shlex.quote(trainer_path())}")
