import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from torch.nn.functional import grid_sample

from nnunet_softlabel.formats.encoding import SCALE
from nnunet_softlabel.training.sparse_labels import (
    SparseSpatialTransform,
    block_bounds,
    interpolated,
    positive_box,
    positive_floats,
    with_sparse_interpolation,
)
from nnunet_softlabel.training.stacked_dataset import StackedLabels
from nnunet_softlabel.training.transforms import area_averages, quantised, sparse_targets


def boxes_of_noise(shape, n_channels=4):
    """Channels that are noise in a box of their own, and 0 elsewhere; the last is empty."""
    soft = torch.zeros(n_channels, *shape)
    for channel in range(n_channels - 1):
        box = tuple(slice(*sorted(np.random.choice(size + 1, 2, replace=False))) for size in shape)
        soft[channel][box] = torch.randint(0, SCALE // n_channels, soft[channel][box].shape).float()
    return soft


def spatial(patch, **options):
    drawn = {"p_rotation": 1, "rotation": (0.2, 0.9), "p_scaling": 1, "scaling": (0.7, 1.4), **options}
    return SpatialTransform(patch, 0, False, **drawn)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_positive_box_holds_what_is_positive_and_nothing_else(axis):
    values = np.full((5, 6, 7), -1)
    values[2, 1, 3] = values[3, 4, 3] = 2
    values = np.moveaxis(values, 0, axis)
    expected = [slice(1, 5), slice(3, 4)]
    expected.insert(axis, slice(2, 4))
    assert positive_box(values) == tuple(expected)
    assert positive_box(values.clip(max=0)) is None


@pytest.mark.parametrize(
    ("shape", "patch"), [((30, 34, 37), (21, 24, 16)), ((12, 50, 8), (9, 33, 17)), ((40, 44), (33, 24))]
)
@pytest.mark.parametrize("elastic", [0, 1])
def test_sparse_interpolation_is_bit_equal_to_nnunets(shape, patch, elastic):
    transform = spatial(
        patch, p_elastic_deform=elastic, elastic_deform_scale=(0.1, 0.2), elastic_deform_magnitude=(1, 3)
    )
    soft = boxes_of_noise(shape)
    params = transform.get_parameters(image=soft[:1])
    sparse = SparseSpatialTransform.like(transform)
    expected = transform._apply_to_regr_target(soft, **params)
    assert expected.max() > 0
    assert torch.equal(sparse._apply_to_regr_target(soft, **params), expected)


def test_interpolation_reaches_one_voxel_beyond_the_box_and_outside_the_image():
    soft = torch.zeros(1, 6, 9)
    soft[0, 0, 8] = 5  # a corner
    rows, columns = torch.meshgrid(
        torch.linspace(-1.4, 1.4, 40), torch.linspace(-1.4, 1.4, 40), indexing="ij"
    )
    grid = torch.stack([columns, rows], dim=-1)
    expected = grid_sample(soft[None], grid[None], align_corners=False)[0]
    assert torch.equal(interpolated(soft, grid), expected)
    assert (expected > 0).sum() > 3


def test_bounds_of_blocks_are_those_of_every_voxel_in_them():
    grid = torch.rand(11, 17, 2)
    low, high = block_bounds(grid.numpy(), (20, 30))
    block = grid[8:11, 8:16].numpy()
    voxel = [((block[..., 1] + 1) * 20 - 1) / 2, ((block[..., 0] + 1) * 30 - 1) / 2]
    np.testing.assert_allclose(low[1, 1], [v.min() for v in voxel], rtol=1e-6)
    np.testing.assert_allclose(high[1, 1], [v.max() for v in voxel], rtol=1e-6)
    assert low.shape == (2, 3, 2)


def test_other_interpolations_stay_nnunets():
    soft = boxes_of_noise((20, 20))
    for options in ({"padding_mode_image": "border"}, {"mode_image": "nearest"}, {"align_corners": True}):
        transform = spatial((12, 12), **options)
        params = transform.get_parameters(image=soft[:1])
        sparse = SparseSpatialTransform.like(transform)._apply_to_regr_target(soft, **params)
        assert torch.equal(sparse, transform._apply_to_regr_target(soft, **params))
    still = spatial((12, 12), p_rotation=0, p_scaling=0)
    params = still.get_parameters(image=soft[:1])
    assert torch.equal(
        SparseSpatialTransform.like(still)._apply_to_regr_target(soft, **params), soft[:, 4:16, 4:16]
    )


def test_only_nnunets_own_spatial_transform_is_replaced():
    class Other(SpatialTransform):
        pass

    other, mirror = Other((4, 4), 0, False), MirrorTransform((0, 1))
    found = with_sparse_interpolation(ComposeTransforms([spatial((4, 4)), other, mirror]))
    assert [type(t) for t in found.transforms] == [SparseSpatialTransform, Other, MirrorTransform]
    assert found.transforms[1] is other


@pytest.mark.parametrize("size", [(16, 32, 24), (15, 32, 9)])
@pytest.mark.parametrize("too_much", [False, True])
@pytest.mark.parametrize("is_exclusive", [False, True])
def test_sparse_targets_are_those_of_the_whole_grid(size, too_much, is_exclusive):
    soft = boxes_of_noise(size, 5) + 0.25
    soft[-1] = 0
    if too_much:
        soft[:, :4] *= 4
    scales = [[1, 1, 1], [1, 0.5, 0.5], [0.5, 0.25, 0.25], [0.25, 0.125, 0.125]]
    dense = soft.clamp(0, SCALE)
    total = dense.sum(dim=0, keepdim=True)
    if is_exclusive and total.max() > SCALE + 1:
        dense *= SCALE / total.clamp_min(SCALE)
    expected = [quantised(*scaled) for scaled in area_averages(dense, None, scales)]
    for found, wanted in zip(sparse_targets(soft, scales, is_exclusive=is_exclusive), expected, strict=True):
        assert found.dtype == torch.int16
        # sums in another order differ in the last bit of a float, and so by one step when rounded
        assert (found.int() - wanted.int()).abs().max() <= (1 if too_much else 0)


def test_positive_floats_drop_padding():
    soft = torch.tensor([[-1, 3, -1], [-1, -1, -1]], dtype=torch.int16)
    assert positive_floats(soft).tolist() == [[0, 3, 0], [0, 0, 0]]


def test_padded_crop_holds_the_labels_and_background_around_them():
    hard = np.random.randint(0, 3, (1, 5, 6, 7)).astype(np.int16)
    soft = boxes_of_noise((5, 6, 7)).numpy().astype(np.int16)
    key = (slice(None), slice(1, 5), slice(0, 6), slice(2, 5))
    crop = StackedLabels(hard, soft)[key]
    width = [(0, 0), (2, 1), (0, 3), (4, 0)]
    padded = np.pad(crop, pad_width=width, mode="constant", constant_values=-1)
    assert type(padded) is np.ndarray
    np.testing.assert_array_equal(padded[:1], np.pad(hard[key], width, constant_values=-1))
    np.testing.assert_array_equal(padded[1:], np.pad(soft[key], width))
    edge = np.pad(crop, pad_width=width, mode="edge")  # numpy's own way stays open
    np.testing.assert_array_equal(edge[1:], np.pad(soft[key], width, mode="edge"))
