"""The test set on the page: its runs, tests and sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nnunet_softlabel.report.comparison import PairedDifference
from nnunet_softlabel.report.runs import RunResult
from nnunet_softlabel.report.verdict import Sentence


@dataclass(frozen=True)
class HeldOut:
    """What was found on test images; the page shows it first.

    Attributes:
        runs: trainers, single folds and their means.
        comparisons: tests between them.
        sentences: the verdict.
        notes: what a reader must know.
    """

    runs: Sequence[RunResult]
    comparisons: Sequence[PairedDifference]
    sentences: Sequence[Sentence]
    notes: Sequence[str] = ()

    @property
    def cases(self) -> set[str]:
        """Test cases with scores."""
        return {case for run in self.runs for case in run.cases}

    @property
    def methods(self) -> str:
        """A sentence for the methods of the page."""
        return (
            f" {len(self.cases)} test images, which no network had seen, were predicted by each fold; single "
            f"folds were scored, and the mean of the folds' probabilities."
        )

    @property
    def classes(self) -> list[str]:
        """Classes or regions with scores."""
        return list(dict.fromkeys(name for run in self.runs for name in run.classes))
