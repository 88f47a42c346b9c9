from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from skimage import io

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.images import read_image, read_mask, write_image
from nnunet_softlabel.formats.probability_maps import read_probability, write_probability

OBLIQUE = (0.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0)
GRID = Grid((5, 4, 3), (0.5, 0.7, 2.0), (-10.0, 20.0, 3.5), OBLIQUE)
FLAT = Grid.flat((4, 5))


@pytest.fixture
def volume() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 1000, GRID.shape).astype(np.int16)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_volume_comes_back_with_its_grid(tmp_path: Path, volume: np.ndarray, ending: str) -> None:
    write_image(tmp_path / f"image{ending}", volume, GRID)
    array, grid = read_image(tmp_path / f"image{ending}")
    np.testing.assert_array_equal(array, volume)
    assert GRID.difference(grid) is None


@pytest.mark.parametrize("ending", [".png", ".tif", ".tiff"])
def test_flat_probability_comes_back_within_half_a_step(tmp_path: Path, ending: str) -> None:
    soft = np.random.default_rng(0).random(FLAT.shape, dtype=np.float32)
    write_probability(tmp_path / f"soft{ending}", soft, FLAT)
    np.testing.assert_allclose(read_probability(tmp_path / f"soft{ending}")[0], soft, atol=0.51 / 65535)


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_shares_of_readers_come_back_on_their_side_of_a_cut(tmp_path: Path, ending: str) -> None:
    soft = np.array([[k / n for n in range(1, 33) for k in range(n + 1)]], np.float32)
    grid = Grid.flat(soft.shape)
    write_probability(tmp_path / f"soft{ending}", soft, grid)
    found, _ = read_probability(tmp_path / f"soft{ending}")
    for cut in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
        np.testing.assert_array_equal(found > cut, soft > cut)
        np.testing.assert_array_equal(found >= cut, soft >= cut)
    write_probability(tmp_path / f"again{ending}", found, grid)
    assert (tmp_path / f"again{ending}").read_bytes() == (tmp_path / f"soft{ending}").read_bytes()


def test_a_tie_in_a_volume_of_16_bit_is_a_tie(tmp_path: Path) -> None:
    write_image(tmp_path / "soft.nii.gz", np.full(GRID.shape, 32768, np.uint16), GRID)
    assert (read_probability(tmp_path / "soft.nii.gz", 65535)[0] == 0.5).all()


def test_probability_of_a_volume_is_float32_and_exact(tmp_path: Path) -> None:
    soft = np.random.default_rng(0).random(GRID.shape, dtype=np.float32)
    write_probability(tmp_path / "soft.nii.gz", soft, GRID)
    array, _ = read_probability(tmp_path / "soft.nii.gz")
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, soft)


def test_flat_volume_of_two_dimensions_keeps_its_spacing(tmp_path: Path) -> None:
    grid = Grid((5, 4), (0.3, 0.4), (1.0, 2.0), (1.0, 0.0, 0.0, 1.0))
    write_image(tmp_path / "image.nii.gz", np.zeros((4, 5), np.uint8), grid)
    assert grid.difference(read_image(tmp_path / "image.nii.gz")[1]) is None


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16])
@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_type_of_a_flat_file_says_which_value_is_probability_1(
    tmp_path: Path, ending: str, dtype: type
) -> None:
    one = 1 if dtype is bool else np.iinfo(dtype).max
    stored = np.array([[0, 1], [one, 0]], dtype)
    Image.fromarray(stored).save(tmp_path / f"soft{ending}")
    np.testing.assert_allclose(read_probability(tmp_path / f"soft{ending}")[0], [[0, 1 / one], [1, 0]])


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_nearly_empty_probability_map_stays_nearly_empty(tmp_path: Path, ending: str) -> None:
    soft = np.zeros(FLAT.shape, np.float32)
    soft[0, 0] = 1 / 65535
    write_probability(tmp_path / f"soft{ending}", soft, FLAT)
    np.testing.assert_allclose(read_probability(tmp_path / f"soft{ending}")[0], soft, atol=1e-9)
    Image.fromarray((soft > 0).astype(np.uint8)).save(tmp_path / f"eight{ending}")
    assert read_probability(tmp_path / f"eight{ending}")[0].max() == pytest.approx(1 / 255)


def test_flat_integers_of_other_types_are_no_probabilities(tmp_path: Path) -> None:
    io.imsave(tmp_path / "soft.tif", np.ones((8, 5), np.int16), check_contrast=False)
    with pytest.raises(DatasetError, match="a probability map of int16; store 8 or 16 bit"):
        read_probability(tmp_path / "soft.tif")


def test_one_bit_png_is_a_mask_of_0_and_1(tmp_path: Path) -> None:
    Image.fromarray(np.array([[False, True]])).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png")[0], [[0, 1]])


def test_colour_image_of_equal_channels_is_a_mask(tmp_path: Path) -> None:
    grey = np.array([[0, 255], [255, 0]], np.uint8)
    io.imsave(tmp_path / "mask.png", np.stack([grey] * 3, axis=-1), check_contrast=False)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png")[0], grey)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"size": (5, 4, 2)}, r"size \(5, 4, 2\) instead of \(5, 4, 3\)"),
        ({"spacing_mm": (0.5, 0.7, 2.1)}, r"spacing_mm \(0.5, 0.7, 2.1\) instead of"),
        ({"origin": (-10.0, 20.0, 3.6)}, r"origin \(-10.0, 20.0, 3.6\) instead of"),
        ({"direction": tuple(np.eye(3).ravel())}, "direction"),
    ],
)
def test_grids_differ(other: dict, message: str) -> None:
    import re
    from dataclasses import replace

    assert re.match(message, GRID.difference(replace(GRID, **other)))


def test_rounding_in_a_header_is_no_difference() -> None:
    near = Grid(GRID.size, (0.5000003, 0.7, 2.0), (-10.000004, 20.0, 3.5), OBLIQUE)
    assert GRID.difference(near) is None


def test_tiny_spacing_is_told_apart() -> None:
    micro = Grid((5, 4, 3), (5e-4, 5e-4, 5e-4), (0.0, 0.0, 0.0), OBLIQUE)
    assert micro.difference(Grid((5, 4, 3), (6e-4, 5e-4, 5e-4), (0.0, 0.0, 0.0), OBLIQUE))


def test_files_without_geometry_are_compared_by_size() -> None:
    spaced = Grid((5, 4), (0.3, 0.4), (1.0, 2.0), (1.0, 0.0, 0.0, 1.0))
    assert spaced.difference(FLAT) is None
    assert spaced.difference(Grid.flat((4, 6)))


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha", ".png", ".tif"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.95])
def test_file_that_was_cut_off_is_refused(tmp_path: Path, ending: str, share: float) -> None:
    path = tmp_path / f"image{ending}"
    noise = np.random.default_rng(0).integers(0, 255, (20, 30, 30)).astype(np.uint8)
    write_image(path, noise[0] if ending in (".png", ".tif") else noise, _grid_of(ending))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(
        DatasetError, match=rf"image{ending}: cannot be read as an image .*; replace or convert"
    ):
        read_image(path)


def _grid_of(ending: str) -> Grid:
    return (
        Grid.flat((30, 30))
        if ending in (".png", ".tif")
        else Grid((30, 30, 20), (1.0,) * 3, (0.0,) * 3, OBLIQUE)
    )


def test_gzip_of_several_parts_is_read(tmp_path: Path, volume: np.ndarray) -> None:
    write_image(tmp_path / "image.nii", volume, GRID)
    content = (tmp_path / "image.nii").read_bytes()
    (tmp_path / "image.nii").unlink()  # ITK would mix it up with the other
    (tmp_path / "image.nii.gz").write_bytes(gzip.compress(content[:400]) + gzip.compress(content[400:]))
    np.testing.assert_array_equal(read_image(tmp_path / "image.nii.gz")[0], volume)


def test_scaled_integers_are_read(tmp_path: Path, volume: np.ndarray) -> None:
    write_image(tmp_path / "image.nii", volume, GRID)
    content = bytearray((tmp_path / "image.nii").read_bytes())
    content[112:116] = np.float32(0.5).tobytes()  # scl_slope: ITK then reads floats
    (tmp_path / "image.nii").write_bytes(bytes(content))
    np.testing.assert_array_equal(read_image(tmp_path / "image.nii")[0], volume * 0.5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_mask_that_is_not_finite_is_refused(tmp_path: Path, value: float) -> None:
    array = np.zeros(GRID.shape, np.float32)
    array[0, 0, 0] = value
    write_image(tmp_path / "mask.nii.gz", array, GRID)
    with pytest.raises(DatasetError, match=r"mask.nii.gz: holds NaN or infinite values"):
        read_mask(tmp_path / "mask.nii.gz")


@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_probability_outside_0_and_1_is_refused(tmp_path: Path, value: float) -> None:
    write_image(tmp_path / "soft.nii.gz", np.full(GRID.shape, value, np.float32), GRID)
    with pytest.raises(DatasetError, match=r"soft.nii.gz: values from .* are no probabilities; rescale"):
        read_probability(tmp_path / "soft.nii.gz")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"absent.nii.gz: no such file"):
        read_image(tmp_path / "absent.nii.gz")


def test_unknown_format_is_named(tmp_path: Path) -> None:
    (tmp_path / "image.jpg").touch()
    with pytest.raises(DatasetError, match=r"image.jpg: not an image format that can be read; use one of"):
        read_image(tmp_path / "image.jpg")


def test_coloured_mask_is_refused(tmp_path: Path) -> None:
    io.imsave(tmp_path / "mask.png", np.arange(12, dtype=np.uint8).reshape(2, 2, 3), check_contrast=False)
    with pytest.raises(DatasetError, match=r"mask.png: a colour image is no label map"):
        read_mask(tmp_path / "mask.png")


@pytest.mark.parametrize("ending", [".png", ".PNG", ".bmp", ".tif"])
def test_indices_of_a_palette_are_labels(tmp_path: Path, ending: str) -> None:
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4) % 3
    image = Image.fromarray(labels).convert("P")
    image.putdata(labels.ravel().tolist())
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    path = tmp_path / f"mask{ending}"
    image.save(path)
    array, grid = read_mask(path)
    np.testing.assert_array_equal(array, labels)
    assert grid.shape == (3, 4)


def test_a_palette_of_greys_holds_grey_values(tmp_path: Path) -> None:
    image = Image.new("P", (2, 2))
    image.putdata([0, 1, 0, 1])
    image.putpalette([255, 255, 255, 0, 0, 0])
    image.save(tmp_path / "mask.png")
    assert read_mask(tmp_path / "mask.png")[0].tolist() == [[255, 0], [255, 0]]
    assert read_probability(tmp_path / "mask.png")[0].tolist() == [[1, 0], [1, 0]]


def test_a_palette_of_colours_is_no_probability(tmp_path: Path) -> None:
    image = Image.new("P", (2, 2), 1)
    image.putpalette([0, 0, 0, 128, 0, 0])
    image.save(tmp_path / "map.png")
    with pytest.raises(DatasetError, match="a colour image is no label map"):
        read_probability(tmp_path / "map.png")


def test_stack_of_flat_images_is_refused(tmp_path: Path) -> None:
    io.imsave(tmp_path / "image.tif", np.zeros((7, 8, 9), np.uint8), check_contrast=False)
    with pytest.raises(DatasetError, match=r"image.tif: a stack of 7 flat images; convert it"):
        read_image(tmp_path / "image.tif")


def test_several_channels_in_one_volume_are_refused(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((2, 3, 4, 5), np.uint8)), str(tmp_path / "image.nii.gz"))
    with pytest.raises(DatasetError, match=r"image.nii.gz: several channels in one file"):
        read_image(tmp_path / "image.nii.gz")


def test_folder_that_cannot_be_written_is_an_os_error_with_the_file(
    tmp_path: Path, volume: np.ndarray
) -> None:
    with pytest.raises(OSError, match="cannot be written") as caught:
        write_image(tmp_path / "absent" / "image.nii.gz", volume, GRID)
    assert caught.value.filename.endswith("image.nii.gz")


def test_upright_grid_has_the_arrays_axes() -> None:
    grid = Grid.upright((4, 5, 6), (2.0, 0.5, 0.25))
    assert (grid.shape, grid.spacing_of_axes_mm) == ((4, 5, 6), (2.0, 0.5, 0.25))
    assert grid == Grid(
        (6, 5, 4), (0.25, 0.5, 2.0), (0.0,) * 3, (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    )
    assert Grid.flat((4, 5, 3)) == Grid(
        (5, 4), (1.0, 1.0), (0.0, 0.0), (1.0, 0.0, 0.0, 1.0), has_geometry=False
    )
