"""What the tests of priors and raters' rates share."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.conversion.prior_settings import IntensityPrior, Priors, RoiPrior
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.images import read_image, read_mask, write_image
from nnunet_softlabel.fusion import RaterVotes
from tests.conversion.conversion_helpers import GRID

BONE = Priors(RoiPrior(("bone",)))
BRIGHT_BONE = Priors(RoiPrior(("bone",)), IntensityPrior("brighter"))


class ImageInMemory:
    """A function that gives an array and its grid, and can travel between processes."""

    def __init__(self, array: np.ndarray, grid: Grid) -> None:
        self.array, self.grid = array, grid

    def __call__(self) -> tuple[np.ndarray, Grid]:
        return self.array, self.grid


def roi(*inside: int) -> np.ndarray:
    mask = np.zeros(GRID.shape, np.uint8)
    mask.flat[list(inside)] = 1
    return mask


def votes_of(folder: Any, case: str, raters: tuple[str, ...]) -> RaterVotes:
    votes = np.stack([read_mask(folder.rater(case, rater))[0] == 1 for rater in raters])
    spacing_mm = read_image(folder.image(case))[1].spacing_of_axes_mm
    return RaterVotes(votes[:, None], raters, spacing_mm)


def write_rois(folder: Any, margin: int = 1) -> str:
    """A mask per case: all but the borders; returns the pattern."""
    for case in folder.cases:
        array, grid = read_mask(folder.rater(case, folder.raters[0]))
        mask = np.zeros_like(array)
        mask[:, margin:-margin, margin:-margin] = 1
        (folder.root / "bones").mkdir(exist_ok=True)
        write_image(folder.root / "bones" / f"{case}.nii.gz", mask, grid)
    return f"bone={folder.root}/bones/{{case}}.nii.gz"


def intensity_cases(lesion: float = 40.0) -> list[Case]:
    """Tissue around 10; in each case 12 agreed voxels of ``lesion``, 2 disputed and 2 unmarked ones."""
    grid = Grid((20, 10, 3), (1.0,) * 3, (0.0,) * 3, GRID.direction)
    rng = np.random.default_rng(0)
    cases = []
    for i in range(2):
        image = rng.normal(10, 2, grid.shape).astype(np.float32)
        first, second = np.zeros((2, *grid.shape), np.uint8)
        first[1, 2, :14] = second[1, 2, :12] = 1
        second[1, 2, 12:14] = 0
        image[1, 2, :16] = lesion
        second[1, 4, 0] = 1  # one rater's mark on normal tissue
        image[1, 4, 0] = 10
        bone = np.ones(grid.shape, np.uint8)
        bone[0] = 0
        cases.append(
            Case(f"c{i}", [ImageInMemory(image, grid)], {"1": first, "2": second}, rois={"bone": bone})
        )
    return cases
