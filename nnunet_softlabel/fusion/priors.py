"""What anatomy says about a soft label. Each prior is a pure function in ``PRIORS``.

A prior takes ``(C, *spatial)`` foreground probabilities and returns new ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from nnunet_softlabel.fusion.intensity import (
    LesionModel,
    LesionStatistics,
    TissueModel,
    apply_intensity_prior,
    check_contrast,
    estimate_tissue,
    lesion_statistics,
    log_likelihood_ratio,
)
from nnunet_softlabel.fusion.roi import apply_roi, roi_weights

PRIORS: dict[str, Callable[..., np.ndarray]] = {"roi": apply_roi, "intensity": apply_intensity_prior}

__all__ = [
    "PRIORS",
    "LesionModel",
    "LesionStatistics",
    "TissueModel",
    "apply_intensity_prior",
    "apply_roi",
    "check_contrast",
    "estimate_tissue",
    "expected_volume_mm3",
    "lesion_statistics",
    "log_likelihood_ratio",
    "roi_weights",
]


def expected_volume_mm3(soft: np.ndarray, spacing_mm: Sequence[float]) -> list[float]:
    """Expected volume of each channel, the sum of its probabilities: take it before and after a prior."""
    return (soft.sum(axis=tuple(range(1, soft.ndim)), dtype=np.float64) * np.prod(spacing_mm)).tolist()
