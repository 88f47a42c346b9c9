"""What the conversion scripts share: their flags, and user errors as one line on stderr with exit code 2."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.command_line import Parser, add_overwrite, add_processes, dataset_number, exit_code_of
from nnunet_softlabel.commands.convert_prints import print_cases, print_detection, print_moves, print_next
from nnunet_softlabel.conversion.checks import new_dataset
from nnunet_softlabel.conversion.prior_settings import Priors
from nnunet_softlabel.conversion.run import convert
from nnunet_softlabel.conversion.settings import Fusion, Running, StapleScope
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.fusion import FUSIONS


def build_parser(description: str | None) -> Parser:
    """A parser with the flags that all scripts have; a script adds its own."""
    parser = Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="Folder of the data set as downloaded.")
    parser.add_argument("-d", type=dataset_number, required=True, metavar="ID", help="Data set id, 1 to 999.")
    parser.add_argument(
        "--fusion", choices=sorted(FUSIONS), default="mean", help="How raters are merged (default mean)."
    )
    parser.add_argument(
        "--staple-scope",
        choices=get_args(StapleScope),
        default="case",
        help="With --fusion staple: raters' rates per case (default), or over all training cases.",
    )
    add_processes(parser)
    add_overwrite(parser)
    parser.add_argument("--resume", action="store_true", help="Complete a conversion that was interrupted.")
    return parser


def required(image: Path) -> Path:
    """The image of masks that are there.

    Raises:
        DatasetError: if it is not: a download that stopped must not make a smaller data set.
    """
    if not image.is_file():
        raise DatasetError(f"{image}: is missing though its masks are there; download it again.")
    return image


def run(
    args: argparse.Namespace,
    cases: Iterable[Case],
    *,
    name: str,
    labels: Sequence[str],
    channel_names: Sequence[str],
    fusion: Fusion | None = None,
    priors: Priors | None = None,
) -> int:
    """Convert the cases and say where the result is; returns the exit code.

    Args:
        args: what `build_parser` parsed.
        cases: the script's cases; a generator, so that its errors are reported here.
        name: of the data set.
        labels: as `convert` takes them.
        channel_names: nnU-Net's, one per channel.
        fusion: what the data set says of its raters; the flags say how they are fused.
        priors: as `convert` takes them.
    """

    def convert_them() -> None:
        if not args.source.is_dir():
            raise UsageError(f"{args.source}: no such folder; give the folder that holds the data set.")
        found = list(cases)
        if not found:
            raise UsageError(
                f"{args.source}: holds none of the files this script expects; --help shows the tree."
            )
        how = replace(fusion or Fusion(), method=args.fusion, scope=args.staple_scope)
        kept = print_cases(found, how)
        folder = convert(
            found,
            new_dataset(args.d, name),
            labels=labels,
            channel_names=channel_names,
            fusion=how,
            priors=priors,
            running=Running(args.np, args.overwrite, args.resume, show_progress=True),
        )
        print_moves(folder)
        print(f"Data set written to {folder}")
        print_detection(folder)
        print_next(kept, args.d)

    return exit_code_of(Path(sys.argv[0]).name, convert_them)
