"""The trainers' loss as one computation: DML + CE + NKL + TV, weighted, with their analytic gradient."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from nnunet_softlabel.losses.fused import eager as fused_eager
from nnunet_softlabel.losses.fused import triton as fused_triton
from nnunet_softlabel.losses.fused.terms import FusedOptions
from nnunet_softlabel.losses.inputs import (
    Activation,
    check_activation,
    check_inputs,
    check_mask,
    check_weights,
)
from nnunet_softlabel.losses.targets import is_compact


class FusedSoftLoss(nn.Module):
    """``weight_dml * DML + weight_ce * CE + weight_nkl * NKL + weight_tv * TV`` in one computation.

    The same value and gradient as the weighted sum of ``dice_semimetric_loss``, ``cross_entropy``,
    ``normalized_kl_divergence`` and ``total_variation``, in a fraction of the time and memory: no tensor of
    the size of the logits is made but the gradient. Runs outside autocast; half and bfloat16 logits are
    raised to float32.

    Args:
        weight_dml: weight of the Dice semimetric loss, over foreground channels.
        weight_ce: weight of the cross entropy.
        weight_nkl: weight of the active term.
        weight_tv: weight of the passive term.
        activation: ``softmax`` over classes or ``sigmoid`` per channel.
        batch_dice: sum DML over the batch.
        smooth: added to the denominator of DML.
        has_ignore: whether compact targets may mark ignored voxels.
        ddp: with ``batch_dice``, sum DML over the processes of ``torch.distributed``.
    """

    def __init__(
        self,
        *,
        weight_dml: float = 1.0,
        weight_ce: float = 1.0,
        weight_nkl: float = 1.0,
        weight_tv: float = 1.0,
        activation: Activation = "softmax",
        batch_dice: bool = False,
        smooth: float = 1e-5,
        has_ignore: bool = False,
        ddp: bool = False,
    ) -> None:
        super().__init__()
        check_activation(activation)
        weights = {
            "weight_dml": weight_dml,
            "weight_ce": weight_ce,
            "weight_nkl": weight_nkl,
            "weight_tv": weight_tv,
        }
        check_weights(**weights)
        self.activation: Activation = activation
        self.options = FusedOptions(
            **weights,
            sigmoid=activation == "sigmoid",
            batch_dice=batch_dice,
            smooth=smooth,
            has_ignore=has_ignore,
            ddp=ddp,
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
            return _FusedFunction.apply(logits, target, mask, self.options)

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
    ) -> Tensor:
        flat = _flattened(logits, target, mask)
        ctx.save_for_backward(logits, target, mask)
        ctx.options = options
        if fused_triton.can_run(logits, target):
            value, ctx.terms = fused_triton.loss_and_terms(*flat, options)
            return value
        value, ctx.gradient = fused_eager.loss_and_gradient(*flat, options)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None, None]:
        logits, target, mask = ctx.saved_tensors
        flat = _flattened(logits, target, mask)
        if fused_triton.can_run(logits, target):
            gradient = fused_triton.gradient(*flat, ctx.options, ctx.terms, grad_output)
        else:
            # Scaled in place to spare a copy, so another backward (retain_graph) has to compute it again.
            gradient = ctx.gradient
            if gradient is None:
                _, gradient = fused_eager.loss_and_gradient(*flat, ctx.options)
            ctx.gradient = None
            gradient = gradient.mul_(grad_output).to(logits.dtype)
        return gradient.view(logits.shape), None, None, None
