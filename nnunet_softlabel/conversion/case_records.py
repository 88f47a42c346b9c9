"""What the steps of a conversion write down about a case: JSON in the work folder, so that one can resume."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from nnunet_softlabel.formats.soft_labels import MoveRecord, PriorOfCase
from nnunet_softlabel.fusion.candidate import CandidateJson
from nnunet_softlabel.fusion.rater_rates import CountsJson
from nnunet_softlabel.priors.lesions import LesionStatisticsJson

if TYPE_CHECKING:
    from typing_extensions import NotRequired


class StepRecord(TypedDict):
    """What every record begins with."""

    case: str


class VotesRecord(StepRecord):
    """First pass of STAPLE over the data set: how many voxels got which votes."""

    votes: CountsJson


class CandidatesRecord(StepRecord):
    """First pass of lesion-wise fusion.

    Attributes:
        candidates: per channel.
        agreement: per channel, overlap and sum of the raters' mean and the network's map, if there is one.
    """

    candidates: list[list[CandidateJson]]
    agreement: NotRequired[list[list[float]]]


class LesionsRecord(StepRecord):
    """First pass of the intensity prior: how bright agreed lesions are."""

    lesions: LesionStatisticsJson


class JudgedJson(CandidateJson):
    """A candidate, its number from 1, and the probability to be a lesion (None: it keeps the mean)."""

    candidate: int
    posterior: float | None


class Contents(TypedDict):
    """What a soft label holds.

    Attributes:
        marked_mm3: that any rater marked.
        disputed_share: of these.
        soft_voxels: with a probability between 0 and 1.
        pairs: every two raters, and whether they drew the same.
        expected_voxels: label -> sum of its probabilities.
        drawn_labels: that any rater marked.
    """

    marked_mm3: float
    disputed_share: float
    soft_voxels: int
    pairs: list[tuple[str, str, bool]]
    expected_voxels: dict[str, float]
    drawn_labels: list[str]


class CaseRecord(StepRecord):
    """A case that is written, or dropped: then it has raters, ``is_test`` and ``sources`` alone.

    Attributes:
        raters: names, sorted.
        prior: what priors changed.
        votes: how many voxels got which votes, if the label is their mean.
        lesions: label -> its candidates, of lesion-wise fusion.
        moved: file -> how it came onto the grid.
        hash: of the files of the soft label.
        sizes: in bytes, of all files of the case.
        sources: of the files that it was made from.
    """

    raters: list[str]
    is_test: bool
    is_dropped: NotRequired[bool]
    prior: NotRequired[PriorOfCase]
    votes: NotRequired[CountsJson | None]
    lesions: NotRequired[dict[str, list[JudgedJson]]]
    marked_mm3: NotRequired[float]
    disputed_share: NotRequired[float]
    soft_voxels: NotRequired[int]
    pairs: NotRequired[list[tuple[str, str, bool]]]
    expected_voxels: NotRequired[dict[str, float]]
    drawn_labels: NotRequired[list[str]]
    moved: NotRequired[dict[str, MoveRecord]]
    hash: NotRequired[str]
    sizes: NotRequired[dict[str, int]]
    sources: NotRequired[str]
