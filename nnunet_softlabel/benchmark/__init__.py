"""Trainers x configurations x folds x seeds: train what is missing, evaluate, compare, report.

Every cell of the grid is one training in a process of its own, and leaves a record of what it was made with.
A killed benchmark goes on where it stopped; a cell that was made with something else is refused.
"""

from nnunet_softlabel.benchmark.cluster import ClusterJobs
from nnunet_softlabel.benchmark.grid import BenchmarkGrid
from nnunet_softlabel.benchmark.results import report
from nnunet_softlabel.benchmark.rounds import Rounds, two_rounds
from nnunet_softlabel.benchmark.run import benchmark
from nnunet_softlabel.benchmark.second_round import SecondRound
from nnunet_softlabel.benchmark.settings import Cell, CellCommands, CellScoring, Trainings
from nnunet_softlabel.benchmark.status import CellStatus, Outcome
from nnunet_softlabel.benchmark.summary import format_benchmark

__all__ = [
    "BenchmarkGrid",
    "Cell",
    "CellCommands",
    "CellScoring",
    "CellStatus",
    "ClusterJobs",
    "Outcome",
    "Rounds",
    "SecondRound",
    "Trainings",
    "benchmark",
    "format_benchmark",
    "report",
    "two_rounds",
]
