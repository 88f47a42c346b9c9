"""The registry of metrics: a new one is one function (beside its kin) and one line here.

`Comparison` is one class or region of one case, one reference, one prediction; what several metrics share
(surface distances, lesions) is computed once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.metrics import calibration, lesions, overlap, surface
from nnunet_softlabel.metrics.energy_distance import GED_LEVELS
from nnunet_softlabel.metrics.overlap import Direction
from nnunet_softlabel.metrics.raters_together import RATERS_METRICS


@dataclass(frozen=True)
class Parameters:
    """What the metrics are computed with; written beside the results.

    Attributes:
        tolerance_mm: of the normalised surface Dice; None takes the raters' own distance from the data set.
        near_mm: how far 'near the object' reaches around everything that any rater marked.
        bins: of the calibration errors.
        minimum_iou: from which two lesions match.
        ged_levels: segmentations drawn from a probability map for the generalised energy distance.
    """

    tolerance_mm: float | None = None
    near_mm: float = 5.0
    bins: int = calibration.BINS
    minimum_iou: float = lesions.MINIMUM_IOU
    ged_levels: int = GED_LEVELS


@dataclass(frozen=True)
class Comparison:
    """One prediction beside one reference, for one class or region of one case.

    Attributes:
        reference: probabilities or a mask ``(*spatial)``.
        prediction: probabilities or a mask ``(*spatial)``.
        hard_reference: mask; None for a soft reference, which the metrics of masks then skip.
        hard_prediction: mask.
        spacing_mm: in the order of the axes.
        parameters: with a tolerance.
        near: voxels near the object.
        mask: voxels that count, None for all.
    """

    reference: NDArray[Any]
    prediction: NDArray[Any]
    hard_reference: NDArray[Any] | None
    hard_prediction: NDArray[Any]
    spacing_mm: tuple[float, ...]
    parameters: Parameters
    near: NDArray[Any]
    mask: NDArray[Any] | None = None

    @cached_property
    def near_mask(self) -> NDArray[Any]:
        """Voxels that count and are near the object."""
        return self.near if self.mask is None else self.near & self.mask

    @cached_property
    def masks(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Reference and prediction as masks, empty where a voxel does not count."""
        assert self.hard_reference is not None, "a soft reference has no mask"
        if self.mask is None:
            return self.hard_reference, self.hard_prediction
        return self.hard_reference & self.mask, self.hard_prediction & self.mask

    @cached_property
    def distances(self) -> surface.Distances | None:
        """Distances of the surfaces, None if a mask is empty."""
        return surface.surface_distances(*self.masks, spacing_mm=self.spacing_mm)

    @cached_property
    def reliability(self) -> NDArray[Any]:
        """Table of the whole image; see `calibration.reliability`."""
        return self._reliability(self.mask)

    @cached_property
    def reliability_near(self) -> NDArray[Any]:
        """Table of the voxels near the object."""
        return self._reliability(self.near_mask)

    def _reliability(self, mask: NDArray[Any] | None) -> NDArray[Any]:
        return calibration.reliability(self.reference, self.prediction, bins=self.parameters.bins, mask=mask)

    @cached_property
    def lesions(self) -> lesions.LesionCounts:
        """Matched, reference and predicted lesions."""
        return lesions.count_lesions(*self.masks, minimum_iou=self.parameters.minimum_iou)

    @property
    def tolerance_mm(self) -> float:
        """Of the normalised surface Dice."""
        assert self.parameters.tolerance_mm is not None, "the tolerance is settled before the first case"
        return self.parameters.tolerance_mm

    @cached_property
    def voxel_volume_mm3(self) -> float:
        """Volume of a voxel."""
        return float(np.prod(self.spacing_mm))


@dataclass(frozen=True)
class Metric:
    """A line of the registry.

    Attributes:
        function: value of a comparison.
        title: as tables and plots print it, with its unit.
        better: which way is up; "zero" for signed errors.
        of_masks: needs a hard reference.
        is_symmetric: the same when reference and prediction change places.
    """

    function: Callable[[Comparison], float]
    title: str
    better: Direction = "higher"
    of_masks: bool = False
    is_symmetric: bool = False


METRICS: dict[str, Metric] = {
    "dice": Metric(lambda c: overlap.dice(*c.masks), "Dice", of_masks=True, is_symmetric=True),
    "precision": Metric(lambda c: overlap.precision(*c.masks), "Precision", of_masks=True),
    "recall": Metric(lambda c: overlap.recall(*c.masks), "Recall", of_masks=True),
    "iou": Metric(lambda c: overlap.iou(*c.masks), "IoU", of_masks=True, is_symmetric=True),
    "hd95_mm": Metric(
        lambda c: surface.hd95(c.distances), "HD95 (mm)", "lower", of_masks=True, is_symmetric=True
    ),
    "nsd": Metric(
        lambda c: surface.nsd(*c.masks, c.distances, tolerance_mm=c.tolerance_mm),
        "NSD",
        of_masks=True,
        is_symmetric=True,
    ),
    "lesion_precision": Metric(
        lambda c: lesions.lesion_precision(c.lesions), "Lesion precision", of_masks=True
    ),
    "lesion_recall": Metric(lambda c: lesions.lesion_recall(c.lesions), "Lesion recall", of_masks=True),
    "lesion_f1": Metric(lambda c: lesions.lesion_f1(c.lesions), "Lesion F1", of_masks=True),
    "soft_dice": Metric(
        lambda c: overlap.soft_dice(c.reference, c.prediction, mask=c.mask), "Soft Dice", is_symmetric=True
    ),
    "qubiq_dice": Metric(
        lambda c: overlap.qubiq_dice(c.reference, c.prediction, mask=c.mask), "QUBIQ Dice", is_symmetric=True
    ),
    "qubiq_dice_published": Metric(
        lambda c: overlap.qubiq_dice(c.reference, c.prediction, mask=c.mask, empty_level=1.0),
        "QUBIQ Dice, empty levels 1",
        is_symmetric=True,
    ),
    "brier": Metric(
        lambda c: calibration.brier(c.reference, c.prediction, mask=c.mask),
        "Brier",
        "lower",
        is_symmetric=True,
    ),
    "brier_near": Metric(
        lambda c: calibration.brier(c.reference, c.prediction, mask=c.near_mask),
        "Brier near the object",
        "lower",
        is_symmetric=True,
    ),
    "nll": Metric(
        lambda c: calibration.nll_above_entropy(c.reference, c.prediction, mask=c.mask),
        "NLL above entropy",
        "lower",
    ),
    "nll_near": Metric(
        lambda c: calibration.nll_above_entropy(c.reference, c.prediction, mask=c.near_mask),
        "NLL above entropy near the object",
        "lower",
    ),
    "ece": Metric(
        lambda c: calibration.calibration_error(c.reliability),
        "ECE",
        "lower",
    ),
    "ece_near": Metric(
        lambda c: calibration.calibration_error(c.reliability_near),
        "ECE near the object",
        "lower",
    ),
    "adaptive_ece": Metric(
        lambda c: calibration.adaptive_expected_calibration_error(
            c.reference, c.prediction, bins=c.parameters.bins, mask=c.mask
        ),
        "Adaptive ECE",
        "lower",
    ),
    "ace": Metric(
        lambda c: calibration.average_bin_error(c.reliability),
        "ACE",
        "lower",
    ),
    "adaptive_ece_near": Metric(
        lambda c: calibration.adaptive_expected_calibration_error(
            c.reference, c.prediction, bins=c.parameters.bins, mask=c.near_mask
        ),
        "Adaptive ECE near the object",
        "lower",
    ),
    "ace_near": Metric(
        lambda c: calibration.average_bin_error(c.reliability_near),
        "ACE near the object",
        "lower",
    ),
    "top_label_ece": Metric(
        lambda c: calibration.top_label_calibration_error(
            c.masks[0], c.prediction, bins=c.parameters.bins, mask=c.mask
        ),
        "Top-label ECE",
        "lower",
        of_masks=True,
    ),
    "aurc_near": Metric(
        lambda c: calibration.area_under_risk_coverage(c.masks[0], c.prediction, mask=c.near_mask),
        "AURC near the object",
        "lower",
        of_masks=True,
    ),
    "volume_error_ml": Metric(
        lambda c: overlap.volume_error_ml(
            c.reference, c.prediction, voxel_volume_mm3=c.voxel_volume_mm3, mask=c.mask
        ),
        "Expected volume error (ml)",
        "zero",
    ),
    "volume_error": Metric(
        lambda c: overlap.relative_volume_error(c.reference, c.prediction, mask=c.mask),
        "Expected volume error, relative",
        "zero",
    ),
    "volume_error_abs": Metric(
        lambda c: abs(overlap.relative_volume_error(c.reference, c.prediction, mask=c.mask)),
        "Expected volume error, relative, absolute",
        "lower",
    ),
}
# beside them, those of all raters of a case together
TITLES: dict[str, str] = {name: metric.title for name, metric in (METRICS | RATERS_METRICS).items()}
BETTER: dict[str, Direction] = {name: metric.better for name, metric in (METRICS | RATERS_METRICS).items()}


def measure(comparison: Comparison, *, names: frozenset[str] | None = None) -> dict[str, float]:
    """Every metric of the registry (or those named); metrics of masks are left out for a soft reference."""
    return {
        name: metric.function(comparison)
        for name, metric in METRICS.items()
        if (names is None or name in names) and not (metric.of_masks and comparison.hard_reference is None)
    }
