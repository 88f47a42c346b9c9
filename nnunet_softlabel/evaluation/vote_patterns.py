"""What all raters said of a voxel, as one number: metrics need each combination once, and its count.

Four raters with three labels can say 256 things of a voxel, and say a few dozen. So label maps of any number
of raters take two bytes per voxel, and what is computed of raters alone is computed per pattern.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.formats.encoding import channels_of
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.metrics.far import chunks

CHUNK = 1 << 20  # voxels worked on at a time


@dataclass(frozen=True)
class VotePatterns:
    """Label maps of the raters of a case.

    Attributes:
        codes: ``(*spatial)`` number of the pattern of each voxel.
        members: rater -> ``(C, patterns)``, True where the rater's label is of a channel.
        answered: rater -> ``(patterns)``, True where the rater answered; None: everywhere.
    """

    codes: NDArray[Any]
    members: Mapping[str, NDArray[Any]]
    answered: Mapping[str, NDArray[Any] | None]

    @classmethod
    def of(
        cls, maps: Iterable[tuple[str, NDArray[Any]]], labels: Labels, shape: tuple[int, ...]
    ) -> VotePatterns:
        """Patterns of label maps ``(*spatial)``, each of which is held only while it is taken in."""
        codes = np.zeros(shape, np.uint16)
        patterns: dict[str, NDArray[Any]] = {}  # rater -> value in each pattern
        count = 1  # of patterns so far; 0 is the background of all
        for name, label_map in maps:
            codes, before, values = _with_another(codes, count, label_map)
            patterns = {rater: known[before] for rater, known in patterns.items()} | {name: values}
            count = len(values)
        answered = {n: None if labels.ignore is None else v != labels.ignore for n, v in patterns.items()}
        return cls(codes, {name: channels_of(v, labels) for name, v in patterns.items()}, answered)

    @property
    def raters(self) -> list[str]:
        """Names of the raters."""
        return list(self.members)

    def others(self, name: str) -> list[str]:
        """All raters but one."""
        return [other for other in self.members if other != name]

    def anyone(self, index: int) -> NDArray[Any]:
        """Patterns in which any rater marks a channel, ``(patterns)``."""
        return np.logical_or.reduce([members[index] for members in self.members.values()])

    def everybody_answered(self) -> NDArray[Any] | None:
        """Patterns in which all raters answered, ``(patterns)``; None: all."""
        masks = [a for a in self.answered.values() if a is not None]
        return np.logical_and.reduce(masks) if masks else None

    def mean_of(self, names: Sequence[str]) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Mean ``(C, patterns)`` over those of these raters who answered; where anyone did (None: all)."""
        answered = [a for name in names if (a := self.answered[name]) is not None]
        if not answered:
            return np.asarray(np.mean([self.members[n] for n in names], axis=0, dtype=np.float32)), None
        count = np.sum(answered, axis=0)
        votes = np.sum([self.members[n] & a for n, a in zip(names, answered, strict=True)], axis=0)
        return (votes / np.maximum(count, 1)).astype(np.float32), count > 0

    def mean(self) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Mean of all raters who answered, float32 ``(C, *spatial)``; where anyone did (None: everywhere)."""
        mean, answered = self.mean_of(self.raters)
        soft = np.stack([of_voxels(channel, self.codes) for channel in mean])
        return soft, None if answered is None else of_voxels(answered, self.codes)


def _with_another(
    codes: NDArray[Any], count: int, label_map: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Patterns with one rater more, numbered in the order in which they are met.

    Returns:
        New codes; of each new pattern the pattern before, and the value of the new rater.
    """
    values, places = _values_of(label_map)
    width = len(values)
    numbers = np.full(count * width, -1, np.int64)  # (pattern before, value) -> new pattern
    zero = int(np.searchsorted(values, 0))
    numbers[zero], pairs = 0, [zero]  # the background of all
    flat, added = codes.reshape(-1), label_map.reshape(-1)
    for start in range(0, flat.size, CHUNK):
        here = slice(start, start + CHUNK)
        if not (flat[here].any() or added[here].any()):
            continue
        place = np.searchsorted(values, added[here]) if places is None else places[added[here]]
        pair = flat[here].astype(np.int64) * width + place
        new = np.unique(pair[numbers[pair] < 0])
        numbers[new] = np.arange(len(pairs), len(pairs) + len(new))
        pairs.extend(new.tolist())
        if len(pairs) > np.iinfo(flat.dtype).max + 1:
            codes = codes.astype(np.uint32)
            flat = codes.reshape(-1)
        flat[here] = numbers[pair]
    before, value = np.divmod(np.array(pairs), width)
    return codes, before, values[value]


def _values_of(label_map: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """The values of a label map and 0, ascending; value -> place among them (None: search)."""
    if label_map.dtype not in (np.uint8, np.uint16):
        return np.union1d(label_map.dtype.type(0), label_map.reshape(-1)), None
    is_there = np.zeros(np.iinfo(label_map.dtype).max + 1, bool)
    is_there[0] = True
    for (piece,) in chunks(label_map):
        is_there[piece] = True
    return np.flatnonzero(is_there).astype(label_map.dtype), np.cumsum(is_there) - 1


def of_voxels(table: NDArray[Any], codes: NDArray[Any]) -> NDArray[Any]:
    """``table[codes]`` in pieces: numpy would make eight bytes of every code first."""
    found = np.empty(codes.shape, table.dtype)
    for piece, numbers in chunks(found, codes):
        np.take(table, numbers, out=piece, mode="clip")
    return found
