"""Recalibration: maps from log-odds to log-odds. Pure functions on arrays; `map_fitting` fits them.

*Log-odds* of a class are against the background, ``log p_c - log p_0``: what a network's logits are up to a
constant per voxel, which softmax does not see. Of a region they are ``log p - log (1 - p)``. So an affine map
of log-odds is also an affine map of the last convolution's output.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypedDict

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logsumexp

SMALLEST = float(np.finfo(np.float32).tiny)  # of a probability; below it float32 files hold no digits
LOG_REST_OF_ONE = float(np.log(2.0**-25))  # log(1 - p) of a p that float32 rounded to 1


class Curve(TypedDict):
    """Knots of a piecewise linear curve."""

    x: list[float]
    p: list[float]


class AffineJson(TypedDict):
    """An `AffineMap` as JSON keeps it."""

    map: str
    scale: list[float]
    shift: list[float]


class IsotonicJson(TypedDict):
    """An `IsotonicMap` as JSON keeps it."""

    map: str
    curves: list[Curve]


class RecalibrationMap(Protocol):
    """From log-odds ``(C, *spatial)`` to log-odds of the same shape."""

    method: ClassVar[str]

    def __call__(self, log_odds: NDArray[Any]) -> NDArray[Any]:
        """Of every channel."""
        ...

    def to_json(self) -> AffineJson | IsotonicJson:
        """As a JSON object; `map_from_json` reads it."""
        ...


@dataclass(frozen=True)
class AffineMap:
    """``scale_c * x + shift_c`` per class or region; a temperature T is the scale 1 / T of all, no shift.

    >>> AffineMap((0.5,), (1.0,))(np.array([[0.0, 2.0]])).tolist()
    [[1.0, 2.0]]
    """

    method: ClassVar[str] = "affine"
    scale: tuple[float, ...]
    shift: tuple[float, ...]

    def __call__(self, log_odds: NDArray[Any]) -> NDArray[Any]:
        """Of every channel of ``(C, *spatial)``."""
        column = (-1, *[1] * (log_odds.ndim - 1))
        scale, shift = (np.asarray(v, dtype=log_odds.dtype).reshape(column) for v in (self.scale, self.shift))
        return log_odds * scale + shift

    def to_json(self) -> AffineJson:
        """As a JSON object."""
        return {"map": self.method, "scale": list(self.scale), "shift": list(self.shift)}


@dataclass(frozen=True)
class IsotonicMap:
    """Monotone, piecewise linear between knots ``(log-odds, probability)``, constant beyond the last ones.

    One curve per region, or for one class. For several classes one curve for each class and the background
    against the rest, after which probabilities are divided by their sum [1].

    References:
        [1] Zadrozny and Elkan, "Transforming Classifier Scores into Accurate Multiclass Probability
            Estimates", KDD 2002.
    """

    method: ClassVar[str] = "isotonic"
    curves: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]

    def __call__(self, log_odds: NDArray[Any]) -> NDArray[Any]:
        """Of every channel of ``(C, *spatial)``."""
        if len(self.curves) == len(log_odds):
            p = np.stack([self._mapped(i, x) for i, x in enumerate(log_odds)])
            found = np.log(p) - np.log1p(-p)
        else:
            p = np.stack([self._mapped(i, x) for i, x in enumerate(one_against_rest(log_odds))])
            found = np.log(p[1:]) - np.log(p[:1])
        return np.where(np.isneginf(log_odds), log_odds, found)

    def _mapped(self, index: int, log_odds: NDArray[Any]) -> NDArray[Any]:
        knots, values = self.curves[index]
        return np.interp(log_odds, knots, values).astype(log_odds.dtype)

    def to_json(self) -> IsotonicJson:
        """As a JSON object."""
        return {"map": self.method, "curves": [{"x": list(x), "p": list(p)} for x, p in self.curves]}


def map_from_json(content: Mapping[str, Any]) -> RecalibrationMap:
    """Read what a map's ``to_json`` gave.

    Raises:
        ValueError: if it is no such map.
    """
    try:
        if content["map"] == AffineMap.method:
            return AffineMap(floats(content["scale"]), floats(content["shift"]))
        if content["map"] == IsotonicMap.method:
            return IsotonicMap(tuple((floats(c["x"]), floats(c["p"])) for c in content["curves"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"is no recalibration map ({error!r})") from error
    raise ValueError(f"holds a map of the kind {content['map']!r}, which this version does not know")


def floats(values: Iterable[Any]) -> tuple[float, ...]:
    """Numbers of an array or of JSON as a tuple of floats."""
    return tuple(float(value) for value in values)


def log_odds_of(probabilities: NDArray[Any], *, has_regions: bool) -> NDArray[Any]:
    """Log-odds ``(C, *spatial)`` of probabilities: ``(1 + C, *spatial)`` of classes, ``(C, ...)`` of regions.

    A class keeps its digits however sure the network is. A region does not: a file holds p and not 1 - p, so
    log-odds above 13 are known to a few per cent, and end at 17.3. A probability of exactly 0, as nnU-Net
    writes outside the part of an image that it predicts, is minus infinity, which every map keeps.

    >>> log_odds_of(np.array([[0.5], [0.5]]), has_regions=False).tolist()
    [[0.0]]
    """
    probabilities = probabilities.astype(np.result_type(probabilities, np.float32), copy=False)
    log_p = np.log(np.maximum(probabilities, SMALLEST))
    is_zero = probabilities == 0
    if not has_regions:
        return np.where(is_zero[1:], -np.inf, log_p[1:] - log_p[:1])
    is_one = probabilities >= 1
    log_rest = np.where(is_one, LOG_REST_OF_ONE, np.log1p(-np.where(is_one, 0, probabilities)))
    return np.where(is_zero, -np.inf, log_p - log_rest)


def probabilities_of(log_odds: NDArray[Any], *, has_regions: bool) -> NDArray[Any]:
    """Inverse of `log_odds_of`: with the background first for classes."""
    if has_regions:
        return np.asarray(expit(log_odds))
    with_background = np.concatenate([np.zeros_like(log_odds[:1]), log_odds])
    highest = with_background.max(axis=0, keepdims=True)
    exponential = np.exp(with_background - highest)
    return np.asarray(exponential / exponential.sum(axis=0, keepdims=True))


def recalibrated(
    probabilities: NDArray[Any], recalibration: RecalibrationMap, *, has_regions: bool
) -> NDArray[Any]:
    """Probabilities after a map, shape and type as before."""
    log_odds = recalibration(log_odds_of(probabilities, has_regions=has_regions))
    return probabilities_of(log_odds, has_regions=has_regions).astype(probabilities.dtype)


def one_against_rest(log_odds: NDArray[Any]) -> NDArray[Any]:
    """Log-odds ``(1 + C, ...)`` of the background and the classes, each against all others together."""
    x = _with_background(log_odds)
    return np.stack([_against_rest(x, c) for c in range(len(x))])


def class_against_rest(log_odds: NDArray[Any], index: int) -> NDArray[Any]:
    """One of `one_against_rest`, ``(...)``: 0 is the background."""
    return _against_rest(_with_background(log_odds), index)


def _with_background(log_odds: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([np.zeros_like(log_odds[:1]), log_odds])


def _against_rest(x: NDArray[Any], index: int) -> NDArray[Any]:
    return np.asarray(x[index] - logsumexp(np.delete(x, index, axis=0), axis=0))
