"""Flat knees of the phantom and slices of real cases, LIDC's at a chosen share of foreground."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from docs.studies.shared.cases import TILE, CaseData, lidc_cases
from docs.studies.shared.small_network import normalised
from nnunet_softlabel.simulation.knee_phantom import KneeLesions, make_knee_phantom, phantom_raters


@dataclass(frozen=True)
class Images:
    """Images with their labels, all ``(N, H, W)``.

    Attributes:
        image: normalised, float32.
        soft: mean of the raters.
        majority: what more than half of the raters marked, 0 or 1.
        truth: bool; for LIDC, where nobody knows it, the majority.
        spacing_mm: of a pixel.
    """

    image: np.ndarray
    soft: np.ndarray
    majority: np.ndarray
    truth: np.ndarray
    spacing_mm: tuple[float, float]


def knees(seeds: range, *, fraction: float, regime: str, size: int = 64) -> Images:
    """Sections of generated knees; the share of lesion is ``fraction`` up to a factor of 1.5."""
    image, soft, truth = [], [], []
    for seed in seeds:
        drawn = fraction * 1.5 ** np.random.default_rng([seed, 77]).uniform(-1, 1)
        few = 1 if fraction < 0.005 else None  # a lesion of two pixels is none
        knee = make_knee_phantom(seed, shape=(size, size), lesions=KneeLesions(fraction=drawn, number=few))
        image.append(normalised(knee.image))
        soft.append(phantom_raters(knee, regime, seed=seed).astype(np.float32).mean(axis=0))
        truth.append(knee.truth == 1)
        spacing = knee.spacing_mm
    return _images(image, soft, truth, (spacing[0], spacing[1]))


def _images(
    image: Sequence[np.ndarray],
    soft: Sequence[np.ndarray],
    truth: Sequence[np.ndarray] | None,
    spacing: tuple[float, float],
) -> Images:
    label = np.stack(soft)
    majority = label > 0.5
    return Images(
        np.stack(image).astype(np.float32),
        label,
        majority.astype(np.float32),
        majority if truth is None else np.stack(truth),
        spacing,
    )


def _lidc_slices() -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Patient, image and mean of the raters of every slice."""
    return [
        (case.group, image, soft)
        for case in lidc_cases()
        for image, soft in zip(case.image, case.votes[:, 0].mean(axis=0, dtype=np.float32), strict=True)
    ]


def lidc(seed: int, *, fraction: float, most: int = 300) -> tuple[Images, Images, Images]:
    """Slices to train on, to tune on and to test on, of different patients (60, 15 and 25 %).

    A slice is taken if its expected share of nodule lies within a factor 2 of ``fraction``. Below 0.5 % an
    image is a square of four tiles, three of them without any mark, from patients of the same part.
    """
    slices = _lidc_slices()
    rng = np.random.default_rng([seed, 501])
    patients = rng.permutation(sorted({patient for patient, _, _ in slices}))
    cuts = np.split(patients, [int(0.6 * len(patients)), int(0.75 * len(patients))])
    across = 2 if fraction < 0.005 else 1
    parts = []
    for part in cuts:
        own = set(part.tolist())
        tiles = [(image, q) for patient, image, q in slices if patient in own]
        low, high = (fraction * across**2 * TILE**2 * factor for factor in (0.5, 2.0))
        chosen = [tile for tile in tiles if low <= tile[1].sum() < high]
        empty = [tile for tile in tiles if not tile[1].any()]
        order = rng.permutation(len(chosen))[:most]
        made = [_mosaic(chosen[i], empty, across, rng) for i in order]
        parts.append(_images([i for i, _ in made], [q for _, q in made], None, (0.7, 0.7)))
    return parts[0], parts[1], parts[2]


def slices_of(cases: Sequence[CaseData], seed: int, *, most: int = 300) -> tuple[Images, Images, Images]:
    """Slices that a reader marked, to train on, to tune on and to test on: of different patients, as `lidc`.

    All classes together are the object. ``truth`` is the majority where the data set has no truth.
    """
    rng = np.random.default_rng([seed, 502])
    patients = rng.permutation(sorted({case.group for case in cases}))
    parts = []
    for part in np.split(patients, [int(0.6 * len(patients)), int(0.75 * len(patients))]):
        own = set(part.tolist())
        made: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for case in (case for case in cases if case.group in own):
            soft = case.votes.any(axis=1).mean(axis=0, dtype=np.float32)
            truth = soft > 0.5 if case.truth is None else case.truth.any(axis=0)
            made += [one for one in zip(case.image, soft, truth, strict=True) if one[1].any()]
        image, soft, truth = zip(*(made[i] for i in rng.permutation(len(made))[:most]), strict=True)
        parts.append(_images(image, soft, truth, cases[0].spacing_mm[1:]))
    return parts[0], parts[1], parts[2]


def _mosaic(
    tile: tuple[np.ndarray, np.ndarray],
    empty: list[tuple[np.ndarray, np.ndarray]],
    across: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    tiles = [tile, *(empty[i] for i in rng.choice(len(empty), across**2 - 1))]
    order = rng.permutation(across**2)
    rows = [[tiles[order[r * across + c]] for c in range(across)] for r in range(across)]
    image, soft = (np.block([[pair[k] for pair in row] for row in rows]) for k in (0, 1))
    return image, soft
