"""Something in one channel of one case that is a lesion or is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict

# A network sees a lesion where its probability exceeds this.
SEEN_ABOVE = 0.15


class CandidateJson(TypedDict):
    """A `Candidate` as JSON keeps it."""

    votes: dict[str, bool]
    size_mm: float
    score: float | None
    centre: list[int]


@dataclass(frozen=True)
class Candidate:
    """Something in one channel of one case that is a lesion or is not.

    Attributes:
        votes: rater -> whether the rater marked it; raters who gave no answer there are not in it.
        size_mm: volume in mm^3 (area in mm^2 of a flat image): mean over those who marked it, or of what the
            network sees.
        score: the network's highest probability in it, after slight smoothing; None without a network.
        centre: indices of a voxel in its middle.
    """

    votes: Mapping[str, bool]
    size_mm: float
    score: float | None
    centre: tuple[int, ...]

    @property
    def is_marked(self) -> bool:
        """True if any rater marked it."""
        return any(self.votes.values())

    @property
    def is_seen(self) -> bool:
        """True if the network sees it."""
        return self.score is not None and self.score > SEEN_ABOVE

    def to_json(self) -> CandidateJson:
        """Plain values."""
        return {
            "votes": dict(self.votes),
            "size_mm": self.size_mm,
            "score": self.score,
            "centre": list(self.centre),
        }

    @classmethod
    def from_json(cls, content: CandidateJson) -> Candidate:
        """Inverse of `to_json`."""
        return cls(dict(content["votes"]), content["size_mm"], content["score"], tuple(content["centre"]))
