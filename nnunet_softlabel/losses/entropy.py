"""Cross entropy, its noise-robust relatives and the Brier score.

Shapes, mask and result are those of ``active.py``.
"""

import torch
from torch import Tensor

from .inputs import Activation, check_weights, distributions, masked_mean
from .passive import reverse_cross_entropy


def cross_entropy(
    logits: Tensor, target: Tensor, *, mask: Tensor | None = None, activation: Activation = "softmax"
) -> Tensor:
    """CE: mean over voxels of ``-sum_k q_k log p_k``; at ``p = q`` it is the entropy of q, its minimum.

    Proper: over raters drawn at random it estimates the mean rater.

    >>> logits, target = torch.tensor([[[0.8], [0.2]]]).log(), torch.tensor([[[0.75], [0.25]]])
    >>> round(cross_entropy(logits, target).item(), 4)
    0.5697
    """
    log_p, q = distributions(logits, target, mask=mask, activation=activation)
    return masked_mean(-(q * log_p).sum(dim=1), mask)


def brier_score(
    logits: Tensor, target: Tensor, *, mask: Tensor | None = None, activation: Activation = "softmax"
) -> Tensor:
    """Brier score: mean over voxels of ``sum_k (p_k - q_k)**2``, in [0, 2]; proper [1].

    >>> logits, target = torch.tensor([[[0.8], [0.2]]]).log(), torch.tensor([[[0.75], [0.25]]])
    >>> round(brier_score(logits, target).item(), 4)
    0.005

    References:
        [1] Brier, "Verification of forecasts expressed in terms of probability", Mon. Weather Rev. 1950.
    """
    log_p, q = distributions(logits, target, mask=mask, activation=activation)
    return masked_mean((log_p.exp() - q).square().sum(dim=1), mask)


def generalized_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    q: float = 0.7,
    mask: Tensor | None = None,
    activation: Activation = "softmax",
) -> Tensor:
    """GCE: mean over voxels of ``sum_k target_k * (1 - p_k**q) / q`` [1].

    ``q -> 0`` is cross entropy; ``q = 1`` is ``mean_absolute_error``. Between them the minimiser is sharper
    than the target.

    >>> logits, target = torch.tensor([[[0.8], [0.2]]]).log(), torch.tensor([[[0.75], [0.25]]])
    >>> round(generalized_cross_entropy(logits, target, q=0.7).item(), 4)
    0.3963

    References:
        [1] Zhang and Sabuncu, "Generalized Cross Entropy Loss for Training Deep Neural Networks with Noisy
            Labels", NeurIPS 2018.
    """
    if not 0 < q <= 1:
        raise ValueError(f"q must lie in (0, 1], got {q}.")
    log_p, weight = distributions(logits, target, mask=mask, activation=activation)
    # expm1 keeps the gradient finite where p underflows to 0; p ** q gives NaN.
    return masked_mean((weight * -torch.expm1(q * log_p)).sum(dim=1) / q, mask)


def symmetric_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    alpha: float = 0.1,
    beta: float = 1.0,
    clamp: float = 1e-4,
    mask: Tensor | None = None,
    activation: Activation = "softmax",
) -> Tensor:
    """SCE: ``alpha * CE + beta * RCE`` [1]; the defaults are the paper's weights for CIFAR-10.

    Despite its name it is not symmetric in the sense of the noise theorem: its cross entropy part is not.

    >>> logits, target = torch.tensor([[[0.8], [0.2]]]).log(), torch.tensor([[[0.75], [0.25]]])
    >>> round(symmetric_cross_entropy(logits, target).item(), 4)
    3.2806

    References:
        [1] Wang et al., "Symmetric Cross Entropy for Robust Learning with Noisy Labels", ICCV 2019.
    """
    check_weights(alpha=alpha, beta=beta)
    reverse = reverse_cross_entropy(logits, target, clamp=clamp, mask=mask, activation=activation)
    return alpha * cross_entropy(logits, target, mask=mask, activation=activation) + beta * reverse
