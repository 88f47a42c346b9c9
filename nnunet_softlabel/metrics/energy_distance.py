"""How far a distribution of segmentations is from the raters': the generalised energy distance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.metrics.far import chunks
from nnunet_softlabel.metrics.overlap import NAN, check_same_shape

GED_LEVELS = 16
VOXELS = 1 << 14  # counted at a time, in many masks; counts are whole numbers, whatever the pieces


def level_sets(prediction: NDArray[Any], *, levels: int = GED_LEVELS) -> list[NDArray[Any]]:
    """Segmentations drawn from a probability map: its level sets ``p > (k + 1/2) / levels``, k = 0, 1, ...

    A map says nothing about how voxels go together. Cut by one level u ~ U(0, 1), evenly spaced here instead
    of random, samples are whole outlines from generous to strict, and their mean is the map. (Voxels drawn
    independently would be noise that no rater ever drew.)
    """
    return [prediction > (k + 0.5) / levels for k in range(levels)]


def generalised_energy_distance(
    raters: Sequence[NDArray[Any]],
    samples: Sequence[NDArray[Any]],
    *,
    mask: NDArray[Any] | None = None,
    counts: NDArray[Any] | None = None,
) -> float:
    """``2 E d(S, Y) - E d(S, S') - E d(Y, Y')``, d = 1 - IoU, over pairs of samples S and raters Y [1].

    Pairs are drawn with replacement, so that ``S = S'`` counts. Two empty masks have distance 0. The value is
    the squared distance, in [0, 2], and 0 if both are the same distribution. NaN without raters or samples.
    ``counts``: voxels that each entry stands for.

    >>> masks = [np.array([0, 1, 1]), np.array([0, 1, 0])]
    >>> generalised_energy_distance(masks, masks)
    0.0

    References:
        [1] Kohl et al., "A Probabilistic U-Net for Segmentation of Ambiguous Images", NeurIPS 2018.
    """
    if not raters or not samples:
        return NAN
    masks = [*raters, *samples]
    check_same_shape(mask=mask, **{str(i): m for i, m in enumerate(masks)})
    both = np.zeros((len(masks), len(masks)))
    others = [array for array in (mask, counts) if array is not None]
    for pieces in chunks(*masks, *others, size=VOXELS):
        rest = list(pieces[len(masks) :])
        inside = None if mask is None else rest.pop(0)
        both += intersections(pieces[: len(masks)], mask=inside, counts=rest[0] if rest else None)
    return energy_of(both, len(raters))


def intersections(
    masks: Sequence[NDArray[Any]], *, mask: NDArray[Any] | None = None, counts: NDArray[Any] | None = None
) -> NDArray[Any]:
    """Voxels that each pair of flat masks has in common; of at most 2^24 entries."""
    flat = np.stack(masks)
    inside = flat.any(axis=0)
    if mask is not None:
        inside &= mask
    flat = flat[:, inside].astype(np.float32)  # whole numbers below 2^24 are exact
    weighted = flat if counts is None else flat * counts[inside].astype(np.float64)
    return np.asarray(weighted @ flat.T)


def energy_of(both: NDArray[Any], n: int) -> float:
    """`generalised_energy_distance` from `intersections` of n raters and then the samples."""
    size = both.diagonal()
    union = size[:, None] + size[None] - both
    distance = np.where(union > 0, 1 - both / np.maximum(union, 1), 0)
    return float(2 * distance[:n, n:].mean() - distance[n:, n:].mean() - distance[:n, :n].mean())
