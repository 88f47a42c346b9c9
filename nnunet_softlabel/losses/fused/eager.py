"""The fused loss in plain torch operations, one cache-sized chunk of voxels at a time.

Two passes, because the gradient of DML depends on sums over the whole patch. The first leaves the
probabilities where the gradient will be, the second turns them into the gradient. Everything else lives in
a few chunk-sized buffers that are used again and again: fresh memory would cost more than the arithmetic.
On the CPU each thread takes chunks of its own: if all shared every small operation, they would wait for each
other after each, and for as long as another process keeps one of them from its core.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from nnunet_softlabel.formats.encoding import SCALE
from nnunet_softlabel.losses.fused.terms import FusedOptions, distance_terms
from nnunet_softlabel.losses.targets import is_compact

# Elements of one buffer: large enough to hide the cost of a call, small enough for the cache.
CHUNK_ELEMENTS = 1 << 17
MOST_THREADS = 16
CHUNK_ELEMENTS_GPU = 1 << 22
BUFFERS = 7


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

    ``weight`` is 1 where a voxel counts and 0 elsewhere, None if all count.
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


def loss_and_gradient(
    logits: Tensor, target: Tensor, mask: Tensor | None, options: FusedOptions
) -> tuple[Tensor, Tensor]:
    """The loss and its gradient by the logits, in float32 (float64 if the logits are).

    Args:
        logits: ``(B, K, N)``.
        target: compact int16 ``(B, C, N)``, or floating point ``(B, K, N)``.
        mask: bool ``(B, 1, N)`` or None.
        options: weights and settings.
    """
    patch = _prepare(logits, target, mask, options)
    distance, total, count = _first_pass(patch)
    terms = distance_terms(
        distance,
        total,
        count,
        options,
        first=0 if patch.has_pairs else 1,
        tv_factor=1.0 if patch.has_pairs else 0.5,
    )
    dtype = patch.gradient.dtype
    slope, shift = terms.slope.to(dtype).unsqueeze(2), terms.shift.to(dtype).unsqueeze(2)
    weight_ce, weight_nkl = ((w / count).to(dtype) for w in (options.weight_ce, options.weight_nkl))
    second_pass = _pair_gradient if patch.has_pairs else _class_gradient

    def turn(chunk: Chunk) -> Tensor:
        difference, d, *_ = chunk.buffers
        torch.sub(chunk.p, chunk.q, out=difference)
        # two products with a column: addcmul is twice as slow where it has to broadcast
        torch.sign(difference, out=d).mul_(slope[chunk.index]).sub_(shift[chunk.index])
        part = second_pass(chunk, weight_ce, weight_nkl if options.weight_nkl else None)
        chunk.weighted(chunk.p)
        return chunk.weighted(part).sum()

    value = terms.value + torch.stack([part for _, part in patch.map(turn)]).double().sum()
    if patch.first_row:
        torch.neg(patch.gradient[:, 1], out=patch.gradient[:, 0])
    return value.to(dtype), patch.gradient


def _prepare(logits: Tensor, target: Tensor, mask: Tensor | None, options: FusedOptions) -> Patch:
    batch, channels, voxels = logits.shape
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    new = partial(torch.empty, dtype=dtype, device=logits.device)
    on_cpu = logits.device.type == "cpu"
    rows = channels if options.sigmoid or channels > 2 else 1
    step = min(voxels, max(1, (CHUNK_ELEMENTS if on_cpu else CHUNK_ELEMENTS_GPU) // rows))
    chunks = batch * -(-voxels // step)
    threads = min(torch.get_num_threads(), MOST_THREADS, chunks) if on_cpu else 1
    return Patch(
        logits,
        target,
        mask,
        options,
        gradient=new(logits.shape),
        log_sums=new((batch, 1 if rows == channels else 0, voxels)),
        buffers=new((threads, BUFFERS, rows, step)),
    )


def _first_pass(patch: Patch) -> tuple[Tensor, Tensor, Tensor]:
    """Write ``p`` for every chunk, and ``log sum exp z`` where the rows are classes.

    Returns:
        The sums of ``|p - q|`` and of ``p + q``, each ``(B, rows)``, and the number of voxel terms.
    """

    def sums(chunk: Chunk) -> Tensor:
        first, *_ = chunk.buffers
        if patch.has_pairs:
            torch.sigmoid(chunk.scores, out=chunk.p)
        else:
            peak = chunk.scores.amax(0, keepdim=True)
            torch.sub(chunk.scores, peak, out=first).exp_()
            normaliser = first.sum(0, keepdim=True)
            torch.div(first, normaliser, out=chunk.p)
            torch.add(normaliser.log_(), peak, out=chunk.log_sum)
        difference = chunk.weighted(torch.sub(chunk.p, chunk.q, out=first).abs_())
        distance = difference.sum(1)
        if chunk.weight is None:
            total, count = chunk.p.sum(1).add_(chunk.q.sum(1)), distance.new_full((1,), difference.shape[1])
        else:
            total, count = chunk.weighted(torch.add(chunk.p, chunk.q, out=first)).sum(1), chunk.weight.sum()
        return torch.cat([distance, total, count.view(1)])

    rows = patch.buffers.shape[2]
    total = torch.zeros((len(patch.logits), 2 * rows + 1), dtype=torch.float64, device=patch.logits.device)
    for index, part in patch.map(sums):
        total[index] += part
    per_voxel = rows if patch.options.sigmoid else 1
    return total[:, :rows], total[:, rows:-1], (total[:, -1].sum() * per_voxel).clamp_min_(1)


def _pair_gradient(chunk: Chunk, weight_ce: Tensor, weight_nkl: Tensor | None) -> Tensor:
    """Turn ``p`` into the gradient by the margin ``log p - log(1 - p)``; return the value of CE plus NKL.

    Of the buffers, the first holds ``p - q`` and the second the derivative of DML plus TV by ``p``.
    """
    p, q, margin = chunk.p, chunk.q, chunk.scores
    difference, d, tail, cost, other = chunk.buffers
    torch.sub(1, p, out=other)
    d.mul_(p).mul_(other).addcmul_(difference, weight_ce)
    # log(1 + exp(-|margin|)), without another exponential.
    torch.maximum(p, other, out=tail).log_().neg_()
    torch.clamp_min(margin, 0, out=cost).add_(tail).addcmul_(q, margin, value=-1)
    if weight_nkl is None:
        p.copy_(d)
        return cost.mul_(weight_ce)
    # d nkl / d margin = (p - q + nkl * (1 - 2 p)) / spread, where nkl = (cost - H(q)) / spread
    slant = other.sub_(p)
    nkl = _plogp(q, out=p)
    value = cost * weight_ce
    nkl.add_(cost).add_(_plogp(q.neg_().add_(1), out=cost))
    inverse_spread = tail.mul_(2).add_(torch.abs(margin, out=cost)).reciprocal_()
    nkl.mul_(inverse_spread)
    value.addcmul_(nkl, weight_nkl)
    difference.addcmul_(nkl, slant).mul_(inverse_spread)
    torch.addcmul(d, difference, weight_nkl, out=p)
    return value


def _class_gradient(chunk: Chunk, weight_ce: Tensor, weight_nkl: Tensor | None) -> Tensor:
    """Turn ``p`` into the gradient by the logits of all classes; return the value of CE plus NKL.

    Of the buffers, the first holds ``p - q`` and the second the derivative ``d`` of DML plus TV by ``p``,
    which becomes ``p * (d - sum_j p_j d_j)`` by the logits.
    """
    p, q, z, log_sum = chunk.p, chunk.q, chunk.scores, chunk.log_sum
    difference, d, spare, *_ = chunk.buffers
    cost = log_sum - torch.mul(q, z, out=spare).sum(0, keepdim=True)
    inner = torch.mul(d, p, out=spare).sum(0, keepdim=True)
    value = cost * weight_ce
    factor, pull = weight_ce, None
    if weight_nkl is not None:
        # d nkl / d z = (p - q + nkl * (1 - K p)) / spread, where nkl = (cost - H(q)) / spread
        inverse_spread = (len(z) * log_sum).sub_(z.sum(0, keepdim=True)).reciprocal_()
        nkl = _plogp(q, out=spare).sum(0, keepdim=True).add_(cost).mul_(inverse_spread)
        value.addcmul_(nkl, weight_nkl)
        inverse_spread.mul_(weight_nkl)
        factor = inverse_spread + weight_ce
        pull = inverse_spread.mul_(nkl)
        inner.add_(pull, alpha=len(z))
    p.mul_(d.sub_(inner)).add_(difference.mul_(factor))
    if pull is not None:
        p.add_(pull)
    return value


def _plogp(p: Tensor, *, out: Tensor) -> Tensor:
    """``p log p``, 0 at 0; torch.xlogy is not vectorised on the CPU."""
    return torch.clamp_min(p, torch.finfo(p.dtype).tiny, out=out).log_().mul_(p)
