"""Channels of a volume in a temporary file: written one by one, changed voxel by voxel, read one by one.

What asks all channels of a voxel at once, as a recalibration does, would otherwise hold 4 bytes per voxel and
channel in memory.
"""

from __future__ import annotations

import io
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.errors import DatasetError

IN_MEMORY = 1 << 22  # bytes; less needs no file
BLOCK = 1 << 18  # numbers worked on at a time, over all channels
ITEM = np.dtype(np.float32)


class ChannelStore:
    """Arrays float32 ``(*spatial)`` in a file that goes with this object, and at the latest with the process.

    >>> with ChannelStore([np.array([0.5, 1.0]), np.array([0.5, 0.0])], 2, (2,)) as store:
    ...     store.change(lambda block: 2 * block)
    ...     [channel.tolist() for channel in store.channels()]
    [[1.0, 2.0], [1.0, 0.0]]
    """

    def __init__(self, channels: Iterable[NDArray[Any]], count: int, shape: Sequence[int]) -> None:
        """Store channels.

        Args:
            channels: that are taken one after the other.
            count: how many there are.
            shape: of each.

        Raises:
            DatasetError: if the temporary folder has no room for them.
        """
        self._count, self._shape, self._size = count, tuple(shape), math.prod(shape)
        needed = count * self._size * ITEM.itemsize
        self._needed = needed
        with self._told():
            self._file: IO[bytes] = io.BytesIO() if needed <= IN_MEMORY else tempfile.TemporaryFile()
        for index, channel in enumerate(channels):
            self._put(index, 0, channel.reshape(-1))

    def __enter__(self) -> ChannelStore:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def change(self, function: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
        """Replace blocks ``(K, n)`` of voxels by what a function, which looks at each voxel alone, makes."""
        for where, block in self.blocks():
            for index, values in enumerate(function(block)):
                self._put(index, where.start, values)

    def blocks(self) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Where blocks of voxels lie in the flat order, and their values ``(K, n)``, each a new array."""
        # never a block of one voxel: numpy adds the channels of a single voxel in another order
        number = max(1, min(-(-self._size * self._count // BLOCK), self._size // 2))
        for index in range(number):
            where = slice(index * self._size // number, (index + 1) * self._size // number)
            block = np.empty((self._count, where.stop - where.start), ITEM)
            for channel, values in enumerate(block):
                self._get(channel, where.start, values)
            yield where, block

    def channels(self) -> Iterator[NDArray[Any]]:
        """Each channel, a new array that is not kept."""
        return map(self.channel, range(self._count))

    def channel(self, index: int) -> NDArray[Any]:
        """One channel ``(*spatial)``, a new array."""
        array = np.empty(self._shape, ITEM)
        self._get(index, 0, array.reshape(-1))
        return array

    def _seek(self, index: int, start: int) -> None:
        self._file.seek((index * self._size + start) * ITEM.itemsize)

    def _get(self, index: int, start: int, values: NDArray[Any]) -> None:
        self._seek(index, start)
        into = memoryview(values).cast("B")  # type: ignore[arg-type]
        while len(into):
            count = self._file.readinto(into)  # type: ignore[attr-defined]
            assert count, "all channels were stored"
            into = into[count:]

    def _put(self, index: int, start: int, values: NDArray[Any]) -> None:
        with self._told():
            self._seek(index, start)
            self._file.write(np.ascontiguousarray(values, ITEM).data)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DatasetError(
                f"{tempfile.gettempdir()}: the probabilities of a case cannot be kept there for a while "
                f"({error.strerror}); they take {self._needed / 2**30:.1f} GiB. Make room, or set TMPDIR to "
                f"a folder with room."
            ) from error
