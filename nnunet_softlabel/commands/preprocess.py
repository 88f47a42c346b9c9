"""``nnunet_softlabel preprocess``: soft labels through nnU-Net's crop and resampling."""

from __future__ import annotations

import argparse

from nnunet_softlabel.command_line import Commands, add_dataset, add_overwrite, add_processes


def add_parser(commands: Commands) -> None:
    """Declare the command's flags."""
    parser = commands.add_parser(
        "preprocess", help="Preprocess soft labels (a trainer does it by itself if they are missing)."
    )
    add_dataset(parser)
    parser.add_argument(
        "-c", nargs="+", default=["3d_fullres"], metavar="CONFIGURATION", help="Default 3d_fullres."
    )
    parser.add_argument(
        "-p", default="nnUNetPlans", metavar="PLANS", help="Plans identifier, default nnUNetPlans."
    )
    add_processes(parser)
    add_overwrite(parser, "Preprocess again even if nothing changed.")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Preprocess and say where the result is."""
    from nnunet_softlabel.preprocessing.run import preprocess

    for configuration in args.c:
        folder = preprocess(
            args.d,
            configuration,
            plans=args.p,
            num_processes=args.np,
            overwrite=args.overwrite,
            show_progress=True,
        )
        print(f"Soft labels of {configuration} are in {folder}")
