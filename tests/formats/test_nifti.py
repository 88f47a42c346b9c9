"""Headers and content of NIfTI files, beside nibabel and gzip."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import pytest

from nnunet_softlabel.formats.nifti import NiftiHeader, read_header, unpacked

nibabel = pytest.importorskip("nibabel")


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("image", "header"), [("Nifti1Image", "Nifti1Header"), ("Nifti2Image", "Nifti2Header")]
)
def test_a_header_says_what_nibabel_says(tmp_path, image, header, order, ending):
    made = getattr(nibabel, header)(endianness=order)
    made.set_data_dtype(np.int16)
    made.set_slope_inter(0.5, 0)
    made.set_data_shape((3, 4, 5))
    path = tmp_path / f"a{ending}"
    nibabel.save(getattr(nibabel, image)(np.ones((3, 4, 5), np.int16), None, made), path)
    stored = nibabel.load(path)
    found = read_header(path)
    assert found is not None
    assert (found.order, found.shape, found.datatype, found.bits) == (order, (3, 4, 5), 4, 16)
    assert found.version == int(header[5])
    assert found.voxel_bytes == 3 * 4 * 5 * 2
    assert found.start == stored.dataobj.offset
    assert found.slope == pytest.approx(stored.dataobj.slope)


@pytest.mark.parametrize("content", [b"", b"no header", bytes(348), bytes(540)])
def test_what_has_no_header_is_none(content):
    assert NiftiHeader.parse(content) is None


@pytest.mark.parametrize("size", [0, 1, 100, 5000, 300_000])
@pytest.mark.parametrize("chunk", [7, 1 << 10, 1 << 20])
def test_a_gzip_file_is_unpacked_as_gzip_does(tmp_path, size, chunk):
    for content in (bytes(size), np.random.default_rng(0).bytes(size)):
        path = tmp_path / "a.nii.gz"
        path.write_bytes(gzip.compress(content))
        assert b"".join(unpacked(path, chunk=chunk)) == content


def test_several_streams_and_zeros_behind_them_are_one_file(tmp_path):
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(b"one") + gzip.compress(b"two") + bytes(512))
    assert b"".join(unpacked(path)) == gzip.open(path).read() == b"onetwo"


def write_packed(folder: Path) -> tuple[Path, bytes]:
    path = folder / "a.nii.gz"
    packed = gzip.compress(np.random.default_rng(0).bytes(10_000))
    path.write_bytes(packed)
    return path, packed


@pytest.mark.parametrize("cut", [1, 8, 9, 5000])
def test_a_cut_off_gzip_file_ends_early(tmp_path, cut):
    path, packed = write_packed(tmp_path)
    path.write_bytes(packed[:-cut])
    with pytest.raises(EOFError, match="before its end-of-stream marker"):
        list(unpacked(path))


def test_a_wrong_checksum_is_an_error(tmp_path):
    path, packed = write_packed(tmp_path)
    path.write_bytes(packed[:-8] + bytes(4) + packed[-4:])
    with pytest.raises(zlib.error, match="incorrect data check"):
        list(unpacked(path))
