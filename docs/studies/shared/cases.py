"""Cases of the three real data sets beside the source tree, as stacks of slices of one size."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from skimage.io import imread
from skimage.transform import resize

from docs.studies.shared.small_network import normalised
from nnunet_softlabel.simulation.simulated_raters import RaterSkill, simulate_raters

DATA = Path(__file__).parents[4] / "shared" / "data"
LIDC, BUBIL, HIPPOCAMPUS = DATA / "lidc_nodules", DATA / "bubil_rat_smc", DATA / "msd_hippocampus"
BRAIN_GROWTH, BRAIN_GROWTH_RATERS = DATA / "qubiq_brain_growth", 7
TILE = 48  # pixels; a LIDC crop is 44 wide in the median
WINDOW_HU = (-1000.0, 400.0)
BUBIL_SIZE = (56, 64)  # about a sixteenth of the image
BUBIL_PEOPLE = ("Person1", "Person3", "Person4", "Person5")
HIPPOCAMPUS_SIZE = (64, 48)
HIPPOCAMPUS_CASES = 100  # the first ones
# Outlines of three readers of a structure 15 mm wide: biased by -0.5, 0 and 0.75 mm, and unsteady.
HIPPOCAMPUS_READERS = (
    RaterSkill(boundary_bias_mm=-0.5, boundary_jitter_mm=0.5),
    RaterSkill(boundary_jitter_mm=0.75),
    RaterSkill(boundary_bias_mm=0.75, boundary_jitter_mm=1.0),
)


@dataclass(frozen=True)
class CaseData:
    """One case: ``image`` ``(Z, H, W)`` normalised; ``votes`` bool ``(R, C, Z, H, W)``.

    Attributes:
        name: of the case.
        group: of the patient.
        image: float32.
        votes: what each reader marked, for every class.
        truth: bool ``(C, Z, H, W)``, where it is known.
        spacing_mm: of a voxel, in the order of the axes.
    """

    name: str
    group: str
    image: np.ndarray
    votes: np.ndarray
    truth: np.ndarray | None
    spacing_mm: tuple[float, float, float]


@cache
def lidc_cases() -> tuple[CaseData, ...]:
    """Lung nodules: crops of 48 x 48 pixels around each, three or four radiologists."""
    cases = []
    with (LIDC / "cases.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        image = read_volume(LIDC / "images" / f"{row['case']}.nii.gz").astype(np.float32)
        image = np.clip((image - WINDOW_HU[0]) / (WINDOW_HU[1] - WINDOW_HU[0]), 0, 1) * 2 - 1
        readers = [
            read_volume(LIDC / "raters" / f"{row['case']}_rater{r}.nii.gz") > 0
            for r in range(1, int(row["n_raters"]) + 1)
        ]
        votes = np.stack([np.stack([tile(s) for s in reader]) for reader in readers])
        spacing = (float(row["spacing_z"]), float(row["spacing_xy"]), float(row["spacing_xy"]))
        image = np.stack([tile(s) for s in image])
        cases.append(CaseData(row["case"], row["patient"], image, votes[:, None], None, spacing))
    return tuple(cases)


@cache
def bubil_cases() -> tuple[CaseData, ...]:
    """Cells, at about a sixteenth of the image's size; the four people who can be used, one tool each."""
    cases = []
    for path in sorted((BUBIL / "RawImages").glob("*.png")):
        image = resize(_flat(path), BUBIL_SIZE, anti_aliasing=True)
        votes = []
        for person in BUBIL_PEOPLE:
            folder = BUBIL / "ExpertsAnnotations" / f"{person}_Amira"
            name = next(n for n in (f"seg_{path.name}", f"Seg_{path.name}") if (folder / n).is_file())
            cell = (_flat(folder / name) < 128).astype(np.float32)  # the object is black
            votes.append(resize(cell, BUBIL_SIZE, anti_aliasing=True) > 0.5)
        cases.append(
            CaseData(
                path.stem,
                path.stem,
                normalised(image)[None],
                np.stack(votes)[:, None, None],
                None,
                (1.0, 1.0, 1.0),
            )
        )
    return tuple(cases)


@cache
def hippocampus_cases() -> tuple[CaseData, ...]:
    """Anterior and posterior hippocampus; the data set's label is the truth, three readers are simulated."""
    cases = []
    for number, path in enumerate(sorted((HIPPOCAMPUS / "images").glob("*.nii.gz"))[:HIPPOCAMPUS_CASES]):
        truth = read_volume(HIPPOCAMPUS / "labels" / path.name).astype(np.uint8)
        drawn = simulate_raters(
            truth, spacing_mm=(1, 1, 1), raters=HIPPOCAMPUS_READERS, seed=number, correlation=0.3
        )
        image = normalised(_padded(read_volume(path).astype(np.float32), HIPPOCAMPUS_SIZE))
        cases.append(
            CaseData(
                path.name.split(".")[0],
                path.name.split(".")[0],
                image,
                np.stack([[_padded(d == c, HIPPOCAMPUS_SIZE) for c in (1, 2)] for d in drawn]),
                np.stack([_padded(truth == c, HIPPOCAMPUS_SIZE) for c in (1, 2)]),
                (1.0, 1.0, 1.0),
            )
        )
    return tuple(cases)


@cache
def brain_growth_cases() -> tuple[CaseData, ...]:
    """White matter of newborns, at half the image's size; the same seven raters in every case."""
    cases = []
    for path in sorted((BRAIN_GROWTH / "images").glob("*.png")):
        drawn = [
            _halved(_flat(BRAIN_GROWTH / "raters" / str(r + 1) / path.name)) > 127.5
            for r in range(BRAIN_GROWTH_RATERS)
        ]
        image = normalised(_halved(_flat(path)))
        votes = np.stack(drawn)[:, None, None]
        cases.append(CaseData(path.stem, path.stem, image[None], votes, None, (1.0, 1.0, 1.0)))
    return tuple(cases)


def _halved(flat: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 pixels."""
    height, width = flat.shape
    return flat.reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3))


def read_volume(path: Path) -> np.ndarray:
    """An image as ``(Z, Y, X)``."""
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def tile(flat: np.ndarray) -> np.ndarray:
    """A slice, cut or padded to a square of `TILE` pixels around its centre."""
    missing = [max(TILE - size, 0) for size in flat.shape]
    flat = np.pad(flat, [(m // 2, m - m // 2) for m in missing], mode="edge")
    start = [(size - TILE) // 2 for size in flat.shape]
    return flat[start[0] : start[0] + TILE, start[1] : start[1] + TILE]


def _flat(path: Path) -> np.ndarray:
    """A grey image ``(H, W)``, whatever the PNG holds; binary ones as 0 and 255."""
    pixels = imread(path)
    pixels = pixels[..., 0] if pixels.ndim == 3 else pixels
    return pixels.astype(np.float32) * (255 if pixels.dtype == bool else 1)


def _padded(volume: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Every slice, with zeros around it."""
    missing = [s - have for s, have in zip(size, volume.shape[1:], strict=True)]
    return np.pad(volume, [(0, 0), *((m // 2, m - m // 2) for m in missing)])
