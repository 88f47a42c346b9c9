"""``nnunet_softlabel env``: the line that lets nnU-Net find our trainers."""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path

import nnunet_softlabel

PLUGIN_FOLDER = Path(nnunet_softlabel.__file__).parent / "training" / "nnunet_plugin"


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Declare the command."""
    parser = commands.add_parser("env", help='Print the export line for eval "$(nnunet_softlabel env)".')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Print the line."""
    print(f"export nnUNet_extTrainer={shlex.quote(trainer_path())}")


def trainer_path() -> str:
    """``nnUNet_extTrainer`` with the folder of our trainers in it, once; what was there stays."""
    before = [part for part in os.environ.get("nnUNet_extTrainer", "").split(os.pathsep) if part.strip()]
    return os.pathsep.join([*before, *([] if str(PLUGIN_FOLDER) in before else [str(PLUGIN_FOLDER)])])
