"""One image and what belongs to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.formats.channels import Channel
from nnunet_softlabel.formats.grid import Grid

# A file, a channel of one, the array itself, or a function that makes the array: a script that must recode
# masks passes a function, so that a process of the pool does the reading.
Source = Path | Channel | NDArray[Any] | Callable[[], NDArray[Any] | tuple[NDArray[Any], Grid]]
SINGLE_RATER = "rater"


class Adjudication(NamedTuple):
    """What an expert says of a candidate, and where it was then (array indices), if that is known."""

    is_real: bool
    centre: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Case:
    """One image and what is known about it.

    >>> Case("knee1", "knee1.nii.gz", raters={"anna": "knee1_anna.nii.gz"}).images[0].name
    'knee1.nii.gz'

    Attributes:
        name: nnU-Net's case identifier.
        images: one per channel, on the same grid.
        raters: rater name -> label map in the raters' values, on the grid of the image.
        soft: label name -> ready probability map; replaces fusion.
        rois: ROI name -> mask, for priors.
        ignore: mask of voxels from which nothing is to be learnt (not 0), or None.
        hard: label map in the data set's values that stands in where no rater drew, or None.
        group: patient or other unit that must not be on both sides of a split.
        prediction: ``CASE.npz`` of nnU-Net, by a network that did not see the case, for lesion-wise fusion.
        adjudicated: label name -> number of a candidate -> what an expert says of it.
        is_test: goes to ``imagesTs`` and is never trained on.
    """

    name: str
    images: Sequence[Source]
    raters: Mapping[str, Source] = field(default_factory=dict)
    soft: Mapping[str, Source] = field(default_factory=dict)
    rois: Mapping[str, Source] = field(default_factory=dict)
    ignore: Source | None = None
    hard: Source | None = None
    group: str | None = None
    is_test: bool = False
    prediction: Path | None = None
    adjudicated: Mapping[str, Mapping[int, Adjudication]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take what users write: a path as text, one image instead of a list."""
        if not isinstance(self.name, str):
            raise TypeError(f"Case: name: expected a text, got {self.name!r}.")
        images: Any = self.images
        one = isinstance(images, str | Path | Channel | np.ndarray) or callable(images)
        kept: dict[str, object] = {
            "images": [_source(image, self.name, "images") for image in ([images] if one else images)]
        }
        for argument in ("ignore", "hard", "prediction"):
            value = getattr(self, argument)
            kept[argument] = None if value is None else _source(value, self.name, argument)
        for argument in ("raters", "soft", "rois"):
            value = getattr(self, argument)
            if not isinstance(value, Mapping):
                raise TypeError(f"Case {self.name}: {argument}: expected name -> file, got {value!r}.")
            kept[argument] = {key: _source(found, self.name, argument) for key, found in value.items()}
        for argument, value in kept.items():
            object.__setattr__(self, argument, value)


def _source(value: Any, case: str, argument: str) -> Any:
    if isinstance(value, str):
        return Path(value)
    if isinstance(value, Path | Channel | np.ndarray) or callable(value):
        return value
    raise TypeError(f"Case {case}: {argument}: expected a file, an array or a function, got {value!r}.")


def source_name(source: Source) -> str:
    """The file, for messages."""
    if isinstance(source, Channel):
        return f"channel {source.index + 1} of {source.path}"
    return str(source) if isinstance(source, Path) else "in memory"
