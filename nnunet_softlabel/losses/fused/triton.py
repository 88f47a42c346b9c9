"""The fused loss on a GPU: two Triton kernels, forward (sums) and backward (gradient).

Each reads logits and target once; the backward one writes the gradient, in the type of the logits. Where
Triton or a C compiler for its launcher is missing, ``fused_eager`` does the same.
"""

import os
import shutil
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from nnunet_softlabel.formats.encoding import SCALE
from nnunet_softlabel.losses.fused.terms import FusedOptions, distance_terms
from nnunet_softlabel.losses.targets import is_compact

TILE_ELEMENTS = 1024
BLOCKS_PER_PROGRAM = 4
MOST_CHANNELS = 128


@dataclass(frozen=True)
class GradientTerms:
    """What a voxel's gradient needs to know of the other voxels; float32, for a ``grad_output`` of 1.

    ``slope`` and ``shift`` are ``(B, K)``, ``weights`` those of CE and NKL divided by the number of terms.
    """

    slope: Tensor
    shift: Tensor
    weights: Tensor


@cache
def _is_installed() -> bool:
    has_compiler = bool(os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang"))
    return has_compiler and find_spec("triton") is not None


def can_run(logits: Tensor, target: Tensor) -> bool:
    """True if the kernels can take these tensors; float64 and very many channels are left to eager code."""
    return (
        logits.is_cuda
        and logits.dtype in (torch.float16, torch.bfloat16, torch.float32)
        and (is_compact(target) or target.dtype in (torch.float16, torch.bfloat16, torch.float32))
        and logits.shape[1] <= MOST_CHANNELS
        and _is_installed()
    )


def loss_and_terms(
    logits: Tensor, target: Tensor, mask: Tensor | None, options: FusedOptions
) -> tuple[Tensor, GradientTerms]:
    """The loss, and what ``gradient`` will need.

    Args:
        logits: ``(B, K, N)``.
        target: compact int16 ``(B, C, N)``, or floating point ``(B, K, N)``.
        mask: bool ``(B, 1, N)`` or None.
        options: weights and settings.
    """
    from nnunet_softlabel.losses.fused.kernels import sums_kernel

    batch, channels, voxels = logits.shape
    grid, settings = _launch(logits, target, mask, options)
    partial = torch.empty((batch, grid[0], 2 * channels + 3), dtype=torch.float32, device=logits.device)
    with _device_of(logits):
        sums_kernel[grid](*_inputs(logits, target, mask), partial, voxels, **settings)
    sums = partial.sum(1, dtype=torch.float64)
    distance, total, rest = sums.split([channels, channels, 3], dim=1)
    cost, nkl, count = rest.sum(0)
    count = (count * (channels if options.sigmoid else 1)).clamp_min(1)
    terms = distance_terms(
        distance,
        total,
        count,
        options,
        first=0 if options.sigmoid else 1,
        tv_factor=1.0 if options.sigmoid else 0.5,
    )
    value = terms.value + (options.weight_ce * cost + options.weight_nkl * nkl) / count
    weights = torch.stack([options.weight_ce / count, options.weight_nkl / count])
    return value.float(), GradientTerms(terms.slope.float(), terms.shift.float(), weights.float())


def gradient(
    logits: Tensor,
    target: Tensor,
    mask: Tensor | None,
    options: FusedOptions,
    terms: GradientTerms,
    grad_output: Tensor,
) -> Tensor:
    """The gradient by the logits ``(B, K, N)`` times ``grad_output``, in the type of the logits."""
    from nnunet_softlabel.losses.fused.kernels import gradient_kernel

    result = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
    grid, settings = _launch(logits, target, mask, options)
    scaled = [x * grad_output for x in (terms.slope, terms.shift, terms.weights)]
    with _device_of(logits):
        gradient_kernel[grid](*_inputs(logits, target, mask), *scaled, result, logits.shape[2], **settings)
    return result


def _inputs(logits: Tensor, target: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    logits, target = logits.contiguous(), target.contiguous()
    # Without a mask the kernels never read this pointer.
    return logits, target, logits if mask is None else mask.contiguous().view(torch.uint8)


def _device_of(tensor: Tensor) -> Any:
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def _launch(
    logits: Tensor, target: Tensor, mask: Tensor | None, options: FusedOptions
) -> tuple[tuple[int, int], dict[str, Any]]:
    """Grid and compile-time settings, the same for both kernels."""
    batch, channels, voxels = logits.shape
    rows = 1 << (channels - 1).bit_length()
    block = max(64, TILE_ELEMENTS // rows)
    settings = {
        "classes": channels,
        "rows": rows,
        "block_size": block,
        "blocks": BLOCKS_PER_PROGRAM,
        "scale": SCALE,
        "is_sigmoid": options.sigmoid,
        "is_compact": is_compact(target),
        "has_ignore": options.has_ignore and is_compact(target),
        "has_mask": mask is not None,
        "num_warps": 4 if rows * block <= 4096 else 8,
    }
    programs = -(-voxels // (block * BLOCKS_PER_PROGRAM))
    return (programs, batch), settings
