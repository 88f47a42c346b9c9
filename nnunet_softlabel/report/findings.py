"""What a page tells: what was found on a set of images, and where the numbers come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nnunet_softlabel.public import public
from nnunet_softlabel.report.comparison import PairedDifference
from nnunet_softlabel.report.runs import RunResult
from nnunet_softlabel.report.verdict import Sentence


@public
@dataclass(frozen=True)
class Findings:
    """What was found on validation cases, or on test images.

    >>> Findings([ns.RunResult("SoftCE", [])]).classes
    []

    Attributes:
        runs: trainers, the baseline first; of test images single folds and their means.
        comparisons: from `compare`, baseline against each other trainer.
        sentences: the verdict; empty: made from the runs, without the length of their training.
        notes: what a reader must know, failed trainings for instance.
    """

    runs: Sequence[RunResult]
    comparisons: Sequence[PairedDifference] = ()
    sentences: Sequence[Sentence] = ()
    notes: Sequence[str] = ()

    @property
    def cases(self) -> set[str]:
        """Cases with scores."""
        return {case for run in self.runs for case in run.cases}

    @property
    def classes(self) -> list[str]:
        """Classes or regions with scores."""
        return list(dict.fromkeys(name for run in self.runs for name in run.classes))


@public
@dataclass(frozen=True)
class Provenance:
    """Where the numbers of a page come from.

    >>> Provenance(commands=["nnunet_softlabel benchmark -d 501"]).plan
    {}

    Attributes:
        plan: settings that all trainers share.
        commands: that lead to this page.
        package_versions: None: those of this environment.
    """

    plan: Mapping[str, Any] = field(default_factory=dict)
    commands: Sequence[str] = ()
    package_versions: Mapping[str, str] | None = None
