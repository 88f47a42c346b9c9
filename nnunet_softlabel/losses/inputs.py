"""What every loss does first and last: check its arguments, form probabilities, average over voxels."""

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

Activation = Literal["softmax", "sigmoid"]
ACTIVATIONS = get_args(Activation)  # asked here: torch.compile of PyTorch 2.4 breaks its graph at get_args


def at_least_float32(tensor: Tensor) -> Tensor:
    """Raise half, bfloat16 and integers to float32; keep float32 and float64."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def check_activation(activation: str) -> None:
    """Refuse an activation that is neither softmax nor sigmoid."""
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {list(ACTIVATIONS)}, got {activation!r}.")


def check_weights(**weights: float) -> None:
    """Refuse a negative weight, by the name it was passed with."""
    for name, weight in weights.items():
        if not weight >= 0:
            raise ValueError(f"{name} must not be negative, got {weight}.")


def check_inputs(logits: Tensor, target: Tensor, mask: Tensor | None, activation: str) -> None:
    """Refuse shapes that do not belong together; never looks at the contents of a tensor."""
    check_activation(activation)
    if logits.ndim < 3 or logits.shape != target.shape:
        raise ValueError(
            f"logits and target must have the same shape (B, K, *spatial), "
            f"got {tuple(logits.shape)} and {tuple(target.shape)}."
        )
    if activation == "softmax" and logits.shape[1] < 2:
        raise ValueError("softmax needs at least two channels, background first; use activation='sigmoid'.")
    check_mask(logits, mask)


def check_mask(logits: Tensor, mask: Tensor | None) -> None:
    """Refuse a mask that is not boolean of shape ``(B, 1, *spatial)``."""
    if mask is None:
        return
    expected = (logits.shape[0], 1, *logits.shape[2:])
    if mask.shape != expected or mask.dtype != torch.bool:
        raise ValueError(
            f"mask must be a bool tensor of shape {expected}, got {mask.dtype} of shape {tuple(mask.shape)}."
        )


def distributions(
    logits: Tensor, target: Tensor, *, mask: Tensor | None, activation: Activation
) -> tuple[Tensor, Tensor]:
    """Log-probabilities and target of every distribution, its outcomes in dimension 1.

    With softmax a voxel holds one distribution over ``K`` classes, with sigmoid ``K`` distributions over
    two outcomes (absent, present), so one formula serves both.

    Args:
        logits: ``(B, K, *spatial)``.
        target: probabilities, same shape as ``logits``.
        mask: ``(B, 1, *spatial)`` or None; checked here, applied by ``masked_mean``.
        activation: how logits become probabilities.

    Returns:
        Two tensors ``(B, K, 1, *spatial)`` for softmax, ``(B, 2, K, *spatial)`` for sigmoid.
    """
    check_inputs(logits, target, mask, activation)
    logits = at_least_float32(logits)
    target = target.to(logits.dtype)
    if activation == "softmax":
        return torch.log_softmax(logits, dim=1).unsqueeze(2), target.unsqueeze(2)
    log_p = torch.stack([logsigmoid(-logits), logsigmoid(logits)], dim=1)
    return log_p, torch.stack([1 - target, target], dim=1)


def probabilities(logits: Tensor, activation: Activation) -> Tensor:
    """``softmax`` over dimension 1 or ``sigmoid``, in at least float32.

    >>> probabilities(torch.zeros(1, 2, 1), "softmax").flatten().tolist()
    [0.5, 0.5]
    """
    logits = at_least_float32(logits)
    return torch.softmax(logits, dim=1) if activation == "softmax" else torch.sigmoid(logits)


def masked_mean(per_voxel: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of ``(B, G, *spatial)`` where the mask ``(B, 1, *spatial)`` is True; 0 if it is nowhere.

    >>> masked_mean(torch.tensor([[[1.0, 5.0]]]), torch.tensor([[[True, False]]])).item()
    1.0
    """
    if mask is None:
        return per_voxel.mean()
    count = mask.sum() * per_voxel.shape[1]
    return torch.where(mask, per_voxel, 0.0).sum() / count.clamp_min(1)
