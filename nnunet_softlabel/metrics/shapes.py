"""Surfaces and lesions of masks, computed once: raters, consensus and prediction meet in many pairs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.metrics.lesions import Components, components_of
from nnunet_softlabel.metrics.surface import Surface, surface_of

T = TypeVar("T")
Key = tuple[bytes, tuple[int, ...]]


class Shapes:
    """Remembers surface and lesions of every mask that it has seen, by the mask's content."""

    def __init__(self, spacing_mm: tuple[float, ...]) -> None:
        self.spacing_mm = spacing_mm
        self._surfaces: dict[Key, Surface | None] = {}
        self._components: dict[Key, Components] = {}

    def surface(self, mask: NDArray[Any]) -> Surface | None:
        """`surface_of` the mask."""
        return _remembered(self._surfaces, mask, lambda: surface_of(mask, spacing_mm=self.spacing_mm))

    def components(self, mask: NDArray[Any]) -> Components:
        """`components_of` the mask."""
        return _remembered(self._components, mask, lambda: components_of(mask))


def _remembered(known: dict[Key, T], mask: NDArray[Any], compute: Callable[[], T]) -> T:
    key = hashlib.sha256(np.packbits(mask).tobytes()).digest(), mask.shape
    if key not in known:
        known[key] = compute()
    return known[key]
