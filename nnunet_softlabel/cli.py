"""``nnunet_softlabel <command>``: one line on stderr and exit code 2 for what the user can mend."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from nnunet_softlabel import __version__
from nnunet_softlabel.errors import DatasetError, UsageError

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
    "benchmark",
    "demo",
    "env",
    "reduce_plans",
    "export_stock",
)


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)  # a mistyped flag must not pass for another

    def error(self, message: str) -> NoReturn:
        """Exit with the message alone: argparse would print its usage block before it."""
        message = " ".join(message.split())
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser with all commands."""
    parser = _Parser(prog="nnunet_softlabel", description="Soft labels from several raters for nnU-Net.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="command", dest="command")
    for name in COMMANDS:
        importlib.import_module(f"nnunet_softlabel.commands.{name}").add_parser(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    args = build_parser().parse_args(arguments)
    try:
        args.run(args)
    except (DatasetError, UsageError, ValueError, NotImplementedError) as error:
        return _fail(args.command, str(error))
    except OSError as error:  # a folder that cannot be written, a full disk
        return _fail(args.command, f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except KeyboardInterrupt:
        print(f"nnunet_softlabel {args.command}: interrupted", file=sys.stderr)
        return 130
    return 0


def _fail(command: str, message: str) -> int:
    print(f"nnunet_softlabel {command}: error: {' '.join(message.split())}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
