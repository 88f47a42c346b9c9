"""What is packed is what is unpacked, chunk by chunk and as a whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from nnunet_softlabel.formats import packed as packed_module
from nnunet_softlabel.formats.packed import PackedMap, is_zero_in_all, stacked

DTYPES = st.sampled_from([np.uint8, np.uint16, np.float32, np.bool_])
ARRAYS = DTYPES.flatmap(
    lambda dtype: arrays(
        dtype,
        array_shapes(min_dims=1, max_dims=3, max_side=6),
        elements={"min_value": 0, "max_value": 1} if dtype == np.float32 else None,
        fill=st.just(0),
    )
)
chunks_of_any_size = pytest.mark.parametrize("is_packed", [False, True])


@chunks_of_any_size
@given(array=ARRAYS, chunk=st.integers(1, 50))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_what_is_packed_is_what_is_unpacked(is_packed: bool, array: NDArray, chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed_module, "CHUNK", chunk)
        patch.setattr(packed_module, "PACKED_ABOVE", 0 if is_packed else 1 << 20)
        packed = PackedMap.of(array)
    assert packed.n_chunks == -(-array.size // chunk)
    np.testing.assert_array_equal(packed.whole(), array)
    assert packed.whole().dtype == array.dtype
    parts = [packed.get(index) for index in range(packed.n_chunks)]
    np.testing.assert_array_equal(np.concatenate(parts), array.ravel())
    assert [packed.is_zero(i) for i in range(packed.n_chunks)] == [not part.any() for part in parts]
    assert packed.any() == array.any()


def test_chunks_are_of_nearly_the_same_size(monkeypatch) -> None:
    """A chunk of one voxel would be summed in another order than a long one."""
    monkeypatch.setattr(packed_module, "CHUNK", 64)
    packed = PackedMap((65,), np.uint8)
    assert [packed.part(i) for i in range(packed.n_chunks)] == [slice(0, 33), slice(33, 65)]


def test_what_is_put_later_is_no_part_of_a_copy(monkeypatch) -> None:
    monkeypatch.setattr(packed_module, "CHUNK", 2)
    array = np.array([1, 0, 0, 0], np.uint8)
    packed, other = PackedMap.of(array), PackedMap.of(array)
    array[:] = 9
    packed.put(1, np.array([0, 5], np.uint8))
    assert packed.whole().tolist() == [1, 0, 0, 5]
    assert not packed.equals(other)
    assert stacked([packed, other], 1).tolist() == [[0, 5], [0, 0]]
    assert not is_zero_in_all([packed, other], 1)
    packed.put(1, np.zeros(2, np.uint8))
    assert is_zero_in_all([packed, other], 1)
    assert packed.equals(other)


def test_large_label_maps_take_a_small_part_of_their_size() -> None:
    z, y, x = np.ogrid[:110, :110, :110]
    ball = ((z - 55) ** 2 + (y - 55) ** 2 + (x - 55) ** 2 < 50**2).astype(np.float32)
    packed = PackedMap.of(ball)
    assert sum(len(chunk) for chunk in packed._chunks if isinstance(chunk, bytes)) < ball.nbytes / 20
    np.testing.assert_array_equal(packed.whole(), ball)


@chunks_of_any_size
def test_one_array_serves_chunk_after_chunk(is_packed: bool, monkeypatch) -> None:
    monkeypatch.setattr(packed_module, "CHUNK", 2)
    monkeypatch.setattr(packed_module, "PACKED_ABOVE", 0 if is_packed else 1 << 20)
    maps = [PackedMap.of(np.array(values, np.float32)) for values in ([1, 0, 0, 0, 2], [0, 3, 4, 0, 0])]
    kept = np.full((3, maps[0].part(0).stop), 9, np.float32)
    for index in range(maps[0].n_chunks):
        found = stacked(maps, index, kept)
        assert np.shares_memory(found, kept)
        np.testing.assert_array_equal(found, stacked(maps, index))
