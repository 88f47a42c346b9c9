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
        crops = [part[key] for part in self.parts]
        result = np.empty((self.shape[0], *crops[0].shape[1:]), dtype=self.dtype)
        result[: crops[0].shape[0]], result[crops[0].shape[0] :] = crops
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
