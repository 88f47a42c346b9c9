"""What becomes of one soft label: cropped and resampled as nnU-Net does it, disputed voxels beside it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import blosc2
import numpy as np
import pytest
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from skimage.transform import resize

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats import packed as packed_module
from nnunet_softlabel.formats.encoding import SCALE, dequantise, quantise
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.images import write_image
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from nnunet_softlabel.preprocessing import one_case
from nnunet_softlabel.preprocessing.case_plan import CasePlan, resampling_of
from nnunet_softlabel.preprocessing.disputed import disputed_locations, locations_path
from nnunet_softlabel.preprocessing.run import preprocess
from tests.conversion.conversion_helpers import run
from tests.preprocessing.preparations import preparation, read_soft


def preprocess_case(soft: NDArray[Any], *about: Any, **options: Any) -> NDArray[Any]:
    return np.stack([packed.whole() for packed in one_case.preprocess_case(soft, *about, **options)])


RESAMPLE = partial(resample_data_or_seg_to_shape, is_seg=False, order=1, order_z=0, force_separate_z=None)


def fake_plan(spacing: list[float], transpose: list[int] = [0, 1, 2]) -> CasePlan:  # noqa: B006  # read only
    return CasePlan(transpose, spacing, (8, 8, 8), SimpleITKIO, resampling_of(RESAMPLE))


def properties(shape: tuple[int, ...], box: list[list[int]], spacing: list[float]) -> dict:
    return {"shape_before_cropping": shape, "bbox_used_for_cropping": box, "spacing": spacing}


def test_uncropped_unresampled_label_stays_exact() -> None:
    soft = np.random.default_rng(0).integers(0, 5, (1, 4, 6, 8)).astype(np.float32) / 4
    made = preprocess_case(
        soft,
        properties((4, 6, 8), [[0, 4], [0, 6], [0, 8]], [1, 1, 1]),
        fake_plan([1, 1, 1]),
        shape=(4, 6, 8),
    )
    np.testing.assert_array_equal(made, soft * SCALE)


def test_crop_is_the_stored_box() -> None:
    soft = np.random.default_rng(0).random((1, 6, 7, 8), dtype=np.float32)
    made = preprocess_case(
        soft,
        properties((6, 7, 8), [[1, 5], [2, 7], [0, 3]], [1, 1, 1]),
        fake_plan([1, 1, 1]),
        shape=(4, 5, 3),
    )
    np.testing.assert_allclose(dequantise(made), soft[:, 1:5, 2:7, 0:3], atol=2e-5)


def test_ramp_is_interpolated_linearly() -> None:
    """Voxel i of n lies at (i + 0.5) / n: a ramp along an axis keeps its values there."""
    ramp = np.broadcast_to((np.arange(10, dtype=np.float32) + 0.5) / 10, (1, 8, 8, 10)).copy()
    made = preprocess_case(
        ramp,
        properties((8, 8, 10), [[0, 8], [0, 8], [0, 10]], [1, 1, 1]),
        fake_plan([1, 1, 0.5]),
        shape=(8, 8, 20),
    )
    by_hand = np.clip((np.arange(20) + 0.5) / 20, 0.05, 0.95)  # beyond the outer voxels the edge goes on
    np.testing.assert_allclose(dequantise(made)[0, 3, 4], by_hand, atol=1e-4)
    positions = (np.arange(20) + 0.5) / 2 - 0.5
    by_scipy = map_coordinates(ramp[0, 0, 0].astype(float), [positions], order=1, mode="nearest")
    np.testing.assert_allclose(dequantise(made)[0, 0, 0], by_scipy, atol=1e-4)


def test_transposed_and_cropped_volume_is_scikit_images_resize() -> None:
    random = np.random.default_rng(1)
    soft = random.random((1, 9, 10, 11), dtype=np.float32)  # as read: z, y, x
    # transpose_forward [1, 0, 2]: axes become y, z, x; spacing in the file's order, z first
    plan = fake_plan([1.0, 2.0, 1.0], [1, 0, 2])
    cropped = properties((10, 9, 11), [[1, 9], [0, 9], [2, 10]], [2.0, 1.5, 1.25])
    made = preprocess_case(soft, cropped, plan, shape=(12, 9, 10))
    moved = soft[0].transpose(1, 0, 2)[1:9, 0:9, 2:10]
    expected = resize(moved.astype(float), (12, 9, 10), order=1, mode="edge", anti_aliasing=False)
    np.testing.assert_allclose(dequantise(made)[0], expected, atol=1e-4)


def test_anisotropic_volume_is_resampled_in_plane_and_nearest_across() -> None:
    soft = np.random.default_rng(2).random((1, 4, 8, 8), dtype=np.float32)
    box = [[0, 4], [0, 8], [0, 8]]
    made = preprocess_case(
        soft, properties((4, 8, 8), box, [5, 1, 1]), fake_plan([2.5, 0.5, 0.5]), shape=(8, 16, 16)
    )
    in_plane = [resize(s.astype(float), (16, 16), order=1, mode="edge", anti_aliasing=False) for s in soft[0]]
    expected = np.repeat(np.stack(in_plane), 2, axis=0)  # order_z = 0
    np.testing.assert_allclose(dequantise(made)[0], expected, atol=1e-4)


def test_2d_configuration_leaves_the_slices_of_a_volume_alone() -> None:
    soft = np.random.default_rng(3).random((1, 5, 8, 8), dtype=np.float32)
    box = [[0, 5], [0, 8], [0, 8]]
    made = preprocess_case(
        soft, properties((5, 8, 8), box, [3, 1, 1]), fake_plan([0.5, 0.5]), shape=(5, 16, 16)
    )
    expected = [resize(s.astype(float), (16, 16), order=1, mode="edge", anti_aliasing=False) for s in soft[0]]
    np.testing.assert_allclose(dequantise(made)[0], np.stack(expected), atol=1e-4)


@pytest.mark.parametrize("shape", [(12, 12, 12), (5, 6, 7)])
def test_classes_and_background_sum_to_one(shape: tuple[int, ...]) -> None:
    soft = (
        np.random.default_rng(0).dirichlet(np.ones(4), (8, 8, 8)).transpose(3, 0, 1, 2)[1:].astype(np.float32)
    )
    box = [[0, 8]] * 3
    spacing = [8 / size for size in shape]
    made = preprocess_case(soft, properties((8, 8, 8), box, [1, 1, 1]), fake_plan(spacing), shape=shape)
    total = made.astype(int).sum(axis=0)
    assert made.min() >= 0
    assert total.max() <= SCALE + 1  # rounding of three channels
    assert abs(total - SCALE * 0.75).mean() < SCALE * 0.2


@pytest.mark.parametrize("is_exclusive", [True, False])
@pytest.mark.parametrize(
    ("spacing", "shape"), [([1, 1, 1], (4, 6, 7)), ([0.5, 1, 1.75], (8, 6, 4)), ([1, 0.2, 0.2], (4, 30, 35))]
)
def test_channel_by_channel_is_what_all_at_once_would_be(
    monkeypatch, is_exclusive: bool, spacing: list[float], shape: tuple[int, ...]
) -> None:
    """To the last bit, with channels in many packed chunks; the last channel is empty."""
    monkeypatch.setattr(packed_module, "CHUNK", 50)
    monkeypatch.setattr(packed_module, "PACKED_ABOVE", 0)
    soft = np.random.default_rng(4).random((4, 6, 8, 7), dtype=np.float32) ** 3
    soft[3] = 0
    soft[:, :, 2:5] = 0
    plan = fake_plan(spacing, [1, 0, 2])
    about = properties((8, 6, 7), [[2, 6], [0, 6], [0, 7]], [1, 1, 1])
    made = preprocess_case(soft, about, plan, shape=shape, is_exclusive=is_exclusive)
    cropped = np.ascontiguousarray(soft.transpose(0, 2, 1, 3)[:, 2:6])
    resampled = RESAMPLE(cropped, list(shape), [1, 1, 1], spacing)
    expected = np.clip(resampled, 0, 1)
    if is_exclusive:
        expected = expected / np.maximum(expected.sum(axis=0), 1)
    np.testing.assert_array_equal(made, quantise(expected))
    assert made.dtype == np.int16


def test_channels_are_what_the_plans_reader_reads(tmp_path) -> None:
    """nnU-Net's usual reader is not asked again for a file that was checked: the result is the same."""

    class Own(SimpleITKIO):
        pass

    grid = Grid((5, 4, 3), (0.5, 1.0, 2.5), (1.0, 2.0, 3.0), (0.0, 1, 0, -1.0, 0, 0, 0, 0, 1.0))
    files = [tmp_path / f"{name}.nii.gz" for name in "ab"]
    for seed, path in enumerate(files):
        write_image(path, np.random.default_rng(seed).random((3, 4, 5), dtype=np.float32), grid)
    found = {}
    for reader in (SimpleITKIO, Own):
        soft = one_case._SoftFiles(files, reader)
        found[reader] = [*soft, *(soft._read(path)[1] for path in files)]
        assert soft.is_disputed
    for own, other in zip(found[SimpleITKIO], found[Own], strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-6)
        assert np.asarray(own).dtype == np.asarray(other).dtype


def test_regions_may_overlap() -> None:
    soft = np.ones((2, 4, 4, 4), np.float32)
    made = preprocess_case(
        soft,
        properties((4, 4, 4), [[0, 4]] * 3, [1, 1, 1]),
        fake_plan([0.5] * 3),
        shape=(8, 8, 8),
        is_exclusive=False,
    )
    np.testing.assert_array_equal(made, SCALE)


def test_label_of_another_size_is_refused() -> None:
    with pytest.raises(DatasetError, match=r"has the size \(4, 4, 5\), its image \(4, 4, 4\); run nnUNetv2"):
        preprocess_case(
            np.zeros((1, 4, 4, 5), np.float32),
            properties((4, 4, 4), [[0, 4]] * 3, [1, 1, 1]),
            fake_plan([1, 1, 1]),
            shape=(4, 4, 4),
        )


@pytest.mark.parametrize("fixture", ["planned_dataset", "planned_dataset_two_classes"])
@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
def test_soft_labels_lie_on_nnunets_images(request, fixture: str, configuration: str) -> None:
    """Thresholded, they are nnU-Net's own preprocessed consensus wherever nothing was interpolated."""
    dataset = request.getfixturevalue(fixture)
    made = preparation(dataset, configuration)
    for case in dataset.cases:
        image, hard, _, props = nnUNetDatasetBlosc2(str(made.images), [case]).load_case(case)
        soft = read_soft(made.folder, case)
        assert soft.shape[1:] == image.shape[1:]
        assert soft.sum(axis=0).max() <= 1 + 1e-4
        agree = (soft.sum(axis=0) > 0.5) == (np.asarray(hard[0]) > 0)
        assert agree.mean() > 0.97
        if tuple(props["shape_after_cropping_and_before_resampling"]) == image.shape[1:]:
            raw = SoftDataset(dataset.raw).read_soft(case)
            raw = raw.transpose([0, *(axis + 1 for axis in made.plans.transpose_forward)])
            box = tuple(slice(*bounds) for bounds in props["bbox_used_for_cropping"])
            np.testing.assert_allclose(soft, raw[(slice(None), *box)], atol=1e-4)


def test_flat_images_are_preprocessed(
    tmp_path: Path, nnunet_folders: SimpleNamespace, rater_folder_factory, monkeypatch
) -> None:
    from tests.conftest import plan_in_process

    folder = rater_folder_factory(
        tmp_path / "flat", num_cases=3, shape=(40, 52), spacing_mm=(1.0, 1.0), ending=".png"
    )
    assert run(*folder.arguments()) == 0
    plan_in_process(901, ("2d",))
    made = preprocess(901, "2d")
    raw = SoftDataset.find(901)
    for case in folder.cases:
        expected = raw.read_soft(case)[:, None]
        np.testing.assert_allclose(read_soft(made, case), expected, atol=1e-4)


def test_disputed_locations_by_hand() -> None:
    soft = np.array([[[5, 0, 7, 9]], [[0, 3, 0, 0]]], np.int16)  # two channels, 1 x 4 voxels
    hard = np.array([[1, 1, 0, -1]])
    # channel 0 (value 1): voxel 2; voxel 0 is agreed, voxel 3 padding. Channel 1 (value 2): voxel 1.
    rows = disputed_locations(soft, hard, [(1,), (2,)])
    np.testing.assert_array_equal(rows, [[0, 0, 2], [1, 0, 1]])


def test_disputed_locations_leave_out_what_nobody_answered() -> None:
    soft, hard = np.array([[[5, 5, 0]]], np.int16), np.array([[0, 2, 2]])  # 2 is ignore
    np.testing.assert_array_equal(disputed_locations(soft, hard, [(1,)], ignore=2), [[0, 0, 0]])


def test_disputed_locations_are_thinned_like_nnunets() -> None:
    soft = np.ones((1, 200, 200), np.int16)
    hard = np.zeros((200, 200), np.int8)
    hard[:100] = 1  # nnU-Net remembers 10,000 of these 20,000: half; so half of the disputed 20,000
    rows = disputed_locations(soft, hard, [(1,)])
    assert len(rows) == 10_000
    assert rows[:, 1].min() == 100
    assert len(np.unique(rows, axis=0)) == 10_000
    np.testing.assert_array_equal(rows, disputed_locations(soft, hard, [(1,)]))


def test_disputed_locations_are_written_beside_the_label(planned_dataset) -> None:
    made = preparation(planned_dataset)
    case = planned_dataset.cases[0]
    rows = np.load(locations_path(made.folder, case))
    soft = np.asarray(blosc2.open(str(made.folder / f"{case}.b2nd"), mode="r")[:])
    assert len(rows)
    assert (soft[tuple(rows.T.astype(int))] > 0).all()
    assert np.issubdtype(rows.dtype, np.signedinteger)


@pytest.mark.parametrize("named", [{}, {"force_separate_z": False}, {"force_separate_z": None}])
def test_a_plan_without_a_word_on_thick_slices_is_read_as_nnunet_reads_it(named) -> None:
    theirs = partial(resample_data_or_seg_to_shape, is_seg=False, order=1, order_z=0, **named)
    plan = CasePlan([0, 1, 2], [2.0, 1.0, 1.0], (8, 8, 8), SimpleITKIO, resampling_of(theirs))
    soft = np.zeros((1, 4, 6, 6), np.float32)
    soft[0, 2] = 1
    made = preprocess_case(
        soft, properties((4, 6, 6), [[0, 4], [0, 6], [0, 6]], [5, 1, 1]), plan, shape=(10, 6, 6)
    )
    expected = theirs(soft, [10, 6, 6], [5.0, 1.0, 1.0], [2.0, 1.0, 1.0])
    np.testing.assert_allclose(dequantise(made), expected, atol=2e-5)
