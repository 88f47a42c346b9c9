"""One case of a conversion: from its raters, or ready maps, to a soft label before any prior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.conversion.one_case.read import LoadedCase
from nnunet_softlabel.conversion.settings import CaseSettings
from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.encoding import channels_of_raters
from nnunet_softlabel.fusion import FUSIONS, RaterCounts, RaterVotes
from nnunet_softlabel.fusion.candidate import Candidate
from nnunet_softlabel.fusion.lesion_candidates import find_candidates
from nnunet_softlabel.fusion.lesions import FusedLesions, fuse_lesions
from nnunet_softlabel.fusion.rater_rates import MOST_RATERS, CountsJson

LESION_WISE = "lesion-wise"


@dataclass(frozen=True)
class Fused:
    """A fused case.

    Attributes:
        soft: foreground probabilities, float32 ``(C, *spatial)``; 0 where ``ignored``.
        ignored: bool ``(*spatial)``, True where nothing is to be learnt (nobody answered, or masked), or
            None if the labels know no ignore value.
        votes: what was fused; None for ready probability maps.
        lesions: how lesion-wise fusion judged the candidates; None for any other.
    """

    soft: NDArray[Any]
    ignored: NDArray[Any] | None
    votes: RaterVotes | None
    lesions: FusedLesions | None = None

    def counted(self) -> CountsJson | None:
        """How many voxels got which votes, as JSON; None for maps, and for too many raters to count."""
        if self.votes is None or self.votes.n_raters > MOST_RATERS:
            return None
        return count_votes(self.votes, self.ignored).to_json()


def count_votes(votes: RaterVotes, ignored: NDArray[Any] | None) -> RaterCounts:
    """The votes outside what is ignored."""
    if ignored is not None and ignored.any():
        answered = np.broadcast_to(~ignored, (votes.n_raters, *ignored.shape))
        votes = replace(votes, answered=answered if votes.answered is None else answered & votes.answered)
    return RaterCounts.of(votes)


def fuse_case(case: Case, loaded: LoadedCase, settings: CaseSettings) -> Fused:
    """Fuse the raters of a case.

    Raises:
        DatasetError: if the fusion cannot work with these raters.
    """
    ignored = loaded.ignored
    votes: RaterVotes | None = None
    lesions: FusedLesions | None = None
    if loaded.soft is None:
        votes = votes_of(loaded, settings)
        if votes.answered is not None:
            nobody = np.asarray(~votes.answered.any(axis=0))
            ignored = nobody if ignored is None else ignored | nobody
        if settings.fusion == LESION_WISE:
            lesions = _fuse_lesions(case, votes, loaded, settings)
            soft = lesions.soft
        else:
            soft = _fuse(case, votes, settings)
    else:
        soft = loaded.soft
    if ignored is not None:
        soft = np.where(ignored, np.float32(0), soft)
    return Fused(soft.astype(np.float32, copy=False), ignored, votes, lesions)


def votes_of(loaded: LoadedCase, settings: CaseSettings) -> RaterVotes:
    """The raters' label maps as votes on channels."""
    labels, maps = settings.labels, list(loaded.rater_maps.values())
    answered = None
    if labels.ignore is not None:
        answered = np.stack([label_map != labels.ignore for label_map in maps])
    return RaterVotes(
        channels_of_raters(maps, labels),
        tuple(loaded.rater_maps),
        answered=answered,
        spacing_mm=loaded.grid.spacing_of_axes_mm,
        exclusive=not labels.has_regions,
    )


def _fuse_lesions(case: Case, votes: RaterVotes, loaded: LoadedCase, settings: CaseSettings) -> FusedLesions:
    models, names = settings.estimates.detection, settings.labels.names
    known = None
    if case.adjudicated:
        found = [find_candidates(votes, c, _channel(loaded, c)).candidates for c in range(len(names))]
        known = [known_of(case, name, own) for name, own in zip(names, found, strict=True)]
    return fuse_lesions(votes, models=models, probabilities=loaded.probabilities, known=known)


def _channel(loaded: LoadedCase, channel: int) -> NDArray[Any] | None:
    return None if loaded.probabilities is None else loaded.probabilities[channel]


def known_of(case: Case, label: str, candidates: Sequence[Candidate]) -> list[bool | None]:
    """What an expert said of each candidate of a label, None of those not looked at.

    Raises:
        DatasetError: for a candidate that is not there, or elsewhere.
    """
    said = case.adjudicated.get(label, {})
    for number, one in sorted(said.items()):
        if not 1 <= number <= len(candidates):
            raise DatasetError(
                f"Case {case.name}: candidate {number} of {label} was adjudicated, but there are "
                f"{len(candidates)}; was the file made with other predictions?"
            )
        centre = candidates[number - 1].centre
        if one.centre is not None and one.centre != centre:
            raise DatasetError(
                f"Case {case.name}: candidate {number} of {label} was adjudicated at {one.centre} and is "
                f"now at {centre}; was the file made with other predictions?"
            )
    return [said[n].is_real if n in said else None for n in range(1, len(candidates) + 1)]


def _fuse(case: Case, votes: RaterVotes, settings: CaseSettings) -> NDArray[Any]:
    options = dict(settings.fusion_options)
    if settings.estimates.rates is not None:
        options["rates"] = settings.estimates.rates
        _check_has_rates(case, settings)
    try:
        return FUSIONS[settings.fusion](votes, **options)
    except ValueError as error:
        raise DatasetError(f"Case {case.name}: --fusion {settings.fusion}: {error}") from error


def _check_has_rates(case: Case, settings: CaseSettings) -> None:
    rates = settings.estimates.rates
    unknown = [] if rates is None else [r for r in sorted(case.raters) if not rates.has(r)]
    if unknown:
        raise DatasetError(
            f"Case {case.name}: rater {unknown[0]} rated no training case, so --staple-scope dataset has no "
            f"rates; add --anonymous-raters, which gives all raters the same, or use --staple-scope case."
        )
