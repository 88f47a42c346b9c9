"""What `evaluate`, `tune_threshold` and `calibrate` store, as JSON holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from typing_extensions import NotRequired

    from nnunet_softlabel.evaluation.recalibration import AffineJson, IsotonicJson
    from nnunet_softlabel.formats.soft_labels import MoveRecord


class MetricEntry(TypedDict):
    """A metric over cases: mean and deviation of ``n`` defined values; ``nan`` were not."""

    mean: float | None
    std: float | None
    n: int
    nan: int


class LesionDetection(TypedDict):
    """Lesions found over all cases; ``froc`` is false positives per image -> share found."""

    average_precision: float | None
    froc: dict[str, float | None]
    lesions: int


# metric -> entry
Metrics = dict[str, MetricEntry]
# prediction -> reference -> class -> metric -> entry
Means = dict[str, dict[str, dict[str, Metrics]]]
# case -> class -> reference -> prediction -> metric -> value
ValuesOfCases = dict[str, dict[str, dict[str, dict[str, dict[str, float | None]]]]]
# class -> place (image, near), or state (before, after) -> rows of a reliability diagram
Reliability = dict[str, dict[str, list[list[float]]]]


class Scores(TypedDict):
    """What rows of cases tell together; ``detection_auc`` is class -> reference -> AUC."""

    format_version: int
    classes: list[str]
    number_of_cases: int
    mean: Means
    detection_auc: dict[str, dict[str, float | None]]
    lesion_detection: dict[str, dict[str, LesionDetection]]
    reliability: Reliability
    per_case: ValuesOfCases


class ThresholdRecord(TypedDict):
    """A `Threshold`, and its rule in words."""

    choice: str
    values: dict[str, float]
    tuned_on: list[str]
    calibration: str | None
    rule: str


class ParametersRecord(TypedDict):
    """`Parameters` of the metrics, and whether the tolerance is given or the raters' own distance."""

    tolerance_mm: float | None
    near_mm: float
    bins: int
    minimum_iou: float
    ged_levels: int
    tolerance_from: str


class CalibrationRecord(TypedDict):
    """Which calibration it is."""

    file: str
    digest: str


class Summary(Scores):
    """All of ``soft_summary.json``.

    Attributes:
        predictions: a folder, or several.
        models_averaged: number of predictions per case.
        calibration: that recalibrated the probabilities, or None.
        not_evaluated: predicted cases that the split does not know.
        not_predicted: test cases without a prediction.
        truth: where the known truth is, or None.
        truth_moved: case -> file of the truth -> how it came onto the grid of the image.
        digest: of all files that were read.
    """

    dataset: str
    split: str
    predictions: str | list[str]
    models_averaged: int
    calibration: CalibrationRecord | None
    not_evaluated: list[str]
    not_predicted: list[str]
    threshold: ThresholdRecord
    parameters: ParametersRecord
    truth: str | None
    truth_moved: dict[str, dict[str, MoveRecord]]
    digest: str
    versions: dict[str, str]


class BeforeAfter(TypedDict):
    """A score before and after the recalibration; None if it is defined in no case."""

    before: float | None
    after: float | None


class CalibrationScores(TypedDict):
    """Cross-fitted: class -> score -> before and after; and reliability near the object."""

    scores: dict[str, dict[str, BeforeAfter]]
    reliability_near: Reliability


class MapOfPart(TypedDict):
    """The map for the cases of a part, which has seen none of them."""

    map: AffineJson | IsotonicJson
    cases: list[str]


class VoxelsDrawn(TypedDict):
    """How many voxels a map was fitted on."""

    of_a_case_at_most: int
    in_all: int


class CalibrationContent(CalibrationScores):
    """All of ``calibration.json``; ``all`` is the map for new images.

    ``without_raters`` names cases that were left out. ``images`` is case -> mark of its image. ``fitted_on``
    is file -> digest, relative to this file.
    """

    format_version: int
    dataset: str
    channels: list[str]
    has_regions: bool
    method: str
    against: str
    weighting: str
    folders: list[str]
    without_raters: list[str]
    images: dict[str, str]
    fitted_on: dict[str, str]
    models_averaged: int
    voxels_drawn: VoxelsDrawn
    all: AffineJson | IsotonicJson
    parts: dict[str, MapOfPart]
    versions: dict[str, str]


class Calibrated(CalibrationContent):
    """What `calibrate` found; ``why`` in words if it was not written; whether an earlier map is gone."""

    written: bool
    why: str
    removed: bool


class TunedThresholds(TypedDict):
    """All of ``thresholds.json``; ``score`` is class -> threshold -> mean score.

    ``images`` and ``fitted_on`` as in `CalibrationContent`.
    """

    thresholds: dict[str, float]
    score: dict[str, dict[str, float]]
    beta: float
    against: str
    dataset: str
    cases: list[str]
    models_averaged: int
    calibration: str | None
    cases_without: dict[str, int]  # the class, in all references
    images: dict[str, str]
    fitted_on: dict[str, str]
    digest: NotRequired[str]  # of the files, in a benchmark
