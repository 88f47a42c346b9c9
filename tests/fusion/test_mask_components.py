"""Components of masks, and their voxels piece by piece: what scipy finds in the whole image."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from nnunet_softlabel.fusion import RaterVotes, mask_components
from nnunet_softlabel.fusion.detection_model import DetectionModel
from nnunet_softlabel.fusion.lesion_candidates import find_candidates
from nnunet_softlabel.fusion.lesions import fuse_channel
from nnunet_softlabel.fusion.mask_components import Extent, MaskComponents, shared_voxels

SPACING_MM = (2.0, 1.0, 0.7)
drawn = settings(max_examples=40, deadline=None, derandomize=True)
few = settings(max_examples=15, deadline=None, derandomize=True)
pieces = st.sampled_from([1, 7, 40, 1 << 18])


@st.composite
def masks(draw, n: int = 1, axes: tuple[int, ...] = (2, 3)) -> list[NDArray[Any]]:
    """Blobs or noise of one shape; an empty mask now and then."""
    shape = tuple(draw(st.integers(1, 11)) for _ in range(draw(st.sampled_from(axes))))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    common = random.normal(size=shape)
    drawn = []
    for _ in range(n):
        field = ndimage.gaussian_filter(common + random.normal(size=shape), draw(st.sampled_from([0, 0.7])))
        drawn.append(field > np.quantile(field, draw(st.sampled_from([0.5, 0.8, 0.95, 1]))))
    return drawn


def numbered(mask: NDArray[Any]) -> NDArray[Any]:
    return ndimage.label(mask, structure=np.ones((3,) * mask.ndim))[0]


@given(found=masks(), piece=pieces)
@drawn
def test_components_are_those_of_scipy_in_their_order(found: list[NDArray[Any]], piece: int) -> None:
    (mask,) = found
    expected = numbered(mask)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mask_components, "PIECE", piece)
        components = MaskComponents.of(mask)
        everywhere = tuple(map(slice, (0,) * mask.ndim, mask.shape))
        np.testing.assert_array_equal(components.within(everywhere), expected)
    np.testing.assert_array_equal(components.sizes, np.bincount(expected.ravel())[1:])
    assert list(components.boxes) == ndimage.find_objects(expected)
    first = [np.flatnonzero(expected == n + 1)[0] for n in range(expected.max())]
    assert components.first_voxels().tolist() == first


@pytest.mark.parametrize("shape", [(3, 3), (7, 5), (5, 8), (1, 9)])
def test_no_voxel_of_a_flat_image_with_odd_sides_is_lost(shape: tuple[int, int]) -> None:
    for seed in range(40):
        mask = np.random.default_rng(seed).random(shape) < 0.4
        assert MaskComponents.of(mask).sizes.sum() == mask.sum()
        raters = RaterVotes(np.stack([mask, mask])[:, np.newaxis], ("a", "b"), (1.0, 1.0))
        large = [n for n in np.bincount(numbered(mask).ravel())[1:] if n >= 5]
        assert sum(e.n_voxels for e in find_candidates(raters, 0).extents) >= sum(large)


@given(found=masks(2), piece=pieces, chosen=st.sets(st.integers(1, 6)), cut=st.integers(0, 5))
@drawn
def test_an_extent_has_the_voxels_of_its_components(
    found: list[NDArray[Any]], piece: int, chosen: set[int], cut: int
) -> None:
    components = [MaskComponents.of(mask) for mask in found]
    own = {m: np.array(sorted(n for n in chosen if n <= len(c.boxes))) for m, c in enumerate(components)}
    extent = Extent(components, {m: numbers for m, numbers in own.items() if numbers.size})
    if not extent.chosen:
        return
    counts = sum(np.isin(numbered(mask), own[m]).astype(int) for m, mask in enumerate(found))
    box = tuple(slice(min(cut, n - 1), n) for n in counts.shape)
    inside = np.zeros(counts.shape, bool)
    inside[box] = True
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mask_components, "PIECE", piece)
        assert extent.n_voxels == np.count_nonzero(counts)
        for of, where in ((None, counts > 0), (box, (counts > 0) & inside)):
            parts = list(extent.pieces(of))
            assert (
                np.concatenate([np.empty(0), *(v for v, _ in parts)]).tolist()
                == np.flatnonzero(where).tolist()
            )
            assert np.concatenate([np.empty(0), *(n for _, n in parts)]).tolist() == counts[where].tolist()


@given(found=masks(2), piece=pieces)
@drawn
def test_shared_voxels_are_counted_pair_by_pair(found: list[NDArray[Any]], piece: int) -> None:
    one, two = map(numbered, found)
    expected = {}
    for first, second in zip(*(np.unique(np.stack([one, two]).reshape(2, -1), axis=1)), strict=True):
        if first and second:
            expected[first - 1, second - 1] = int(((one == first) & (two == second)).sum())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mask_components, "PIECE", piece)
        pairs = zip(*shared_voxels(*map(MaskComponents.of, found)), strict=True)
        assert {(int(a), int(b)): int(n) for a, b, n in pairs} == expected


MODEL = DetectionModel(
    "misses and inventions", "", dict.fromkeys("abc", 0.5), dict.fromkeys("abc", -2.0), 0.0, 0.0, 0.0, 1.0,
    0.0, (3.0, 1.0), has_network=True,
)  # fmt: skip


@given(found=masks(4, axes=(3,)), piece=st.sampled_from([1, 7, 40]), has_ignore=st.booleans())
@few
def test_the_label_of_a_channel_does_not_depend_on_the_size_of_pieces(
    found: list[NDArray[Any]], piece: int, has_ignore: bool
) -> None:
    *marks, seen = found
    random = np.random.default_rng(0)
    answered = random.random((3, *seen.shape)) < 0.8 if has_ignore else None
    raters = RaterVotes(np.stack(marks)[:, np.newaxis], ("a", "b", "c"), SPACING_MM, answered=answered)
    network = (np.where(seen, 0.5, 0) + 0.3 * random.random(seen.shape)).astype(np.float32)
    label, candidates, posterior = fuse_channel(raters, 0, model=MODEL, probability=network)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mask_components, "PIECE", piece)
        own = fuse_channel(raters, 0, model=MODEL, probability=network)
    np.testing.assert_array_equal(own[0], label)
    assert own[1] == candidates
    np.testing.assert_array_equal(own[2], posterior)


def test_a_label_takes_few_bytes_per_voxel_however_much_is_marked(monkeypatch) -> None:
    """Of four raters who all mark most of the image; their votes and the probability are not counted."""
    monkeypatch.setattr(mask_components, "PIECE", 1 << 12)
    shape = (40, 64, 64)
    votes = np.zeros((4, 1, *shape), bool)
    votes[:3, :, 2:-2, 2:-2, 2:-2] = True
    raters = RaterVotes(votes, ("a", "b", "c", "d"), SPACING_MM)
    network = np.full(shape, 0.6, np.float32)
    fuse_channel(raters, 0, model=MODEL, probability=network)  # loads parts of scipy
    tracemalloc.start()
    try:
        fuse_channel(raters, 0, model=MODEL, probability=network)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20 * network.size
