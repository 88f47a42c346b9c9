"""How bright normal tissue is in one case."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.priors.roi import check_shape

# A normal distribution's standard deviation over its median absolute deviation.
SPREAD_PER_MAD = 1.4826
FEWEST_VOXELS = 20


@dataclass(frozen=True)
class TissueModel:
    """Intensity of normal tissue in one case: its median, and 1.4826 times its median absolute deviation."""

    median: float
    spread: float

    def normalise(self, intensity: NDArray[Any]) -> NDArray[Any]:
        """Intensity in spreads above the median, comparable between cases: float32."""
        return ((intensity - self.median) / self.spread).astype(np.float32)


def estimate_tissue(
    image: NDArray[Any],
    roi: NDArray[Any],
    soft: NDArray[Any],
    *,
    exclude_above: float = 0.0,
    cut: float = 3.0,
) -> TissueModel:
    """Median and spread (1.4826 MAD) of the ROI's voxels that nobody marked.

    Lesions that raters missed must not spoil it, either: voxels farther than ``cut`` spreads from the median
    are left out, and the model is estimated again until none is.

    >>> image = np.linspace(80.0, 120.0, 41)
    >>> estimate_tissue(image, np.ones(41, bool), np.zeros((1, 41))).median
    100.0

    Args:
        image: ``(*spatial)``, one channel.
        roi: ``(*spatial)``, not 0 inside.
        soft: ``(C, *spatial)`` foreground probabilities.
        exclude_above: voxels with more foreground than this are taken for lesion.
        cut: in spreads.

    Returns:
        The model.
    """
    return tissue_of_values(unmarked(image, roi, soft, exclude_above=exclude_above), cut=cut)


def unmarked(
    image: NDArray[Any], roi: NDArray[Any], soft: NDArray[Any], *, exclude_above: float = 0.0
) -> NDArray[Any]:
    """Intensities of the ROI's voxels that nobody marked, ``(N,)`` float64; see `estimate_tissue`."""
    check_shape("image", image, soft.shape[1:])
    check_shape("ROI", roi, soft.shape[1:])
    return image[(roi != 0) & (soft.max(axis=0) <= exclude_above)].astype(np.float64)


def tissue_of_values(intensity: NDArray[Any], *, cut: float = 3.0) -> TissueModel:
    """The model of `unmarked` intensities; of parts of an image, concatenate them."""
    while True:
        if intensity.size < FEWEST_VOXELS:
            raise ValueError(
                f"only {intensity.size} voxels of the ROI are normal tissue; {FEWEST_VOXELS} are needed"
            )
        median = float(np.median(intensity))
        # Quantised images may have more than half of their voxels at the median.
        spread = SPREAD_PER_MAD * float(np.median(np.abs(intensity - median))) or float(intensity.std())
        if not spread > 0 or not np.isfinite(spread):
            raise ValueError(f"the normal tissue in the ROI has no spread, or is not finite: median {median}")
        kept = intensity[np.abs(intensity - median) <= cut * spread]
        if kept.size == intensity.size:
            return TissueModel(median, spread)
        intensity = kept
