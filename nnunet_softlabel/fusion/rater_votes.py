"""What the raters of one case said, voxel by voxel: the input of every fusion."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.boxes import Box, bounding_box


@dataclass(frozen=True)
class RaterVotes:
    """The votes of ``R`` raters on ``C`` foreground channels of one case.

    Raters who did not see the case are simply not in it.

    Attributes:
        votes: ``(R, C, *spatial)`` bool, True where rater r's label lies in channel c.
        names: of the R raters.
        spacing_mm: voxel size in array order.
        answered: ``(R, *spatial)`` bool, False where the rater gave no answer (marked "ignore"); the rater's
            votes there do not count. None: every rater answered everywhere.
        exclusive: True where the channels are classes of a softmax, at most one per voxel; False where they
            are overlapping regions.
    """

    votes: NDArray[Any]
    names: tuple[str, ...]
    spacing_mm: tuple[float, ...]
    answered: NDArray[Any] | None = None
    exclusive: bool = True

    def __post_init__(self) -> None:
        """Refuse arrays that do not fit together."""
        if self.votes.dtype != np.bool_ or self.votes.ndim < 3:
            raise ValueError(
                f"votes must be bool (R, C, *spatial), got {self.votes.dtype} of shape {self.votes.shape}"
            )
        if 0 in self.votes.shape:
            raise ValueError(f"votes need a rater, a channel and a voxel, got shape {self.votes.shape}")
        if len(self.names) != self.votes.shape[0] or len(set(self.names)) != len(self.names):
            raise ValueError(
                f"names must be {self.votes.shape[0]} different ones, one per rater, got {self.names}"
            )
        if len(self.spacing_mm) != len(self.spatial_shape) or not all(s > 0 for s in self.spacing_mm):
            raise ValueError(
                f"spacing_mm must hold {len(self.spatial_shape)} positive numbers, got {self.spacing_mm}"
            )
        if self.answered is not None and (
            self.answered.dtype != np.bool_ or self.answered.shape != (self.n_raters, *self.spatial_shape)
        ):
            raise ValueError(
                f"answered must be bool of shape {(self.n_raters, *self.spatial_shape)}, "
                f"got {self.answered.dtype} of shape {self.answered.shape}"
            )
        if self.exclusive and self.n_channels > 1 and self._has_double_votes():
            raise ValueError(
                "votes lie in two classes at once; exclusive=False is for regions, which may overlap"
            )

    @property
    def n_raters(self) -> int:
        """``R``."""
        return self.votes.shape[0]

    @property
    def n_channels(self) -> int:
        """``C``, the number of foreground classes or regions."""
        return self.votes.shape[1]

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """Shape of the image."""
        return self.votes.shape[2:]

    def counted_votes(self) -> Iterator[NDArray[Any]]:
        """Yield each rater's ``(C, *spatial)`` votes, False where the rater gave no answer."""
        for rater, votes in enumerate(self.votes):
            yield votes if self.answered is None else votes & self.answered[rater]

    def n_votes(self) -> NDArray[Any]:
        """How many raters voted for each channel: ``(C, *spatial)`` small integers."""
        counts = np.zeros(self.votes.shape[1:], dtype=self._count_dtype())
        for votes in self.counted_votes():
            counts += votes
        return counts

    def n_answers(self) -> NDArray[Any] | int:
        """How many raters answered: ``(*spatial)`` small integers, or ``R`` if all did everywhere."""
        if self.answered is None:
            return self.n_raters
        return self.answered.sum(axis=0, dtype=self._count_dtype())

    def dice_of_pair(self, first: int, second: int, channel: int | slice = slice(None)) -> float:
        """Dice of what two raters (indices) marked, over the voxels that both answered; NaN if both nothing.

        Args:
            first: index of a rater.
            second: index of another.
            channel: one, or all channels together.
        """
        both, total = self.overlap_of_pair(first, second, channel)
        return 2 * both / total if total else float("nan")

    def overlap_of_pair(self, first: int, second: int, channel: int | slice = slice(None)) -> tuple[int, int]:
        """Voxels that two raters both marked, and the sum of what each marked, as for `dice_of_pair`."""
        one, other = self.votes[first, channel], self.votes[second, channel]
        if self.answered is not None:
            both = self.answered[first] & self.answered[second]
            one, other = one & both, other & both
        total = int(np.count_nonzero(one)) + int(np.count_nonzero(other))
        return int(np.count_nonzero(one & other)), total

    def cropped(self, box: Box) -> RaterVotes:
        """The same raters within a box of the image; arrays are views."""
        inside = (slice(None), slice(None), *box)
        answered = None if self.answered is None else self.answered[inside[1:]]
        return replace(self, votes=self.votes[inside], answered=answered)

    def _count_dtype(self) -> type[np.unsignedinteger]:
        return np.uint8 if self.n_raters < 128 else np.uint32

    def _has_double_votes(self) -> bool:
        return any(votes.sum(axis=0, dtype=np.uint8).max() > 1 for votes in self.votes)


def marked_box(raters: RaterVotes, *, margin_mm: float) -> Box | None:
    """Slices of the smallest box around everything any rater marked, widened by a margin; None if nothing is.

    The margin is rounded up to whole voxels and cut at the image's edge.
    """
    marked = np.asarray(raters.votes.any(axis=(0, 1)))
    return box_of(marked, raters.spacing_mm, margin_mm=margin_mm)


def box_of(marked: NDArray[Any], spacing_mm: Sequence[float], *, margin_mm: float) -> Box | None:
    """As `marked_box`, around the True of a mask."""
    margins = [
        size if np.isinf(margin_mm) else int(np.ceil(margin_mm / spacing))
        for size, spacing in zip(marked.shape, spacing_mm, strict=True)
    ]
    box = bounding_box(marked, margin=margins)
    return box if all(side.stop for side in box) else None


def share_excess(soft: NDArray[Any], *, exclusive: bool) -> NDArray[Any]:
    """Scale, in place, exclusive channels whose sum exceeds 1 so that it is 1; return them."""
    if exclusive and soft.shape[0] > 1:
        soft /= np.maximum(soft.sum(axis=0), 1)
    return soft
