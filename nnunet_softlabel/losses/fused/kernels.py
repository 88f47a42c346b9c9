"""The Triton kernels of the fused loss. Imported only where Triton is; see ``fused_triton.py``.

A program works on a tile of ``rows`` channels (``classes`` rounded up to a power of two) by ``block_size``
voxels, so that logits and target are read once per kernel and everything else stays in registers.
"""

# mypy: ignore-errors
# Triton's language has no types.

import triton
import triton.language as tl


@triton.jit
def _load(
    logits,
    target,
    mask,
    index,
    offsets,
    voxels,
    classes: tl.constexpr,
    rows: tl.constexpr,
    scale: tl.constexpr,
    is_sigmoid: tl.constexpr,
    is_compact: tl.constexpr,
    has_ignore: tl.constexpr,
    has_mask: tl.constexpr,
):
    """Logits, target ``(rows, block_size)`` and whether a voxel counts ``(1, block_size)``."""
    channel = tl.arange(0, rows)[:, None]
    voxel = offsets[None, :]
    inside = voxel < voxels
    there = inside & (channel < classes)
    z = tl.load(logits + (index * classes + channel) * voxels + voxel, mask=there, other=0.0).to(tl.float32)
    counts = inside
    if has_mask:
        counts = counts & (tl.load(mask + index * voxels + voxel, mask=inside, other=0) != 0)
    if is_compact:
        first = 0 if is_sigmoid else 1
        base = target + index * (classes - first) * voxels
        stored = tl.load(base + (channel - first) * voxels + voxel, mask=there & (channel >= first), other=0)
        q = stored.to(tl.float32) / scale
        if has_ignore:
            counts = counts & (tl.load(base + voxel, mask=inside, other=-1) >= 0)
            q = tl.where(counts, q, 0.0)
        if not is_sigmoid:
            background = tl.maximum(1.0 - tl.sum(q, axis=0, keep_dims=True), 0.0)
            q = tl.where(channel == 0, background, q)
    else:
        q = tl.load(target + (index * classes + channel) * voxels + voxel, mask=there, other=0.0).to(
            tl.float32
        )
    return z, q, counts


@triton.jit
def _plogp(p):
    """``p log p``, 0 at 0."""
    return p * tl.log(tl.maximum(p, 1e-37))


@triton.jit
def _evaluate(z, q, channel, classes: tl.constexpr, is_sigmoid: tl.constexpr):
    """Probability, cross entropy, NKL and its normaliser; the last three ``(1, block_size)`` for softmax."""
    if is_sigmoid:
        small = tl.exp(-tl.abs(z))
        p = tl.where(z >= 0, 1.0, small) / (1.0 + small)
        tail = tl.log(1.0 + small)
        cost = tl.maximum(z, 0.0) + tail - q * z
        spread = tl.abs(z) + 2.0 * tail
        nkl = (cost + _plogp(q) + _plogp(1.0 - q)) / spread
    else:
        z = tl.where(channel < classes, z, float("-inf"))
        z = z - tl.max(z, axis=0, keep_dims=True)
        p = tl.exp(z)
        normaliser = tl.sum(p, axis=0, keep_dims=True)
        p = p / normaliser
        z = tl.where(channel < classes, z, 0.0)
        tail = tl.log(normaliser)
        cost = tail - tl.sum(q * z, axis=0, keep_dims=True)
        spread = classes * tail - tl.sum(z, axis=0, keep_dims=True)
        nkl = (cost + tl.sum(_plogp(q), axis=0, keep_dims=True)) / spread
    return p, cost, nkl, spread


@triton.jit
def sums_kernel(
    logits,
    target,
    mask,
    partial,
    voxels,
    classes: tl.constexpr,
    rows: tl.constexpr,
    block_size: tl.constexpr,
    blocks: tl.constexpr,
    scale: tl.constexpr,
    is_sigmoid: tl.constexpr,
    is_compact: tl.constexpr,
    has_ignore: tl.constexpr,
    has_mask: tl.constexpr,
):
    """Sums over ``blocks * block_size`` voxels, written to ``partial`` ``(B, programs, 2 * classes + 3)``.

    They are ``|p - q|`` per channel, ``p + q`` per channel, cross entropy, NKL and the voxels that count. No
    atomics: the result is the same in every run.
    """
    program = tl.program_id(0)
    index = tl.program_id(1).to(tl.int64)
    channel = tl.arange(0, rows)[:, None]
    distance = tl.zeros((rows, block_size), tl.float32)
    total = tl.zeros((rows, block_size), tl.float32)
    cost_sum = tl.zeros((rows if is_sigmoid else 1, block_size), tl.float32)
    nkl_sum = tl.zeros((rows if is_sigmoid else 1, block_size), tl.float32)
    count = tl.zeros((1, block_size), tl.float32)
    for block in range(blocks):
        offsets = (program * blocks + block) * block_size + tl.arange(0, block_size)
        z, q, counts = _load(
            logits,
            target,
            mask,
            index,
            offsets,
            voxels,
            classes,
            rows,
            scale,
            is_sigmoid,
            is_compact,
            has_ignore,
            has_mask,
        )
        p, cost, nkl, _ = _evaluate(z, q, channel, classes, is_sigmoid)
        there = counts & (channel < classes)
        distance += tl.where(there, tl.abs(p - q), 0.0)
        total += tl.where(there, p + q, 0.0)
        terms = there if is_sigmoid else counts
        cost_sum += tl.where(terms, cost, 0.0)
        nkl_sum += tl.where(terms, nkl, 0.0)
        count += tl.where(counts, 1.0, 0.0)
    row = partial + (index * tl.num_programs(0) + program) * (2 * classes + 3)
    channels = tl.arange(0, rows)
    tl.store(row + channels, tl.sum(distance, axis=1), mask=channels < classes)
    tl.store(row + classes + channels, tl.sum(total, axis=1), mask=channels < classes)
    tl.store(row + 2 * classes, tl.sum(tl.sum(cost_sum, axis=1), axis=0))
    tl.store(row + 2 * classes + 1, tl.sum(tl.sum(nkl_sum, axis=1), axis=0))
    tl.store(row + 2 * classes + 2, tl.sum(tl.sum(count, axis=1), axis=0))


@triton.jit
def gradient_kernel(
    logits,
    target,
    mask,
    slope,
    shift,
    weights,
    gradient,
    voxels,
    classes: tl.constexpr,
    rows: tl.constexpr,
    block_size: tl.constexpr,
    blocks: tl.constexpr,
    scale: tl.constexpr,
    is_sigmoid: tl.constexpr,
    is_compact: tl.constexpr,
    has_ignore: tl.constexpr,
    has_mask: tl.constexpr,
):
    """The gradient by the logits.

    From ``slope`` and ``shift``, both ``(B, classes)``, and ``weights``, those of CE and of NKL.
    """
    # Backwards, because the end of the patch is what the forward kernel left in the cache.
    program = tl.num_programs(0) - 1 - tl.program_id(0)
    index = (tl.num_programs(1) - 1 - tl.program_id(1)).to(tl.int64)
    channel = tl.arange(0, rows)[:, None]
    slopes = tl.load(slope + index * classes + channel, mask=channel < classes, other=0.0)
    shifts = tl.load(shift + index * classes + channel, mask=channel < classes, other=0.0)
    weight_ce = tl.load(weights)
    weight_nkl = tl.load(weights + 1)
    for block in range(blocks):
        offsets = (program * blocks + block) * block_size + tl.arange(0, block_size)
        z, q, counts = _load(
            logits,
            target,
            mask,
            index,
            offsets,
            voxels,
            classes,
            rows,
            scale,
            is_sigmoid,
            is_compact,
            has_ignore,
            has_mask,
        )
        p, _, nkl, spread = _evaluate(z, q, channel, classes, is_sigmoid)
        difference = p - q
        d = tl.where(difference > 0, slopes, tl.where(difference < 0, -slopes, 0.0)) - shifts
        factor = weight_nkl / spread
        if is_sigmoid:
            result = p * (1.0 - p) * d + factor * nkl * (1.0 - 2.0 * p)
        else:
            result = p * (d - tl.sum(p * d, axis=0, keep_dims=True)) + factor * nkl * (1.0 - classes * p)
        result = tl.where(counts, result + (weight_ce + factor) * difference, 0.0)
        voxel = offsets[None, :]
        place = gradient + (index * classes + channel) * voxels + voxel
        tl.store(place, result, mask=(voxel < voxels) & (channel < classes))
