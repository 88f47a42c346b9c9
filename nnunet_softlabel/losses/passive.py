"""Passive voxel terms: they also lower the probability of the classes that are not labelled.

Shapes, mask and result are those of ``active.py``.
"""

import math

from torch import Tensor

from .inputs import Activation, distributions, masked_mean


def mean_absolute_error(
    logits: Tensor, target: Tensor, *, mask: Tensor | None = None, activation: Activation = "softmax"
) -> Tensor:
    """MAE in expectation: mean over voxels of ``sum_k q_k * (1 - p_k)``, in ``[0, 1]`` [1].

    Half the L1 distance to a one-hot label. Symmetric and linear in the target, so the minimiser for a soft
    target is its majority class; ``total_variation`` equals it on one-hot targets.

    >>> logits, target = torch.tensor([[[0.8], [0.2]]]).log(), torch.tensor([[[0.75], [0.25]]])
    >>> round(mean_absolute_error(logits, target).item(), 4)
    0.35

    References:
        [1] Ghosh et al., "Robust Loss Functions under Label Noise for Deep Neural Networks", AAAI 2017.
    """
    log_p, q = distributions(logits, target, mask=mask, activation=activation)
    return masked_mean((q * (1 - log_p.exp())).sum(dim=1), mask)


def reverse_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    clamp: float = 1e-4,
    mask: Tensor | None = None,
    activation: Activation = "softmax",
) -> Tensor:
    """RCE in expectation: ``-log(clamp)`` times ``mean_absolute_error`` [1].

    On a hard label the reverse cross entropy ``-sum_k p_k log max(e_k, clamp)`` is ``A * (1 - p_y)`` with
    ``A = -log(clamp)``; a soft target enters linearly. The default gives A = 9.21.

    >>> logits, target = torch.tensor([[[0.8], [0.2]]]).log(), torch.tensor([[[0.75], [0.25]]])
    >>> round(reverse_cross_entropy(logits, target).item(), 4)
    3.2236

    References:
        [1] Wang et al., "Symmetric Cross Entropy for Robust Learning with Noisy Labels", ICCV 2019.
    """
    if not 0 < clamp < 1:
        raise ValueError(f"clamp must lie in (0, 1), got {clamp}.")
    return -math.log(clamp) * mean_absolute_error(logits, target, mask=mask, activation=activation)


def total_variation(
    logits: Tensor, target: Tensor, *, mask: Tensor | None = None, activation: Activation = "softmax"
) -> Tensor:
    """TV: mean over voxels of ``0.5 * sum_k |p_k - q_k|``, in [0, 1].

    Equals MAE exactly on one-hot targets and is 0 only at ``p = q``. Over raters drawn at random it
    estimates the median rater, not the mean.

    >>> logits, target = torch.tensor([[[0.8], [0.2]]]).log(), torch.tensor([[[0.75], [0.25]]])
    >>> round(total_variation(logits, target).item(), 4)
    0.05
    """
    log_p, q = distributions(logits, target, mask=mask, activation=activation)
    return masked_mean(0.5 * (log_p.exp() - q).abs().sum(dim=1), mask)


def normalized_negative_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    clamp: float = 1e-7,
    mask: Tensor | None = None,
    activation: Activation = "softmax",
) -> Tensor:
    """NNCE: mean of ``sum_k q_k * (1 - (A + log p_k) / sum_j (A + log p_j))``, ``A = -log(clamp)`` [1].

    Probabilities below ``clamp`` count as ``clamp``, which keeps every ``A + log p`` from falling below 0 and
    the loss in [0, 1]; their gradient is 0. Symmetric and linear in the target.

    >>> logits, target = torch.tensor([[[0.8], [0.2]]]).log(), torch.tensor([[[0.75], [0.25]]])
    >>> round(normalized_negative_cross_entropy(logits, target).item(), 4)
    0.4886

    References:
        [1] Ye et al., "Active Negative Loss Functions for Learning with Noisy Labels", NeurIPS 2023.
    """
    log_p, q = distributions(logits, target, mask=mask, activation=activation)
    outcomes = log_p.shape[1]
    if not 0 < clamp < 1 / outcomes:
        raise ValueError(f"clamp must lie in (0, 1 / number of classes), got {clamp}.")
    shifted = log_p.clamp_min(math.log(clamp)) - math.log(clamp)
    share = shifted / shifted.sum(dim=1, keepdim=True)
    return masked_mean((q * (1 - share)).sum(dim=1), mask)
