"""Stock and the default with several seeds: the spread between trainings, and the mean of their networks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from docs.studies.shared.resumable import Cell

SEEDS = ("0", "1", "2")
ALL_SEEDS = " ".join(SEEDS)
AVERAGED = ", mean of three"
KEY = ("trainer", "seed", "fold")


def cells(trainers: Sequence[str], folds: Sequence[str]) -> Iterator[Cell]:
    """Fold by fold, so that what is done is paired: every trainer with every seed, then their means."""
    for fold in folds:
        for seed in SEEDS:
            yield from ((trainer, seed, fold) for trainer in trainers)
        yield from ((f"{trainer}{AVERAGED}", ALL_SEEDS, fold) for trainer in trainers)
