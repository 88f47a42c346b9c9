"""Masks on another grid: geometry by hand, and SimpleITK's physical positions as the judge."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.grid_words import difference_in_words
from nnunet_softlabel.formats.images import read_mask
from nnunet_softlabel.formats.regrid import (
    GridError,
    placed,
    resampled,
    share_outside,
    shift_mm,
    turned,
)

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
OBLIQUE = tuple(np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1.0]]).ravel())
GRID = Grid((6, 5, 4), (1.0, 1.5, 3.0), (10.0, -20.0, 5.0), IDENTITY)


def array_of(grid: Grid = GRID, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 3, grid.shape).astype(np.uint8)


def as_image(array: np.ndarray, grid: Grid) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(grid.spacing_mm)
    image.SetOrigin(grid.origin)
    image.SetDirection(grid.direction)
    return image


def grid_of(image: sitk.Image) -> Grid:
    return Grid(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())


@pytest.mark.parametrize("direction", [IDENTITY, OBLIQUE], ids=["upright", "oblique"])
@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("flips", list(product([False, True], repeat=3)))
def test_every_order_and_direction_of_axes_is_turned_back(direction, order, flips) -> None:
    grid = Grid(GRID.size, GRID.spacing_mm, GRID.origin, direction)
    array = array_of()
    other = sitk.Flip(sitk.PermuteAxes(as_image(array, grid), order), flips)
    found = turned(sitk.GetArrayFromImage(other), grid_of(other), grid)
    assert found is not None
    np.testing.assert_array_equal(found[0], array)
    assert grid.difference(found[1]) is None


@pytest.mark.parametrize("orientation", ["RAS", "ASL", "PIR"])
def test_a_file_in_another_orientation_is_turned(tmp_path: Path, orientation: str) -> None:
    array = array_of()
    sitk.WriteImage(sitk.DICOMOrient(as_image(array, GRID), orientation), str(tmp_path / "m.nii.gz"))
    found = turned(*read_mask(tmp_path / "m.nii.gz"), GRID)
    assert found is not None
    np.testing.assert_array_equal(found[0], array)


def test_oblique_axes_and_files_without_geometry_are_not_turned() -> None:
    assert turned(array_of(), Grid(GRID.size, GRID.spacing_mm, GRID.origin, OBLIQUE), GRID) is None
    assert turned(np.zeros((3, 4)), Grid.flat((3, 4)), Grid.flat((4, 3))) is None


def test_a_box_is_placed_by_its_origin() -> None:
    array = np.zeros(GRID.shape, np.uint8)
    array[1:3, 2:4, 3:5] = 2
    box = sitk.RegionOfInterest(as_image(array, GRID), (3, 3, 2), (2, 1, 1))
    np.testing.assert_array_equal(placed(sitk.GetArrayFromImage(box), grid_of(box), GRID), array)
    wide = sitk.ConstantPad(as_image(array, GRID), (2, 0, 1), (0, 3, 0), 0)
    np.testing.assert_array_equal(placed(sitk.GetArrayFromImage(wide), grid_of(wide), GRID), array)


def test_a_box_between_voxels_is_not_placed_and_marks_outside_are_refused() -> None:
    half = Grid((2, 2, 2), GRID.spacing_mm, (10.5, -20.0, 5.0), IDENTITY)
    assert placed(np.ones((2, 2, 2)), half, GRID) is None
    outside = Grid((2, 2, 2), GRID.spacing_mm, (9.0, -20.0, 5.0), IDENTITY)
    with pytest.raises(GridError, match="marks voxels outside the image"):
        placed(np.ones((2, 2, 2)), outside, GRID)


def test_nearest_agrees_with_physical_positions() -> None:
    own = Grid((12, 10, 8), (0.5, 0.75, 1.5), (9.9, -20.2, 4.7), IDENTITY)
    array = array_of(own)
    found = resampled(array, own, GRID, "nearest")
    target, source = as_image(np.zeros(GRID.shape), GRID), as_image(array, own)
    for index in np.ndindex(*GRID.size):
        there = source.TransformPhysicalPointToIndex(target.TransformIndexToPhysicalPoint(index))
        expected = source[there] if all(0 <= t < s for t, s in zip(there, own.size, strict=True)) else 0
        assert found[index[::-1]] == expected


def test_linear_takes_the_label_with_the_largest_share() -> None:
    # along x the mask has voxels at 0, 2, 4; the image asks at 0.9: 0.55 of the first, 0.45 of the second
    own = Grid((3, 1, 1), (2.0, 1.0, 1.0), (0.0, 0.0, 0.0), IDENTITY)
    ask = Grid((3, 1, 1), (1.3, 1.0, 1.0), (0.9, 0.0, 0.0), IDENTITY)
    # 0.9 -> 2 (0.55), 2.2 -> 1 (0.9), 3.5 -> background (0.75)
    np.testing.assert_array_equal(resampled(np.uint8([[[2, 1, 0]]]), own, ask, "linear"), [[[2, 1, 0]]])
    shares = resampled(np.float32([[[1, 0, 0]]]), own, ask, "linear")
    np.testing.assert_allclose(shares, [[[0.55, 0, 0]]], atol=1e-6)


def test_linear_of_the_same_grid_changes_nothing() -> None:
    np.testing.assert_array_equal(resampled(array_of(), GRID, GRID, "linear"), array_of())


@pytest.mark.parametrize(
    ("origin", "message"),
    [((500.0, -20.0, 5.0), "misses the image altogether"), ((12.4, -20.0, 5.0), "no marked voxel inside")],
)
def test_a_mask_that_misses_the_image_is_an_error(origin, message: str) -> None:
    array = np.zeros(GRID.shape, np.uint8)
    array[..., -1] = 1
    with pytest.raises(GridError, match=message):
        resampled(array, Grid(GRID.size, GRID.spacing_mm, origin, IDENTITY), GRID, "nearest")


def test_the_share_of_marks_outside() -> None:
    array = np.zeros(GRID.shape, np.uint8)
    array[:, 0, 0] = 1
    assert share_outside(array, GRID, GRID) == 0
    below = (*GRID.origin[:2], GRID.origin[2] - 2 * GRID.spacing_mm[2])
    shifted = Grid(GRID.size, GRID.spacing_mm, below, IDENTITY)
    assert share_outside(array, shifted, GRID) == pytest.approx(2 / GRID.size[2])
    assert share_outside(array * 0, shifted, GRID) == 0


def test_the_shift_is_the_distance_to_the_voxel_taken() -> None:
    assert shift_mm(GRID, GRID) == 0
    # 0.4 of 1 mm and 0.5 of 3 mm: (0.4, 0, 1.5) mm
    moved = Grid(GRID.size, GRID.spacing_mm, (10.4, -20.0, 6.49), IDENTITY)
    assert shift_mm(moved, GRID) == pytest.approx(np.hypot(0.4, 1.49), abs=1e-6)
    coarse = Grid((3, 5, 4), (2.0, 1.5, 3.0), GRID.origin, IDENTITY)
    assert shift_mm(coarse, GRID) == pytest.approx(1.0)


def changed(**fields: object) -> Grid:
    values = {name: getattr(GRID, name) for name in ("size", "spacing_mm", "origin", "direction")}
    return Grid(**(values | fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("own", "words"),
    [
        (
            changed(size=(6, 5, 2), origin=(10.0, -20.0, 8.0)),
            "size (6, 5, 2) instead of (6, 5, 4) (crop in voxels: z +1 at the start, +1 at the end)",
        ),
        (changed(origin=(12.5, -20.0, 5.0)), "origin (12.5, -20.0, 5.0) instead of (10.0, -20.0, 5.0)"),
        (changed(spacing_mm=(1.0, 1.5, 4.0)), "spacing_mm (1.0, 1.5, 4.0) instead of (1.0, 1.5, 3.0)"),
        (
            changed(size=(12, 5, 4), spacing_mm=(0.5, 1.5, 3.0)),
            "spacing_mm (0.5, 1.5, 3.0) instead of (1.0, 1.5, 3.0); size (12, 5, 4) instead of (6, 5, 4)",
        ),
        (changed(direction=OBLIQUE), "axes turned by 36.9°"),
        (
            Grid((5, 6, 4), (1.5, 1.0, 3.0), (15.0, -20.0, 5.0), (0.0, -1.0, 0.0, 1.0, *[0.0] * 4, 1.0)),
            "axes (y reversed, x, z) instead of (x, y, z)",
        ),
    ],
)  # fmt: skip
def test_the_true_difference_is_named(own: Grid, words: str) -> None:
    assert difference_in_words(GRID, own) == words
