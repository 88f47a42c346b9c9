"""What recalibrated probabilities should mean: the raters' mean, the consensus, or the soft label."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.evaluation.references import References
from nnunet_softlabel.evaluation.vote_patterns import VotePatterns, of_voxels
from nnunet_softlabel.formats.encoding import is_member
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.formats.soft_dataset import SoftDataset

Target = Literal["raters", "consensus", "soft"]


@dataclass(frozen=True)
class CaseTargets:
    """What the probabilities of a case should mean, read channel by channel.

    Attributes:
        references: of the case.
        labels: what the channels mean.
        mask: voxels that count, None: all.
        is_hard: the target is the consensus.
        mean: of the raters ``(C, patterns)``; None: the target is the soft label, or the consensus.
        votes: of the raters, with ``mean`` and where the soft label does not tell what they marked.
    """

    references: References
    labels: Labels
    mask: NDArray[Any] | None
    is_hard: bool = False
    mean: NDArray[Any] | None = None
    votes: VotePatterns | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a channel."""
        return self.references.hard.shape

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """In the order of the axes."""
        return self.references.grid.spacing_of_axes_mm

    def channels(self) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Target, float32 ``(*spatial)``, and what anybody marked, of each channel; see `voxels_of_class`."""
        for index, soft in enumerate(self.references.soft()):
            hard = is_member(self.references.hard, self.labels.values[self.labels.names[index]])
            marked = soft > 0
            marked |= hard
            if self.votes is not None and self.votes.raters:
                marked |= of_voxels(self.votes.anyone(index), self.votes.codes)
            if self.is_hard:
                soft = hard.astype(np.float32)
            elif self.mean is not None and self.votes is not None:
                soft = of_voxels(self.mean[index], self.votes.codes)
            del hard  # who takes the two needs the memory
            yield soft, marked


@dataclass(frozen=True)
class CalibrationTargets:
    """What probabilities should mean."""

    dataset: SoftDataset
    split: str
    against: Target

    def of(self, case: str, *, with_marks: bool = False) -> CaseTargets:
        """Targets of a case; the consensus is read, and the raters if they are needed.

        Args:
            case: its name.
            with_marks: what any rater marked is needed, too.

        Raises:
            DatasetError: as `References`; if the raters are needed and there are none.
        """
        labels = self.dataset.labels
        references = References.of(self.dataset, case, split=self.split)
        mask = None if labels.ignore is None else references.hard != labels.ignore
        needs_mean = self.against == "raters" and not self._soft_is_mean
        votes = None
        if needs_mean or (with_marks and not self._soft_is_mean):
            votes = VotePatterns.of(references.raters(), labels, references.hard.shape)
        if votes is None or not needs_mean:
            return CaseTargets(references, labels, mask, is_hard=self.against == "consensus", votes=votes)
        if not votes.raters:
            raise DatasetError(
                f"Case {case}: no rater's label map is kept; calibrate with --against soft or consensus."
            )
        mean, by_pattern = votes.mean_of(votes.raters)
        if by_pattern is not None:
            answered = of_voxels(by_pattern, votes.codes)
            if not answered.all():
                mask = answered if mask is None else answered & mask
        return CaseTargets(references, labels, mask, mean=mean, votes=votes)

    def without_raters(self, cases: Sequence[str]) -> list[str]:
        """Those that have their hard label for want of raters, if the target is the raters' mean."""
        filled = self.dataset.about.get("cases_from_hard_labels") or ()
        return [case for case in cases if case in filled] if self.against == "raters" else []

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
