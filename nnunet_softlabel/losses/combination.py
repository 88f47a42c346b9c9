"""Losses made of other losses."""

from collections.abc import Callable
from typing import Literal, get_args

from torch import Tensor, nn

from .inputs import Activation, check_inputs, check_weights
from .registry import ACTIVE, PASSIVE

Mode = Literal["consistent", "expectation"]
MODES = get_args(Mode)

# The terms of each mode, its default first. Mixing them (NCE with TV, say) is not minimised at p = q and
# not noise tolerant either.
ACTIVE_OF_MODE: dict[str, tuple[str, ...]] = {
    "consistent": ("nkl",),
    "expectation": ("nce", "nfl", "nfl_detached"),
}
PASSIVE_OF_MODE: dict[str, tuple[str, ...]] = {"consistent": ("tv",), "expectation": ("mae", "rce", "nnce")}


def active_passive_loss(
    logits: Tensor,
    target: Tensor,
    *,
    mode: Mode = "consistent",
    pair: tuple[str, str] | None = None,
    alpha: float = 1.0,
    beta: float = 1.0,
    mask: Tensor | None = None,
    activation: Activation = "softmax",
) -> Tensor:
    """APL: ``alpha * active + beta * passive`` [1], carried to soft targets after Felfeliyan et al. [2].

    ``consistent`` is minimised at ``p = target``; ``expectation`` enters the target linearly, keeps the noise
    tolerance theorem and is minimised at the majority class. Both are the same function on one-hot targets.

    >>> logits, target = torch.tensor([[[0.8], [0.2]]]).log(), torch.tensor([[[0.75], [0.25]]])
    >>> round(active_passive_loss(logits, target, mode="expectation", pair=("nce", "mae")).item(), 4)
    0.6609

    Args:
        logits: ``(B, K, *spatial)``, before the activation.
        target: probabilities, same shape as ``logits``.
        mode: ``consistent`` or ``expectation``.
        pair: the active term, a name in ``ACTIVE_OF_MODE[mode]``, and the passive one, a name in
            ``PASSIVE_OF_MODE[mode]``. None takes the first of each, NKL and TV or NCE and MAE.
        alpha: weight of the active term.
        beta: weight of the passive term; above 0 in ``consistent`` mode with three or more classes.
        mask: ``(B, 1, *spatial)``, True where a voxel counts. None counts all.
        activation: ``softmax`` over classes or ``sigmoid`` per channel.

    Returns:
        Scalar float32 (float64 if the logits are); 0 if the mask is empty.

    References:
        [1] Ma et al., "Normalized Loss Functions for Deep Learning with Noisy Labels", ICML 2020.
        [2] Felfeliyan et al., "Weakly Supervised Medical Image Segmentation With Soft Labels and Noise Robust
            Loss", arXiv 2209.08172.
    """
    check_weights(alpha=alpha, beta=beta)
    if mode not in MODES:
        raise ValueError(f"mode must be one of {list(MODES)}, got {mode!r}.")
    active, passive = pair or (ACTIVE_OF_MODE[mode][0], PASSIVE_OF_MODE[mode][0])
    _check_choice("active", active, mode, ACTIVE_OF_MODE[mode])
    _check_choice("passive", passive, mode, PASSIVE_OF_MODE[mode])
    active_value = ACTIVE[active](logits, target, mask=mask, activation=activation)
    passive_value = PASSIVE[passive](logits, target, mask=mask, activation=activation)
    return alpha * active_value + beta * passive_value


def _check_choice(kind: str, name: str, mode: str, choices: tuple[str, ...]) -> None:
    if name not in choices:
        raise ValueError(f"pair: {kind} must be one of {list(choices)} in {mode} mode, got {name!r}.")


def class_balanced(
    logits: Tensor,
    target: Tensor,
    *,
    loss: Callable[..., Tensor],
    mask: Tensor | None = None,
    activation: Activation = "softmax",
) -> Tensor:
    """A voxel loss averaged over voxels with any foreground in the target and over the others, half and half.

    Small lesions then weigh as much as all the rest, so that no loss can take them for noise. Still smallest
    at ``p = target`` where every voxel can be fitted by itself; where the image does not tell, ``p`` comes
    out too large, since marked voxels weigh more: for the start of a training (`BalancedStart`), not its end.

    >>> logits, target = torch.tensor([[[0.8], [0.2]]]).log(), torch.tensor([[[0.75], [0.25]]])
    >>> round(class_balanced(logits, target, loss=ns.losses.cross_entropy).item(), 4)
    0.2849

    Args:
        logits: ``(B, K, *spatial)``, before the activation.
        target: probabilities, same shape as ``logits``.
        loss: averages over voxels, ``f(logits, target, *, mask, activation)``; not a region term.
        mask: ``(B, 1, *spatial)``, True where a voxel counts. None counts all.
        activation: ``softmax`` over classes or ``sigmoid`` per channel.

    Returns:
        Scalar float32 (float64 if the logits are). A part without voxels adds 0.
    """
    check_inputs(logits, target, mask, activation)
    foreground = target if activation == "sigmoid" else target[:, 1:]
    is_marked = (foreground > 0).any(dim=1, keepdim=True)
    parts = (is_marked, ~is_marked) if mask is None else (is_marked & mask, ~is_marked & mask)
    marked, rest = (loss(logits, target, mask=part, activation=activation) for part in parts)
    return 0.5 * (marked + rest)


class WeightedSum(nn.Module):
    """Sum of losses, each with its weight: ``WeightedSum((1.0, f), (0.5, partial(g, q=0.7)))``.

    Args:
        *terms: pairs of a weight and a function ``f(logits, target, *, mask, activation)``. A term of weight
            0 is not computed.
    """

    def __init__(self, *terms: tuple[float, Callable[..., Tensor]]) -> None:
        super().__init__()
        if not any(weight > 0 for weight, _ in terms):
            raise ValueError("WeightedSum needs at least one term with a weight above 0.")
        for weight, _ in terms:
            check_weights(weight=weight)
        self.terms = [(weight, term) for weight, term in terms if weight > 0]

    def forward(
        self,
        logits: Tensor,
        target: Tensor,
        mask: Tensor | None = None,
        activation: Activation = "softmax",
    ) -> Tensor:
        """The weighted sum of the terms, each called with the same arguments."""
        values = [w * term(logits, target, mask=mask, activation=activation) for w, term in self.terms]
        total = values[0]
        for value in values[1:]:
            total = total + value
        return total
