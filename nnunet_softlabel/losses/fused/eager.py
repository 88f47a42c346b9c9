"""The fused loss on the CPU, by hand: one cache-sized chunk of voxels at a time.

Two passes, because the gradient of DML depends on sums over the whole patch. The first leaves the
probabilities where the gradient will be, the second turns them into the gradient. Everything else lives in
a few chunk-sized buffers that are used again and again: fresh memory would cost more than the arithmetic.
Each thread takes chunks of its own: if all shared every small operation, they would wait for each
other after each, and for as long as another process keeps one of them from its core.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from nnunet_softlabel.losses.fused.chunks import Chunk, Patch
from nnunet_softlabel.losses.fused.terms import DistanceTerms, FusedOptions, distance_terms

# Elements of one buffer: large enough to hide the cost of a call, small enough for the cache.
CHUNK_ELEMENTS = 1 << 17
MOST_THREADS = 16
BUFFERS = 7


def loss_and_gradient(
    logits: Tensor, target: Tensor, mask: Tensor | None, options: FusedOptions
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss, its gradient by the logits, in float32 (float64 if the logits are), and volumes.

    Args:
        logits: ``(B, K, N)``.
        target: compact int16 ``(B, C, N)``, or floating point ``(B, K, N)``.
        mask: bool ``(B, 1, N)`` or None.
        options: weights and settings.

    Returns:
        Value, gradient ``(B, K, N)``, and the sums of ``p`` and of ``q`` over the foreground, ``(2,)``.
    """
    patch = _prepare(logits, target, mask, options)
    sums = _first_pass(patch)
    weights = _voxel_weights(sums, options, tv_factor=1.0 if patch.has_pairs else 0.5)
    terms = distance_terms(
        sums.distance,
        sums.total,
        options,
        first=0 if patch.has_pairs else 1,
        tv_slope=0.0 if options.balanced else weights.rest[2],
    )
    value = terms.value + _second_pass(patch, terms, weights.to(patch.gradient.dtype))
    if options.balanced:
        marked, rest = sums.distances
        value = value + weights.marked[2] * marked + weights.rest[2] * rest
    if patch.first_row:
        torch.neg(patch.gradient[:, 1], out=patch.gradient[:, 0])
    return value.to(patch.gradient.dtype), patch.gradient, sums.volumes.to(patch.gradient.dtype)


@dataclass(frozen=True)
class Sums:
    """What the second pass has to know of all voxels, float64.

    Attributes:
        distance: ``(B, rows)``, sum of ``|p - q|``.
        total: ``(B, rows)``, sum of ``p + q``.
        count: terms of voxels that count, at least 1.
        marked: those of them in voxels with any foreground in the target; 0 unless balanced.
        distances: ``(2,)``, sums of ``|p - q|`` in those and in the others; 0 unless balanced.
        volumes: ``(2,)``, sums of ``p`` and ``q`` over the foreground; 0 unless balanced.
    """

    distance: Tensor
    total: Tensor
    count: Tensor
    marked: Tensor
    distances: Tensor
    volumes: Tensor


@dataclass(frozen=True)
class VoxelWeights:
    """Weights of CE, NKL and TV, ``(3,)``, in voxels with any foreground in the target and in the others."""

    marked: Tensor
    rest: Tensor

    def to(self, dtype: torch.dtype) -> "VoxelWeights":
        """The same weights in another type."""
        return VoxelWeights(self.marked.to(dtype), self.rest.to(dtype))

    def of(self, chunk: Chunk, term: int) -> Tensor:
        """A scalar, or ``(1, n)`` where the voxels differ."""
        if chunk.is_marked is None:
            return self.rest[term]
        # one of the two is 0: exact, unlike a difference of weights, and faster than torch.where
        return chunk.is_marked * self.marked[term] + (1 - chunk.is_marked) * self.rest[term]


def _voxel_weights(sums: Sums, options: FusedOptions, *, tv_factor: float) -> VoxelWeights:
    weights = torch.tensor(
        [options.weights.ce, options.weights.nkl, options.weights.tv * tv_factor], dtype=torch.float64
    )
    if not options.balanced:
        return VoxelWeights(weights / sums.count, weights / sums.count)
    halves = (sums.marked, sums.count - sums.marked)
    marked, rest = (0.5 * weights / half.clamp_min(1) for half in halves)
    return VoxelWeights(marked, rest)


def _second_pass(patch: Patch, terms: DistanceTerms, weights: VoxelWeights) -> Tensor:
    """Turn ``p`` into the gradient; return the value of the voxel terms that the first pass lacks."""
    options, dtype = patch.options, patch.gradient.dtype
    slope, shift = terms.slope.to(dtype).unsqueeze(2), terms.shift.to(dtype).unsqueeze(2)
    turn_terms = _pair_gradient if patch.has_pairs else _class_gradient

    def turn(chunk: Chunk) -> Tensor:
        difference, d, spare, *_ = chunk.buffers
        torch.sub(chunk.p, chunk.q, out=difference)
        # two products with a column: addcmul is twice as slow where it has to broadcast
        factor = slope[chunk.index]
        if options.balanced and options.weights.tv:
            factor = torch.add(factor, weights.of(chunk, 2), out=spare)
        torch.sign(difference, out=d).mul_(factor).sub_(shift[chunk.index])
        weight_nkl = weights.of(chunk, 1) if options.weights.nkl else None
        part = turn_terms(chunk, weights.of(chunk, 0), weight_nkl)
        chunk.weighted(chunk.p)
        return chunk.weighted(part).sum()

    return torch.stack([part for _, part in patch.map(turn)]).double().sum()


def _prepare(logits: Tensor, target: Tensor, mask: Tensor | None, options: FusedOptions) -> Patch:
    batch, channels, voxels = logits.shape
    new = partial(torch.empty, dtype=torch.float64 if logits.dtype == torch.float64 else torch.float32)
    rows = channels if options.sigmoid or channels > 2 else 1
    step = min(voxels, max(1, CHUNK_ELEMENTS // rows))
    threads = min(torch.get_num_threads(), MOST_THREADS, batch * -(-voxels // step))
    return Patch(
        logits,
        target,
        mask,
        options,
        gradient=new(logits.shape),
        log_sums=new((batch, 1 if rows == channels else 0, voxels)),
        buffers=new((threads, BUFFERS, rows, step)),
    )


def _first_pass(patch: Patch) -> Sums:
    """Write ``p`` for every chunk, and ``log sum exp z`` where the rows are classes; sum over the voxels."""
    balanced, first_row = patch.options.balanced, 0 if patch.has_pairs else 1

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
        distances = chunk.weighted(torch.sub(chunk.p, chunk.q, out=first).abs_())
        distance, in_parts = distances.sum(1), []
        if chunk.is_marked is not None:  # two sums: a difference of large ones is not 0 where no voxel is
            everywhere = distances.sum(0, keepdim=True)
            there = everywhere * chunk.is_marked
            in_parts = [there.sum().view(1), everywhere.sub_(there).sum().view(1)]
        if chunk.weight is None:
            wanted, count = chunk.q.sum(1), distance.new_full((1,), first.shape[1])
            total = chunk.p.sum(1).add_(wanted)
        else:
            total, count = chunk.weighted(torch.add(chunk.p, chunk.q, out=first)).sum(1), chunk.weight.sum()
            wanted = chunk.weighted(first.copy_(chunk.q)).sum(1) if balanced else total
        parts = [distance, total, count.view(1)]
        if chunk.is_marked is not None:
            marked = chunk.is_marked if chunk.weight is None else chunk.is_marked * chunk.weight
            parts += [marked.sum().view(1), *in_parts]
            parts += [wanted[first_row:].sum().view(1)]
        return torch.cat(parts)

    rows = patch.buffers.shape[2]
    sizes = [rows, rows, 1, *([1, 2, 1] if balanced else [])]
    table = torch.zeros((len(patch.logits), sum(sizes)), dtype=torch.float64)
    for index, part in patch.map(sums):
        table[index] += part
    distance, total, count, *more = table.split(sizes, dim=1)
    per_voxel = rows if patch.options.sigmoid else 1
    if not balanced:
        more = list(table.new_zeros((1, 4)).split([1, 2, 1], dim=1))
    marked, distances, wanted = more[0].sum(), more[1].sum(0), more[2].sum()
    volumes = torch.stack([total[:, first_row:].sum() - wanted, wanted]) if balanced else table.new_zeros(2)
    count = (count.sum() * per_voxel).clamp_min_(1)
    return Sums(distance, total, count, marked * per_voxel, distances, volumes)


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
