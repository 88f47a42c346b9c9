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
from nnunet_softlabel.metrics.far import NOTHING, FarVoxels
from nnunet_softlabel.metrics.overlap import Direction
from nnunet_softlabel.metrics.raters_together import RATERS_METRICS
from nnunet_softlabel.metrics.shapes import Shapes


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

    Voxels may be given as they lie in the image, or as a list without order, in which equal ones are counted
    and those far from everything are summed up. Surfaces and lesions are those of masks as they lie.

    Attributes:
        reference: probabilities or a mask ``(*spatial)``.
        prediction: probabilities or a mask ``(*spatial)``.
        hard_reference: mask; None for a soft reference, which the metrics of masks then skip.
        hard_prediction: mask; None where it is not known yet, and metrics of the decision are left out.
        spacing_mm: in the order of the axes.
        parameters: with a tolerance.
        near: voxels near the object.
        mask: voxels that count, None for all.
        counts: how many voxels each entry of ``reference`` stands for, None: one.
        far: further voxels, of which sums are known.
        shapes: remembers surfaces and lesions of masks.
    """

    reference: NDArray[Any]
    prediction: NDArray[Any]
    hard_reference: NDArray[Any] | None
    hard_prediction: NDArray[Any] | None
    spacing_mm: tuple[float, ...]
    parameters: Parameters
    near: NDArray[Any]
    mask: NDArray[Any] | None = None
    counts: NDArray[Any] | None = None
    far: FarVoxels = NOTHING
    shapes: Shapes | None = None

    @cached_property
    def near_mask(self) -> NDArray[Any]:
        """Voxels that count and are near the object."""
        return self.near if self.mask is None else self.near & self.mask

    @cached_property
    def masks(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Reference and prediction as masks, empty where a voxel does not count."""
        assert self.hard_reference is not None, "a soft reference has no mask"
        assert self.hard_prediction is not None, "metrics of the decision are left out without one"
        if self.mask is None:
            return self.hard_reference, self.hard_prediction
        return self.hard_reference & self.mask, self.hard_prediction & self.mask

    @cached_property
    def _shapes(self) -> Shapes:
        return Shapes(self.spacing_mm) if self.shapes is None else self.shapes

    @cached_property
    def distances(self) -> surface.Distances | None:
        """Distances of the surfaces, None if a mask is empty."""
        return surface.distances_between(*(self._shapes.surface(mask) for mask in self.masks))

    @cached_property
    def reliability(self) -> NDArray[Any]:
        """Table of the whole image; see `calibration.reliability`."""
        return self._reliability(self.mask, self.far)

    @cached_property
    def reliability_near(self) -> NDArray[Any]:
        """Table of the voxels near the object."""
        return self._reliability(self.near_mask, NOTHING)

    def _reliability(self, mask: NDArray[Any] | None, far: FarVoxels) -> NDArray[Any]:
        return calibration.reliability(
            self.reference,
            self.prediction,
            bins=self.parameters.bins,
            mask=mask,
            counts=self.counts,
            far=far,
        )

    def of_image(self, metric: Callable[..., float], **options: Any) -> float:
        """A metric of the voxels of the whole image."""
        return metric(
            self.reference, self.prediction, mask=self.mask, counts=self.counts, far=self.far, **options
        )

    def near_object(self, metric: Callable[..., float], **options: Any) -> float:
        """A metric of the voxels near the object."""
        return metric(self.reference, self.prediction, mask=self.near_mask, counts=self.counts, **options)

    @cached_property
    def lesions(self) -> lesions.LesionCounts:
        """Matched, reference and predicted lesions."""
        components = [self._shapes.components(mask) for mask in self.masks]
        return lesions.count_components(*components, minimum_iou=self.parameters.minimum_iou)

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
        of_decision: needs masks of both, as they lie in the image.
        is_symmetric: the same when reference and prediction change places.
    """

    function: Callable[[Comparison], float]
    title: str
    better: Direction = "higher"
    of_masks: bool = False
    of_decision: bool = False
    is_symmetric: bool = False


METRICS: dict[str, Metric] = {
    "dice": Metric(
        lambda c: overlap.dice(*c.masks), "Dice", of_masks=True, of_decision=True, is_symmetric=True
    ),
    "precision": Metric(lambda c: overlap.precision(*c.masks), "Precision", of_masks=True, of_decision=True),
    "recall": Metric(lambda c: overlap.recall(*c.masks), "Recall", of_masks=True, of_decision=True),
    "iou": Metric(lambda c: overlap.iou(*c.masks), "IoU", of_masks=True, of_decision=True, is_symmetric=True),
    "hd95_mm": Metric(
        lambda c: surface.hd95(c.distances),
        "HD95 (mm)",
        "lower",
        of_masks=True,
        of_decision=True,
        is_symmetric=True,
    ),
    "nsd": Metric(
        lambda c: surface.nsd(*c.masks, c.distances, tolerance_mm=c.tolerance_mm),
        "NSD",
        of_masks=True,
        of_decision=True,
        is_symmetric=True,
    ),
    "lesion_precision": Metric(
        lambda c: lesions.lesion_precision(c.lesions), "Lesion precision", of_masks=True, of_decision=True
    ),
    "lesion_recall": Metric(
        lambda c: lesions.lesion_recall(c.lesions), "Lesion recall", of_masks=True, of_decision=True
    ),
    "lesion_f1": Metric(lambda c: lesions.lesion_f1(c.lesions), "Lesion F1", of_masks=True, of_decision=True),
    "soft_dice": Metric(lambda c: c.of_image(overlap.soft_dice), "Soft Dice", is_symmetric=True),
    "qubiq_dice": Metric(lambda c: c.of_image(overlap.qubiq_dice), "QUBIQ Dice", is_symmetric=True),
    "qubiq_dice_published": Metric(
        lambda c: c.of_image(overlap.qubiq_dice, empty_level=1.0),
        "QUBIQ Dice, empty levels 1",
        is_symmetric=True,
    ),
    "brier": Metric(
        lambda c: c.of_image(calibration.brier),
        "Brier",
        "lower",
        is_symmetric=True,
    ),
    "brier_near": Metric(
        lambda c: c.near_object(calibration.brier),
        "Brier near the object",
        "lower",
        is_symmetric=True,
    ),
    "nll": Metric(
        lambda c: c.of_image(calibration.nll_above_entropy),
        "NLL above entropy",
        "lower",
    ),
    "nll_near": Metric(
        lambda c: c.near_object(calibration.nll_above_entropy),
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
        lambda c: c.of_image(calibration.adaptive_expected_calibration_error, bins=c.parameters.bins),
        "Adaptive ECE",
        "lower",
    ),
    "ace": Metric(
        lambda c: calibration.average_bin_error(c.reliability),
        "ACE",
        "lower",
    ),
    "adaptive_ece_near": Metric(
        lambda c: c.near_object(calibration.adaptive_expected_calibration_error, bins=c.parameters.bins),
        "Adaptive ECE near the object",
        "lower",
    ),
    "ace_near": Metric(
        lambda c: calibration.average_bin_error(c.reliability_near),
        "ACE near the object",
        "lower",
    ),
    "top_label_ece": Metric(
        lambda c: c.of_image(calibration.top_label_calibration_error, bins=c.parameters.bins),
        "Top-label ECE",
        "lower",
        of_masks=True,
    ),
    "aurc_near": Metric(
        lambda c: c.near_object(calibration.area_under_risk_coverage),
        "AURC near the object",
        "lower",
        of_masks=True,
    ),
    "volume_error_ml": Metric(
        lambda c: c.of_image(overlap.volume_error_ml, voxel_volume_mm3=c.voxel_volume_mm3),
        "Expected volume error (ml)",
        "zero",
    ),
    "volume_error": Metric(
        lambda c: c.of_image(overlap.relative_volume_error),
        "Expected volume error, relative",
        "zero",
    ),
    "volume_error_abs": Metric(
        lambda c: abs(c.of_image(overlap.relative_volume_error)),
        "Expected volume error, relative, absolute",
        "lower",
    ),
}
# beside them, those of all raters of a case together
TITLES: dict[str, str] = {name: metric.title for name, metric in (METRICS | RATERS_METRICS).items()}
BETTER: dict[str, Direction] = {name: metric.better for name, metric in (METRICS | RATERS_METRICS).items()}
OF_DECISION = frozenset(name for name, metric in METRICS.items() if metric.of_decision)


def measure(comparison: Comparison, *, names: frozenset[str] | None = None) -> dict[str, float]:
    """Every metric of the registry (or those named); those of a mask that is None are left out."""
    return {
        name: metric.function(comparison)
        for name, metric in METRICS.items()
        if (names is None or name in names)
        and not (metric.of_masks and comparison.hard_reference is None)
        and not (metric.of_decision and comparison.hard_prediction is None)
    }
