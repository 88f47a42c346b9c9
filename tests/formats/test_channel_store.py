"""Channels in a temporary file: what is read is what was written, block by block and channel by channel."""

from __future__ import annotations

import os
import tempfile

import numpy as np
import pytest

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.evaluation.recalibration import AffineMap, IsotonicMap, recalibrated
from nnunet_softlabel.formats import channel_store
from nnunet_softlabel.formats.channel_store import ChannelStore

SHAPE = (3, 5, 7)


@pytest.fixture
def channels() -> np.ndarray:
    p = np.random.default_rng(0).random((9, *SHAPE)).astype(np.float32)
    return p / p.sum(axis=0)


@pytest.fixture(params=["memory", "file"])
def in_small_blocks(request, monkeypatch) -> None:
    monkeypatch.setattr(channel_store, "BLOCK", 50)
    if request.param == "file":
        monkeypatch.setattr(channel_store, "IN_MEMORY", 0)


def test_channels_are_read_as_they_were_written(channels, in_small_blocks):
    with ChannelStore(iter(channels), 9, SHAPE) as store:
        np.testing.assert_array_equal(list(store.channels()), channels)
        np.testing.assert_array_equal(store.channel(4), channels[4])
        where, blocks = zip(*store.blocks(), strict=True)
        assert len(blocks) > 10
        assert {block.shape[1] for block in blocks} == {5, 6}
        np.testing.assert_array_equal(np.concatenate(blocks, axis=1), channels.reshape(9, -1))
        assert [w.start for w in where[1:]] == [w.stop for w in where[:-1]]


ISOTONIC = IsotonicMap(
    tuple((tuple(np.linspace(-4, 4, 5)), tuple(np.linspace(0.01, 0.9, 5))) for _ in range(9))
)
AFFINE = AffineMap(tuple(np.linspace(0.5, 1.5, 8)), tuple(np.linspace(-1, 1, 8)))


@pytest.mark.parametrize("recalibration", [AFFINE, ISOTONIC], ids=["affine", "isotonic"])
def test_a_recalibration_by_blocks_is_to_the_bit_that_of_the_whole(channels, in_small_blocks, recalibration):
    whole = recalibrated(channels, recalibration, has_regions=False)
    with ChannelStore(iter(channels), 9, SHAPE) as store:
        store.change(lambda block: recalibrated(block, recalibration, has_regions=False))
        np.testing.assert_array_equal(list(store.channels()), whole)


def test_a_change_may_leave_fewer_channels(channels):
    with ChannelStore(iter(channels), 9, SHAPE) as store:
        store.change(lambda block: block.reshape(3, 3, -1).sum(axis=0))
        expected = channels.reshape(3, 3, *SHAPE).sum(axis=0)
        np.testing.assert_array_equal([store.channel(k) for k in range(3)], expected)


def test_a_folder_without_room_is_one_line(channels, monkeypatch):
    def no_room() -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(channel_store, "IN_MEMORY", 0)
    monkeypatch.setattr(tempfile, "TemporaryFile", no_room)
    with pytest.raises(DatasetError, match=r"No space left on device\); they take .* Make room, or set"):
        ChannelStore(iter(channels), 9, SHAPE)
