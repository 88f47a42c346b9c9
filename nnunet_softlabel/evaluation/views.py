"""One class or region of a case, as metrics need it: voxels near marks one by one, raters by pattern, masks.

Metrics of probabilities ask which values meet, never where. So voxels that nobody marks, with probabilities
below all levels at which maps are cut, are summed up (`FarVoxels`); the others are listed. Raters among
themselves need each pattern of their votes once, with its count. Only metrics of masks need the image, in the
box of the masks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.evaluation.known_truth import TrueChannel
from nnunet_softlabel.evaluation.vote_patterns import of_voxels
from nnunet_softlabel.metrics.far import NOTHING, FarVoxels
from nnunet_softlabel.metrics.raters_together import Setting
from nnunet_softlabel.metrics.registry import OF_DECISION, Comparison, Parameters, measure
from nnunet_softlabel.metrics.shapes import Shapes


@dataclass(frozen=True)
class VoxelView:
    """Lists of voxels, or of patterns with their counts; of voxels that do not count there are none.

    Attributes:
        soft: label.
        hard: consensus.
        truth: if one is known.
        prediction: probabilities of the model.
        near: True near the object.
        codes: patterns of the votes.
        counts: voxels that each entry stands for, None: one.
        far_values: probabilities of the voxels that are not listed.
        spacing_mm: in the order of the axes.
        parameters: of the metrics.
    """

    is_of_masks: ClassVar[bool] = False
    soft: NDArray[Any] | None
    hard: NDArray[Any]
    truth: TrueChannel | None
    prediction: NDArray[Any] | None
    near: NDArray[Any]
    codes: NDArray[Any]
    counts: NDArray[Any] | None
    far_values: NDArray[Any] | None
    spacing_mm: tuple[float, ...]
    parameters: Parameters

    def of_patterns(self, table: NDArray[Any]) -> NDArray[Any]:
        """What the patterns of the listed voxels have."""
        return of_voxels(table, self.codes)

    def compare(
        self,
        reference: NDArray[Any],
        prediction: NDArray[Any],
        *masks: NDArray[Any] | None,
        hard_reference: NDArray[Any] | None = None,
    ) -> Comparison:
        """Metrics of probabilities; the decision is not known yet."""
        mask = all_of(*masks)
        return Comparison(
            reference=reference,
            prediction=prediction,
            hard_reference=reference if reference.dtype == bool else hard_reference,
            hard_prediction=None,
            spacing_mm=self.spacing_mm,
            parameters=self.parameters,
            near=self.near,
            mask=mask,
            counts=self.counts,
            far=self.far_beside(mask),
        )

    def compare_truth(
        self, truth: TrueChannel, prediction: NDArray[Any], *masks: NDArray[Any] | None
    ) -> Comparison:
        """As `compare`; a truth of probabilities has a mask, too."""
        return self.compare(truth.reference, prediction, truth.answered, *masks, hard_reference=truth.mask)

    def measure(self, comparison: Comparison, *, names: frozenset[str] | None = None) -> dict[str, float]:
        """All but those that need a decision."""
        return measure(comparison, names=names)

    def far_beside(self, mask: NDArray[Any] | None) -> FarVoxels:
        """The voxels that are not listed, beside the listed ones of a mask."""
        if self._far is NOTHING or mask is None:
            return self._far
        assert self.prediction is not None, "sums are of a model's map"
        assert self.far_values is not None, "sums are of a model's map"
        return self._far.beside(self.prediction[mask], self.far_values, bins=self.parameters.bins)

    @cached_property
    def _far(self) -> FarVoxels:
        if self.prediction is None or self.far_values is None:
            return NOTHING
        bins = self.parameters.bins
        return FarVoxels.of(self.far_values, bins=bins).beside(self.prediction, self.far_values, bins=bins)

    def setting(self, answered: NDArray[Any] | None) -> Setting:
        """Of the metrics of all raters together.

        Args:
            answered: ``(patterns)`` True where every rater did, and nothing else counts; None: everywhere.
        """
        return Setting(
            voxel_volume_mm3=float(np.prod(self.spacing_mm)),
            levels=self.parameters.ged_levels,
            mask=None if answered is None else self.of_patterns(answered),
            counts=self.counts,
            far=self._far,
        )


@dataclass(frozen=True)
class MaskView:
    """Masks in the box of them all, as they lie in the image.

    Attributes:
        hard: consensus.
        truth: if one is known.
        prediction: decision of the model.
        codes: patterns of the votes.
        mask: voxels that count, None for all.
        spacing_mm: in the order of the axes.
        parameters: of the metrics.
    """

    is_of_masks: ClassVar[bool] = True
    hard: NDArray[Any]
    truth: TrueChannel | None
    prediction: NDArray[Any] | None
    codes: NDArray[Any]
    mask: NDArray[Any] | None
    spacing_mm: tuple[float, ...]
    parameters: Parameters
    soft: NDArray[Any] | None = None

    def of_patterns(self, table: NDArray[Any]) -> NDArray[Any]:
        """What the patterns of the voxels have."""
        return of_voxels(table, self.codes)

    @cached_property
    def _shapes(self) -> Shapes:
        return Shapes(self.spacing_mm)

    def compare(
        self, reference: NDArray[Any], prediction: NDArray[Any], *masks: NDArray[Any] | None
    ) -> Comparison:
        """Metrics of masks alone."""
        return Comparison(
            reference=reference,
            prediction=prediction,
            hard_reference=reference,
            hard_prediction=prediction,
            spacing_mm=self.spacing_mm,
            parameters=self.parameters,
            near=reference,
            mask=all_of(self.mask, *masks),
            shapes=self._shapes,
        )

    def compare_truth(
        self, truth: TrueChannel, prediction: NDArray[Any], *masks: NDArray[Any] | None
    ) -> Comparison:
        """As `compare`, with the mask of the truth."""
        return self.compare(truth.mask, prediction, truth.answered, *masks)

    def measure(self, comparison: Comparison, *, names: frozenset[str] | None = None) -> dict[str, float]:
        """Those that need masks of both, as they lie in the image."""
        return measure(comparison, names=OF_DECISION if names is None else OF_DECISION & names)


View = VoxelView | MaskView


def all_of(*masks: NDArray[Any] | None) -> NDArray[Any] | None:
    """Where all masks are True; None stands for everywhere."""
    given = [mask for mask in masks if mask is not None]
    return np.logical_and.reduce(given) if given else None
