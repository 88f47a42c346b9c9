"""Plain NIfTI files in one pass: the same voxels and grid as SimpleITK's, the same refusals."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats import nifti_voxels
from nnunet_softlabel.formats.images import grid_of_image, read_image
from nnunet_softlabel.formats.nifti_voxels import PLAIN_TYPES, read_plain_nifti

TURNED = (0.0, -1.0, 0.0, 0.8, 0.0, -0.6, 0.6, 0.0, 0.8)


def _write(path: Path, array: np.ndarray[Any, Any], direction: tuple[float, ...] | None = None) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.5, 0.75, 2.0)[: array.ndim])
    image.SetOrigin((-3.0, 4.5, 10.0)[: array.ndim])
    if direction is not None:
        image.SetDirection(direction)
    sitk.WriteImage(image, str(path))
    return sitk.ReadImage(str(path))


def _patched(path: Path, *changes: tuple[int, str, Any]) -> None:
    """Change fields of the header: first byte, struct's format, value."""
    content = bytearray(path.read_bytes())
    for start, layout, value in changes:
        struct.pack_into("<" + layout, content, start, value)
    path.write_bytes(content)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".NII.GZ"])
@pytest.mark.parametrize("dtype", sorted(set(PLAIN_TYPES.values())))
def test_voxels_and_grid_are_those_of_simpleitk(tmp_path, dtype, ending):
    values = np.random.default_rng(0).integers(0, 100, (4, 5, 3)).astype(dtype)
    path = tmp_path / f"a{ending}"
    image = _write(tmp_path / f"b{ending.lower()}", values, TURNED)
    (tmp_path / f"b{ending.lower()}").rename(path)
    found = read_plain_nifti(path)
    assert found is not None
    array, grid = found
    assert array.dtype == sitk.GetArrayViewFromImage(image).dtype
    np.testing.assert_array_equal(array, sitk.GetArrayViewFromImage(image))
    assert grid == grid_of_image(image)
    assert array.flags.writeable


def test_files_of_one_header_have_their_own_voxels_and_type(tmp_path):
    for name, value, dtype in (("a", 1, np.uint8), ("b", 2, np.uint8), ("c", 3, np.int16)):
        _write(tmp_path / f"{name}.nii.gz", np.full((2, 3, 4), value, dtype))
    read = [read_image(tmp_path / f"{name}.nii.gz")[0] for name in "abc"]
    assert [int(array.max()) for array in read] == [1, 2, 3]
    assert [array.dtype for array in read] == [np.uint8, np.uint8, np.int16]


def test_known_headers_are_not_kept_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(nifti_voxels, "MOST_GRIDS", 2)
    for size in range(1, 6):
        image = _write(tmp_path / "a.nii.gz", np.zeros((2, 2, size), np.uint8))
        found = read_plain_nifti(tmp_path / "a.nii.gz")
        assert found is not None
        assert found[1] == grid_of_image(image)
        assert len(nifti_voxels._readings) <= 2


def test_flat_and_two_axes(tmp_path):
    image = _write(tmp_path / "a.nii.gz", np.arange(6, dtype=np.uint8).reshape(2, 3))
    found = read_plain_nifti(tmp_path / "a.nii.gz")
    assert found is not None
    np.testing.assert_array_equal(found[0], sitk.GetArrayFromImage(image))


@pytest.mark.parametrize(
    "changes",
    [
        [(112, "f", 2.0)],  # scl_slope
        [(112, "f", 1.0), (116, "f", -5.0)],  # scl_inter
        [(112, "f", float("nan"))],
        [(40, "h", 4), (48, "h", 1)],  # a fourth axis of one entry
        [(344, "4s", b"\0\0\0\0")],  # Analyze, whose voxels ITK looks for in another file
    ],
    ids=["slope", "intercept", "nan", "four axes", "analyze"],
)
def test_what_is_not_plain_is_left_to_simpleitk(tmp_path, changes):
    path = tmp_path / "a.nii"
    _write(path, np.arange(24, dtype=np.int16).reshape(2, 3, 4))
    _patched(path, *changes)
    assert read_plain_nifti(path) is None
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError:
        with pytest.raises(DatasetError):
            read_image(path)
        return
    array, grid = read_image(path)
    np.testing.assert_array_equal(array, sitk.GetArrayFromImage(image))
    assert grid == grid_of_image(image)


def test_big_endian_and_colours_are_left_to_simpleitk(tmp_path):
    colours = sitk.GetImageFromArray(np.zeros((2, 3, 4, 3), np.uint8), isVector=True)
    sitk.WriteImage(colours, str(tmp_path / "rgb.nii"))
    assert read_plain_nifti(tmp_path / "rgb.nii") is None
    _write(tmp_path / "a.nii", np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
    content = bytearray((tmp_path / "a.nii").read_bytes())
    for start, count, size in ((0, 1, 4), (40, 8, 2), (68, 4, 2), (76, 11, 4), (252, 2, 2), (256, 18, 4)):
        for i in range(count):
            place = slice(start + i * size, start + (i + 1) * size)
            content[place] = content[place][::-1]
    (tmp_path / "a.nii").write_bytes(content)
    assert read_plain_nifti(tmp_path / "a.nii") is None
    np.testing.assert_array_equal(read_image(tmp_path / "a.nii")[0].ravel(), np.arange(24))


def test_bytes_after_the_voxels_are_dropped(tmp_path):
    _write(tmp_path / "a.nii", np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
    with (tmp_path / "a.nii").open("ab") as file:
        file.write(b"\7" * (3 << 20))  # more than one piece
    np.testing.assert_array_equal(read_image(tmp_path / "a.nii")[0].ravel(), np.arange(24))


def test_voxels_in_several_pieces(tmp_path):
    values = np.random.default_rng(0).integers(0, 2**15, (40, 200, 201)).astype(np.int16)
    _write(tmp_path / "a.nii.gz", values)
    found = read_plain_nifti(tmp_path / "a.nii.gz")
    assert found is not None
    np.testing.assert_array_equal(found[0], values)


@pytest.mark.parametrize("keep", [200, 360, -1, -8, -9])
def test_a_file_that_is_cut_off_is_refused(tmp_path, keep):
    values = np.random.default_rng(0).integers(0, 200, (4, 30, 30)).astype(np.uint8)
    _write(tmp_path / "a.nii.gz", values)
    whole = (tmp_path / "a.nii.gz").read_bytes()
    (tmp_path / "a.nii.gz").write_bytes(whole[:keep])
    with pytest.raises(DatasetError, match="cannot be read as an image"):
        read_image(tmp_path / "a.nii.gz")
    (tmp_path / "a.nii.gz").unlink()
    (tmp_path / "b.nii").write_bytes(gzip.decompress(whole)[:keep])
    with pytest.raises(DatasetError, match="cannot be read as an image"):
        read_image(tmp_path / "b.nii")


def test_a_wrong_checksum_is_refused(tmp_path):
    _write(tmp_path / "a.nii.gz", np.zeros((4, 30, 30), np.uint8))
    content = bytearray((tmp_path / "a.nii.gz").read_bytes())
    content[-5] ^= 1
    (tmp_path / "a.nii.gz").write_bytes(content)
    with pytest.raises(zlib.error):
        read_plain_nifti(tmp_path / "a.nii.gz")
    with pytest.raises(DatasetError, match="cannot be read as an image"):
        read_image(tmp_path / "a.nii.gz")
