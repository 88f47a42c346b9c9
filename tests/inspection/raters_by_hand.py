"""Raters of one class, drawn by hand."""

from __future__ import annotations

import numpy as np

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.fusion import RaterVotes
from nnunet_softlabel.inspection import (
    CaseMeasures,
    measure_case,
)

LESION = Labels({"lesion": (1,)})


def votes_of(*masks: list[list[int]], answered: list[list[list[int]]] | None = None) -> RaterVotes:
    """Raters a, b, ... of one class on a flat image with pixels of 1 x 2 mm."""
    votes = np.array(masks, dtype=bool)[:, None]
    mask = None if answered is None else np.array(answered, dtype=bool)
    return RaterVotes(votes, tuple("abcdef"[: len(votes)]), (1.0, 2.0), answered=mask)


def one(raters: RaterVotes) -> CaseMeasures:
    return measure_case(raters)[0]


def discs(num_cases: int, num_raters: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Raters who draw the same disc with a little error."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:40, :40]
    return [
        {
            f"r{rater}": (np.hypot(y - 20 - rng.normal(0, 0.4), x - 20) < 10 + rng.normal(0, 0.4)).astype(
                np.uint8
            )
            for rater in range(num_raters)
        }
        for _ in range(num_cases)
    ]


def as_cases(maps: list[dict[str, np.ndarray]]) -> list[Case]:
    return [Case(f"case{i:02d}", [], raters=raters) for i, raters in enumerate(maps)]
