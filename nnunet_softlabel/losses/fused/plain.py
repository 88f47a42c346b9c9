"""The fused loss as the plain sum of its terms, which torch.compile turns into a few kernels on a GPU.

The CPU's form by hand is in ``eager.py``; here autograd finds the gradient, that of the target included.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache, partial

import torch
from torch import Tensor

from nnunet_softlabel.formats.encoding import SCALE
from nnunet_softlabel.losses.active import normalized_kl_divergence
from nnunet_softlabel.losses.balanced_start import foreground_volumes
from nnunet_softlabel.losses.combination import class_balanced
from nnunet_softlabel.losses.entropy import cross_entropy
from nnunet_softlabel.losses.fused.terms import FusedOptions, TermWeights
from nnunet_softlabel.losses.inputs import Activation, at_least_float32
from nnunet_softlabel.losses.passive import total_variation
from nnunet_softlabel.losses.region import PER_SAMPLE, dice_semimetric_loss
from nnunet_softlabel.losses.targets import expand_target, is_compact

PlainLoss = Callable[[Tensor, Tensor, Tensor | None, FusedOptions], tuple[Tensor, Tensor]]
BACKEND = "inductor"
SPACE = 2  # the dimension of the flattened voxels


def plain_loss(
    logits: Tensor, target: Tensor, mask: Tensor | None, options: FusedOptions
) -> tuple[Tensor, Tensor]:
    """The weighted sum of the terms, and the sums of ``p`` and ``q`` over the foreground, ``(2,)``.

    Args:
        logits: ``(B, K, *spatial)``.
        target: compact int16 ``(B, C, *spatial)``, or floating point ``(B, K, *spatial)``.
        mask: bool ``(B, 1, *spatial)`` or None.
        options: weights and settings.
    """
    activation: Activation = "sigmoid" if options.sigmoid else "softmax"
    logits = at_least_float32(logits)
    if is_compact(target):
        target, ignored = expand_target(target, activation=activation, has_ignore=options.has_ignore)
        mask = mask if ignored is None else ignored
    value = logits[:0].sum()  # 0, and a gradient of 0
    if options.weights.dml:
        dml = dice_semimetric_loss(
            logits,
            target,
            mask=mask,
            activation=activation,
            sums=options.sums,
        )
        value = value + options.weights.dml * dml
    for weight, term in (
        (options.weights.ce, cross_entropy),
        (options.weights.nkl, normalized_kl_divergence),
        (options.weights.tv, total_variation),
    ):
        if weight:
            loss = partial(class_balanced, loss=term) if options.balanced else term
            value = value + weight * loss(logits, target, mask=mask, activation=activation)
    if not options.balanced:
        return value, value.new_zeros(2)
    return value, foreground_volumes(logits, target, mask=mask, activation=activation).to(value.dtype)


def compiled_loss(
    logits: Tensor, target: Tensor, mask: Tensor | None, options: FusedOptions
) -> tuple[Tensor, Tensor]:
    """`plain_loss` under torch.compile, or as it is where that fails.

    Deep supervision hands over patches of five or six sizes. Space is flattened and marked as dynamic, so
    that all of them share one graph, and torch.compile's limit on graphs is not met.
    """
    function = _compiled() if _can_compile(logits.device.type) else plain_loss
    return function(*_flat(logits, target, mask), options)


def _flat(logits: Tensor, target: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """The tensors with space as one dimension whose size the compiler must not take for granted."""

    def flattened(tensor: Tensor) -> Tensor:
        flat = tensor.flatten(SPACE).contiguous()
        torch._dynamo.maybe_mark_dynamic(flat, SPACE)
        return flat

    return flattened(logits), flattened(target), None if mask is None else flattened(mask)


@cache
def _compiled() -> PlainLoss:
    return torch.compile(plain_loss, backend=BACKEND)


@cache
def _can_compile(device: str) -> bool:
    """Whether a small loss compiles, forward and backward.

    Asked once, before the first real loss: a backward pass that fails to compile could not be taken back.
    """
    options = FusedOptions(TermWeights(nkl=0.0, tv=0.0), PER_SAMPLE)
    logits = torch.zeros((2, 2, 64), device=device, requires_grad=True)
    target = torch.full((2, 1, 64), SCALE // 2, dtype=torch.int16, device=device)
    try:
        value, _ = _compiled()(*_flat(logits, target, None), options)
        value.backward()
    except (RuntimeError, OSError, ImportError) as error:  # no compiler, no Triton, a new GPU
        reason = str(error).strip().splitlines()
        warnings.warn(
            f"torch.compile fails on {device} ({reason[0] if reason else type(error).__name__}); the loss "
            f"runs uncompiled, slower and with more memory. nnUNet_compile=F says so from the start.",
            stacklevel=2,
        )
        return False
    return True
