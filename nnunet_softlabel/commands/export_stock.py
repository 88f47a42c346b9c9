"""``nnunet_softlabel export-stock``: a trained model that predicts without this package."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from nnunet_softlabel.command_line import Commands, add_dataset, add_output, add_overwrite


def add_parser(commands: Commands) -> None:
    """Declare the command's flags."""
    parser = commands.add_parser(
        "export-stock",
        help="Copy a trained model to a stock nnU-Net model that predicts without this package.",
    )
    add_dataset(parser)
    parser.add_argument("-c", required=True, metavar="CONFIGURATION", help="Such as 3d_fullres.")
    parser.add_argument(
        "-tr", default="nnUNetTrainerSoftCE", metavar="TRAINER", help="Default nnUNetTrainerSoftCE."
    )
    parser.add_argument(
        "-p", default="nnUNetPlans", metavar="PLANS", help="Plans identifier, default nnUNetPlans."
    )
    parser.add_argument("-f", nargs="+", metavar="FOLD", help="Folds, default all that finished training.")
    add_output(parser, "Results folder to write into.")
    parser.add_argument(
        "--calibrated",
        nargs="?",
        type=Path,
        const=True,
        default=False,
        metavar="FILE",
        help="Fold a recalibration into the network (see calibrate; affine or temperature); default "
        "calibration.json beside the folds.",
    )
    add_overwrite(parser, "Replace a model that is there.")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Export and say how to use the result."""
    from nnunet_softlabel.training.stock_model import export_stock, exported_folds

    folder = export_stock(
        args.d,
        args.c,
        args.o,
        trainer=args.tr,
        plans=args.p,
        folds=args.f,
        calibrated=args.calibrated,
        overwrite=args.overwrite,
    )
    print(f"Stock model written to {folder}")
    if args.calibrated:
        print("Its own predictions are recalibrated; do not recalibrate them again.")
    flags = shlex.join(["-d", args.d, "-c", args.c, "-p", args.p, "-f", *exported_folds(folder)])
    results = shlex.quote(str(args.o.absolute()))
    print(f"Predict with: nnUNet_results={results} nnUNetv2_predict {flags} -i IN -o OUT")
    print(
        "The copy predicts; it holds no validation predictions. Run nnUNetv2_find_best_configuration on the "
        "model that was trained, before the export."
    )
