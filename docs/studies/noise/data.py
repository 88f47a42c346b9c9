"""Images of the study of noise: knees and real CT with one wrong reader, and crops around candidates."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage

from docs.studies.noise.scenarios import SCENARIOS, SHIFT, Scenario
from docs.studies.refine.scenes import nodules_and_empty_tiles, on_vessel
from docs.studies.shared.labels import mean_in_bone_bright
from docs.studies.shared.small_network import normalised
from nnunet_softlabel.fusion import RaterVotes, majority_vote, mean_vote
from nnunet_softlabel.simulation.knee_phantom import (
    KneeLesions,
    KneePhantom,
    make_knee_phantom,
    phantom_raters,
)
from nnunet_softlabel.simulation.simulated_raters import RaterSkill, simulate_raters

SIZE, SHARE, CROP = 64, 0.05, 16
VALIDATION, TEST = 20, 60
CROP_TRAINING, CROP_TEST = 60, 60
CT_PATIENTS = (60, 30)  # to train on, to stop on; the others are tested on


@dataclass(frozen=True)
class Sections:
    """Sections ``(N, H, W)``: image, what the wrong readers drew (or their mean), what is true."""

    image: np.ndarray
    drawn: np.ndarray
    truth: np.ndarray


def knee(seed: int) -> KneePhantom:
    """A section with about `SHARE` of lesion."""
    drawn = SHARE * 1.5 ** np.random.default_rng([seed, 77]).uniform(-1, 1)
    return make_knee_phantom(seed, shape=(SIZE, SIZE), lesions=KneeLesions(fraction=drawn))


@lru_cache(maxsize=3)
def sections(regime: str, seed: int) -> tuple[Sections, Sections, Sections]:
    """To train on and to stop on, both with the readers' errors, and to test on."""
    scenario = SCENARIOS[regime]
    if scenario.on_ct:
        return _ct(seed, scenario)
    parts, start = [], 5_000_000 + 1000 * seed
    for number in (scenario.training, VALIDATION, TEST):
        knees = [knee(s) for s in range(start, start + number)]
        truth = np.stack([k.truth == 1 for k in knees])
        drawn = _label(_drawn(knees, truth, scenario, start), scenario)
        parts.append(Sections(np.stack([normalised(k.image) for k in knees]), drawn, truth))
        start += number
    return parts[0], parts[1], parts[2]


def _label(drawn: np.ndarray, scenario: Scenario) -> np.ndarray:
    """One label of the readers ``(R, N, H, W)``."""
    mean: np.ndarray = drawn.mean(axis=0, dtype=np.float32)
    return mean if scenario.label == "mean" else mean > 0.5


def _ct(seed: int, scenario: Scenario) -> tuple[Sections, Sections, Sections]:
    """LIDC tiles, one in three without a nodule; each label is one reader, who leaves out or invents some.

    The truth is the majority of all readers. The parts hold different patients.
    """
    rng = np.random.default_rng([seed, 701])
    tiles = nodules_and_empty_tiles(3)
    nodules = [tiles.nodules[i] for i in rng.permutation(len(tiles.nodules))]
    patients = list(dict.fromkeys(patient for patient, _, _ in nodules))
    cuts = np.split(np.array(patients), [CT_PATIENTS[0], sum(CT_PATIENTS[:2])])
    parts = []
    for own in (set(cut.tolist()) for cut in cuts):
        found = [(image, outlines) for patient, image, outlines in nodules if patient in own]
        blank = [image for patient, image in tiles.empty if patient in own]
        blank = [blank[i] for i in rng.permutation(len(blank))[: len(found) // 2]]
        nothing = np.zeros((len(blank), *found[0][0].shape), dtype=bool)
        truth = np.stack([outlines.mean(axis=0) > 0.5 for _, outlines in found])
        one = np.stack([outlines[rng.integers(len(outlines))] for _, outlines in found])
        invented = nothing.copy()
        if scenario.error == "missed":
            one[rng.random(len(one)) < scenario.share] = False
        else:
            for i in np.flatnonzero(rng.random(len(blank)) < scenario.share):
                shape = found[int(rng.integers(len(found)))][1][0]
                invented[i] = on_vessel(shape, blank[i], rng)
        images = np.stack([*(image for image, _ in found), *blank]).astype(np.float32)
        parts.append(Sections(images, np.concatenate([one, invented]), np.concatenate([truth, nothing])))
    return parts[0], parts[1], parts[2]


def _drawn(knees: list[KneePhantom], truth: np.ndarray, scenario: Scenario, seed: int) -> np.ndarray:
    """What the wrong readers draw, ``(R, N, H, W)``: see `Scenario`."""
    if scenario.error in ("swap", "shift"):
        seeds = [[seed, 3], *([seed, 3, r] for r in range(1, scenario.readers))]
        return np.stack([_displaced(truth, scenario, np.random.default_rng(s)) for s in seeds])
    missed = scenario.error == "missed"
    skill = (
        RaterSkill(sensitivity=1 - scenario.share)
        if missed
        else RaterSkill(false_positives=scenario.share, false_positive_radius_mm=8.0)
    )
    drawn = [
        simulate_raters(
            k.truth, spacing_mm=k.spacing_mm, raters=[skill] * scenario.readers, seed=seed + i,
            false_positive_roi=None if missed else k.bone_mask > 0,
        ) == 1
        for i, k in enumerate(knees)
    ]  # fmt: skip
    return np.stack(drawn, axis=1)


def _displaced(truth: np.ndarray, scenario: Scenario, rng: np.random.Generator) -> np.ndarray:
    """Some masks are those of other sections, or lie elsewhere."""
    chosen = rng.permutation(len(truth))[: round(scenario.share * len(truth))]
    drawn = truth.copy()
    if scenario.error == "swap":
        drawn[chosen] = truth[np.roll(chosen, 1)]
        return drawn
    for i in chosen:
        angle = rng.uniform(0, 2 * np.pi)
        drawn[i] = ndimage.shift(truth[i], SHIFT * np.array([np.sin(angle), np.cos(angle)]), order=0)
    return drawn


@dataclass(frozen=True)
class Crops:
    """Crops ``(N, CROP, CROP)`` around candidates; ``labels`` by name."""

    image: np.ndarray
    labels: dict[str, np.ndarray]
    truth: np.ndarray


@lru_cache(maxsize=3)
def crops(regime: str, seed: int) -> tuple[Crops, Crops]:
    """To train on and to test on: a crop around each thing that any of three readers marked."""
    first = 7_000_000 + 1000 * seed
    parts = [
        range(first, first + CROP_TRAINING),
        range(first + CROP_TRAINING, first + CROP_TRAINING + CROP_TEST),
    ]
    return _crops(regime, parts[0]), _crops(regime, parts[1])


def _crops(regime: str, seeds: range) -> Crops:
    knees = [knee(s) for s in seeds]
    drawn = [phantom_raters(k, regime, seed=s) == 1 for s, k in zip(seeds, knees, strict=True)]
    votes = [RaterVotes(d[:, None], ("a", "b", "c"), k.spacing_mm) for d, k in zip(drawn, knees, strict=True)]
    whole = {
        "majority": [majority_vote(v)[0] for v in votes],
        "mean": [mean_vote(v)[0] for v in votes],
        "anatomy": [q[0] for q in mean_in_bone_bright(knees, votes)],
    }
    boxes = [(i, box) for i, d in enumerate(drawn) for box in _boxes(d.any(axis=0))]
    image = np.stack([normalised(knees[i].image)[box] for i, box in boxes])
    labels = {name: np.stack([q[i][box] for i, box in boxes]) for name, q in whole.items()}
    return Crops(image, labels, np.stack([(knees[i].truth == 1)[box] for i, box in boxes]))


def _boxes(marked: np.ndarray) -> list[tuple[slice, slice]]:
    components, number = ndimage.label(marked)
    centres = ndimage.center_of_mass(marked, components, range(1, number + 1))
    starts = [[int(np.clip(round(c) - CROP // 2, 0, SIZE - CROP)) for c in centre] for centre in centres]
    return [(slice(y, y + CROP), slice(x, x + CROP)) for y, x in starts]
