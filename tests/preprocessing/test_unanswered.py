"""Interpolation beside voxels that nobody answered takes no probability from those that were answered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.encoding import IGNORED, SCALE, dequantise
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.images import write_image
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.preprocessing import one_case
from nnunet_softlabel.preprocessing.unanswered import Answered, filled
from nnunet_softlabel.training.transforms import MergeSoftLabel, SplitSoftLabel
from tests.preprocessing.test_computation import fake_plan, properties

IGNORE = 2
SHAPE = (12, 16, 16)


def sparse() -> np.ndarray:
    """Every third slice was annotated."""
    answered = np.zeros(SHAPE, bool)
    answered[1::3] = True
    return answered


def test_a_step_reaches_what_touches_an_answered_voxel_by_a_corner_too() -> None:
    answered = np.zeros((5, 5, 5), bool)
    answered[2, 2, 2] = True
    by_hand = np.zeros((5, 5, 5))
    by_hand[1:4, 1:4, 1:4] = 0.7
    np.testing.assert_array_equal(filled(np.full((5, 5, 5), 0.7), answered), by_hand)
    assert filled(np.full((5, 5, 5), 0.7), answered, steps=2).min() == 0.7


def test_answered_voxels_keep_their_value_and_channels_their_sum() -> None:
    rng = np.random.default_rng(0)
    soft, answered = rng.dirichlet([1, 1, 1], SHAPE).transpose(3, 0, 1, 2)[:2], rng.random(SHAPE) < 0.2
    found = np.stack([filled(channel, answered) for channel in soft])
    np.testing.assert_array_equal(found[:, answered], soft[:, answered])
    assert found.sum(axis=0).max() <= soft.sum(axis=0)[answered].max()


@pytest.mark.parametrize("shape", [SHAPE, (24, 20, 20), (6, 12, 12)])
def test_certain_lesions_stay_certain_where_a_case_is_resampled(shape: tuple[int, ...]) -> None:
    answered = sparse()
    middles = [(np.arange(new) + 0.5) * old / new - 0.5 for new, old in zip(shape, SHAPE, strict=True)]
    nearest = [middle.round().astype(int) for middle in middles]
    after = answered[np.ix_(*nearest)]
    made = one_case.preprocess_case(
        answered[None].astype(np.float32),  # 1 where somebody answered, 0 where nobody did
        properties(SHAPE, [[0, size] for size in SHAPE], [1, 1, 1]),
        fake_plan([old / new for new, old in zip(shape, SHAPE, strict=True)]),
        shape=shape,
        answered=Answered(None if shape == SHAPE else answered, after),
    )
    assert dequantise(made[0].whole())[after].min() == pytest.approx(1, abs=1e-4)


def test_certain_lesions_stay_certain_where_an_image_is_turned() -> None:
    answered = sparse()
    channel = filled(answered.astype(np.float32), answered) * SCALE
    hard = np.where(answered, 1, IGNORE)
    turn = SpatialTransform(
        patch_size=(8, 10, 10), patch_center_dist_from_border=0, random_crop=False, p_elastic_deform=0,
        p_rotation=1, rotation=(0.3, 0.4), p_scaling=1, scaling=(0.8, 0.8), bg_style_seg_sampling=False,
    )  # fmt: skip
    for seed in range(3):
        torch.manual_seed(seed)
        np.random.seed(seed)
        sample = {
            "image": torch.zeros(1, *SHAPE),
            "segmentation": torch.from_numpy(np.stack([hard, channel]).astype(np.int16)),
        }
        turned = turn(**SplitSoftLabel(1, keeps_hard=True)(**sample))
        target = MergeSoftLabel(None, ignore_label=IGNORE)(**turned)["segmentation"][0]
        assert (target != IGNORED).sum() > 100
        assert target[target != IGNORED].min() > 0.95 * SCALE


def configuration(folder: Path, ignore: int | None) -> one_case.Configuration:
    labels = Labels({"lesion": (1,)}, ignore)
    return one_case.Configuration(labels, folder, None, folder, fake_plan([1, 1, 1]))


def test_who_answered_is_read_from_the_hard_label_before_and_after_resampling(tmp_path: Path) -> None:
    before, after = np.where(sparse(), 1, IGNORE), np.full((6, 8, 8), IGNORE)
    path = tmp_path / "case.nii.gz"
    write_image(
        path,
        before.astype(np.uint8),
        Grid.upright(SHAPE, (1, 1, 1)),
    )
    about = {"shape_after_cropping_and_before_resampling": SHAPE}
    found = one_case.answered_voxels(path, after[None], about, configuration(tmp_path, IGNORE))
    assert found is not None
    assert found.before is not None
    np.testing.assert_array_equal(found.before, sparse())
    assert not found.after.any()
    assert one_case.answered_voxels(path, after[None], about, configuration(tmp_path, None)) is None
    with pytest.raises(DatasetError, match=r"other\.nii\.gz: cannot be read; convert the data set again"):
        one_case.answered_voxels(
            tmp_path / "other.nii.gz", after[None], about, configuration(tmp_path, IGNORE)
        )


def test_a_hard_label_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    """nnU-Net's reader would fill it with zeros, that is with answers."""
    path = tmp_path / "case.nii"
    label = np.full(SHAPE, IGNORE, np.uint8)
    write_image(path, label, Grid.upright(SHAPE, (1, 1, 1)))
    path.write_bytes(path.read_bytes()[: -label.size // 2])
    about = {"shape_after_cropping_and_before_resampling": SHAPE}
    with pytest.raises(DatasetError, match=r"case\.nii: cannot be read; convert the data set again"):
        one_case.answered_voxels(path, np.zeros((1, 6, 8, 8)), about, configuration(tmp_path, IGNORE))
