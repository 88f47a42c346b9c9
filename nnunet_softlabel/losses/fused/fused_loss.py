"""The trainers' loss as one computation: DML + CE + NKL + TV, weighted, with their analytic gradient."""

from typing import Any

import torch
from torch import Tensor, nn

from nnunet_softlabel.losses.fused import eager as fused_eager
from nnunet_softlabel.losses.fused.plain import PlainLoss, compiled_loss, plain_loss
from nnunet_softlabel.losses.fused.terms import FusedOptions, TermWeights
from nnunet_softlabel.losses.inputs import (
    Activation,
    check_activation,
    check_inputs,
    check_mask,
)
from nnunet_softlabel.losses.region import PER_SAMPLE, RegionSums
from nnunet_softlabel.losses.targets import is_compact

ALL_ALIKE = TermWeights()


class FusedSoftLoss(nn.Module):
    """DML + CE + NKL + TV, each with its weight, in one computation.

    The same value and gradient as the weighted sum of ``dice_semimetric_loss``, ``cross_entropy``,
    ``normalized_kl_divergence`` and ``total_variation``. On the CPU in a fraction of the time and memory: no
    tensor of the size of the logits is made but the gradient. On a GPU the sum itself under torch.compile.
    Runs outside autocast; half and bfloat16 logits are raised to float32.

    The gradient of the target is given too, by the plain sum. A second derivative (``create_graph=True``) is
    refused where the gradient is made by hand, on the CPU; use the single functions for it.

    >>> logits = torch.zeros(1, 2, 4, requires_grad=True)
    >>> target = torch.tensor([[[0.5, 0.5, 1.0, 1.0], [0.5, 0.5, 0.0, 0.0]]])
    >>> FusedSoftLoss(ns.losses.TermWeights(nkl=0.0, tv=0.0))(logits, target).backward()
    >>> logits.grad[0, 1].sign()
    tensor([-1., -1.,  1.,  1.])

    Args:
        weights: of the terms.
        activation: ``softmax`` over classes or ``sigmoid`` per channel.
        sums: over what DML sums its voxels.
        has_ignore: whether compact targets may mark ignored voxels.
        balanced: CE, NKL and TV are averaged over voxels with any foreground in the target and over the
            others, half and half, as ``class_balanced`` does. For the start of a training.
        compiles: use torch.compile on a GPU; nnU-Net's ``nnUNet_compile=F`` sets it to False.

    Attributes:
        volumes: where balanced, the sums of probabilities and of targets over the foreground of the last
            call, ``(2,)``; else None.
    """

    def __init__(
        self,
        weights: TermWeights = ALL_ALIKE,
        *,
        activation: Activation = "softmax",
        sums: RegionSums = PER_SAMPLE,
        has_ignore: bool = False,
        balanced: bool = False,
        compiles: bool = True,
    ) -> None:
        super().__init__()
        check_activation(activation)
        self.activation: Activation = activation
        self.options = FusedOptions(
            weights, sums, sigmoid=activation == "sigmoid", has_ignore=has_ignore, balanced=balanced
        )
        self.compiles = compiles
        self.volumes: Tensor | None = None

    def with_balance(self) -> "FusedSoftLoss":
        """The same loss with class-balanced voxel terms."""
        o = self.options
        return FusedSoftLoss(
            o.weights,
            activation=self.activation,
            sums=o.sums,
            has_ignore=o.has_ignore,
            balanced=True,
            compiles=self.compiles,
        )

    @torch.compiler.disable
    def forward(self, logits: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """The loss.

        Args:
            logits: ``(B, K, *spatial)``, before the activation.
            target: compact int16 ``(B, C, *spatial)``, or probabilities of the shape of the logits, which
                with softmax must sum to 1.
            mask: ``(B, 1, *spatial)``, True where a voxel counts; for compact targets use ``has_ignore``.

        Returns:
            Scalar float32 (float64 if the logits are); 0 if no voxel counts.
        """
        if is_compact(target):
            self._check_compact(logits, target, mask)
        else:
            check_inputs(logits, target, mask, self.activation)
        with torch.autocast(logits.device.type, enabled=False):
            value, volumes = self._way(logits, target)(logits, target, mask, self.options)
        self.volumes = volumes.detach() if self.options.balanced else None
        return value

    def _way(self, logits: Tensor, target: Tensor) -> PlainLoss:
        """By hand on the CPU; elsewhere, and where the gradient of the target is wanted, the plain sum."""
        needs_target = target.requires_grad and torch.is_grad_enabled()
        if logits.numel() == 0 or needs_target:
            return plain_loss
        if logits.device.type == "cpu":
            return _FusedFunction.apply
        return compiled_loss if self.compiles and logits.device.type == "cuda" else plain_loss

    def _check_compact(self, logits: Tensor, target: Tensor, mask: Tensor | None) -> None:
        channels = logits.shape[1] - (self.activation == "softmax")
        expected = (logits.shape[0], channels, *logits.shape[2:])
        if channels < 1 or target.shape != expected:
            raise ValueError(
                f"For logits {tuple(logits.shape)} and {self.activation} a compact target has shape "
                f"{expected}, got {tuple(target.shape)}."
            )
        if mask is not None and self.options.has_ignore:
            raise ValueError("Pass a mask or set has_ignore=True, not both.")
        check_mask(logits, mask)


def _flattened(logits: Tensor, target: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """The tensors with space as one dimension, outside autograd."""
    mask = None if mask is None else mask.flatten(2)
    return logits.detach().flatten(2), target.detach().flatten(2), mask


class _FusedFunction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, target: Tensor, mask: Tensor | None, options: FusedOptions
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(logits, target, mask)
        ctx.options = options
        value, ctx.gradient, volumes = fused_eager.loss_and_gradient(
            *_flattened(logits, target, mask), options
        )
        ctx.mark_non_differentiable(volumes)
        return value, volumes

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor, _: Any) -> tuple[Tensor, None, None, None]:
        if torch.is_grad_enabled():  # only with create_graph=True
            raise RuntimeError(
                "FusedSoftLoss has no second derivative on the CPU (create_graph=True); sum the single "
                "functions of nnunet_softlabel.losses instead."
            )
        logits, target, mask = ctx.saved_tensors
        # Scaled in place to spare a copy, so another backward (retain_graph) has to compute it again.
        gradient = ctx.gradient
        if gradient is None:
            _, gradient, _ = fused_eager.loss_and_gradient(*_flattened(logits, target, mask), ctx.options)
        ctx.gradient = None
        return gradient.mul_(grad_output).to(logits.dtype).view(logits.shape), None, None, None
