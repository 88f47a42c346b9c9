"""What every command line of the project shares: its parser, its errors, and the flags that several have."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.evaluation import SEARCHED
from nnunet_softlabel.help_texts import HelpFormatter, example_of, groups_of, how_to_go_on
from nnunet_softlabel.public import is_command_line


class Parser(argparse.ArgumentParser):
    """Takes flags in full only, and says in one line what is wrong.

    Its help has a group of required flags, all defaults, and the example of its command.
    """

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", HelpFormatter)
        options.setdefault("epilog", example_of(str(options.get("prog", " "))))
        super().__init__(**options, allow_abbrev=False)  # a mistyped flag must not pass for another
        self._required_flags: argparse._ArgumentGroup | None = None

    def add_argument(self, *names: Any, **options: Any) -> argparse.Action:
        """As argparse; required flags go into a group of their own."""
        if not options.get("required"):
            return super().add_argument(*names, **options)
        if self._required_flags is None:
            self._required_flags = self.add_argument_group("required")
            self._action_groups.insert(0, self._action_groups.pop())
        return self._required_flags.add_argument(*names, **options)

    def format_help(self) -> str:
        """As argparse, with the flags of a large command in groups."""
        for title, flags in groups_of(self.prog).items():
            if title not in [group.title for group in self._action_groups]:
                self._move_into_group(title, flags)
                self._action_groups.remove(self._optionals)
                self._action_groups.append(self._optionals)  # the rest stands last
        return super().format_help()

    def _move_into_group(self, title: str, flags: Sequence[str]) -> None:
        moved = [
            action for action in self._optionals._group_actions if set(flags) & set(action.option_strings)
        ]
        group = self.add_argument_group(title)
        for action in moved:
            self._optionals._group_actions.remove(action)
            group._group_actions.append(action)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse, but a command itself refuses what it does not know, so that its own help is named."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            known = [flag for action in self._actions for flag in action.option_strings]
            near = difflib.get_close_matches(str(unknown[0]), known, n=1, cutoff=0.7)
            meant = f"; did you mean {near[0]}?" if near else ""
            self.error(f"unrecognized arguments: {' '.join(map(str, unknown))}{meant}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        """Exit with the message alone: argparse would print its usage block before it."""
        self.exit(2, f"{self.prog}: error: {_one_line(message)} (see {self.prog} --help)\n")


Commands: TypeAlias = "argparse._SubParsersAction[Parser]"  # to which `add_parser` of a command adds its own


def exit_code_of(program: str, work: Callable[[], None]) -> int:
    """Do the work; what a user can mend is one line on stderr and 2, an interruption is 130."""
    token = is_command_line.set(True)
    try:
        work()
    except (DatasetError, ValueError, NotImplementedError) as error:
        return _fail(program, str(error))
    except OSError as error:  # a folder that cannot be written, a full disk
        return _fail(program, f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except MemoryError as error:
        return _fail(program, f"out of memory ({str(error) or 'no more to be had'}); use a smaller -np.")
    except KeyboardInterrupt:
        print(f"{program}: interrupted; {how_to_go_on(program)}.", file=sys.stderr)
        return 130
    finally:
        is_command_line.reset(token)
    return 0


def _fail(program: str, message: str) -> int:
    print(f"{program}: error: {_one_line(message)}", file=sys.stderr)
    return 2


def _one_line(message: str) -> str:
    return " ".join(message.split())


def dataset_number(text: str) -> int:
    """The value of ``-d`` where a data set is made: a number.

    Raises:
        ArgumentTypeError: for a name.
    """
    if not text.strip().lstrip("-").isdigit():
        raise argparse.ArgumentTypeError(f"{text!r}: give a number from 1 to 999")
    return int(text)


def add_processes(
    parser: argparse.ArgumentParser, purpose: str = "Most processes; fewer where memory is short."
) -> None:
    """``-np``."""
    parser.add_argument("-np", type=int, default=min(8, os.cpu_count() or 1), metavar="N", help=purpose)


def add_overwrite(parser: argparse.ArgumentParser, purpose: str = "Replace what is there.") -> None:
    """``--overwrite``."""
    parser.add_argument("--overwrite", action="store_true", help=purpose)


def add_output(
    parser: argparse.ArgumentParser,
    purpose: str,
    *,
    default: Path | None = None,
    is_required: bool = True,
    is_file: bool = False,
) -> None:
    """``-o``, a folder or a file."""
    parser.add_argument(
        "-o",
        type=Path,
        default=default,
        required=is_required and default is None,
        metavar="FILE" if is_file else "DIR",
        help=purpose,
    )


def add_truth(
    parser: argparse.ArgumentParser,
    purpose: str = "A known truth, one more reference: a folder, a pattern with {case}, a table, a data set.",
) -> None:
    """``--truth``, and how its files are read."""
    parser.add_argument("--truth", type=Path, metavar="PLACE", help=purpose)
    parser.add_argument(
        "--truth-labels",
        nargs="+",
        metavar="NAME=VALUE",
        help="Values, or names of segments, in the files of --truth.",
    )
    parser.add_argument(
        "--truth-fusion",
        choices=["mean"],
        help="Several raters per case in --truth ({rater}, a table, --rater-axis): their mean is the truth.",
    )
    parser.add_argument(
        "--regrid", choices=["nearest", "linear"], help="Put files of --truth on the grid of the image."
    )
    parser.add_argument(
        "--class-axis",
        choices=["first", "last"],
        help="A file of --truth has a channel per class: --truth-labels lesion=1 is the first.",
    )
    parser.add_argument(
        "--rater-axis", choices=["first", "last"], help="A file of --truth has a channel per rater."
    )
    parser.add_argument(
        "--soft-scale",
        type=float,
        metavar="S",
        help="Files of --truth are probability maps, and S is probability 1 (1, 100, 255).",
    )


def add_threshold(parser: argparse.ArgumentParser, purpose: str, *, default: str | None = "0.5") -> None:
    """``--threshold``; without a default it must be given."""
    parser.add_argument("--threshold", default=default, required=default is None, metavar="T", help=purpose)


def add_dataset(parser: argparse.ArgumentParser, purpose: str = "") -> None:
    """``-d``, a data set that is there."""
    what = "Data set id or name"
    parser.add_argument(
        "-d", required=True, metavar="DATASET", help=f"{what}: {purpose}." if purpose else f"{what}."
    )


def add_predictions(parser: argparse.ArgumentParser, purpose: str) -> None:
    """``-i``, folders with probability files."""
    parser.add_argument("-i", required=True, type=Path, nargs="+", metavar="DIR", help=purpose)


def add_threshold_file(parser: argparse.ArgumentParser) -> None:
    """``--threshold-file``."""
    parser.add_argument(
        "--threshold-file",
        type=Path,
        metavar="FILE",
        help="For --threshold tuned; rater_rates.json of refine for rater-corrected.",
    )


def add_calibration(parser: argparse.ArgumentParser) -> None:
    """``--calibration``, with or without a file."""
    parser.add_argument(
        "--calibration",
        nargs="?",
        type=Path,
        const=Path(SEARCHED),
        metavar="FILE",
        help="Recalibrate first (see calibrate); without FILE: the one in -i or up to two folders up.",
    )
