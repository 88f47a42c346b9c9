"""Compact targets: int16 foreground probabilities, as the training pipeline hands them to the loss.

A compact target is int16 ``(B, C, *spatial)``: the probabilities of the foreground classes or regions times
``SCALE``. A negative value in channel 0 marks an ignored voxel. Background is what is missing to 1.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from nnunet_softlabel.formats.encoding import SCALE

from .inputs import Activation, at_least_float32, check_activation


def is_compact(target: Tensor) -> bool:
    """True for an int16 target, which holds foreground probabilities times ``SCALE``."""
    return target.dtype == torch.int16


def expand_target(
    compact: Tensor, *, activation: Activation, has_ignore: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Probabilities of all channels, and where a voxel counts, from a compact target.

    >>> compact = torch.tensor([[[0, 32760]]], dtype=torch.int16)  # one foreground class, two voxels
    >>> target, mask = expand_target(compact, activation="softmax")
    >>> target[0].tolist(), mask
    ([[1.0, 0.0], [0.0, 1.0]], None)

    Args:
        compact: int16 ``(B, C, *spatial)``.
        activation: softmax adds the background as channel 0; sigmoid keeps the ``C`` channels.
        has_ignore: whether the dataset has an ignore label. Contents are never searched for one.

    Returns:
        Float32 ``(B, C + 1, *spatial)`` for softmax, ``(B, C, *spatial)`` for sigmoid, and the mask
        ``(B, 1, *spatial)``, None unless ``has_ignore``. Ignored voxels hold background.
    """
    check_activation(activation)
    if not is_compact(compact):
        raise ValueError(f"A compact target is int16, got {compact.dtype}.")
    mask = compact[:, :1] >= 0 if has_ignore else None
    foreground = compact if mask is None else torch.where(mask, compact, 0)
    foreground = foreground.float() / SCALE
    if activation == "sigmoid":
        return foreground, mask
    # Rounding may bring the sum of several classes one step above 1.
    background = (1 - foreground.sum(dim=1, keepdim=True)).clamp_min(0)
    return torch.cat([background, foreground], dim=1), mask


def check_target(
    target: Tensor, *, activation: Activation, has_ignore: bool = False, tolerance: float = 1e-3
) -> None:
    """Refuse a target, compact or not, that is no probability; call it once per run, not per step.

    >>> check_target(torch.full((1, 2, 3), 0.5), activation="softmax")

    Args:
        target: compact int16 ``(B, C, *spatial)``, or floating point ``(B, K, *spatial)`` with background.
        activation: with softmax the channels must also sum to 1.
        has_ignore: whether a negative value in channel 0 of a compact target marks an ignored voxel.
        tolerance: how far a value may leave [0, 1], and the sum 1.
    """
    check_activation(activation)
    if is_compact(target):
        foreground = (torch.where(target[:, :1] >= 0, target, 0) if has_ignore else target).float() / SCALE
        _check_range(foreground, tolerance)
        excess = foreground.sum(dim=1).max().item() - 1
        if activation == "softmax" and excess > tolerance:
            raise ValueError(
                f"Foreground probabilities of a softmax target sum to {1 + excess:.4f}, above 1."
            )
        return
    target = at_least_float32(target)
    _check_range(target, tolerance)
    if activation == "softmax":
        error = (target.sum(dim=1) - 1).abs().max().item()
        if not error <= tolerance:
            raise ValueError(
                f"The channels of a softmax target must sum to 1; they are off by up to {error:.4f}."
            )


def _check_range(target: Tensor, tolerance: float) -> None:
    low, high = target.min().item(), target.max().item()
    # Written so that NaN fails too.
    if not (low >= -tolerance and high <= 1 + tolerance):
        raise ValueError(f"Target probabilities must lie in [0, 1], got values from {low:.4f} to {high:.4f}.")


class CompactTargetLoss(nn.Module):
    """Makes any loss of this package take compact targets, as nnU-Net's deep supervision hands them on.

    Runs outside autocast; half and bfloat16 logits are raised to float32.

    Args:
        loss: function or module ``f(logits, target, *, mask, activation)``.
        activation: ``softmax`` over classes or ``sigmoid`` per channel.
        has_ignore: whether the dataset has an ignore label.
    """

    def __init__(
        self, loss: Callable[..., Tensor], *, activation: Activation = "softmax", has_ignore: bool = False
    ) -> None:
        super().__init__()
        check_activation(activation)
        self.loss = loss
        self.activation = activation
        self.has_ignore = has_ignore

    def forward(self, logits: Tensor, compact: Tensor) -> Tensor:
        """The loss for logits ``(B, K, *spatial)`` and an int16 target ``(B, C, *spatial)``."""
        with torch.autocast(logits.device.type, enabled=False):
            target, mask = expand_target(compact, activation=self.activation, has_ignore=self.has_ignore)
            return self.loss(at_least_float32(logits), target, mask=mask, activation=self.activation)


class HardTargetLoss(nn.Module):
    """Gives a loss on compact soft targets nnU-Net's hard targets.

    Args:
        loss: takes logits and compact targets.
        num_channels: C, the number of foreground classes or regions.
        ignore_label: nnU-Net's, or None.
    """

    def __init__(self, loss: nn.Module, num_channels: int, ignore_label: int | None) -> None:
        super().__init__()
        self.loss, self.num_channels, self.ignore_label = loss, num_channels, ignore_label

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss for labels ``(B, 1, *spatial)``, or regions ``(B, C[+1 for ignore], *spatial)``."""
        if target.shape[1] > 1 or target.dtype == torch.bool:
            compact = target[:, : self.num_channels].to(torch.int16) * SCALE
            if target.shape[1] > self.num_channels:
                compact = torch.where(target[:, -1:].bool(), -1, compact)
            return self.loss(logits, compact)
        classes = torch.arange(1, self.num_channels + 1, device=target.device)
        classes = classes.view(1, -1, *(1 for _ in target.shape[2:]))
        compact = (target == classes).to(torch.int16) * SCALE
        if self.ignore_label is not None:
            compact = torch.where(target == self.ignore_label, -1, compact)
        return self.loss(logits, compact)
