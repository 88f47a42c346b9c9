"""Active voxel terms: they only raise the probability of the labelled class.

All take ``logits`` and ``target`` of shape ``(B, K, *spatial)``, the target as probabilities (background
first for softmax, one Bernoulli per channel for sigmoid), and ``mask`` ``(B, 1, *spatial)``, True where a
voxel counts. All return a scalar, float32 unless the logits are float64; 0 if the mask is empty.
"""

import torch
from torch import Tensor

from .inputs import Activation, distributions, masked_mean


def normalized_cross_entropy(
    logits: Tensor, target: Tensor, *, mask: Tensor | None = None, activation: Activation = "softmax"
) -> Tensor:
    """NCE: mean over voxels of ``sum_k q_k * log p_k / sum_j log p_j``, in ``[0, 1]`` [1].

    Symmetric and linear in the target, so noise tolerant; but its minimiser for a soft target is the
    majority class, not the target. ``normalized_kl_divergence`` equals it on one-hot targets.

    >>> logits, target = torch.tensor([[[0.8], [0.2]]]).log(), torch.tensor([[[0.75], [0.25]]])
    >>> round(normalized_cross_entropy(logits, target).item(), 4)
    0.3109

    References:
        [1] Ma et al., "Normalized Loss Functions for Deep Learning with Noisy Labels", ICML 2020.
    """
    log_p, q = distributions(logits, target, mask=mask, activation=activation)
    return masked_mean((q * log_p).sum(dim=1) / log_p.sum(dim=1), mask)


def normalized_focal_loss(
    logits: Tensor,
    target: Tensor,
    *,
    gamma: float = 0.5,
    detach_weight: bool = False,
    mask: Tensor | None = None,
    activation: Activation = "softmax",
) -> Tensor:
    """NFL: mean over voxels of ``sum_k q_k * f_k / sum_j f_j``, ``f_k = (1 - p_k)**gamma * log p_k`` [1].

    ``gamma = 0`` is NCE. Lies in [0, 1]; symmetric and linear in the target, so mode seeking as NCE is.

    Two gradients go with this one value. The default (``nfl``) differentiates the whole formula. The authors'
    code takes the weights ``(1 - p_k)**gamma`` as constants, above and below the line: ``detach_weight=True``
    (``nfl_detached``) does so too.

    >>> logits = torch.tensor([[[1.0], [0.0]]], requires_grad=True)
    >>> target = torch.tensor([[[1.0], [0.0]]])
    >>> for detached in (False, True):
    ...     value = normalized_focal_loss(logits, target, detach_weight=detached)
    ...     (gradient,) = torch.autograd.grad(value, logits)
    ...     print(f"{value.item():.3f} {gradient[0, 1, 0].item():.3f}")
    0.126 0.211
    0.126 0.156

    References:
        [1] Ma et al., "Normalized Loss Functions for Deep Learning with Noisy Labels", ICML 2020; code
            HanxunH/Active-Passive-Losses.
    """
    if gamma < 0:
        raise ValueError(f"gamma must not be negative, got {gamma}.")
    log_p, q = distributions(logits, target, mask=mask, activation=activation)
    # The clamp keeps the gradient of the root finite at p = 1, where 1 - p is exactly 0.
    one_minus_p = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny)
    weight = one_minus_p.pow(gamma)
    focal = (weight.detach() if detach_weight else weight) * log_p
    return masked_mean((q * focal).sum(dim=1) / focal.sum(dim=1), mask)


def normalized_kl_divergence(
    logits: Tensor, target: Tensor, *, mask: Tensor | None = None, activation: Activation = "softmax"
) -> Tensor:
    """NKL: mean over voxels of ``(sum_k -q_k log p_k - H(q)) / sum_j -log p_j``, in [0, 1].

    Equals NCE exactly on one-hot targets and is 0 at ``p = q``. For three or more classes it also tends to
    0 at the boundary of the simplex, so combine it with ``total_variation`` there (after the NCE of Ma et
    al., ICML 2020; the normalised divergence is ours).

    >>> logits, target = torch.tensor([[[0.8], [0.2]]]).log(), torch.tensor([[[0.75], [0.25]]])
    >>> round(normalized_kl_divergence(logits, target).item(), 4)
    0.004
    """
    log_p, q = distributions(logits, target, mask=mask, activation=activation)
    # xlogy gives 0 for q = 0, where q * log(q) would be NaN.
    divergence = (torch.xlogy(q, q) - q * log_p).sum(dim=1)
    return masked_mean(divergence / -log_p.sum(dim=1), mask)
