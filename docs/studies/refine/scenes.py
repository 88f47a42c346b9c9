"""Images, what readers drew on them, and the truth: generated knees, and scenes of LIDC tiles."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from scipy import ndimage
from scipy.stats import norm

from docs.studies.shared.cases import TILE, lidc_cases
from docs.studies.shared.small_network import normalised
from nnunet_softlabel.simulation.knee_phantom import KneeLesions, make_knee_phantom, phantom_raters

N_TRAINING, N_TEST = 60, 60
KNEE_SHAPE = (64, 64)
N_SCENES = 120
# Of the three readers of a scene: the share of nodules they leave out, of empty tiles they invent one in.
MISSES, INVENTIONS = (0.3, 0.5, 0.7), (0.05, 0.15, 0.25)
SCENE_REGIMES = ("none", "missed", "correlated", "invented", "all")
READERS = ("a", "b", "c", "d", "e", "f", "g")  # as many as there are

# (patient, image, outlines) of each nodule's largest slice; (patient, image) of empty slices
Nodule = tuple[str, np.ndarray, np.ndarray]
Empty = tuple[str, np.ndarray]


@dataclass(frozen=True)
class Images:
    """Images of one size, one class.

    Attributes:
        image: ``(N, H, W)`` float32, normalised.
        votes: ``(N, R, H, W)`` bool; R = 0 for images to test on.
        truth: ``(N, H, W)`` bool.
        clean: ``(N, H, W)`` float32: mean of readers who miss and invent nothing.
        bone: ``(N, H, W)`` uint8, for the anatomical priors; zeros if there are none.
        rates: ``(R,)`` share of the true lesions that each reader marked.
        spacing_mm: of a pixel.
        is_anonymous: whether reader a of one image is not reader a of another.
    """

    image: np.ndarray
    votes: np.ndarray
    truth: np.ndarray
    clean: np.ndarray
    bone: np.ndarray
    rates: np.ndarray
    spacing_mm: tuple[float, float]
    is_anonymous: bool = False

    def without_votes(self) -> Images:
        """To test on."""
        return replace(self, votes=self.votes[:, :0], rates=self.rates[:0])


@dataclass(frozen=True)
class Tiles:
    """Squares of 48 pixels from LIDC."""

    nodules: list[Nodule]
    empty: list[Empty]


def knees(regime: str, contrast: float, correlation: float, seed: int) -> tuple[Images, Images]:
    """Knees to train on, drawn by three readers, and knees to test on."""
    first = 10_000 + 1_000 * seed
    return (
        _knees(range(first, first + N_TRAINING), regime, contrast, correlation),
        _knees(range(first + 500, first + 500 + N_TEST), None, contrast, correlation),
    )


def _knees(seeds: range, regime: str | None, contrast: float, correlation: float) -> Images:
    phantoms = [make_knee_phantom(s, shape=KNEE_SHAPE, lesions=KneeLesions(contrast=contrast)) for s in seeds]
    truth = np.stack([p.truth == 1 for p in phantoms])
    votes = np.zeros((len(truth), 0, *KNEE_SHAPE), bool)
    if regime is not None:
        drawn = [
            phantom_raters(p, regime, seed=s, correlation=correlation) == 1
            for s, p in zip(seeds, phantoms, strict=True)
        ]
        votes = np.stack(drawn)
    return Images(
        np.stack([normalised(p.image) for p in phantoms]),
        votes,
        truth,
        truth.astype(np.float32),
        np.stack([p.bone_mask for p in phantoms]),
        found_shares(truth, votes),
        phantoms[0].spacing_mm,  # type: ignore[arg-type]
    )


def found_shares(truth: np.ndarray, votes: np.ndarray) -> np.ndarray:
    """Share of the true lesions of which each reader marked a pixel."""
    found = []
    for image, drawn in zip(truth, votes, strict=True):
        lesions, n = ndimage.label(image, structure=np.ones((3, 3)))
        found += [[(lesions[d] == k).any() for d in drawn] for k in range(1, n + 1)]
    return np.mean(found, axis=0) if found and votes.shape[1] else np.zeros(votes.shape[1])


@cache
def nodules_and_empty_tiles(fewest: int) -> Tiles:
    """The largest slice of each nodule that ``fewest`` readers or more drew, there too; all empty slices."""
    nodules, empty = [], []
    for case in lidc_cases():
        marked = case.votes[:, 0].any(axis=(0, 2, 3))
        empty += [(case.group, case.image[z]) for z in np.flatnonzero(~marked)]
        if len(case.votes) >= fewest:
            z = int(case.votes.sum(axis=(0, 1, 3, 4)).argmax())
            if case.votes[:, 0, z].any(axis=(1, 2)).all():
                nodules.append((case.group, case.image[z], case.votes[:, 0, z]))
    return Tiles(nodules, empty)


def lidc_scenes(regime: str, seed: int) -> tuple[Images, Images]:
    """Scenes of 2 x 2 tiles to train on, and scenes of other patients to test on."""
    tiles = nodules_and_empty_tiles(fewest=4)
    nodules, empty = tiles.nodules, tiles.empty
    rng = np.random.default_rng([seed, 17])
    patients = rng.permutation(sorted({p for p, *_ in nodules} | {p for p, _ in empty}))
    training = set(patients[: 2 * len(patients) // 3])
    parts = []
    for is_training in (True, False):
        lesions = [n for n in nodules if (n[0] in training) == is_training]
        others = [e for e in empty if (e[0] in training) == is_training]
        parts.append(_scenes(lesions, others, regime if is_training else None, rng))
    return parts[0], parts[1]


def _scenes(
    nodules: list[Nodule], empty: list[Empty], regime: str | None, rng: np.random.Generator
) -> Images:
    image = np.zeros((N_SCENES, 2 * TILE, 2 * TILE), np.float32)
    outlines = np.zeros((N_SCENES, 4, 2 * TILE, 2 * TILE), bool)
    votes = np.zeros((N_SCENES, 3, 2 * TILE, 2 * TILE), bool)
    sizes = np.array([n[2].sum(axis=(1, 2)).mean() for n in nodules])
    rank = sizes.argsort().argsort() / len(sizes)  # 0: the smallest
    for scene in range(N_SCENES):
        for corner in np.ndindex(2, 2):
            box = tuple(slice(c * TILE, (c + 1) * TILE) for c in corner)
            if rng.random() < 0.5:
                k = int(rng.integers(len(nodules)))
                _, image[scene][box], drawn = nodules[k]
                outlines[scene][(slice(None), *box)] = drawn
                votes[scene][(slice(None), *box)] = drawn[rng.permutation(4)[:3]] & _finds(
                    regime, rank[k], rng
                )
            else:
                image[scene][box] = empty[int(rng.integers(len(empty)))][1]
                shape = nodules[int(rng.integers(len(nodules)))][2][0]
                invented = on_vessel(shape, image[scene][box], rng)
                makes = rng.random(3) < INVENTIONS if regime in ("invented", "all") else np.zeros(3, bool)
                votes[scene][(slice(None), *box)] = invented & makes[:, None, None]
    truth = outlines.sum(axis=1) > 2
    votes = votes if regime is not None else votes[:, :0]
    return Images(
        image, votes, truth, outlines.mean(axis=1, dtype=np.float32), np.zeros(truth.shape, np.uint8),
        found_shares(outlines.any(axis=1), votes), (0.7, 0.7),
    )  # fmt: skip


def _finds(regime: str | None, rank: float, rng: np.random.Generator) -> np.ndarray:
    """``(3, 1, 1)`` whether each reader finds a nodule of this rank in size."""
    if regime in ("none", "invented", None):
        return np.ones((3, 1, 1), bool)
    luck = rng.random(3)
    if regime == "correlated":
        # difficulty: mostly the size, which all readers share
        shared = norm.ppf(np.clip(1 - rank, 0.01, 0.99))
        luck = norm.cdf(np.sqrt(0.6) * shared + np.sqrt(0.4) * rng.standard_normal(3))
    return (luck < 1 - np.asarray(MISSES))[:, None, None]


def on_vessel(shape: np.ndarray, tile: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A nodule's shape moved to one of the brighter places of a tile without any."""
    bright = ndimage.gaussian_filter(tile, 1.5)
    inner = np.zeros(tile.shape, bool)
    inner[10:-10, 10:-10] = True
    places = np.flatnonzero(inner & (bright >= np.quantile(bright[inner], 0.9)))
    target = np.unravel_index(int(rng.choice(places)), tile.shape)
    centre = np.argwhere(shape).mean(axis=0)
    return ndimage.shift(shape.astype(np.uint8), np.asarray(target) - centre, order=0) > 0
