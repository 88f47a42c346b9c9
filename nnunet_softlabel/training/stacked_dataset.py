"""The data set a trainer reads: nnU-Net's, with soft labels stacked on the hard segmentation."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.preprocessing.disputed import locations_path
from nnunet_softlabel.training.records import OfNnunet
from nnunet_softlabel.training.sparse_labels import positive_box


class StackedLabels:
    """The hard segmentation and the soft label of a case as one int16 array ``(1 + C, *spatial)``.

    Read lazily: nnU-Net's loader crops it like any segmentation, and only the chunks under the patch are
    decompressed.
    """

    def __init__(self, hard: Any, soft: Any) -> None:
        self.parts = (hard, soft)
        self.shape = (hard.shape[0] + soft.shape[0], *hard.shape[1:])
        self.dtype = np.dtype(np.int16)

    def __getitem__(self, key: tuple[slice, ...]) -> NDArray[Any]:
        """Crop all channels; the first entry of ``key`` must take every channel, as the loader's does."""
        hard, soft = self.parts
        first = hard[key]
        n_hard = first.shape[0]
        result = np.zeros((self.shape[0], *first.shape[1:]), dtype=self.dtype).view(StackedCrop)
        result[:n_hard] = first
        for channel in range(soft.shape[0]):  # one at a time: only its box costs memory
            where = (slice(channel, channel + 1), *key[1:])
            values = soft[where][0]
            box = positive_box(values)
            if box is not None:
                result[n_hard + channel][box] = values[box]
        return result


class StackedCrop(np.ndarray[Any, Any]):
    """A patch of `StackedLabels`. ``np.pad`` is what nnU-Net's loader pads it with.

    Padded are only the boxes of what soft labels hold: the rest is memory that nobody touches.
    """

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        """Soft labels are padded with background, 0, instead of ``constant_values``."""
        if func is np.pad and kwargs.get("mode") == "constant" and set(kwargs) <= set(_PAD_ARGUMENTS):
            return _padded(np.asarray(args[0]), **kwargs)
        return super().__array_function__(func, types, args, kwargs)


_PAD_ARGUMENTS = ("pad_width", "mode", "constant_values")


def _padded(
    labels: NDArray[Any], pad_width: Sequence[tuple[int, int]], mode: str, constant_values: int = 0
) -> NDArray[Any]:
    sizes = [before + size + after for size, (before, after) in zip(labels.shape, pad_width, strict=True)]
    result = np.zeros(sizes, dtype=labels.dtype)
    offsets = [before for before, _ in pad_width[1:]]
    inner = tuple(slice(n, n + size) for n, size in zip(offsets, labels.shape[1:], strict=True))
    result[0] = constant_values
    result[0][inner] = labels[0]
    for padded, values in zip(result[1:], labels[1:], strict=True):
        box = positive_box(values)
        if box is not None:
            moved = (slice(s.start + n, s.stop + n) for s, n in zip(box, offsets, strict=True))
            padded[tuple(moved)] = values[box]
    return result


class StackedDataset:
    """Wraps one of nnU-Net's data sets; `load_case` returns the soft label stacked on the segmentation.

    Args:
        inner: nnU-Net's data set.
        soft_folder: folder of the preprocessed soft labels.
        class_keys: key in nnU-Net's ``class_locations`` of each soft channel.
        oversamples_disputed: add to the ``class_locations`` the voxels that some rater, but not the
            consensus, gave to a class.
    """

    def __init__(
        self,
        inner: Any,
        soft_folder: Path,
        class_keys: Sequence[int | tuple[int, ...]],
        *,
        oversamples_disputed: bool,
    ) -> None:
        self.inner, self.soft_folder = inner, soft_folder
        self.class_keys, self.oversamples_disputed = class_keys, oversamples_disputed
        self.identifiers = inner.identifiers

    def __getitem__(self, identifier: str) -> tuple[Any, Any, Any, OfNnunet]:
        """As nnU-Net's data sets."""
        return self.load_case(identifier)

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, OfNnunet]:
        """Image, stacked labels ``(1 + C, *spatial)``, previous segmentation or None, properties."""
        data, hard, previous, properties = self.inner.load_case(identifier)
        mmap = {} if os.name == "nt" else {"mmap_mode": "r"}
        soft = blosc2.open(
            urlpath=str(self.soft_folder / f"{identifier}.b2nd"), mode="r", dparams={"nthreads": 1}, **mmap
        )
        return data, StackedLabels(hard, soft), previous, self._with_disputed(identifier, properties)

    def _with_disputed(self, identifier: str, properties: OfNnunet) -> OfNnunet:
        path = locations_path(self.soft_folder, identifier)
        if not self.oversamples_disputed or not path.is_file():
            return properties
        rows = np.load(path)
        locations = dict(properties["class_locations"])
        for channel, key in enumerate(self.class_keys):
            extra = rows[rows[:, 0] == channel]
            if len(extra):
                extra[:, 0] = 0  # nnU-Net's locations begin with the channel of the segmentation
                known = locations.get(key, [])
                locations[key] = np.concatenate([known, extra]) if len(known) else extra
        return {**properties, "class_locations": locations}
