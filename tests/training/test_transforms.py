import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform

from nnunet_softlabel.formats.encoding import SCALE
from nnunet_softlabel.training.transforms import MergeSoftLabel, SplitSoftLabel, area_averages


def sample(hard: torch.Tensor, soft: torch.Tensor) -> dict:
    stacked = torch.cat([hard[None], soft]).to(torch.int16)
    return {"image": torch.zeros(1, *hard.shape), "segmentation": stacked}


def test_split_and_merge_keep_an_unchanged_label():
    soft = torch.randint(0, SCALE // 2, (2, 4, 6, 8))
    out = MergeSoftLabel(None)(**SplitSoftLabel(2, keeps_hard=False)(**sample(torch.zeros(4, 6, 8), soft)))
    assert out["segmentation"].dtype == torch.int16
    assert torch.equal(out["segmentation"], soft.to(torch.int16))
    assert "regression_target" not in out


def test_padding_is_background():
    soft = torch.full((2, 3, 3, 3), -1)
    out = MergeSoftLabel(None)(
        **SplitSoftLabel(2, keeps_hard=False)(**sample(torch.full((3, 3, 3), -1), soft))
    )
    assert (out["segmentation"] == 0).all()


def test_split_keeps_the_previous_stage_behind_the_hard_label():
    stacked = torch.arange(4, dtype=torch.int16).view(4, 1, 1).expand(4, 2, 2)
    out = SplitSoftLabel(2, keeps_hard=True)(image=torch.zeros(1, 2, 2), segmentation=stacked)
    assert out["segmentation"][:, 0, 0].tolist() == [0, 3]
    assert out["regression_target"][:, 0, 0].tolist() == [1, 2]


def test_merge_averages_areas_for_deep_supervision():
    # one row of four voxels: the mean of (0, SCALE) is SCALE / 2, of (SCALE, SCALE) is SCALE
    soft = torch.tensor([0, SCALE, SCALE, SCALE]).view(1, 1, 4)
    data = SplitSoftLabel(1, keeps_hard=False)(
        image=torch.zeros(1, 1, 4), segmentation=torch.cat([soft * 0, soft]).short()
    )
    full, half = MergeSoftLabel([[1, 1], [1, 0.5]])(**data)["segmentation"]
    assert full.flatten().tolist() == [0, SCALE, SCALE, SCALE]
    assert half.flatten().tolist() == [SCALE // 2, SCALE]


@pytest.mark.parametrize("shape", [(8, 12, 16), (9, 10, 13), (8, 10)])
def test_area_average_is_torch_area_interpolation(shape):
    soft = torch.rand(2, *shape)
    scale = [0.5] * len(shape)
    new_shape = [round(size / 2) for size in shape]
    expected = torch.nn.functional.interpolate(soft[None], new_shape, mode="area")[0]
    torch.testing.assert_close(next(area_averages(soft, None, [scale]))[0], expected)


def test_nested_area_averages_are_those_of_the_full_grid():
    soft = torch.rand(2, 12, 16, 10)
    scales = [[1, 1, 1], [1, 0.5, 0.5], [0.5, 0.25, 0.2], [0.25, 0.125, 0.1]]
    for scale, (averaged, _) in zip(scales, area_averages(soft, None, scales), strict=True):
        expected = next(area_averages(soft, None, [scale]))[0]
        torch.testing.assert_close(averaged, expected)


def test_ignored_voxels_are_marked_and_do_not_enter_averages():
    hard = torch.tensor([0, 2, 0, 0, 2, 2]).view(1, 6)  # 2 is ignore
    soft = torch.tensor([SCALE, 0, 0, SCALE, 0, 0]).view(1, 1, 6)
    split = SplitSoftLabel(1, keeps_hard=True)
    full, half = MergeSoftLabel([[1, 1], [1, 0.5]], ignore_label=2)(**split(**sample(hard, soft)))[
        "segmentation"
    ]
    assert full.flatten().tolist() == [SCALE, -1, 0, SCALE, -1, -1]
    # pairs (1, ignored), (0, 1), (ignored, ignored)
    assert half.flatten().tolist() == [SCALE, SCALE // 2, -1]


def test_validation_split_marks_ignored_voxels_before_regions_are_made():
    hard = torch.tensor([0, 2]).view(1, 2)
    soft = torch.tensor([5, 0]).view(1, 1, 2)
    out = SplitSoftLabel(1, keeps_hard=True, ignore_label=2)(**sample(hard, soft))
    merged = MergeSoftLabel(None, keeps_hard=True, is_marked=True)(**out)["segmentation"]
    assert merged.flatten().tolist() == [0, 2, 5, -1]


def test_classes_never_sum_above_one_after_interpolation():
    soft = torch.tensor([[SCALE, SCALE // 2], [SCALE // 2, 0]]).view(2, 1, 2).float() * 1.2
    merged = MergeSoftLabel(None)(image=torch.zeros(1, 1, 2), regression_target=soft.clone())["segmentation"]
    assert merged.sum(0).max() <= SCALE + 1
    regions = MergeSoftLabel(None, is_exclusive=False)(image=torch.zeros(1, 1, 2), regression_target=soft)[
        "segmentation"
    ]
    assert regions.max() == SCALE


def test_soft_target_of_a_rotated_ramp_is_the_rotated_ramp():
    """A ramp along x, rotated by a known grid, against the ramp's formula at the rotated coordinates."""
    size = 33
    axis = torch.linspace(0, 1, size)
    soft = (axis.view(1, 1, size).expand(1, size, size) * SCALE).round()
    transform = SpatialTransform(
        (17, 17), 0, False, p_rotation=1, rotation=(0.3, 0.3), p_scaling=1, scaling=(1.2, 1.2)
    )
    split, merge = SplitSoftLabel(1, keeps_hard=False), MergeSoftLabel(None)
    data = split(image=soft.clone(), segmentation=torch.cat([soft * 0, soft]).short())
    params = transform.get_parameters(**data)
    target = merge(**transform.apply(data, **params))["segmentation"][0].numpy() / SCALE
    # grid_sample coordinates in [-1, 1], align_corners False: pixel = ((g + 1) * size - 1) / 2
    x = ((params["grid"][..., 0].numpy() + 1) * size - 1) / 2
    np.testing.assert_allclose(target, x / (size - 1), atol=1e-4)
