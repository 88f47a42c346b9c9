"""What anatomy says about a soft label. Pure functions on arrays.

A prior takes ``(C, *spatial)`` foreground probabilities and returns new ones.
"""

from __future__ import annotations

from nnunet_softlabel.priors.intensity import IntensityRule, apply_intensity_prior, log_likelihood_ratio
from nnunet_softlabel.priors.lesions import LesionModel, LesionStatistics, check_contrast, lesion_statistics
from nnunet_softlabel.priors.roi import apply_roi, roi_weights
from nnunet_softlabel.priors.tissue import TissueModel, estimate_tissue

__all__ = [
    "IntensityRule",
    "LesionModel",
    "LesionStatistics",
    "TissueModel",
    "apply_intensity_prior",
    "apply_roi",
    "check_contrast",
    "estimate_tissue",
    "lesion_statistics",
    "log_likelihood_ratio",
    "roi_weights",
]
