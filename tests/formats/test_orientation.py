"""Axes are turned as nnU-Net's reader turns them, and turned back."""

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIOWithReorient

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.images import read_image
from nnunet_softlabel.formats.orientation import Orientation, orientation_of

READERS = {reader.__name__: reader for reader in (NibabelIO, NibabelIOWithReorient, SimpleITKIOWithReorient)}
CODES = ("RAS", "LPS", "LAS", "PIR", "SRA", "AIL")


def stored_as(codes, path):
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for axis, (world, sign) in enumerate(nib.orientations.axcodes2ornt(tuple(codes))):
        affine[int(world), axis] = sign * (axis + 1)  # spacings differ
    affine[:3, 3] = (10, -20, 5)
    nib.save(
        nib.Nifti1Image(np.random.default_rng(0).integers(0, 9, (4, 5, 6)).astype(np.uint8), affine), path
    )
    return path


@pytest.mark.parametrize("codes", CODES)
@pytest.mark.parametrize("reader", READERS)
def test_turned_files_are_what_the_reader_of_nnunet_reads(reader, codes, tmp_path):
    path = stored_as(codes, tmp_path / "a.nii.gz")
    array, grid = read_image(path)
    orientation = orientation_of(reader, grid, ".nii.gz")
    expected, properties = READERS[reader]().read_images([str(path)])
    np.testing.assert_array_equal(orientation.turn(array), expected[0])
    np.testing.assert_array_equal(orientation.turn_back(expected[0]), array)
    turned = orientation.turn_grid(grid)
    assert turned.shape == expected[0].shape
    np.testing.assert_allclose(turned.spacing_of_axes_mm, properties["spacing"])


@pytest.mark.parametrize("axes", list(permutations(range(3))))
@pytest.mark.parametrize("flipped", list(product((False, True), repeat=3)))
def test_every_turn_has_its_way_back_and_keeps_each_voxel_in_its_place(axes, flipped):
    orientation = Orientation(axes, flipped)
    array = np.arange(24).reshape(2, 3, 4)
    np.testing.assert_array_equal(orientation.turn_back(orientation.turn(array)), array)
    channels = np.stack([array, -array])
    np.testing.assert_array_equal(orientation.turn(channels)[1], orientation.turn(-array))
    grid = Grid((4, 3, 2), (1.0, 2.0, 3.0), (5.0, 6.0, 7.0), (0.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0))
    turned = orientation.turn_grid(grid)
    for index in ((0, 0, 0), (1, 2, 3), (0, 2, 1)):
        found = np.argwhere(orientation.turn(array) == array[index])[0]
        np.testing.assert_allclose(position(turned, found), position(grid, index))


def position(grid, index):
    step = np.array(grid.spacing_mm) * np.array(index)[::-1]
    return np.array(grid.origin) + np.reshape(grid.direction, (3, 3)) @ step


def test_a_reader_that_nnunet_does_not_have_is_refused(tmp_path):
    _, grid = read_image(stored_as("LPS", tmp_path / "a.nii.gz"))
    with pytest.raises(
        DatasetError, match="overwrite_image_reader_writer NoSuchIO: nnU-Net has no such reader"
    ):
        orientation_of("NoSuchIO", grid, ".nii.gz")


def test_flat_images_and_the_usual_readers_keep_their_axes(tmp_path):
    assert orientation_of("NibabelIOWithReorient", Grid.flat((3, 4)), ".png").is_kept
    _, grid = read_image(stored_as("PIR", tmp_path / "a.nii.gz"))
    assert orientation_of(None, grid, ".nii.gz").is_kept
    assert orientation_of("SimpleITKIO", grid, ".nii.gz").is_kept
