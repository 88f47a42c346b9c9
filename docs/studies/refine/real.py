"""Real readers: who misses whole nodules in LIDC, and data in which nobody misses anything."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from docs.studies.refine.scenes import Images, Tiles, found_shares, nodules_and_empty_tiles
from docs.studies.shared.cases import CaseData, brain_growth_cases, hippocampus_cases
from docs.studies.shared.small_network import normalised

HIPPOCAMPUS_CLASSES = ("anterior", "posterior")
LIDC_READERS = 4
DEPTHS = (0.25, 0.5, 0.75)  # of the slices of a hippocampus, over the extent of the class
MULTIPLE = 8  # of pixels, for the network's three strides


def real_readers(data: str, regime: str, seed: int) -> tuple[Images, Images]:
    """Images to train on, with their readers, and images of other patients to test on.

    Args:
        data: ``lidc``, ``brain growth`` or ``hippocampus``.
        regime: of the hippocampus, the class; else ``real``.
        seed: of the split of the patients, two to one.
    """
    if data == "lidc":
        return _nodules(seed)
    cases = brain_growth_cases() if data == "brain growth" else hippocampus_cases()
    channel = 0 if data == "brain growth" else HIPPOCAMPUS_CLASSES.index(regime)
    training = patients_to_train_on((case.group for case in cases), seed)
    parts = [[c for c in cases if (c.group in training) == wanted] for wanted in (True, False)]
    first, second = (_of_cases(part, channel) for part in parts)
    return first, second.without_votes()


def patients_to_train_on(patients: Iterable[str], seed: int) -> set[str]:
    """Two thirds of the patients, by lot."""
    order = np.random.default_rng([seed, 23]).permutation(sorted(set(patients)))
    return set(order[: 2 * len(order) // 3].tolist())


def _of_cases(cases: Sequence[CaseData], channel: int) -> Images:
    """One image per slice that is taken; the majority is the truth where none is known."""
    image, votes, truth = [], [], []
    for case in cases:
        drawn = case.votes[:, channel]
        for z in _slices(drawn):
            image.append(_divisible(case.image[z]))
            votes.append(np.stack([_divisible(d) for d in drawn[:, z]]))
            known = drawn[:, z].mean(axis=0) > 0.5 if case.truth is None else case.truth[channel, z]
            truth.append(_divisible(known))
    marks = np.stack(votes)
    clean = (
        marks.mean(axis=1, dtype=np.float32) if cases[0].truth is None else np.stack(truth).astype(np.float32)
    )
    flat = np.zeros(clean.shape, np.uint8)
    rates = np.full(marks.shape[1], np.nan)
    return Images(np.stack(image), marks, np.stack(truth), clean, flat, rates, cases[0].spacing_mm[1:])


def _slices(drawn: np.ndarray) -> Sequence[int]:
    """Of a flat image the only one; of a volume some between the ends of what was drawn."""
    marked = np.flatnonzero(drawn.any(axis=(0, 2, 3)))
    return sorted({int(np.quantile(marked, depth)) for depth in DEPTHS}) if len(drawn[0]) > 1 else [0]


def _divisible(flat: np.ndarray) -> np.ndarray:
    """The image, cut at its end to a multiple of `MULTIPLE`."""
    height, width = (size // MULTIPLE * MULTIPLE for size in flat.shape)
    return flat[:height, :width]


def _nodules(seed: int) -> tuple[Images, Images]:
    """The largest slice of each nodule, and an empty slice for each.

    Three of the four anonymous readers drew some nodules. The fourth drew nothing there, which is taken for
    a miss. To test on there are the nodules that all four drew.
    """
    every, complete = nodules_and_empty_tiles(fewest=3), nodules_and_empty_tiles(fewest=LIDC_READERS)
    training = patients_to_train_on((patient for patient, *_ in every.nodules), seed)
    rng = np.random.default_rng([seed, 29])
    return (
        _of_tiles(every, training, True, rng),
        _of_tiles(complete, training, False, rng).without_votes(),
    )


def _of_tiles(tiles: Tiles, training: set[str], is_training: bool, rng: np.random.Generator) -> Images:
    nodules = [n for n in tiles.nodules if (n[0] in training) == is_training]
    empty = [e for e in tiles.empty if (e[0] in training) == is_training]
    image = [n[1] for n in nodules] + [empty[int(i)][1] for i in rng.choice(len(empty), len(nodules))]
    votes = np.zeros((len(image), LIDC_READERS, *image[0].shape), bool)
    for own, (_, _, drawn) in zip(votes, nodules, strict=False):
        own[: len(drawn)] = drawn
        own[:] = own[rng.permutation(LIDC_READERS)]
    truth = votes.sum(axis=1) > LIDC_READERS / 2
    clean, bone = votes.mean(axis=1, dtype=np.float32), np.zeros(truth.shape, np.uint8)
    rates = np.full(LIDC_READERS, np.mean(found_shares(votes.any(axis=1), votes)))
    return Images(
        np.stack([normalised(i) for i in image]), votes, truth, clean, bone, rates, (0.7, 0.7), True
    )
