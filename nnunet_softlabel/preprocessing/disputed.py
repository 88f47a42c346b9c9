"""Voxels that some rater marked and the consensus left out: oversampling would miss them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    is_answered = hard >= 0 if ignore is None else (hard >= 0) & (hard != ignore)
    for channel, (soft, own) in enumerate(zip(quantised, values, strict=True)):
        agreed = np.isin(hard, own)
        positions = np.argwhere((soft > 0) & ~agreed & is_answered)
        total = int(agreed.sum())
        drawn = max(min(MAX_LOCATIONS, total), int(np.ceil(total * MIN_SHARE_OF_LOCATIONS)))
        share = drawn / total if total else min(1.0, MAX_LOCATIONS / max(len(positions), 1))
        keep = int(np.ceil(share * len(positions)))
        if keep < len(positions):
            positions = positions[np.sort(random.choice(len(positions), keep, replace=False))]
        rows.append(np.insert(positions, 0, channel, axis=1))
    # signed, since nnU-Net subtracts half a patch from a location
    dtype = np.int16 if max(hard.shape) < np.iinfo(np.int16).max else np.int32
    return np.concatenate(rows).astype(dtype)


def locations_path(folder: Path, case: str) -> Path:
    """Where the disputed locations of a case are; no file if it has none."""
    return folder / f"{case}_disputed.npy"
