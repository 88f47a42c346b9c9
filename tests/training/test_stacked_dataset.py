import numpy as np
import pytest
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from nnunet_softlabel.formats.encoding import SCALE
from nnunet_softlabel.training.stacked_dataset import StackedDataset, StackedLabels


@pytest.fixture
def folder(planned_dataset):
    return planned_dataset.preprocessed / "nnUNetPlans_3d_fullres"


def soft_dataset(folder, **options):
    inner = nnUNetDatasetBlosc2(str(folder))
    return StackedDataset(inner, folder / "soft_labels", [1], **{"oversamples_disputed": True, **options})


def test_stacked_labels_crop_like_the_concatenated_array():
    hard, soft = (
        np.random.randint(0, 2, (1, 5, 6, 7)),
        np.random.randint(0, SCALE, (2, 5, 6, 7)).astype(np.int16),
    )
    stacked = StackedLabels(hard, soft)
    key = (slice(None), slice(1, 4), slice(0, 6), slice(2, 3))
    np.testing.assert_array_equal(stacked[key], np.concatenate([hard, soft])[key])
    assert stacked.shape == (3, 5, 6, 7)


def test_load_case_returns_the_hard_label_then_the_soft_one(folder):
    dataset = soft_dataset(folder)
    data, labels, previous, _ = dataset.load_case(dataset.identifiers[0])
    everything = labels[(slice(None),) * 4]
    assert everything.dtype == np.int16
    assert labels.shape == (2, *data.shape[1:])
    assert previous is None
    disagree = (everything[1] > SCALE // 2) != (everything[0] == 1)
    assert disagree.mean() < 0.02  # nnU-Net resamples the hard label on its own


def test_disputed_voxels_join_the_locations_and_can_be_switched_off(folder):
    case = soft_dataset(folder).identifiers[0]
    stock = nnUNetDatasetBlosc2(str(folder)).load_case(case)[3]["class_locations"][1]
    ours = soft_dataset(folder).load_case(case)
    locations = ours[3]["class_locations"][1]
    np.testing.assert_array_equal(locations[: len(stock)], stock)
    extra = locations[len(stock) :]
    assert len(extra) > 0
    labels = ours[1][(slice(None),) * 4]
    at = tuple(np.asarray(extra[:, 1:]).T.astype(int))
    assert (labels[1][at] > 0).all()
    assert (labels[0][at] == 0).all()
    off = soft_dataset(folder, oversamples_disputed=False).load_case(case)[3]["class_locations"][1]
    np.testing.assert_array_equal(off, stock)
