"""What the raters of a case drew, class by class, as scores need it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.formats.encoding import channels_of
from nnunet_softlabel.formats.labels import Labels


@dataclass(frozen=True)
class RaterMembers:
    """Raters of a case: membership ``(C, *spatial)`` of each, and the voxels each answered (None: all)."""

    members: dict[str, NDArray[Any]]
    answered: dict[str, NDArray[Any] | None]

    @classmethod
    def of(cls, maps: Mapping[str, NDArray[Any]], labels: Labels) -> RaterMembers:
        """From label maps in the data set's values."""
        answered = {name: None if labels.ignore is None else m != labels.ignore for name, m in maps.items()}
        return cls({name: channels_of(m, labels) for name, m in maps.items()}, answered)

    def others(self, name: str) -> list[str]:
        """All raters but this one."""
        return [other for other in self.members if other != name]

    def mean_of(self, names: Sequence[str]) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Mean of these raters over those who answered, and where anyone did (None: everywhere)."""
        answered = [a for name in names if (a := self.answered[name]) is not None]
        if not answered:
            return np.asarray(np.mean([self.members[n] for n in names], axis=0, dtype=np.float32)), None
        count = np.sum(answered, axis=0)
        votes = np.sum([self.members[n] & a for n, a in zip(names, answered, strict=True)], axis=0)
        return (votes / np.maximum(count, 1)).astype(np.float32), count > 0
