"""What the conversion scripts share: their flags, and user errors as one line on stderr with exit code 2."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.conversion.run import convert
from nnunet_softlabel.conversion.settings import StapleScope
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.fusion import FUSIONS


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Exit with the message alone: argparse would print its usage block before it."""
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())} (see {self.prog} --help)\n")


def build_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the flags that all scripts have; a script adds its own."""
    parser = _Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="Folder of the data set as downloaded.")
    parser.add_argument("-d", type=int, required=True, metavar="ID", help="Data set id, 1 to 999.")
    parser.add_argument(
        "--fusion", choices=sorted(FUSIONS), default="mean", help="How raters are merged (default mean)."
    )
    parser.add_argument(
        "--staple-scope",
        choices=get_args(StapleScope),
        default="case",
        help="With --fusion staple: raters' rates per case (default), or over all training cases.",
    )
    parser.add_argument("-np", type=int, default=min(8, os.cpu_count() or 1), metavar="N", help="Processes.")
    parser.add_argument("--overwrite", action="store_true", help="Replace what is there.")
    parser.add_argument("--resume", action="store_true", help="Complete a conversion that was interrupted.")
    return parser


def run(
    args: argparse.Namespace,
    cases: Iterable[Case],
    *,
    name: str,
    labels: Sequence[str],
    channel_names: Sequence[str],
    **options: Any,
) -> int:
    """Convert the cases and say where the result is; returns the exit code.

    Args:
        args: what `build_parser` parsed.
        cases: the script's cases; a generator, so that its errors are reported here.
        name: of the data set.
        labels: as `convert` takes them.
        channel_names: nnU-Net's, one per channel.
        options: further arguments of `convert`.
    """
    script = Path(sys.argv[0]).name
    try:
        if not args.source.is_dir():
            raise UsageError(f"{args.source}: no such folder; give the folder that holds the data set.")
        found = list(cases)
        if not found:
            raise UsageError(
                f"{args.source}: holds none of the files this script expects; --help shows the tree."
            )
        folder = convert(
            found,
            dataset_id=args.d,
            name=name,
            labels=labels,
            channel_names=channel_names,
            fusion=args.fusion,
            staple_scope=args.staple_scope,
            num_processes=args.np,
            overwrite=args.overwrite,
            resume=args.resume,
            show_progress=True,
            **options,
        )
    except (DatasetError, UsageError, ValueError, NotImplementedError) as error:
        print(f"{script}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{script}: interrupted", file=sys.stderr)
        return 130
    print(f"Data set written to {folder}")
    print(f"Next: nnUNetv2_plan_and_preprocess -d {args.d} --verify_dataset_integrity")
    return 0
