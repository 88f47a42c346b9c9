"""``nnunet_softlabel benchmark``: trainers beside each other on the same folds, with tests and one page."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from nnunet_softlabel.command_line import (
    Commands,
    add_dataset,
    add_output,
    add_processes,
    add_threshold,
    add_truth,
)
from nnunet_softlabel.errors import UsageError
from nnunet_softlabel.processes import KILLED

if TYPE_CHECKING:
    from nnunet_softlabel.benchmark import BenchmarkGrid, Outcome, SecondRound


def add_parser(commands: Commands) -> None:
    """Declare the command's flags."""
    parser = commands.add_parser(
        "benchmark", help="Train, evaluate and compare trainers; resumes where it stopped."
    )
    add_dataset(parser)
    parser.add_argument(
        "-c", nargs="+", default=["3d_fullres"], metavar="CONFIGURATION", help="Default 3d_fullres."
    )
    parser.add_argument(
        "-f", nargs="+", type=_fold, default=[0, 1, 2, 3, 4], metavar="FOLD", help="Default 0 1 2 3 4."
    )
    parser.add_argument(
        "-tr",
        nargs="+",
        default=["nnUNetTrainer", "nnUNetTrainerSoftCE"],
        metavar="TRAINER",
        help="The first is the baseline (default nnUNetTrainer nnUNetTrainerSoftCE).",
    )
    parser.add_argument(
        "-p", default="nnUNetPlans", metavar="PLANS", help="Plans identifier, default nnUNetPlans."
    )
    add_output(parser, "Where all of it goes.")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="SEED", help="Default 0.")
    parser.add_argument(
        "--epochs", type=int, metavar="N", help="For every trainer, instead of its own number."
    )
    parser.add_argument("--iterations", type=int, metavar="N", help="Per epoch, instead of nnU-Net's 250.")
    parser.add_argument("-device", choices=["cuda", "cpu", "mps"], default="cuda", help="Default cuda.")
    add_processes(parser, "Most processes of evaluation; fewer where memory is short.")
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="Trainings at the same time on this machine (default 1). On a CPU they share its cores.",
    )
    _add_report_flags(parser)
    _add_second_round_flags(parser)
    _add_cluster_flags(parser)
    _add_dry_run_flag(parser)
    parser.set_defaults(run=run)


def _fold(text: str) -> int:
    if text == "all":
        raise argparse.ArgumentTypeError("all: has no validation cases to compare on; give numbers of folds")
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text}: give the number of a fold, as in 0 1 2") from error


def _add_report_flags(parser: argparse.ArgumentParser) -> None:
    add_truth(parser)
    add_threshold(
        parser, "A number (default 0.5), rater-corrected, or tuned: on the validation cases of other folds."
    )
    parser.add_argument(
        "--primary",
        nargs="+",
        default=None,
        metavar="METRIC",
        help="Metrics that are tested and corrected for; the others are described by intervals. Default: "
        "dice brier_near, and lesion_f1 where cases have several lesions.",
    )
    parser.add_argument(
        "--calibrate",
        choices=["affine", "temperature", "isotonic"],
        help="Add a row for each trainer: every fold recalibrated by the trainer's other folds.",
    )
    parser.add_argument(
        "--test",
        action="store_true",
        help="Predict imagesTs with each fold and with their average too, and report them first.",
    )
    parser.add_argument(
        "--margin",
        nargs="+",
        default=[],
        metavar="METRIC=VALUE",
        help="Margins of non-inferiority: dice=0.02 hd95_mm=1.",
    )


def _add_second_round_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--refine",
        type=int,
        metavar="ID",
        help="A second round: make lesion-wise labels of the validation probabilities, as data set ID, and "
        "train on them.",
    )
    parser.add_argument(
        "--refine-tr",
        nargs="+",
        default=[],
        metavar="TRAINER",
        help="Trainers of the second round; the first makes the labels (default: the last of -tr).",
    )


def _add_dry_run_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dry-run", action="store_true", help="Print the trainings and what is missing; train nothing."
    )


def _add_cluster_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--only",
        choices=["train", "report"],
        help="Train without a report, or report what is trained so far.",
    )
    parser.add_argument(
        "--cluster", choices=["slurm", "local"], help="Train cells as jobs, through submitit."
    )
    parser.add_argument(
        "--cluster-options",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="Of the jobs: partition=gpu timeout_min=2880 cpus_per_task=12.",
    )


def run(args: argparse.Namespace) -> None:
    """Run the grid, print the table, say where the page is."""
    from nnunet_softlabel.benchmark import (
        BenchmarkGrid,
        CellScoring,
        ClusterJobs,
        Rounds,
        SecondRound,
        Trainings,
        benchmark,
        format_benchmark,
        report,
        two_rounds,
    )
    from nnunet_softlabel.evaluation.truth import truth_of_flags
    from nnunet_softlabel.training.budget import Budget

    for flag, value in (
        ("--epochs", args.epochs),
        ("--iterations", args.iterations),
        ("-np", args.np),
        ("--jobs", args.jobs),
    ):
        if value is not None and value < 1:
            raise UsageError(f"{flag} {value}: give a number from 1.")
    margins, primary = _margins(args.margin), _primary(args.primary)
    if args.cluster_options and args.cluster is None:
        raise UsageError("--cluster-options belongs to --cluster.")
    if args.cluster is not None and args.only == "report":
        raise UsageError("--only report trains nothing; leave out --cluster.")
    if args.cluster is not None and args.jobs > 1:
        raise UsageError("--jobs is for this machine; with --cluster all cells are jobs at once.")
    if args.refine_tr and args.refine is None:
        raise UsageError("--refine-tr belongs to --refine.")
    second = None if args.refine is None else SecondRound(args.refine, args.refine_tr)
    cluster = ClusterJobs.parse(args.cluster, args.cluster_options) if args.cluster else None
    grid = BenchmarkGrid(
        args.d,
        args.o,
        Trainings(args.tr, configurations=args.c, folds=args.f, seeds=args.seeds, plans=args.p),
        budget=Budget(args.epochs, args.iterations, args.device),
        scoring=CellScoring(args.threshold, args.calibrate, truth_of_flags(args), args.test),
    )
    if args.only != "report":
        _check(grid, second, args)
    if args.dry_run:
        return
    options = {"num_processes": args.np, "jobs": args.jobs, "cluster": cluster, "only": args.only}
    log = partial(print, flush=True)
    if second is None:
        rounds = Rounds(benchmark(grid, **options, log=log))
    else:
        rounds = two_rounds(grid, second, **options, log=log)
    if args.only != "train":
        command = shlex.join(["nnunet_softlabel", *sys.argv[1:]])
        page = report(
            grid, rounds.first, commands=[command], margins=margins, primary=primary,
            rounds=None if second is None else rounds,
        )  # fmt: skip
        print(format_benchmark(args.o))
        print(f"Report: {page}")
    _refuse_failures(grid, rounds.first)
    if rounds.grid is not None:
        _refuse_failures(rounds.grid, rounds.second)


def _check(grid: BenchmarkGrid, second: SecondRound | None, args: argparse.Namespace) -> None:
    """Refuse what cannot end well, before the first training; tell all of it in a dry run."""
    from nnunet_softlabel.benchmark.preflight import describe_grid, find_problems, refuse_problems
    from nnunet_softlabel.benchmark.second_round import describe_second_round, second_round_problems

    lines, problems = (
        describe_grid(grid),
        find_problems(grid, num_processes=args.np, trains_here=not args.cluster),
    )
    if second is not None:
        of_second = list(second_round_problems(grid, second))
        lines += [] if of_second else [describe_second_round(grid, second)]
        problems += of_second
    if args.dry_run:
        print("\n".join([*lines, *(f"problem: {text}" for text in problems)]))
        print("Nothing was trained: --dry-run." if not problems else "")
    refuse_problems(problems)


def _refuse_failures(grid: BenchmarkGrid, outcome: Mapping[str, Outcome]) -> None:
    """End with an error if anything is missing on the page."""
    from nnunet_softlabel.benchmark.held_out import refuse_unpredicted
    from nnunet_softlabel.benchmark.status import CellStatus

    killed = [name for name, what in outcome.items() if KILLED in what.why]
    if killed:
        raise UsageError(f"{len(killed)} cells are not scored; {killed[0]}: {outcome[killed[0]]}")
    if grid.scoring.test:
        refuse_unpredicted(grid, outcome)
    failed = [name for name, what in outcome.items() if what.status is CellStatus.FAILED]
    if failed:
        raise UsageError(
            f"{len(failed)} trainings failed, the first is {failed[0]}; see {grid.output / 'logs'}."
        )


def _primary(given: list[str] | None) -> list[str] | None:
    """``--primary``, refused before the first training."""
    from nnunet_softlabel.metrics.registry import BETTER

    for metric in given or ():
        if metric not in BETTER or BETTER[metric] == "zero":
            allowed = [name for name, better in BETTER.items() if better != "zero"]
            raise UsageError(f"--primary {metric}: is no metric with a direction; use {', '.join(allowed)}.")
    return given


def _margins(given: list[str]) -> dict[str, float]:
    """``dice=0.02`` of the command line, refused before the first training."""
    from nnunet_softlabel.metrics.registry import BETTER
    from nnunet_softlabel.report.comparison import PRIMARY

    allowed = [metric for metric in PRIMARY if BETTER[metric] != "zero"]
    margins = {}
    for text in given:
        metric, _, value = text.partition("=")
        try:
            margins[metric] = float(value)
        except ValueError:
            margins[metric] = -1.0
        if metric not in allowed or not 0 < margins[metric] < float("inf"):
            raise UsageError(
                f"--margin {text}: expected METRIC=VALUE, a positive number in the unit of one of "
                f"{', '.join(allowed)}."
            )
    return margins
