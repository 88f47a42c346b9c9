"""Stage 1: from cases with raters to a soft-label data set in ``nnUNet_raw``, all or nothing."""

from __future__ import annotations

from nnunet_softlabel.conversion.prior_settings import IntensityPrior, Priors, RoiPrior
from nnunet_softlabel.conversion.run import add_soft_labels, convert
from nnunet_softlabel.conversion.settings import Fusion

__all__ = ["Fusion", "IntensityPrior", "Priors", "RoiPrior", "add_soft_labels", "convert"]
