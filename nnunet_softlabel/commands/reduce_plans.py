"""``nnunet_softlabel reduce-plans``: a plans file with a small network, for a CPU or a quick study."""

from __future__ import annotations

import argparse

from nnunet_softlabel.command_line import Commands, add_dataset, add_overwrite
from nnunet_softlabel.formats.plans import REDUCED_PLANS


def add_parser(commands: Commands) -> None:
    """Declare the command's flags."""
    parser = commands.add_parser(
        "reduce-plans", help="Write a plans file with a smaller network, batch and patch."
    )
    add_dataset(parser)
    parser.add_argument(
        "-p", default="nnUNetPlans", metavar="PLANS", help="Plan to reduce, default nnUNetPlans."
    )
    parser.add_argument("-o", default=REDUCED_PLANS, metavar="NAME", help="Name of the reduced plan.")
    parser.add_argument(
        "--features", type=int, default=8, metavar="N", help="Features of the first stage, default 8."
    )
    parser.add_argument("--batch-size", type=int, default=2, metavar="N", help="Default 2.")
    parser.add_argument(
        "--patch-size", type=int, nargs=3, metavar="N", help="Largest patch, default the plan's."
    )
    parser.add_argument(
        "--max-stages", type=int, default=4, metavar="N", help="Most resolution stages, from 3, default 4."
    )
    parser.add_argument(
        "--cascade", action="store_true", help="Add 3d_lowres and 3d_cascade_fullres to small images."
    )
    add_overwrite(parser, "Replace a reduced plan that is there.")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Reduce and say how to use the result."""
    from nnunet_softlabel.formats.files import read_json
    from nnunet_softlabel.formats.plans import preprocessing_command
    from nnunet_softlabel.preprocessing.reduced_plans import NetworkSize, reduce_plans

    path = reduce_plans(
        args.d,
        plans=args.p,
        name=args.o,
        network=NetworkSize(args.features, args.batch_size, args.patch_size, args.max_stages),
        with_cascade=args.cascade,
        overwrite=args.overwrite,
    )
    print(f"Reduced plan written to {path}; train with -p {args.o}")
    if args.cascade:
        images = read_json(path)["configurations"]["3d_lowres"]["data_identifier"]
        if not (path.parent / images).is_dir():
            print(f"First run: {preprocessing_command(path.parent, args.o, '3d_lowres')}")
