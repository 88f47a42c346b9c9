"""Fitting recalibration maps on voxels drawn from validation cases. Pure functions on arrays.

Voxels are drawn by `voxel_sample`. Cases are weighted so that small objects are not drowned by large images
(`WEIGHTINGS`; docs/studies/calibration compares them).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
import scipy  # its parts load when used: every worker of `calibrate` would wait for them
from numpy.typing import NDArray
from scipy.special import expit

from nnunet_softlabel.evaluation.recalibration import (
    AffineMap,
    IsotonicMap,
    RecalibrationMap,
    class_against_rest,
    floats,
)
from nnunet_softlabel.evaluation.voxel_sample import VoxelSample, pieces

SMALLEST_SHARE = 0.1  # of the median volume: smaller objects, and empty cases, count as that
SMALLEST_SCALE = 1e-3  # a map must not turn probabilities around
BIN_WIDTH = 0.05  # in log-odds: isotonic regression sees means of bins
# Isotonic probabilities lie between these. A certain and wrong voxel costs 20.7, or 13.8. The lower bound is
# below 1 / voxels of an image: what all background gets must not add up to an object.
LOWEST, HIGHEST = 1e-9, 1 - 1e-6

Weighting = Literal["voxels", "objects", "roots"]


def object_weights(volumes: NDArray[Any], power: float = 1.0) -> NDArray[Any]:
    """Weight of every voxel of a case: ``1 / volume ** power``, so that with 1 each object counts the same.

    The optimum of an affine map has ``sum of weight * (p - q) = 0``: with the power 1 the relative errors of
    the cases' volumes have the mean 0, with 0 the errors of their volumes in voxels. Volumes below a tenth of
    the median of those above 0 count as that tenth.

    >>> object_weights(np.array([10.0, 20.0, 0.0])).round(3).tolist()
    [0.1, 0.05, 0.667]
    """
    filled = volumes[volumes > 0]
    floor = SMALLEST_SHARE * float(np.median(filled)) if len(filled) else 1.0
    return np.asarray(np.maximum(volumes, floor) ** -power)


WEIGHTINGS: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "voxels": lambda volumes: np.ones_like(volumes),
    "objects": object_weights,
    "roots": lambda volumes: object_weights(volumes, 0.5),
}


@dataclass(frozen=True)
class _Pooled:
    """Voxels of many cases, of which the weights ``(n,)`` sum to 1."""

    samples: Sequence[VoxelSample]
    weight: NDArray[Any]

    @classmethod
    def of(cls, samples: Sequence[VoxelSample], weighting: Weighting) -> _Pooled:
        volumes = np.array([sample.volume for sample in samples], dtype=np.float64)
        weights = [
            sample.weight * w for sample, w in zip(samples, WEIGHTINGS[weighting](volumes), strict=True)
        ]
        weight = np.concatenate(weights).astype(np.float64)
        return cls(samples, weight / weight.sum())

    @property
    def channels(self) -> int:
        """How many there are."""
        return len(self.samples[0].log_odds)

    @cached_property
    def log_odds(self) -> NDArray[Any]:
        """``(C, n)`` in double precision."""
        return np.concatenate([sample.log_odds for sample in self.samples], axis=1, dtype=np.float64)

    @cached_property
    def target(self) -> NDArray[Any]:
        """``(C, n)`` in double precision."""
        return np.concatenate([sample.target for sample in self.samples], axis=1, dtype=np.float64)

    def of_voxels(
        self, function: Callable[[NDArray[Any], NDArray[Any]], tuple[NDArray[Any], NDArray[Any]]]
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Two numbers per voxel ``(n,)``, made piece by piece of log-odds and targets ``(C, m)``."""
        found = np.empty((2, len(self.weight)))
        start = 0
        for sample in self.samples:
            for part in pieces(*sample.log_odds.shape):
                pair = (array[:, part].astype(np.float64) for array in (sample.log_odds, sample.target))
                found[:, start : start + part.stop - part.start] = function(*pair)
                start += part.stop - part.start
        return found[0], found[1]


def _gradient(pooled: _Pooled, mapped: NDArray[Any], has_regions: bool) -> tuple[float, NDArray[Any]]:
    """Cross entropy of mapped log-odds, and its derivative ``(C, n)`` by them."""
    if has_regions:
        partition = np.logaddexp(0, mapped).sum(axis=0)
        p = np.asarray(expit(mapped))
    else:
        highest = np.maximum(mapped.max(axis=0), 0)
        p = mapped - highest
        np.exp(p, out=p)
        total = p.sum(axis=0) + np.exp(-highest)
        partition = highest + np.log(total)
        p /= total
    loss = float(pooled.weight @ (partition - (pooled.target * mapped).sum(axis=0)))
    p -= pooled.target
    p *= pooled.weight
    return loss, p


def _minimise(
    function: Callable[[NDArray[Any]], tuple[float, NDArray[Any]]], start: NDArray[Any], n_scales: int
) -> NDArray[Any]:
    """The convex problem's solution; the first ``n_scales`` parameters stay positive."""
    bounds = [(SMALLEST_SCALE, None)] * n_scales + [(None, None)] * (len(start) - n_scales)
    found = scipy.optimize.minimize(
        function, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-13, "gtol": 1e-9}
    )
    return np.asarray(found.x)


def fit_affine(pooled: _Pooled, has_regions: bool) -> AffineMap:
    """``scale_c * x + shift_c`` of the least cross entropy (Platt scaling of every channel)."""
    channels = pooled.channels

    def loss(parameters: NDArray[Any]) -> tuple[float, NDArray[Any]]:
        scale, shift = parameters[:channels, None], parameters[channels:, None]
        value, slope = _gradient(pooled, scale * pooled.log_odds + shift, has_regions)
        return value, np.concatenate([(slope * pooled.log_odds).sum(axis=1), slope.sum(axis=1)])

    found = _minimise(loss, np.concatenate([np.ones(channels), np.zeros(channels)]), channels)
    return AffineMap(floats(found[:channels]), floats(found[channels:]))


def fit_temperature(pooled: _Pooled, has_regions: bool) -> AffineMap:
    """One scale, 1 / T, for all channels."""

    def loss(parameters: NDArray[Any]) -> tuple[float, NDArray[Any]]:
        value, slope = _gradient(pooled, parameters[0] * pooled.log_odds, has_regions)
        return value, np.array([(slope * pooled.log_odds).sum()])

    channels = pooled.channels
    scale = float(_minimise(loss, np.ones(1), 1)[0])
    return AffineMap((scale,) * channels, (0.0,) * channels)


def fit_isotonic(pooled: _Pooled, has_regions: bool) -> IsotonicMap:
    """Monotone curves of the least squared error to the target, of bins of log-odds."""
    against_rest = not has_regions and pooled.channels > 1
    curves = []
    for index in range(pooled.channels + against_rest):
        x, q = pooled.of_voxels(partial(_of_curve, index=index, against_rest=against_rest))
        curves.append(_isotonic_curve(x, q, pooled.weight))
    return IsotonicMap(tuple(curves))


def _of_curve(
    log_odds: NDArray[Any], target: NDArray[Any], *, index: int, against_rest: bool
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Log-odds and targets ``(m,)`` that one curve maps; against the rest, the background is the first."""
    if not against_rest:
        return log_odds[index], target[index]
    meant = 1 - target.sum(axis=0) if index == 0 else target[index - 1]
    return class_against_rest(log_odds, index), meant


def _isotonic_curve(
    x: NDArray[Any], q: NDArray[Any], weight: NDArray[Any]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Knots at both ends of each run of bins that share a value, so that the curve is flat there.

    With one knot per run, background below the first rise would get a part of that rise, and background is
    so much that its volume would grow.
    """
    bins = np.floor(x / BIN_WIDTH).astype(np.int64)
    bins -= bins.min()  # log-odds of float32 probabilities fill a few thousand bins at most
    is_filled = np.bincount(bins) > 0
    mass, sum_q, sum_x = (
        np.bincount(bins, weights=weights)[is_filled] for weights in (weight, weight * q, weight * x)
    )
    mean_q = sum_q / mass
    fitted = scipy.optimize.isotonic_regression(mean_q, weights=mass)
    starts, ends = fitted.blocks[:-1], fitted.blocks[1:] - 1
    values = np.clip(fitted.x[starts], LOWEST, HIGHEST)
    at = np.unique(np.concatenate([starts, ends]))
    block_of = np.searchsorted(starts, at, side="right") - 1
    return floats((sum_x / mass)[at]), floats(values[block_of])


def fit_none(pooled: _Pooled, has_regions: bool) -> AffineMap:
    """The identity: what a recalibration is held against."""
    channels = pooled.channels
    return AffineMap((1.0,) * channels, (0.0,) * channels)


METHODS: dict[str, Callable[[_Pooled, bool], RecalibrationMap]] = {
    "affine": fit_affine,
    "temperature": fit_temperature,
    "isotonic": fit_isotonic,
    "none": fit_none,
}


def fit_map(
    samples: Sequence[VoxelSample], *, method: str, has_regions: bool, weighting: Weighting = "roots"
) -> RecalibrationMap:
    """Fit a map on the voxels of some cases.

    Args:
        samples: one per case.
        method: of `METHODS`.
        has_regions: channels may overlap (sigmoid), or exclude each other (softmax).
        weighting: of the cases, of `WEIGHTINGS`.

    Raises:
        ValueError: for another method or weighting, or without a voxel.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method}")
    if weighting not in WEIGHTINGS:
        raise ValueError(f"weighting must be one of {', '.join(WEIGHTINGS)}, got {weighting}")
    if not any(len(sample.weight) for sample in samples):
        raise ValueError("there is no voxel to fit on")
    return METHODS[method](_Pooled.of(samples, weighting), has_regions)


def cross_fit(
    parts: Mapping[str, Sequence[VoxelSample]],
    *,
    method: str,
    has_regions: bool,
    weighting: Weighting = "roots",
) -> dict[str, RecalibrationMap]:
    """For every part, the map of all other parts: it has seen none of the cases that it recalibrates.

    Raises:
        ValueError: with fewer than two parts.
    """
    if len(parts) < 2:
        raise ValueError(f"cross-fitting needs at least two parts, got {len(parts)}")
    return {
        name: fit_map(
            [sample for other, samples in parts.items() if other != name for sample in samples],
            method=method,
            has_regions=has_regions,
            weighting=weighting,
        )
        for name in parts
    }
