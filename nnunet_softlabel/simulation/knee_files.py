"""Generated knees and what simulated readers drew on them, as files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.images import write_image
from nnunet_softlabel.formats.staging import staged
from nnunet_softlabel.public import public
from nnunet_softlabel.simulation.knee_phantom import KneeLesions, make_knee_phantom
from nnunet_softlabel.simulation.simulated_raters import RaterSkill, simulate_raters

SHAPE = (16, 48, 48)
LESION_RADIUS_MM = (9.0, 15.0)  # a few hundred iterations do not learn smaller ones
# what an expert misses and adds little of, and a beginner more
FOLDERS = ("images", "raters", "truth", "bone")
READERS = {
    "expert": RaterSkill(sensitivity=0.95, false_positives=0.1, boundary_jitter_mm=1.0),
    "resident": RaterSkill(
        sensitivity=0.8, false_positives=0.5, boundary_bias_mm=1.0, boundary_jitter_mm=1.5
    ),
    "student": RaterSkill(
        sensitivity=0.65, false_positives=1.0, boundary_bias_mm=2.0, boundary_jitter_mm=2.0
    ),
}


@public
def write_knees(
    folder: Path,
    *,
    seed: int,
    number: int,
    readers: Mapping[str, RaterSkill] = READERS,
    overwrite: bool = False,
) -> list[str]:
    """Write images, raters and truth of generated knees: all of them, or none.

    >>> ns.simulation.write_knees("more_knees", seed=1, number=1)
    ['knee_000']

    Args:
        folder: for the folders images, raters, truth and bone.
        seed: same seed, same knees.
        number: of knees.
        readers: name -> skill.
        overwrite: replace these folders.

    Returns:
        Names of the knees.

    Raises:
        UsageError: if there are such folders.
    """
    names = [f"knee_{i:03d}" for i in range(number)]
    seeds = np.random.SeedSequence(seed).generate_state(number).tolist()
    with staged(folder, FOLDERS, overwrite=overwrite) as new:
        for place in FOLDERS:
            (new / place).mkdir()
        for name, own_seed in zip(names, seeds, strict=True):
            _write_knee(new, readers, name, own_seed)
    return names


def _write_knee(folder: Path, readers: Mapping[str, RaterSkill], name: str, seed: int) -> None:
    lesions = KneeLesions(number=1 + seed % 3, radius_mm=LESION_RADIUS_MM)
    knee = make_knee_phantom(seed, shape=SHAPE, lesions=lesions)
    grid = Grid.upright(knee.image.shape, knee.spacing_mm)
    write_image(folder / "images" / f"{name}.nii.gz", knee.image, grid)
    write_image(folder / "truth" / f"{name}.nii.gz", knee.truth, grid)
    write_image(folder / "bone" / f"{name}.nii.gz", (knee.bone_mask > 0).astype(np.uint8), grid)
    drawn = simulate_raters(
        knee.truth,
        spacing_mm=knee.spacing_mm,
        raters=list(readers.values()),
        seed=seed,
        correlation=0.3,
        false_positive_roi=knee.distractors,
    )
    for reader, label_map in zip(readers, drawn, strict=True):
        write_image(folder / "raters" / f"{name}_{reader}.nii.gz", label_map, grid)
