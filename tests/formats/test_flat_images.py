"""Flat masks: transparency, pages, 16 bit colours, palettes of TIFF."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.channels import read_channels
from nnunet_softlabel.formats.images import read_image, read_mask
from nnunet_softlabel.formats.probability_maps import read_probability

DRAWN = np.zeros((8, 9), np.uint8)
DRAWN[2:5, 3:6] = 1


def rgba(path: Path, grey: np.ndarray, alpha: np.ndarray) -> Path:
    Image.fromarray(np.dstack([grey, grey, grey, alpha]).astype(np.uint8)).save(path)
    return path


@pytest.mark.parametrize("read", [read_mask, read_probability])
def test_four_channels_whose_transparency_shows_something_else_are_refused(tmp_path: Path, read) -> None:
    for grey, alpha in ((0 * DRAWN, 255 * DRAWN), (0 * DRAWN + 255, 255 * DRAWN), (255 * DRAWN, 0 * DRAWN)):
        with pytest.raises(DatasetError, match=r"m.png: a grey image with transparency, .* show different"):
            read(rgba(tmp_path / "m.png", grey, alpha))


def test_four_channels_whose_transparency_says_nothing_of_its_own_are_read(tmp_path: Path) -> None:
    for alpha in (0 * DRAWN + 255, 255 * DRAWN):
        array, _ = read_mask(rgba(tmp_path / "m.png", 7 * DRAWN, alpha))
        np.testing.assert_array_equal(array, 7 * DRAWN)


def write_pages(path: Path, *pages: np.ndarray, **options) -> Path:
    """Each page a series of its own, as a loop over pages writes them."""
    with tifffile.TiffWriter(path) as file:
        for page in pages:
            file.write(page, **options)
    return path


def test_pages_written_one_by_one_are_all_read(tmp_path: Path) -> None:
    path = write_pages(tmp_path / "m.tif", DRAWN, 1 - DRAWN, photometric="minisblack")
    with tifffile.TiffFile(path) as file:
        assert len(file.series) == 2
    for read in (read_mask, read_image):
        with pytest.raises(DatasetError, match="a stack of 2 flat images"):
            read(path)
    np.testing.assert_array_equal(read_channels(path, "first")[0], [DRAWN, 1 - DRAWN])


def test_pages_that_differ_are_refused(tmp_path: Path) -> None:
    for other in (DRAWN[:5], DRAWN.astype(np.uint16)):
        with pytest.raises(
            DatasetError, match="has pages of several sizes or types; store one image per file"
        ):
            read_mask(write_pages(tmp_path / "m.tif", DRAWN, other, photometric="minisblack"))
    path = write_pages(tmp_path / "m.tif", *[np.zeros((8, 9, 3), np.uint8)] * 2, photometric="rgb")
    with pytest.raises(DatasetError, match="has pages of colours"):
        read_channels(path, "first")


def test_a_preview_is_no_page(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "m.tif") as file:
        file.write(DRAWN, photometric="minisblack", metadata=None)
        file.write(DRAWN[::2, ::2], photometric="minisblack", metadata=None, subfiletype=1)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.tif")[0], DRAWN)


def deep_png(path: Path, array: np.ndarray, colour_type: int) -> Path:
    """A png of 16 bit, which Pillow does not write for colours."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    header = struct.pack(">IIBBBBB", *array.shape[1::-1], 16, colour_type, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return path


@pytest.mark.parametrize(("colour_type", "channels"), [(0, []), (2, [1, 1, 1]), (6, [1, 1, 1, 65535])])
def test_small_values_of_16_bit_are_kept(tmp_path: Path, colour_type: int, channels: list[int]) -> None:
    array = np.dstack([DRAWN * 2 if one == 1 else np.full(DRAWN.shape, one) for one in channels or [1]])
    found, _ = read_mask(deep_png(tmp_path / "m.png", array, colour_type))
    np.testing.assert_array_equal(found, 2 * DRAWN)


def test_16_bit_with_transparency_is_refused(tmp_path: Path) -> None:
    array = np.dstack([DRAWN, np.full(DRAWN.shape, 65535)])
    with pytest.raises(
        DatasetError, match="a grey image of 16 bit with transparency; store it as grey alone"
    ):
        read_mask(deep_png(tmp_path / "m.png", array, 4))


def with_palette(path: Path, palette: list[int]) -> Path:
    image = Image.fromarray(DRAWN).convert("P")
    image.putdata(DRAWN.ravel().tolist())
    image.putpalette(palette)
    image.save(path)
    return path


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif", ".tiff"])
def test_a_palette_of_greys_holds_what_it_shows(tmp_path: Path, ending: str) -> None:
    path = with_palette(tmp_path / f"m{ending}", [0, 0, 0, 51, 51, 51])
    np.testing.assert_array_equal(read_mask(path)[0], 51 * DRAWN)
    np.testing.assert_allclose(read_probability(path)[0], 0.2 * DRAWN)


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif"])
def test_a_palette_of_colours_holds_indices_and_no_probabilities(tmp_path: Path, ending: str) -> None:
    path = with_palette(tmp_path / f"m{ending}", [0, 0, 0, 255, 0, 0])
    np.testing.assert_array_equal(read_mask(path)[0], DRAWN)
    with pytest.raises(DatasetError, match="a colour image is no label map"):
        read_probability(path)
