"""The sum of several losses in one pass over the logits: `FusedSoftLoss`."""

from __future__ import annotations

from nnunet_softlabel.losses.fused.fused_loss import FusedSoftLoss

__all__ = ["FusedSoftLoss"]
