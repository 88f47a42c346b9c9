"""Fixtures of the scored data set."""

from tests.scored_dataset import build, build_at, rng

__all__ = ["build", "build_at", "rng"]
