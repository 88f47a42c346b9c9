"""The label maps of the raters of one case, packed; and their votes, chunk by chunk or label by label.

The votes of all raters on all labels would take a byte per voxel, rater and label. Nothing here holds them at
once: `RaterMaps.chunks` gives those of a chunk of voxels, `RaterMaps.channel` those of one label.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.boxes import Box
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.formats.packed import PackedMap, is_zero_in_all
from nnunet_softlabel.fusion.rater_rates import RaterCounts, VotePattern
from nnunet_softlabel.fusion.rater_votes import RaterVotes, box_of


@dataclass(frozen=True)
class VotesInChunk:
    """The votes in a chunk of voxels, on the channels that any rater marked there.

    Attributes:
        index: of the chunk.
        channels: that are marked, in order; there may be none.
        votes: ``(R, len(channels), n)`` bool.
        answered: ``(R, n)`` bool, or None: everybody answered.
    """

    index: int
    channels: tuple[int, ...]
    votes: NDArray[Any]
    answered: NDArray[Any] | None


@dataclass(frozen=True)
class RaterMaps:
    """What the raters of one case drew.

    Attributes:
        maps: rater -> label map in the data set's values, all of one shape.
        labels: what the channels mean.
        spacing_mm: voxel size in array order.
    """

    maps: dict[str, PackedMap]
    labels: Labels
    spacing_mm: tuple[float, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the raters."""
        return tuple(self.maps)

    @property
    def packed(self) -> list[PackedMap]:
        """One map per rater."""
        return list(self.maps.values())

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the image."""
        return self.packed[0].shape

    @property
    def n_channels(self) -> int:
        """Number of foreground classes or regions."""
        return len(self.labels.names)

    def chunks(self) -> Iterator[VotesInChunk]:
        """The votes in every chunk in which a rater marked anything, or gave no answer."""
        for index in range(self.packed[0].n_chunks):
            if is_zero_in_all(self.packed, index):
                continue
            values = np.stack([packed.get(index) for packed in self.packed])
            masks = {channel: self._mask(values, channel) for channel in range(self.n_channels)}
            channels = tuple(channel for channel, mask in masks.items() if mask.any())
            votes = np.empty((len(values), len(channels), values.shape[1]), bool)
            for row, channel in enumerate(channels):
                votes[:, row] = masks[channel]
            answered = None if self.labels.ignore is None else values != self.labels.ignore
            yield VotesInChunk(index, channels, votes, answered)

    def _mask(self, values: NDArray[Any], channel: int) -> NDArray[Any]:
        """Where label values lie in a channel."""
        first, *others = tuple(self.labels.values.values())[channel]
        mask: NDArray[Any] = values == first
        for value in others:
            mask |= values == value
        return mask

    def raters_in(self, chunk: VotesInChunk) -> RaterVotes:
        """The votes of a chunk with a marked channel, as a line of voxels."""
        return RaterVotes(
            chunk.votes,
            self.names,
            spacing_mm=(1.0,),
            answered=chunk.answered,
            exclusive=not self.labels.has_regions,
        )

    def masks(self, channel: int, box: Box = ()) -> Iterator[tuple[NDArray[Any], NDArray[Any] | None]]:
        """What each rater marked, and where there is an answer (None: everywhere), in a box of the image."""
        for packed in self.packed:
            values = packed.whole()[box]
            answered = None if self.labels.ignore is None else values != self.labels.ignore
            yield self._mask(values, channel), answered

    def channel(self, channel: int) -> RaterVotes:
        """The votes of all raters on one channel, ``(R, 1, *spatial)``."""
        votes = np.empty((len(self.names), 1, *self.shape), bool)
        answered = None if self.labels.ignore is None else np.empty((len(self.names), *self.shape), bool)
        for rater, (mask, own) in enumerate(self.masks(channel)):
            votes[rater, 0] = mask
            if answered is not None:
                answered[rater] = own
        exclusive = not self.labels.has_regions
        return RaterVotes(votes, self.names, self.spacing_mm, answered=answered, exclusive=exclusive)

    def marked_box(self, *, margin_mm: float) -> Box | None:
        """See `rater_votes.marked_box`."""
        marked = np.zeros(self.shape, bool)
        flat = marked.reshape(-1)
        for chunk in self.chunks():
            flat[self.packed[0].part(chunk.index)] = chunk.votes.any(axis=(0, 1))
        return box_of(marked, self.spacing_mm, margin_mm=margin_mm)

    def counts(self, ignored: PackedMap | None = None, box: Box | None = None) -> RaterCounts:
        """How many voxels got which votes, outside what is ignored and inside a box.

        Args:
            ignored: bool ``(*spatial)``.
            box: None: the whole image.

        Raises:
            ValueError: for too many raters.
        """
        totals: list[Counter[VotePattern]] = [Counter() for _ in range(self.n_channels)]
        counted = _Counted(self.packed[0], ignored, box)
        unseen = set(range(self.packed[0].n_chunks))
        for chunk in self.chunks():
            unseen.remove(chunk.index)
            chosen = counted.voxels(chunk.index)
            answered = None if chunk.answered is None else chunk.answered[:, chosen]
            inside = replace(chunk, votes=chunk.votes[..., chosen], answered=answered)
            for channel, patterns in self._patterns(inside):
                totals[channel].update(patterns)
        # in other chunks nobody marked anything and all answered
        rest = sum(int(np.count_nonzero(counted.voxels(index))) for index in unseen)
        for total in totals:
            total.update(self._unmarked(rest, None))
        return RaterCounts(self.names, tuple(dict(total) for total in totals))

    def _patterns(self, chunk: VotesInChunk) -> Iterator[tuple[int, Mapping[VotePattern, int]]]:
        """Channel -> votes -> number of voxels in a chunk."""
        n = chunk.votes.shape[-1]
        unmarked = self._unmarked(n, chunk.answered)
        marked = RaterCounts.of(self.raters_in(chunk)).channels if n and chunk.channels else ()
        of_channel = dict(zip(chunk.channels, marked, strict=False))
        for channel in range(self.n_channels):
            yield channel, of_channel.get(channel, unmarked)

    def _unmarked(self, n: int, answered: NDArray[Any] | None) -> Mapping[VotePattern, int]:
        """Votes on a channel that nobody marked in ``n`` voxels."""
        if not n:
            return {}
        if answered is None:
            return {tuple((name, False) for name in sorted(self.names)): n}
        nobody = np.zeros((len(self.names), 1, n), bool)
        return RaterCounts.of(RaterVotes(nobody, self.names, (1.0,), answered=answered)).channels[0]


@dataclass(frozen=True)
class _Counted:
    """Which voxels of a chunk count: those in a box, and not ignored."""

    like: PackedMap
    ignored: PackedMap | None
    box: Box | None

    def voxels(self, index: int) -> NDArray[Any]:
        """``(n,)`` bool."""
        part = self.like.part(index)
        chosen = np.ones(part.stop - part.start, bool)
        if self.box is not None:
            position = np.unravel_index(np.arange(part.start, part.stop), self.like.shape)
            for axis, side in zip(position, self.box, strict=True):
                chosen &= (axis >= side.start) & (axis < side.stop)
        if self.ignored is not None and not self.ignored.is_zero(index):
            chosen &= ~self.ignored.get(index)
        return chosen
