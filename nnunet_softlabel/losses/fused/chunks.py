"""A patch in cache-sized chunks of voxels, and the threads that work on them, for the fused loss by hand."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from nnunet_softlabel.formats.encoding import SCALE
from nnunet_softlabel.losses.fused.terms import FusedOptions
from nnunet_softlabel.losses.targets import is_compact


@dataclass(frozen=True)
class Patch:
    """The arguments of the loss, space flattened to ``N`` voxels, and where its results go.

    A distribution over two outcomes, of which sigmoid has one per channel and softmax with two classes one,
    is worked on as one row: the probability of the second outcome, and its margin ``z_1 - z_0`` as score.
    Otherwise the rows are the classes and the scores their logits.
    """

    logits: Tensor
    target: Tensor
    mask: Tensor | None
    options: FusedOptions
    gradient: Tensor
    log_sums: Tensor
    buffers: Tensor

    @property
    def has_pairs(self) -> bool:
        """Whether a row is a distribution over two outcomes."""
        return self.options.sigmoid or self.logits.shape[1] == 2

    @property
    def first_row(self) -> int:
        """The first channel that is worked on; with two classes the background mirrors the foreground."""
        return 1 if self.has_pairs and not self.options.sigmoid else 0

    def map(self, work: Callable[["Chunk"], Tensor]) -> list[tuple[int, Tensor]]:
        """Index into the batch and result of every chunk, in order, whatever the number of threads."""
        batch, _, voxels = self.logits.shape
        threads, step = len(self.buffers), self.buffers.shape[3]
        places = [(i, slice(v, min(v + step, voxels))) for i in range(batch) for v in range(0, voxels, step)]
        results: list[Tensor] = [self.buffers] * len(places)
        is_inference = torch.is_inference_mode_enabled()  # a setting of the calling thread

        def run(thread: int) -> None:
            with torch.inference_mode(is_inference), torch.no_grad():
                for number in range(thread, len(places), threads):
                    results[number] = work(Chunk(self, *places[number], self.buffers[thread]))

        if threads == 1:
            run(0)
        else:
            _run_in_threads(run, threads)
        return [(index, result) for (index, _), result in zip(places, results, strict=True)]


class Chunk:
    """Consecutive voxels of one case: ``p`` lies in the gradient, ``q`` and the scores in buffers.

    ``weight`` is 1 where a voxel counts and 0 elsewhere, None if all count. ``is_marked`` is 1 where the
    target holds any foreground and 0 elsewhere, None unless the voxel terms are balanced.
    """

    def __init__(self, patch: Patch, index: int, voxels: slice, buffers: Tensor) -> None:
        self.index = index
        self.p = patch.gradient[index, patch.first_row :, voxels]
        self.log_sum = patch.log_sums[index, :, voxels]
        self.q, spare, *self.buffers = buffers[:, :, : self.p.shape[1]].unbind()
        z = patch.logits[index, :, voxels]
        if patch.first_row:
            # not in half precision, where the difference overflows
            same = z.dtype == spare.dtype
            self.scores = torch.sub(z[1:], z[:1], out=spare) if same else spare.copy_(z[1:]).sub_(z[:1])
        else:
            self.scores = z if z.dtype == spare.dtype else spare.copy_(z)
        target = patch.target[index, :, voxels]
        self.weight = None if patch.mask is None else patch.mask[index, :, voxels].to(spare.dtype)
        if is_compact(target):
            self._expand(target, patch)
        else:
            self.q.copy_(target[patch.first_row :])
        self.is_marked = self._find_marked(patch) if patch.options.balanced else None

    def _find_marked(self, patch: Patch) -> Tensor:
        """1 where any foreground channel of the target is above 0, else 0, ``(1, n)``."""
        if not patch.has_pairs and is_compact(patch.target):  # the rest of their sum, see `_expand`
            return torch.sub(1, self.q[:1]).sign_()
        foreground = self.q if patch.has_pairs else self.q[1:]
        return torch.sign(foreground if len(foreground) == 1 else foreground.amax(0, keepdim=True))

    def _expand(self, target: Tensor, patch: Patch) -> None:
        if patch.options.has_ignore:
            self.weight = (target[:1] >= 0).to(self.q.dtype)
        foreground = self.q if patch.has_pairs else self.q[1:]
        foreground.copy_(target).mul_(1 / SCALE)
        if self.weight is not None:
            foreground.mul_(self.weight)
        if not patch.has_pairs:
            # Rounding may bring the sum of several classes one step above 1.
            torch.sub(1, foreground.sum(0), out=self.q[0]).clamp_min_(0)

    def weighted(self, x: Tensor) -> Tensor:
        """``x`` with 0 where a voxel does not count, in place."""
        return x if self.weight is None else x.mul_(self.weight)


def _run_in_threads(run: Callable[[int], None], threads: int) -> None:
    """``run(0), run(1), ...``, each in a thread in which torch does not start further ones."""
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(run, range(threads)))
    finally:
        # The number belongs to the thread that sets it, but is also what threads to come begin with.
        torch.set_num_threads(torch.get_num_threads())
