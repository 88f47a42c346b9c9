# PYTHON_ARGCOMPLETE_OK
"""``nnunet_softlabel <command>``: one line on stderr and exit code 2 for what the user can mend."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence

from nnunet_softlabel import __version__
from nnunet_softlabel.command_line import Parser, exit_code_of
from nnunet_softlabel.help_texts import ORDER_OF_USE

# Each module of `nnunet_softlabel.commands` has add_parser(commands); they import what is slow only when run.
COMMANDS = (
    "convert",
    "inspect",
    "refine",
    "preprocess",
    "evaluate",
    "tune_threshold",
    "apply_threshold",
    "calibrate",
    "apply_calibration",
    "average",
    "maps",
    "benchmark",
    "demo",
    "env",
    "reduce_plans",
    "export_stock",
)


def build_parser() -> Parser:
    """The parser with all commands."""
    parser = Parser(
        prog="nnunet_softlabel",
        description="Soft labels from several raters for nnU-Net.",
        epilog=ORDER_OF_USE,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="command", dest="command")
    for name in COMMANDS:
        importlib.import_module(f"nnunet_softlabel.commands.{name}").add_parser(commands)
    helps = {choice.dest: choice.help for choice in commands._choices_actions}
    for name, command in commands.choices.items():
        command.description = command.description or helps.get(name)
    return parser


def complete(parser: Parser) -> None:
    """Answer the shell that asks for completions, through argcomplete where it is installed."""
    if "_ARGCOMPLETE" in os.environ and importlib.util.find_spec("argcomplete"):
        importlib.import_module("argcomplete").autocomplete(parser)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    parser = build_parser()
    complete(parser)
    args = parser.parse_args(arguments)
    return exit_code_of(f"nnunet_softlabel {args.command}", lambda: args.run(args))


if __name__ == "__main__":
    sys.exit(main())
