"""The key ``soft_labels`` of ``dataset.json``: what a soft-label data set says of itself, as types."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from typing_extensions import NotRequired

    from nnunet_softlabel.fusion.detection_model import DetectionJson

# rater -> label -> sensitivity, specificity
RatesOfRaters = dict[str, dict[str, dict[str, float]]]


class FusionRecord(TypedDict):
    """How raters were fused; the options of the method stand beside these keys, under their own names.

    Attributes:
        method: a name of `FUSIONS`.
        scope: of STAPLE.
        rates: of the raters, if they were estimated over the data set.
        prevalence: label -> share of the voxels, with the rates.
        detection: label -> who misses and who invents, of lesion-wise fusion.
    """

    method: str
    scope: NotRequired[str]
    detection: NotRequired[dict[str, DetectionJson]]
    rates: NotRequired[RatesOfRaters]
    prevalence: NotRequired[dict[str, float]]


class RoiStep(TypedDict):
    """The ROI prior and its parameters."""

    name: str
    weights: dict[str, float]
    margin_mm: float


class IntensityStep(TypedDict):
    """The intensity prior and its parameters; ``lesion_model`` is label -> mean and spread."""

    name: str
    direction: str
    strength: float
    channel: int
    raises_unmarked: bool
    certainty: float
    most_evidence: float
    agreed_above: float
    lesion_model: dict[str, dict[str, float]]


class PriorOfCase(TypedDict):
    """What priors did to a case: normal tissue, expected volume (mm3) of each label before and after."""

    tissue: NotRequired[dict[str, float]]
    before: dict[str, float]
    after: dict[str, float]


class PriorsRecord(TypedDict):
    """The priors in the order in which they were applied, and case -> what they did."""

    steps: list[RoiStep | IntensityStep]
    records: dict[str, PriorOfCase]


class MoveRecord(TypedDict):
    """How a file came onto the grid of its image; see `regrid.Moved`."""

    how: str
    difference: str
    shift_mm: float
    outside: NotRequired[float]


class SummaryOfContents(TypedDict):
    """What the files of a data set hold.

    Attributes:
        disputed_share: of the voxels that any rater marked.
        labels_in_no_file: names.
        vanished_labels: that raters drew, and of which fusion left nothing.
        identical_raters: pairs who drew the same in all their cases.
    """

    disputed_share: float
    labels_in_no_file: list[str]
    vanished_labels: NotRequired[list[str]]
    identical_raters: list[list[str]]


class RatesOfVotes(TypedDict):
    """How good raters are, where their votes tell it.

    Attributes:
        rater_rates: label -> sensitivity and rate of false positives of any rater.
        rates_of_raters: of each.
    """

    rater_rates: NotRequired[dict[str, dict[str, float]]]
    rates_of_raters: NotRequired[RatesOfRaters]


class KeptTestLabels(TypedDict):
    """How the soft labels of the test cases were made, where ``--into`` replaced those for training alone."""

    cases: list[str]
    made_by: str
    fusion: FusionRecord | None
    prior: PriorsRecord | None


class SoftLabels(RatesOfVotes):
    """All that is known of a conversion. Data sets of earlier versions lack some keys: ask with ``get``.

    Attributes:
        raters: names.
        raters_of_case: case -> its raters.
        source: raters, or probability maps.
        fusion: None for probability maps.
        prior: None without one.
        label_values: value in the files -> label; ``label_values_of_rater`` for single raters.
        moved: case -> file -> how it came onto the grid.
        cases_from_hard_labels: that have the hard label for want of raters.
        dropped_cases: that are not trained on.
        disputed_share: case -> share of the marked voxels.
        made_hard_labels: False where soft labels were added to a data set.
        digests: case -> of its soft label; ``digest`` of all.
        request: of what was asked for.
        sources: of the files that it was made from.
        groups: case -> patient.
        test_labels: how those of the test cases were made, if by an earlier conversion.
        refined_from: data set and training of the first round.
    """

    format_version: int
    made_by: str
    raters: list[str]
    raters_of_case: dict[str, list[str]]
    has_anonymous_raters: bool
    source: str
    fusion: FusionRecord | None
    prior: PriorsRecord | None
    label_values: dict[str, int]
    label_values_of_rater: dict[str, dict[str, int]]
    regrid: str | None
    moved: dict[str, dict[str, MoveRecord]]
    cases_from_hard_labels: list[str]
    min_raters: int
    dropped_cases: list[str]
    disputed_share: dict[str, float]
    soft_voxels: int
    made_hard_labels: bool
    summary: SummaryOfContents
    digests: dict[str, str]
    digest: str
    request: str
    sources: str
    groups: NotRequired[dict[str, str | None]]
    test_labels: NotRequired[KeptTestLabels]
    refined_from: NotRequired[dict[str, str]]
