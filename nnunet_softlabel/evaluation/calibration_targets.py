"""What recalibrated probabilities should mean: the raters' mean, the consensus, or the soft label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.evaluation.references import References
from nnunet_softlabel.evaluation.vote_patterns import VotePatterns
from nnunet_softlabel.formats.encoding import channels_of
from nnunet_softlabel.formats.soft_dataset import SoftDataset

Target = Literal["raters", "consensus", "soft"]


@dataclass(frozen=True)
class CalibrationTargets:
    """What probabilities should mean."""

    dataset: SoftDataset
    split: str
    against: Target

    def read(self, case: str) -> tuple[NDArray[Any], NDArray[Any] | None, NDArray[Any], tuple[float, ...]]:
        """Target ``(C, *spatial)``, voxels that count (None: all), what any rater marked, spacing."""
        labels = self.dataset.labels
        references = References.of(self.dataset, case, split=self.split)
        hard, grid = references.hard, references.grid
        mask = None if labels.ignore is None else hard != labels.ignore
        soft = self.dataset.read_soft(case, self.split)
        target = soft
        if self.against == "consensus":
            target = channels_of(hard, labels).astype(np.float32)
        elif self.against == "raters" and not self._soft_is_mean:
            target, mask = self._mean_of_raters(references, mask)
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
        self, references: References, mask: NDArray[Any] | None
    ) -> tuple[NDArray[Any], NDArray[Any] | None]:
        votes = VotePatterns.of(references.raters(), self.dataset.labels, references.hard.shape)
        if not votes.raters:
            raise DatasetError(
                f"Case {references.case}: no rater's label map is kept; calibrate with --against soft or "
                f"consensus."
            )
        target, answered = votes.mean()
        if answered is None or answered.all():
            return target, mask
        return target, answered if mask is None else answered & mask
