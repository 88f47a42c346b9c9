"""The loss with which a training begins where foreground is rare, and the rule by which it ends."""

from collections.abc import Callable
from typing import Any, TypedDict

import torch
from torch import Tensor, distributed, nn

from .inputs import Activation, check_activation, probabilities
from .targets import expand_target, is_compact

WINDOW = 25
FACTOR = 2.0
SHARE = 0.25
MOST_ITERATIONS = 5000


class Progress(TypedDict):
    """How far a start is, in plain numbers: what a checkpoint keeps."""

    iteration: int
    ended_at: int | None
    batches: int
    volumes: list[float] | None


class BalancedStart(nn.Module):
    """One loss for the start of a training, another for the rest. The start ends by itself.

    The rule: the start ends when, over 25 batches, the predicted foreground volume lies within a factor of 2
    of the label's, and after a quarter of the training or 5,000 iterations at the latest.

    Call ``advance`` after every training step. Only calls whose logits have a gradient are counted, so
    validation changes nothing; the scales of deep supervision are summed.

    >>> from nnunet_softlabel.losses import FusedSoftLoss
    >>> loss = BalancedStart(FusedSoftLoss(balanced=True), FusedSoftLoss(), window=1)
    >>> logits = torch.zeros(1, 2, 4, requires_grad=True)
    >>> target = torch.tensor([[[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]]])
    >>> value = loss(logits, target)
    >>> loss.advance()
    "after 1 iterations: over the last 1 the predicted foreground volume was 1.00 times the label's"
    >>> loss.is_starting
    False

    Args:
        start: for the start.
        settled: for the rest.
        window: batches after which it is decided whether to go on.
        factor: the start ends once ``1 / factor <= predicted / labelled volume <= factor``.
        most_iterations: the start is never longer; see also ``set_length``.
        ddp: add up the volumes of all processes of ``torch.distributed``, so that all end at once.

    Attributes:
        iteration: training steps so far.
        ended_at: the iteration after which the start was over, None while it lasts; 0 if it never began.
    """

    def __init__(
        self,
        start: Callable[..., Tensor],
        settled: Callable[..., Tensor],
        *,
        window: int = WINDOW,
        factor: float = FACTOR,
        most_iterations: int = MOST_ITERATIONS,
        ddp: bool = False,
    ) -> None:
        super().__init__()
        if window < 1:
            raise ValueError(f"window must be at least 1, got {window}.")
        if not factor > 1:
            raise ValueError(f"factor must be above 1, got {factor}.")
        self.start, self.settled, self.window, self.factor = start, settled, window, factor
        self.most_iterations, self.ddp = most_iterations, ddp
        self.iteration, self.ended_at = 0, None if most_iterations > 0 else 0
        self._volumes: Tensor | None = None
        self._batches = 0

    @property
    def is_starting(self) -> bool:
        """Whether the start is still on."""
        return self.ended_at is None

    def set_length(self, iterations: int) -> None:
        """Bound the start to a quarter of a training of that many iterations, and to `MOST_ITERATIONS`."""
        self.most_iterations = min(MOST_ITERATIONS, int(SHARE * iterations))
        if self.is_starting and self.iteration >= self.most_iterations:
            self.ended_at = self.iteration

    def skip(self) -> None:
        """Do not begin; a start that has begun goes on."""
        if self.iteration == 0:
            self.ended_at = 0

    def forward(self, logits: Tensor, target: Tensor, **options: Any) -> Tensor:
        """The loss of the phase."""
        if not self.is_starting:
            return self.settled(logits, target, **options)
        value = self.start(logits, target, **options)
        if logits.requires_grad and torch.is_grad_enabled():
            volumes = getattr(self.start, "volumes", None)
            if volumes is None:
                activation = options.get("activation", getattr(self.start, "activation", "softmax"))
                volumes = foreground_volumes(logits, target, mask=options.get("mask"), activation=activation)
            self._volumes = volumes.float() if self._volumes is None else self._volumes + volumes
        return value

    def advance(self) -> str | None:
        """Count a training step.

        Returns:
            Why the start has just ended, in words; None if it goes on or was over before.
        """
        self.iteration += 1
        if not self.is_starting:
            return None
        self._batches += 1
        is_last = self.iteration >= self.most_iterations
        if self._batches < self.window and not is_last:
            return None
        predicted, labelled = self._sum_over_processes()
        batches, self._volumes, self._batches = self._batches, None, 0
        ratio = predicted / labelled if labelled > 0 else float("inf")
        if not (is_last or 1 / self.factor <= ratio <= self.factor):
            return None
        self.ended_at = self.iteration
        bound = ", its bound" if is_last else ""
        return (
            f"after {self.iteration} iterations{bound}: over the last {batches} the predicted foreground "
            f"volume was {ratio:.2f} times the label's"
        )

    def _sum_over_processes(self) -> tuple[float, float]:
        volumes = torch.zeros(2) if self._volumes is None else self._volumes.clone()
        if self.ddp:
            distributed.all_reduce(volumes)
        predicted, labelled = volumes.tolist()
        return predicted, labelled

    def progress(self) -> Progress:
        """What a checkpoint has to keep, in plain numbers."""
        volumes = None if self._volumes is None else self._volumes.tolist()
        return {
            "iteration": self.iteration,
            "ended_at": self.ended_at,
            "batches": self._batches,
            "volumes": volumes,
        }

    def resume(self, progress: Progress, device: torch.device | str = "cpu") -> None:
        """Go on from what ``progress`` gave."""
        self.iteration, self.ended_at = progress["iteration"], progress["ended_at"]
        volumes, self._batches = progress["volumes"], progress["batches"]
        self._volumes = None if volumes is None else torch.tensor(volumes, device=device)


@torch.no_grad()
def foreground_volumes(
    logits: Tensor, target: Tensor, *, mask: Tensor | None = None, activation: Activation = "softmax"
) -> Tensor:
    """The sums of probabilities and of the target over the foreground, ``(2,)``.

    Args:
        logits: ``(B, K, *spatial)``.
        target: probabilities of the same shape, or compact int16; negative values there are ignored.
        mask: ``(B, 1, *spatial)``, True where a voxel counts. None counts all.
        activation: ``softmax`` or ``sigmoid``.
    """
    check_activation(activation)
    if is_compact(target):
        target, ignored = expand_target(target, activation=activation, has_ignore=True)
        mask = ignored if mask is None else mask
    first = 0 if activation == "sigmoid" else 1
    parts = (probabilities(logits, activation), target)
    return torch.stack([(x if mask is None else torch.where(mask, x, 0))[:, first:].sum() for x in parts])
