"""``nnunet_softlabel benchmark``: trainers beside each other on the same folds, with tests and one page."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Declare the command's flags."""
    parser = commands.add_parser(
        "benchmark", help="Train, evaluate and compare trainers; resumes where it stopped."
    )
    parser.add_argument("-d", required=True, metavar="DATASET", help="Data set id or name.")
    parser.add_argument(
        "-c", nargs="+", default=["3d_fullres"], metavar="CONFIGURATION", help="Default 3d_fullres."
    )
    parser.add_argument(
        "-f", nargs="+", type=int, default=[0, 1, 2, 3, 4], metavar="FOLD", help="Default 0 1 2 3 4."
    )
    parser.add_argument(
        "-tr",
        nargs="+",
        default=["nnUNetTrainer", "nnUNetTrainerAPL"],
        metavar="TRAINER",
        help="The first is the baseline (default nnUNetTrainer nnUNetTrainerAPL).",
    )
    parser.add_argument(
        "-p", default="nnUNetPlans", metavar="PLANS", help="Plans identifier, default nnUNetPlans."
    )
    parser.add_argument("-o", required=True, type=Path, metavar="DIR", help="Where all of it goes.")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="SEED", help="Default 0.")
    parser.add_argument(
        "--epochs", type=int, metavar="N", help="For every trainer, instead of its own number."
    )
    parser.add_argument("--iterations", type=int, metavar="N", help="Per epoch, instead of nnU-Net's 250.")
    parser.add_argument(
        "--truth", type=Path, metavar="DIR", help="Label maps of a known truth, one more reference."
    )
    parser.add_argument("-device", choices=["cuda", "cpu", "mps"], default="cuda", help="Default cuda.")
    parser.add_argument(
        "-np", type=int, default=min(8, os.cpu_count() or 1), metavar="N", help="Processes of evaluation."
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the grid, print the table, say where the page is."""
    from nnunet_softlabel.benchmark import Budget, Grid, benchmark
    from nnunet_softlabel.benchmark_report import format_benchmark, report
    from nnunet_softlabel.errors import UsageError

    for flag, value in (("--epochs", args.epochs), ("--iterations", args.iterations), ("-np", args.np)):
        if value is not None and value < 1:
            raise UsageError(f"{flag} {value}: give a number from 1.")
    grid = Grid(
        args.d,
        args.o,
        trainers=args.tr,
        configurations=args.c,
        folds=args.f,
        seeds=args.seeds,
        plans=args.p,
        budget=Budget(args.epochs, args.iterations),
        device=args.device,
        truth=args.truth,
    )
    outcome = benchmark(grid, num_processes=args.np)
    page = report(grid, outcome, commands=[shlex.join(["nnunet_softlabel", *sys.argv[1:]])])
    print(format_benchmark(args.o))
    print(f"Report: {page}")
    failed = [name for name, what in outcome.items() if what == "failed"]
    if failed:
        raise UsageError(
            f"{len(failed)} trainings failed, the first is {failed[0]}; see {grid.output / 'logs'}."
        )
