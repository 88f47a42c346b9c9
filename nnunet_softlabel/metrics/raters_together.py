"""A probability map against all raters of a case together: what no single reference can tell.

Each function takes the raters' masks ``(*spatial)``, the map and a `Setting`; `RATERS_METRICS` names them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from nnunet_softlabel.metrics.energy_distance import (
    GED_LEVELS,
    VOXELS,
    energy_of,
    intersections,
    level_sets,
)
from nnunet_softlabel.metrics.far import CHUNK, NOTHING, FarVoxels, chunks
from nnunet_softlabel.metrics.overlap import NAN, Direction, check_same_shape, counted, dice, total

COVERAGE = 0.8
LEAST_LEVEL = (1 - COVERAGE) / 2  # the lowest at which a map is cut, but for `Setting.levels`


@dataclass(frozen=True)
class Setting:
    """What the metrics of all raters need beside the arrays.

    Attributes:
        voxel_volume_mm3: volume of a voxel.
        levels: level sets taken from a map.
        mask: voxels that count, None for all.
        counts: voxels that each entry of the arrays stands for, None: one.
        far: further voxels that count, which no rater marks and no level set holds.
    """

    voxel_volume_mm3: float = 1.0
    levels: int = GED_LEVELS
    mask: NDArray[Any] | None = None
    counts: NDArray[Any] | None = None
    far: FarVoxels = NOTHING


def energy_distance(raters: Sequence[NDArray[Any]], prediction: NDArray[Any], setting: Setting) -> float:
    """`generalised_energy_distance` of the raters and the map's level sets."""
    if not raters:
        return NAN
    check_same_shape(prediction=prediction, **{str(i): m for i, m in enumerate(raters)})
    others = [array for array in (setting.mask, setting.counts) if array is not None]
    both = np.zeros((len(raters) + setting.levels,) * 2)
    for pieces in chunks(*raters, prediction, *others, size=VOXELS):
        drawn, (p, *rest) = pieces[: len(raters)], pieces[len(raters) :]
        mask = None if setting.mask is None else rest.pop(0)
        samples = level_sets(p, levels=setting.levels)
        both += intersections([*drawn, *samples], mask=mask, counts=rest[0] if rest else None)
    return energy_of(both, len(raters))


def volumes_ml(masks: Sequence[NDArray[Any]], setting: Setting) -> NDArray[Any]:
    """Volume of each mask, or expected volume of a map, in ml."""
    counts = counted(setting.mask, setting.counts)
    inside = [m if setting.mask is None else m[setting.mask] for m in masks]
    return np.array([total(m, counts) for m in inside]) * (setting.voxel_volume_mm3 / 1000)


def volume_crps_ml(raters: Sequence[NDArray[Any]], prediction: NDArray[Any], setting: Setting) -> float:
    """CRPS of the expected volume ``sum(p)`` under a normal distribution of the raters' volumes, in ml.

    As in the CURVAS challenge: the raters' volumes have a mean and a standard deviation (of the population),
    which make the distribution. The closed form is that of [1]. Raters of one volume: the absolute error.
    NaN without raters.

    References:
        [1] Gneiting and Raftery, "Strictly Proper Scoring Rules, Prediction, and Estimation", JASA 2007.
    """
    check_same_shape(prediction=prediction, **{str(i): m for i, m in enumerate(raters)})
    if not raters:
        return NAN
    volumes = volumes_ml(raters, setting)
    far_ml = setting.far.total * (setting.voxel_volume_mm3 / 1000)
    error = float(volumes_ml([prediction], setting)[0] + far_ml - volumes.mean())
    spread = float(volumes.std())
    if spread == 0:
        return abs(error)
    z = error / spread
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    return float(spread * (z * (2 * ndtr(z) - 1) + 2 * density - 1 / np.sqrt(np.pi)))


def volume_coverage(raters: Sequence[NDArray[Any]], prediction: NDArray[Any], setting: Setting) -> float:
    """Share of the raters' volumes inside the map's own 80 % interval, minus 0.8.

    The interval lies between the volumes of the level sets ``p > 0.9`` and ``p > 0.1``. Below 0 the map is
    too sure of the volume, above 0 not sure enough; over many cases 0 is best. NaN without raters.
    """
    if not raters:
        return NAN
    low, high = volumes_ml([prediction > 1 - LEAST_LEVEL, prediction > LEAST_LEVEL], setting)
    volumes = volumes_ml(raters, setting)
    return float(((volumes >= low) & (volumes <= high)).mean() - COVERAGE)


def uncertainty_ncc(raters: Sequence[NDArray[Any]], prediction: NDArray[Any], setting: Setting) -> float:
    """Normalised cross-correlation of the map's variance ``p (1 - p)`` and the raters', over the voxels [1].

    1: the map is unsure exactly where raters differ. NaN where one of them is constant (raters who agree
    everywhere, a hard map).

    References:
        [1] Hu et al., "Supervised Uncertainty Quantification for Segmentation with Multiple Annotations",
            MICCAI 2019.
    """
    if not raters:
        return NAN
    far, voxels, sum_a, sum_b = setting.far, float(setting.far.count), 0.0, setting.far.variance
    kept = np.empty((3, min(CHUNK, prediction.size)))
    for a, b, weights in _variances(raters, prediction, setting, kept):
        voxels += float(weights.sum())
        sum_a += float(weights @ a)
        sum_b += float(weights @ b)
    if not voxels:
        return NAN
    mean_a, mean_b = sum_a / voxels, sum_b / voxels
    # of the far voxels, a is 0 before its mean is taken away
    far_b = far.variance - far.count * mean_b
    covariance, spread_a = -mean_a * far_b, far.count * mean_a**2
    spread_b = far.variance_squares - mean_b * (far.variance + far_b)
    for a, b, weights in _variances(raters, prediction, setting, kept):
        a -= mean_a
        b -= mean_b
        covariance += float((weights * a) @ b)
        spread_a += float((weights * a) @ a)
        spread_b += float((weights * b) @ b)
    scale = float(np.sqrt(spread_a * spread_b)) if spread_a > 0 and spread_b > 0 else 0.0
    return covariance / scale if scale > 0 else NAN


def _variances(
    raters: Sequence[NDArray[Any]], prediction: NDArray[Any], setting: Setting, kept: NDArray[Any]
) -> Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]:
    """Of the raters, of the map, and how many voxels each entry stands for: pieces that lie in ``kept``."""
    others = [array for array in (setting.mask, setting.counts) if array is not None]
    for pieces in chunks(*raters, prediction, *others):
        own, theirs, weights = kept[:, : len(pieces[0])]
        for a, b, *parts in chunks(own, theirs, *pieces[: len(raters) + 1], size=VOXELS):
            mean, p = np.asarray(np.mean(parts[:-1], axis=0, dtype=np.float64)), parts[-1].astype(np.float64)
            a[...], b[...] = mean * (1 - mean), p * (1 - p)
        weights[...] = 1 if setting.counts is None else pieces[-1]
        if setting.mask is not None:
            weights *= pieces[len(raters) + 1]
        yield own, theirs, weights


def unanimous_dice(raters: Sequence[NDArray[Any]], prediction: NDArray[Any], setting: Setting) -> float:
    """Dice at 0.5 over the voxels in which all raters agree, as in CURVAS; NaN if nothing is marked there."""
    if not raters:
        return NAN
    everybody, anybody = np.logical_and.reduce(raters), np.logical_or.reduce(raters)
    agreed = everybody | ~anybody
    mask = agreed if setting.mask is None else agreed & setting.mask
    return dice(everybody, prediction > 0.5, mask=mask, counts=setting.counts)


@dataclass(frozen=True)
class RatersMetric:
    """A line of the registry; the fields are those of `Metric`."""

    function: Callable[[Sequence[NDArray[Any]], NDArray[Any], Setting], float]
    title: str
    better: Direction


GED = "ged"
RATERS_METRICS: dict[str, RatersMetric] = {
    GED: RatersMetric(energy_distance, "GED", "lower"),
    "volume_crps_ml": RatersMetric(volume_crps_ml, "CRPS of the volume (ml)", "lower"),
    "volume_coverage": RatersMetric(
        volume_coverage, "Raters' volumes in the 80 % interval, minus 0.8", "zero"
    ),
    "uncertainty_ncc": RatersMetric(uncertainty_ncc, "NCC of uncertainty and rater variance", "higher"),
    "unanimous_dice": RatersMetric(unanimous_dice, "Dice where raters agree", "higher"),
}


def measure_raters(
    raters: Sequence[NDArray[Any]], prediction: NDArray[Any], setting: Setting
) -> dict[str, float]:
    """Every metric of `RATERS_METRICS`; all are NaN where no voxel counts."""
    if setting.mask is not None and not setting.mask.any() and not setting.far.count:
        return dict.fromkeys(RATERS_METRICS, NAN)
    return {name: metric.function(raters, prediction, setting) for name, metric in RATERS_METRICS.items()}
