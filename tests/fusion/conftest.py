"""Raters to fuse: random ones of every kind, and a maker for hand-worked cases."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import ndimage

from nnunet_softlabel.fusion import RaterVotes

RATER_KINDS = ("one class", "classes", "regions", "unanswered", "2d", "empty", "one rater")


def random_raters(kind: str, *, seed: int = 0) -> RaterVotes:
    """Three raters (or one) with smooth random blobs; ``kind`` is one of ``RATER_KINDS``."""
    rng = np.random.default_rng(seed)
    spatial = (12, 14) if kind == "2d" else (6, 12, 14)
    n_channels = 2 if kind in ("classes", "regions") else 1
    n_raters = 1 if kind == "one rater" else 3
    common = rng.normal(size=(1, n_channels, *spatial))
    own = rng.normal(size=(n_raters, n_channels, *spatial))
    field = ndimage.gaussian_filter(common + 0.7 * own, (0, 0, *(1.5 for _ in spatial)))
    votes = field > np.quantile(field, 0.85)
    if kind == "classes":
        votes[:, 1] &= ~votes[:, 0]
    if kind == "empty":
        votes[:] = False
    answered = rng.random((n_raters, *spatial)) < 0.8 if kind == "unanswered" else None
    names = tuple(f"rater{r}" for r in range(n_raters))
    spacing_mm = (2.0, 1.0, 0.5)[-len(spatial) :]
    return RaterVotes(votes, names, spacing_mm, answered=answered, exclusive=kind != "regions")


@pytest.fixture(params=RATER_KINDS)
def raters(request: pytest.FixtureRequest) -> RaterVotes:
    """Raters of each kind in turn."""
    return random_raters(request.param)


@pytest.fixture(params=range(5))
def class_raters(request: pytest.FixtureRequest) -> RaterVotes:
    """Raters of two exclusive classes, five times."""
    return random_raters("classes", seed=request.param)


@pytest.fixture
def votes_of() -> Callable[..., RaterVotes]:
    """Maker of 2D raters from nested lists: ``(R, C, H, W)`` or, for one channel, ``(R, H, W)``."""

    def make(votes: list, **options: object) -> RaterVotes:
        array = np.array(votes, dtype=bool)
        array = array[:, None] if array.ndim == 3 else array
        names = tuple("abcdefgh"[: len(array)])
        return RaterVotes(array, names, (1.0, 1.0), **options)  # type: ignore[arg-type]

    return make
