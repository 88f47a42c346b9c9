"""One case of a conversion: from its raters, or ready maps, to a soft label before any prior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.cases.rater_maps import RaterMaps
from nnunet_softlabel.conversion.one_case.fuse_raters import fuse_raters, shared_to_one
from nnunet_softlabel.conversion.one_case.read import LoadedCase
from nnunet_softlabel.conversion.settings import CaseSettings
from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.packed import PackedMap
from nnunet_softlabel.fusion.candidate import Candidate
from nnunet_softlabel.fusion.lesion_candidates import find_candidates
from nnunet_softlabel.fusion.lesions import fuse_channel
from nnunet_softlabel.fusion.rater_rates import MOST_RATERS, CountsJson

LESION_WISE = "lesion-wise"


@dataclass(frozen=True)
class JudgedLesions:
    """How lesion-wise fusion judged the candidates.

    Attributes:
        candidates: per channel.
        posteriors: per channel, the probability of each candidate to be a lesion; NaN: the mean stays.
    """

    candidates: tuple[tuple[Candidate, ...], ...]
    posteriors: tuple[NDArray[Any], ...]


@dataclass(frozen=True)
class Fused:
    """A fused case.

    Attributes:
        soft: foreground probabilities, one float32 map per channel; 0 where ``ignored``.
        ignored: bool, True where nothing is to be learnt (nobody answered, or masked), or None if the labels
            know no ignore value.
        raters: what was fused; None for ready probability maps.
        lesions: how lesion-wise fusion judged the candidates; None for any other.
    """

    soft: list[PackedMap]
    ignored: PackedMap | None
    raters: RaterMaps | None
    lesions: JudgedLesions | None = None

    def counted(self) -> CountsJson | None:
        """How many voxels got which votes, as JSON; None for maps, and for too many raters to count."""
        if self.raters is None or len(self.raters.names) > MOST_RATERS:
            return None
        return self.raters.counts(self.ignored).to_json()


def fuse_case(case: Case, loaded: LoadedCase, settings: CaseSettings) -> Fused:
    """Fuse the raters of a case.

    Raises:
        DatasetError: if the fusion cannot work with these raters.
    """
    lesions: JudgedLesions | None = None
    raters = loaded.raters if loaded.soft is None else None
    ignored = loaded.ignored if raters is None else _with_unanswered(raters, loaded.ignored)
    if raters is None:
        assert loaded.soft is not None, "a case has raters or a soft label"
        soft = list(loaded.soft)
    elif settings.fusion == LESION_WISE:
        soft, lesions = _fuse_lesions(case, raters, loaded, settings)
    else:
        soft = _fuse(case, raters, settings)
    return Fused(_without(ignored, soft), ignored, raters, lesions)


def _with_unanswered(raters: RaterMaps, ignored: PackedMap | None) -> PackedMap | None:
    """What is masked, or answered by nobody."""
    if raters.labels.ignore is None:
        return ignored
    both = PackedMap(raters.shape, bool)
    if ignored is not None:
        for index in range(both.n_chunks):
            both.put(index, ignored.get(index))
    for chunk in raters.chunks():
        assert chunk.answered is not None, "there is an ignore value"
        both.put(chunk.index, both.get(chunk.index) | ~chunk.answered.any(axis=0))
    return both


def _without(ignored: PackedMap | None, soft: Sequence[PackedMap]) -> list[PackedMap]:
    """The soft label, 0 where it is ignored."""
    if ignored is None:
        return list(soft)
    kept = []
    for packed in soft:
        own = PackedMap(packed.shape, np.float32)
        for index in range(own.n_chunks):
            if not packed.is_zero(index):
                own.put(index, np.where(ignored.get(index), np.float32(0), packed.get(index)))
        kept.append(own)
    return kept


def _fuse_lesions(
    case: Case, raters: RaterMaps, loaded: LoadedCase, settings: CaseSettings
) -> tuple[list[PackedMap], JudgedLesions]:
    models, names = settings.estimates.detection, settings.labels.names
    known: list[list[bool | None]] | None = None
    if case.adjudicated:
        found = [candidates_of(raters, c, channel_of(loaded, c)) for c in range(len(names))]
        known = [known_of(case, name, own) for name, own in zip(names, found, strict=True)]
    soft, candidates, posteriors = [], [], []
    for channel in range(len(names)):
        label, own, posterior = fuse_channel(
            raters.channel(channel),
            0,
            model=models[channel] if models else None,
            probability=channel_of(loaded, channel),
            known=known[channel] if known else None,
        )
        soft.append(PackedMap.of(label))
        candidates.append(own)
        posteriors.append(posterior)
    shared = shared_to_one(soft, exclusive=not settings.labels.has_regions)
    return shared, JudgedLesions(tuple(candidates), tuple(posteriors))


def candidates_of(raters: RaterMaps, channel: int, probability: NDArray[Any] | None) -> tuple[Candidate, ...]:
    """The candidates of one channel."""
    return find_candidates(raters.channel(channel), 0, probability).candidates


def channel_of(loaded: LoadedCase, channel: int) -> NDArray[Any] | None:
    """What a network says of a channel; None without one."""
    return None if loaded.probabilities is None else loaded.probabilities.channel(channel)


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


def _fuse(case: Case, raters: RaterMaps, settings: CaseSettings) -> list[PackedMap]:
    options = dict(settings.fusion_options)
    if settings.estimates.rates is not None:
        options["rates"] = settings.estimates.rates
        _check_has_rates(case, settings)
    try:
        return fuse_raters(raters, settings.fusion, options)
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
