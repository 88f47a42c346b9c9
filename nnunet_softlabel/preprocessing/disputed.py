"""Voxels that some rater marked and the consensus left out: oversampling would miss them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.metrics.far import chunks

MAX_LOCATIONS = 10_000  # nnU-Net's own number of voxels remembered per class
MIN_SHARE_OF_LOCATIONS = 0.01


def disputed_locations(
    quantised: Iterable[NDArray[Any]],
    hard: NDArray[Any],
    values: Sequence[tuple[int, ...]],
    *,
    ignore: int | None = None,
) -> NDArray[Any]:
    """Voxels that some rater gave to a class and the consensus did not: oversampling would miss them.

    As many are drawn per class, relative to all, as nnU-Net draws of the consensus (at most 10,000 or 1 %).

    Args:
        quantised: each channel of the soft label, int16 ``(*spatial)``.
        hard: the preprocessed consensus ``(*spatial)``.
        values: label values of each channel.
        ignore: label value of voxels that nobody answered.

    Returns:
        int16 (int32 for huge images) ``(N, 1 + dimensions)``: channel, then position.
    """
    rows = []
    random = np.random.default_rng(1234)
    flat, voxels_with = hard.reshape(-1), _voxels_by_value(hard)
    for channel, (soft, own) in enumerate(zip(quantised, values, strict=True)):
        marked = np.flatnonzero(soft.reshape(-1) > 0)  # in the order of the array, as all that follows
        consensus = flat[marked]
        is_answered = consensus >= 0 if ignore is None else (consensus >= 0) & (consensus != ignore)
        marked = marked[is_answered & ~np.isin(consensus, own)]
        total = sum(voxels_with.get(value, 0) for value in set(own))
        drawn = max(min(MAX_LOCATIONS, total), int(np.ceil(total * MIN_SHARE_OF_LOCATIONS)))
        share = drawn / total if total else min(1.0, MAX_LOCATIONS / max(len(marked), 1))
        keep = int(np.ceil(share * len(marked)))
        if keep < len(marked):
            marked = marked[np.sort(random.choice(len(marked), keep, replace=False))]
        rows.append(np.stack([np.full_like(marked, channel), *np.unravel_index(marked, hard.shape)], axis=1))
    # signed, since nnU-Net subtracts half a patch from a location
    dtype = np.int16 if max(hard.shape) < np.iinfo(np.int16).max else np.int32
    return np.concatenate(rows).astype(dtype)


def _voxels_by_value(hard: NDArray[Any]) -> dict[int, int]:
    """How many voxels have each value of a label map; those of -1, which nnU-Net adds, are left out."""
    counts: dict[int, int] = {}
    for (piece,) in chunks(hard):
        found = np.bincount(piece[piece >= 0].astype(np.intp))
        for value in np.flatnonzero(found).tolist():
            counts[value] = counts.get(value, 0) + int(found[value])
    return counts


def locations_path(folder: Path, case: str) -> Path:
    """Where the disputed locations of a case are; no file if it has none."""
    return folder / f"{case}_disputed.npy"
