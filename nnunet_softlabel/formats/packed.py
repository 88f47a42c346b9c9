"""Arrays in memory, packed chunk by chunk: what many raters and labels say of one volume takes few bytes.

Label maps and soft labels are mostly zeros and ones. A chunk of zeros takes nothing. Other chunks of large
arrays are compressed without loss. Whoever works on them unpacks one chunk, or one whole array, at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHUNK = 1 << 16  # voxels, at most
PACKED_ABOVE = 1 << 20  # voxels of an array; packing smaller ones gains nothing


class PackedMap:
    """An array ``(*spatial)`` of numbers, in chunks of its flat order.

    >>> packed = PackedMap.of(np.array([[0, 0], [0, 3]], np.uint8))
    >>> packed.n_chunks, packed.whole()
    (1, array([[0, 0],
           [0, 3]], dtype=uint8))

    Attributes:
        shape: of the array.
        dtype: of the array.
    """

    def __init__(self, shape: Sequence[int], dtype: Any) -> None:
        """All zeros."""
        self.shape = tuple(shape)
        self.dtype = np.dtype(dtype)
        self.size = math.prod(self.shape)
        self.n_chunks = max(1, -(-self.size // CHUNK))
        self._step = -(-self.size // self.n_chunks)
        self._is_packed = self.size >= PACKED_ABOVE
        self._chunks: list[NDArray[Any] | bytes | None] = [None] * self.n_chunks

    @classmethod
    def of(cls, array: NDArray[Any]) -> PackedMap:
        """A copy of an array."""
        packed = cls(array.shape, array.dtype)
        flat = array.reshape(-1)
        for index in range(packed.n_chunks):
            packed.put(index, flat[packed.part(index)])
        return packed

    def part(self, index: int) -> slice:
        """Where a chunk lies in the flat array."""
        return slice(index * self._step, min(self.size, (index + 1) * self._step))

    def is_zero(self, index: int) -> bool:
        """True if a chunk is known to hold zeros alone."""
        return self._chunks[index] is None

    def put(self, index: int, values: NDArray[Any]) -> None:
        """Replace a chunk."""
        if not _has_any(values):
            self._chunks[index] = None
        elif self._is_packed:
            self._chunks[index] = _packed(np.ascontiguousarray(values, self.dtype))
        else:
            self._chunks[index] = values.astype(self.dtype)

    def get(self, index: int) -> NDArray[Any]:
        """The values of a chunk, flat; not to be changed."""
        chunk = self._chunks[index]
        part = self.part(index)
        values: NDArray[Any]
        if chunk is None:
            values = np.zeros(part.stop - part.start, self.dtype)
        elif isinstance(chunk, bytes):
            values = np.empty(part.stop - part.start, self.dtype)
            _unpack(chunk, values)
        else:
            values = chunk
        return values

    def fill(self, index: int, values: NDArray[Any]) -> None:
        """Put the values of a chunk into a contiguous array of this type, which holds zeros."""
        chunk = self._chunks[index]
        if isinstance(chunk, bytes):
            _unpack(chunk, values)
        elif chunk is not None:
            values[...] = chunk

    def any(self) -> bool:
        """True if anything is not 0."""
        return any(chunk is not None for chunk in self._chunks)

    def equals(self, other: PackedMap) -> bool:
        """True if all values are the same."""
        return self.shape == other.shape and all(
            np.array_equal(self.get(index), other.get(index))
            for index in range(self.n_chunks)
            if not (self.is_zero(index) and other.is_zero(index))
        )

    def whole(self) -> NDArray[Any]:
        """All of it ``(*spatial)``, a new array."""
        array = np.zeros(self.shape, self.dtype)
        flat = array.reshape(-1)
        for index in range(self.n_chunks):
            self.fill(index, flat[self.part(index)])
        return array


def _has_any(values: NDArray[Any]) -> bool:
    """True if a flat array holds anything but zeros."""
    # bytes are looked at several times faster than numbers
    return bool((values.view(bool) if values.flags.c_contiguous else values).any())


def _packed(values: NDArray[Any]) -> bytes:
    import blosc2  # takes half a second: not for every worker

    packed: bytes = blosc2.compress2(
        values,
        codec=blosc2.Codec.LZ4,
        clevel=1,
        filters=[blosc2.Filter.SHUFFLE],
        typesize=values.itemsize,
        nthreads=1,
    )
    return packed


def _unpack(packed: bytes, into: NDArray[Any]) -> None:
    import blosc2

    blosc2.decompress2(packed, dst=into, nthreads=1)


def stacked(maps: Sequence[PackedMap], index: int, kept: NDArray[Any] | None = None) -> NDArray[Any]:
    """One chunk of several maps of one shape and type: ``(C, n)``, a new array, or a part of ``kept``."""
    part = maps[0].part(index)
    if kept is None:
        stack = np.zeros((len(maps), part.stop - part.start), maps[0].dtype)
    else:
        stack = kept[: len(maps), : part.stop - part.start]
        stack[...] = 0
    for row, packed in zip(stack, maps, strict=True):
        packed.fill(index, row)
    return stack


def marked_chunks(maps: Sequence[PackedMap]) -> Iterator[int]:
    """Chunks that hold anything but zeros in any of several maps of one shape."""
    return (index for index in range(maps[0].n_chunks) if not is_zero_in_all(maps, index))


def is_zero_in_all(maps: Sequence[PackedMap], index: int) -> bool:
    """True if a chunk is known to hold zeros alone in every map."""
    return all(packed.is_zero(index) for packed in maps)
