from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from PIL import Image

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.images import read_image, read_mask, write_image
from nnunet_softlabel.formats.probability_maps import write_probability

GRID = Grid.upright((10, 20, 30), (2.0, 0.7, 0.5))
VOLUMES = (".nii.gz", ".nii", ".nrrd", ".mha", ".gipl")


@pytest.fixture
def volume() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 1000, GRID.shape).astype(np.int16)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_flipped_bit_in_a_gzip_file_is_noticed(tmp_path: Path, volume: np.ndarray, dtype: type) -> None:
    path = tmp_path / "image.nii.gz"
    write_image(path, volume.astype(dtype), GRID)
    good = path.read_bytes()
    random = np.random.default_rng(1)
    for _ in range(10):
        content = bytearray(good)
        content[int(random.integers(400, len(good)))] ^= 1 << int(random.integers(8))
        path.write_bytes(content)
        with pytest.raises(DatasetError, match="cannot be read as an image"):
            read_image(path)


@pytest.mark.parametrize("ending", VOLUMES)
def test_file_that_is_cut_off_is_refused(tmp_path: Path, volume: np.ndarray, ending: str) -> None:
    path = tmp_path / f"image{ending}"
    write_image(path, volume, GRID)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with pytest.raises(DatasetError, match="cannot be read as an image"):
        read_image(path)


@pytest.mark.parametrize(("named", "other"), [("c.nii", "c.nii.gz"), ("c.nii.gz", "c.nii")])
def test_nii_beside_nii_gz_is_refused(tmp_path: Path, volume: np.ndarray, named: str, other: str) -> None:
    write_image(tmp_path / named, volume, GRID)
    write_image(tmp_path / "elsewhere.nii", volume, GRID)
    write_image(tmp_path / f"x{other}", volume * 0, GRID)
    (tmp_path / f"x{other}").rename(tmp_path / other)
    with pytest.raises(DatasetError, match=f"{other} lies beside it"):
        read_image(tmp_path / named)


def test_tiff_of_three_pages_is_no_colour_image(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "stack.tif", np.zeros((3, 8, 9), np.uint8), photometric="minisblack")
    with pytest.raises(DatasetError, match="a stack of 3 flat images"):
        read_image(tmp_path / "stack.tif")


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_colour_tiff_is_read_whatever_its_planes(tmp_path: Path, planar: str) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (8, 9, 3)).astype(np.uint8)
    stored = colours if planar == "contig" else np.moveaxis(colours, -1, 0)
    tifffile.imwrite(tmp_path / "colour.tif", stored, photometric="rgb", planarconfig=planar)
    np.testing.assert_array_equal(read_image(tmp_path / "colour.tif")[0], colours)


def grey_with_alpha(path: Path, grey: np.ndarray, alpha: np.ndarray) -> Path:
    Image.fromarray(np.stack([grey, alpha], axis=-1).astype(np.uint8), "LA").save(path)
    return path


def test_grey_png_with_transparency_is_read_where_it_says_nothing_of_its_own(tmp_path: Path) -> None:
    drawn = np.zeros((8, 9))
    drawn[2:5, 3:6] = 7
    for alpha in (np.full((8, 9), 255), 255 * (drawn > 0)):
        for reader in (read_image, read_mask):
            array, grid = reader(grey_with_alpha(tmp_path / "grey.png", drawn, alpha))
            np.testing.assert_array_equal(array, drawn)
            assert grid.size == (9, 8)


def test_grey_png_whose_transparency_shows_something_else_is_refused(tmp_path: Path) -> None:
    drawn = np.zeros((8, 9))
    drawn[2:5, 3:6] = 7
    for grey, alpha in ((0 * drawn, 255 * (drawn > 0)), (drawn, 0 * drawn), (drawn, 128 * (drawn > 0))):
        with pytest.raises(DatasetError, match="a grey image with transparency"):
            read_image(grey_with_alpha(tmp_path / "grey.png", grey, alpha))


def test_tiff_with_an_axis_of_one_is_a_flat_image(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "one.tif", np.arange(72, dtype=np.uint8).reshape(1, 8, 9), photometric="minisblack"
    )
    array, grid = read_mask(tmp_path / "one.tif")
    assert (array.shape, grid.size) == ((8, 9), (9, 8))


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_header_that_promises_petabytes_is_refused_before_memory_is_asked_for(
    tmp_path: Path, ending: str
) -> None:
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, 32000, 32000, 32000, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, 64, 64)
    struct.pack_into("<8f", header, 76, 1, 1, 1, 1, 1, 1, 1, 1)
    struct.pack_into("<f", header, 108, 352)
    header[344:348] = b"n+1\0"
    content = gzip.compress(bytes(header)) if ending.endswith("gz") else bytes(header)
    (tmp_path / f"image{ending}").write_bytes(content)
    with pytest.raises(DatasetError, match=r"its header promises 262,144,000,000,000 bytes"):
        read_image(tmp_path / f"image{ending}")


def test_nrrd_and_mha_that_promise_petabytes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.nrrd").write_text(
        "NRRD0004\ntype: short\ndimension: 3\nsizes: 60000 60000 60000\nencoding: gzip\nendian: little\n\n"
    )
    (tmp_path / "a.mha").write_text(
        "ObjectType = Image\nNDims = 3\nDimSize = 60000 60000 60000\nElementType = MET_SHORT\n"
        "CompressedData = True\nElementSpacing = 1 1 1\nElementDataFile = LOCAL\n"
    )
    for name in ("a.nrrd", "a.mha"):
        with pytest.raises(DatasetError, match="its header promises 432,000,000,000,000 bytes"):
            read_image(tmp_path / name)


def test_voxels_in_a_file_of_their_own_are_counted(tmp_path: Path, volume: np.ndarray) -> None:
    large = np.zeros((100, 100, 100), np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(large), str(tmp_path / "large.mhd"))  # the header has 300 bytes
    np.testing.assert_array_equal(read_image(tmp_path / "large.mhd")[0], large)


def test_complex_numbers_are_refused(tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(np.ones(GRID.shape, np.complex64))
    sitk.WriteImage(image, str(tmp_path / "complex.nii.gz"))
    with pytest.raises(DatasetError, match="holds complex numbers; store the magnitude"):
        read_image(tmp_path / "complex.nii.gz")
    with pytest.raises(DatasetError, match="complex numbers cannot be stored"):
        write_image(tmp_path / "new.nii.gz", np.ones(GRID.shape, np.complex64), GRID)


@pytest.mark.parametrize(
    ("dtype", "stored"),
    [(bool, np.uint8), (np.float16, np.float32), (">i2", np.int16), (np.longdouble, float)],
)
def test_types_that_formats_do_not_have_are_widened(tmp_path: Path, dtype: type, stored: type) -> None:
    array = (np.arange(6000).reshape(GRID.shape) % 2).astype(dtype)
    write_image(tmp_path / "image.nii.gz", array, GRID)
    found = read_image(tmp_path / "image.nii.gz")[0]
    assert found.dtype == stored
    np.testing.assert_array_equal(found, array)


def test_what_is_no_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "link.nii.gz").symlink_to(tmp_path / "gone.nii.gz")
    (tmp_path / "folder.nii.gz").mkdir()
    os.mkfifo(tmp_path / "pipe.nii.gz")
    expected = {
        "link": "a link to a file that is not there",
        "folder": "a folder or a pipe",
        "none": "no such",
    }
    for name, reason in {
        **expected,
        "pipe": "a folder or a pipe",
        "x" * 300: "cannot be opened|no such",
    }.items():
        with pytest.raises(DatasetError, match=reason):
            read_image(tmp_path / f"{name}.nii.gz")


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha", ".png", ".tif"])
def test_write_error_is_raised(tmp_path: Path, ending: str) -> None:
    """`RLIMIT_FSIZE` stands for a full disk; a child process has it, for no limit can be taken back."""
    import subprocess
    import sys

    code = f"""
import resource, signal, sys
import nibabel as nib
import numpy as np
from pathlib import Path
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.probability_maps import write_probability
soft = np.random.default_rng(0).random((40, 64, 64), dtype=np.float32)
path = Path({str(tmp_path)!r}) / "soft{ending}"
grid = Grid.upright((40, 64, 64), (1.0, 1.0, 1.0))
if {ending!r} in (".png", ".tif"):
    soft = soft.reshape(1024, 160); grid = Grid.flat(soft.shape)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
try:
    write_probability(path, soft, grid)
except OSError as error:
    print("raised", error)
"""
    # -B: Python would cut off its own compiled modules, too
    done = subprocess.run([sys.executable, "-B", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("raised"), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_probability_written_over_nothing_is_whole(tmp_path: Path) -> None:
    write_probability(tmp_path / "soft.nii.gz", np.full(GRID.shape, 0.5, np.float32), GRID)
    assert read_image(tmp_path / "soft.nii.gz")[0].min() == 0.5


def test_an_intercept_without_a_slope_is_refused(tmp_path):
    """NIfTI says that slope 0 rescales nothing; ITK adds the intercept, and labels become others."""
    content = bytearray(nib.Nifti1Image(np.zeros((2, 3, 4), np.uint8), np.eye(4)).to_bytes())
    for intercept, is_refused in ((1.0, True), (0.0, False)):
        struct.pack_into("<2f", content, 112, 0.0, intercept)
        (tmp_path / "a.nii").write_bytes(content)
        if is_refused:
            with pytest.raises(DatasetError, match="scl_slope 0 and scl_inter 1: readers disagree"):
                read_mask(tmp_path / "a.nii")
        else:
            assert not read_mask(tmp_path / "a.nii")[0].any()
