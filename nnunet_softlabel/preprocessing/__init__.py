"""Stage 2: soft labels through nnU-Net's plan: cropped and resampled as nnU-Net does with images."""

from __future__ import annotations

from nnunet_softlabel.preprocessing.preparation import Preparation
from nnunet_softlabel.preprocessing.run import preprocess

__all__ = ["Preparation", "preprocess"]
