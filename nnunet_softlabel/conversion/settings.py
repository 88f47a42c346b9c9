"""What is the same for all cases of a conversion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.cases.label_maps import Reading
from nnunet_softlabel.conversion.prior_settings import Priors
from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.fusion import RaterRates
from nnunet_softlabel.fusion.detection_model import DetectionModel
from nnunet_softlabel.priors.lesions import LesionModel
from nnunet_softlabel.processes import Workers
from nnunet_softlabel.public import public

StapleScope = Literal["case", "dataset"]
FewRaters = Literal["refuse", "drop"]


@public
@dataclass(frozen=True)
class Fusion:
    """How the raters of a case become one soft label.

    >>> Fusion("staple", scope="dataset").method
    'staple'

    Attributes:
        method: a name of `FUSIONS`.
        options: its keyword arguments.
        scope: with "staple", whether rates are estimated per case or once over all training cases.
        has_anonymous_raters: rater 1 of one case is not rater 1 of another, so rates are shared by all.
        min_raters: fewer raters make a case unusable.
        few_raters: refuse the conversion, or drop such a case.
    """

    method: str = "mean"
    options: Mapping[str, Any] = field(default_factory=dict)
    scope: StapleScope = "case"
    has_anonymous_raters: bool = False
    min_raters: int = 1
    few_raters: FewRaters = "refuse"

    @classmethod
    def of(cls, fusion: Fusion | str) -> Fusion:
        """The same, also from the name of a method alone."""
        if isinstance(fusion, str):
            return cls(fusion)
        if not isinstance(fusion, Fusion):
            raise TypeError(f"fusion: expected a Fusion or the name of a method, got {fusion!r}.")
        return fusion


@public
@dataclass(frozen=True)
class Running:
    """How a conversion works; its result does not depend on it.

    >>> Running(num_processes=4, overwrite=True).resume
    False

    Attributes:
        num_processes: processes that convert cases; 1 works in this one.
        overwrite: replace a data set, or an unfinished conversion, of the same name.
        resume: complete a conversion that was killed; if it is complete, nothing is done.
        show_progress: print a progress bar on stderr.
    """

    num_processes: int = 1
    overwrite: bool = False
    resume: bool = False
    show_progress: bool = False

    @property
    def workers(self) -> Workers:
        """Those that convert cases."""
        return Workers(self.num_processes, self.show_progress)


@dataclass(frozen=True)
class Estimates:
    """What no case tells by itself, estimated over the training cases before any is written.

    Attributes:
        rates: of the raters, for STAPLE with ``staple_scope`` "dataset".
        lesions: how bright they are, for the intensity prior.
        detection: per channel, who misses and who invents lesions, for lesion-wise fusion.
    """

    rates: RaterRates | None = None
    lesions: LesionModel | None = None
    detection: tuple[DetectionModel, ...] | None = None


@dataclass(frozen=True)
class CaseSettings:
    """What is the same for all cases of a conversion.

    Attributes:
        labels: what the foreground channels mean.
        reading: how raters' files are read: their values, other grids.
        channel_names: one per image channel.
        ending: file ending of everything written.
        fusion: a name of `FUSIONS`.
        fusion_options: keyword arguments of the fusion.
        min_raters: fewer make a case unusable.
        few_raters: what happens to such a case.
        hard_labels: folder of the hard labels if the data set has them, and its images, already.
        staple_scope: whether STAPLE estimates rates per case or over the training cases.
        has_anonymous_raters: rater 1 of one case is not rater 1 of another.
        priors: applied after fusion.
        links_images: images become links to the given files, where these need no change.
        estimates: filled in by `first_passes.estimate`; no part of what the user asked for.
    """

    labels: Labels
    reading: Reading
    channel_names: Sequence[str]
    ending: str
    fusion: str = "mean"
    fusion_options: Mapping[str, Any] = field(default_factory=dict)
    min_raters: int = 1
    few_raters: FewRaters = "refuse"
    hard_labels: Path | None = None
    staple_scope: StapleScope = "case"
    has_anonymous_raters: bool = False
    priors: Priors = field(default_factory=Priors)
    links_images: bool = False
    estimates: Estimates = field(default_factory=Estimates)

    @property
    def counts_votes(self) -> bool:
        """True if the label is the share of raters, of which the raters' rates say what it means."""
        return self.fusion == "mean" and not self.priors


def lacks_raters(case: Case, min_raters: int) -> bool:
    """True for a case whose label would be fused from fewer raters."""
    return not case.soft and case.hard is None and len(case.raters) < min_raters


def has_too_few_raters(case: Case, settings: CaseSettings) -> bool:
    """True for a case that is to be left out.

    Raises:
        DatasetError: if such cases are to be refused.
    """
    if not lacks_raters(case, settings.min_raters):
        return False
    if settings.few_raters == "refuse":
        raise DatasetError(
            f"Case {case.name}: {len(case.raters)} of at least {settings.min_raters} raters (--min-raters); "
            f"add raters, or leave such cases out with --few-raters drop."
        )
    return True
