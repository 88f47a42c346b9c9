"""``nnunet_softlabel refine``: raters and the folds' validation probabilities -> a second round."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_softlabel.command_line import Commands, add_overwrite, add_processes, dataset_number


def add_parser(commands: Commands) -> None:
    """Declare the command's flags."""
    parser = commands.add_parser(
        "refine", help="Make labels that know missed and invented lesions, from a first round of folds."
    )
    parser.add_argument("-d", required=True, metavar="DATASET", help="Data set of the first round.")
    parser.add_argument("-tr", required=True, metavar="TRAINER", help="Trainer of the first round.")
    parser.add_argument("-c", required=True, metavar="CONFIGURATION", help="As 3d_fullres.")
    parser.add_argument("-p", default="nnUNetPlans", metavar="PLANS", help="Plans (default nnUNetPlans).")
    parser.add_argument(
        "-o", required=True, type=dataset_number, metavar="ID", help="Id of the new data set, 1 to 999."
    )
    parser.add_argument("-n", metavar="NAME", help="Its name (default: the old one, with Refined).")
    parser.add_argument(
        "--adjudicated",
        type=Path,
        metavar="CSV",
        help="What an expert said: columns case, candidate, real (yes or no); label if there are several.",
    )
    parser.add_argument(
        "--link-images",
        action="store_true",
        help="Link the images where they need no change (default: copy).",
    )
    add_processes(parser)
    add_overwrite(parser)
    parser.add_argument("--resume", action="store_true", help="Complete a refinement that was interrupted.")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Refine, say what was found and where it is."""
    from nnunet_softlabel.conversion.settings import Running
    from nnunet_softlabel.formats.soft_dataset import SoftDataset
    from nnunet_softlabel.refinement import FirstRound, refine
    from nnunet_softlabel.refinement.summary import format_summary

    found = refine(
        SoftDataset.find(args.d),
        FirstRound(args.tr, args.c, args.p),
        dataset_id=args.o,
        name=args.n,
        adjudicated=args.adjudicated,
        links_images=args.link_images,
        running=Running(args.np, args.overwrite, args.resume, show_progress=True),
    )
    print(format_summary(found.summary))
    print(f"Data set written to {found.dataset}")
    print(f"Candidates to judge: {found.dataset / 'refinement' / 'candidates.html'}")
    if found.is_mean:
        print(
            f"All labels are the mean of the raters: where those of data set {args.d} are, too, a second "
            f"round would learn the same."
        )
    else:
        print(f"Next: nnUNetv2_plan_and_preprocess -d {args.o} --verify_dataset_integrity")
