"""What recalibrated probabilities should mean: the raters' mean, the consensus, or the soft label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.encoding import channels_of
from nnunet_softlabel.formats.soft_dataset import SoftDataset

Target = Literal["raters", "consensus", "soft"]


@dataclass(frozen=True)
class References:
    """What probabilities should mean."""

    dataset: SoftDataset
    split: str
    against: Target

    def read(self, case: str) -> tuple[NDArray[Any], NDArray[Any] | None, NDArray[Any], tuple[float, ...]]:
        """Target ``(C, *spatial)``, voxels that count (None: all), what any rater marked, spacing."""
        labels = self.dataset.labels
        for path in (self.dataset.label_file(case, self.split), *self.dataset.soft_files(case, self.split)):
            if not path.is_file():
                raise DatasetError(
                    f"Case {case}: its reference {path} is missing; convert the data set again."
                )
        hard, grid = self.dataset.read(self.dataset.label_file(case, self.split))
        mask = None if labels.ignore is None else hard != labels.ignore
        soft = self.dataset.read_soft(case, self.split)
        target = soft
        if self.against == "consensus":
            target = channels_of(hard, labels).astype(np.float32)
        elif self.against == "raters" and not self._soft_is_mean:
            target, mask = self._mean_of_raters(case, mask)
        if target.shape[1:] != hard.shape:
            raise DatasetError(f"Case {case}: its references differ in shape; convert the data set again.")
        return target, mask, soft > 0, grid.spacing_of_axes_mm

    @property
    def _soft_is_mean(self) -> bool:
        """True if the soft label is the raters' mean, so that their files need not be read."""
        about = self.dataset.about
        fusion = about.get("fusion")
        name = fusion.get("method", fusion.get("name")) if isinstance(fusion, Mapping) else fusion
        return (
            name == "mean"
            and about.get("prior") in (None, "none", {}, [])
            and bool(about.get("raters", True))
        )

    def _mean_of_raters(
        self, case: str, mask: NDArray[Any] | None
    ) -> tuple[NDArray[Any], NDArray[Any] | None]:
        labels = self.dataset.labels
        raters = list(self.dataset.read_raters(case, self.split).values())
        if not raters:
            raise DatasetError(
                f"Case {case}: no rater's label map is kept; calibrate with --against soft or consensus."
            )
        answered = [np.ones(r.shape, bool) if labels.ignore is None else r != labels.ignore for r in raters]
        count = np.sum(answered, axis=0)
        votes = np.sum([channels_of(r, labels) & a for r, a in zip(raters, answered, strict=True)], axis=0)
        target = (votes / np.maximum(count, 1)).astype(np.float32)
        return target, mask if count.all() else (count > 0) & (True if mask is None else mask)
