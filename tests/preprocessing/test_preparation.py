from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import time
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace

import blosc2
import numpy as np
import pytest
from batchgenerators.utilities.file_and_folder_operations import load_pickle, write_pickle
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from scipy.ndimage import map_coordinates
from skimage.transform import resize

from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.formats.encoding import SCALE, dequantise
from nnunet_softlabel.formats.files import read_json, write_json
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from nnunet_softlabel.preprocessing import one_case as case_preprocessing
from nnunet_softlabel.preprocessing import preparation as preprocessing
from nnunet_softlabel.preprocessing.disputed import disputed_locations, locations_path
from nnunet_softlabel.preprocessing.one_case import preprocess_case
from nnunet_softlabel.preprocessing.preparation import Preparation
from nnunet_softlabel.preprocessing.run import preprocess
from tests.conversion.conversion_helpers import run, tree


def soft_files(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in tree(folder).items() if name.endswith((".b2nd", ".npy"))}


def read_soft(folder: Path, case: str) -> np.ndarray:
    return dequantise(np.asarray(blosc2.open(str(folder / f"{case}.b2nd"), mode="r")[:]))


def preparation(dataset, configuration: str = "3d_fullres") -> Preparation:
    manager = PlansManager(read_json(dataset.preprocessed / "nnUNetPlans.json"))
    return Preparation(dataset.preprocessed, manager, manager.get_configuration(configuration))


def fake_plan(
    spacing: list[float],
    transpose: list[int] = [0, 1, 2],  # noqa: B006  # read only
) -> tuple[SimpleNamespace, SimpleNamespace]:
    from functools import partial

    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

    resample = partial(resample_data_or_seg_to_shape, is_seg=False, order=1, order_z=0, force_separate_z=None)
    plans = SimpleNamespace(transpose_forward=transpose)
    return plans, SimpleNamespace(spacing=spacing, resampling_fn_probabilities=resample)


def properties(shape: tuple[int, ...], box: list[list[int]], spacing: list[float]) -> dict:
    return {"shape_before_cropping": shape, "bbox_used_for_cropping": box, "spacing": spacing}


# ---------------------------------------------------------------- the computation


def test_uncropped_unresampled_label_stays_exact() -> None:
    soft = np.random.default_rng(0).integers(0, 5, (1, 4, 6, 8)).astype(np.float32) / 4
    made = preprocess_case(
        soft,
        properties((4, 6, 8), [[0, 4], [0, 6], [0, 8]], [1, 1, 1]),
        *fake_plan([1, 1, 1]),
        shape=(4, 6, 8),
    )
    np.testing.assert_array_equal(made, soft * SCALE)


def test_crop_is_the_stored_box() -> None:
    soft = np.random.default_rng(0).random((1, 6, 7, 8), dtype=np.float32)
    made = preprocess_case(
        soft,
        properties((6, 7, 8), [[1, 5], [2, 7], [0, 3]], [1, 1, 1]),
        *fake_plan([1, 1, 1]),
        shape=(4, 5, 3),
    )
    np.testing.assert_allclose(dequantise(made), soft[:, 1:5, 2:7, 0:3], atol=2e-5)


def test_ramp_is_interpolated_linearly() -> None:
    """Voxel i of n lies at (i + 0.5) / n: a ramp along an axis keeps its values there."""
    ramp = np.broadcast_to((np.arange(10, dtype=np.float32) + 0.5) / 10, (1, 8, 8, 10)).copy()
    made = preprocess_case(
        ramp,
        properties((8, 8, 10), [[0, 8], [0, 8], [0, 10]], [1, 1, 1]),
        *fake_plan([1, 1, 0.5]),
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
    plans, configuration = fake_plan([1.0, 2.0, 1.0], [1, 0, 2])
    cropped = properties((10, 9, 11), [[1, 9], [0, 9], [2, 10]], [2.0, 1.5, 1.25])
    made = preprocess_case(soft, cropped, plans, configuration, shape=(12, 9, 10))
    moved = soft[0].transpose(1, 0, 2)[1:9, 0:9, 2:10]
    expected = resize(moved.astype(float), (12, 9, 10), order=1, mode="edge", anti_aliasing=False)
    np.testing.assert_allclose(dequantise(made)[0], expected, atol=1e-4)


def test_anisotropic_volume_is_resampled_in_plane_and_nearest_across() -> None:
    soft = np.random.default_rng(2).random((1, 4, 8, 8), dtype=np.float32)
    box = [[0, 4], [0, 8], [0, 8]]
    made = preprocess_case(
        soft, properties((4, 8, 8), box, [5, 1, 1]), *fake_plan([2.5, 0.5, 0.5]), shape=(8, 16, 16)
    )
    in_plane = [resize(s.astype(float), (16, 16), order=1, mode="edge", anti_aliasing=False) for s in soft[0]]
    expected = np.repeat(np.stack(in_plane), 2, axis=0)  # order_z = 0
    np.testing.assert_allclose(dequantise(made)[0], expected, atol=1e-4)


def test_2d_configuration_leaves_the_slices_of_a_volume_alone() -> None:
    soft = np.random.default_rng(3).random((1, 5, 8, 8), dtype=np.float32)
    box = [[0, 5], [0, 8], [0, 8]]
    made = preprocess_case(
        soft, properties((5, 8, 8), box, [3, 1, 1]), *fake_plan([0.5, 0.5]), shape=(5, 16, 16)
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
    made = preprocess_case(soft, properties((8, 8, 8), box, [1, 1, 1]), *fake_plan(spacing), shape=shape)
    total = made.astype(int).sum(axis=0)
    assert made.min() >= 0
    assert total.max() <= SCALE + 1  # rounding of three channels
    assert abs(total - SCALE * 0.75).mean() < SCALE * 0.2


def test_regions_may_overlap() -> None:
    soft = np.ones((2, 4, 4, 4), np.float32)
    made = preprocess_case(
        soft,
        properties((4, 4, 4), [[0, 4]] * 3, [1, 1, 1]),
        *fake_plan([0.5] * 3),
        shape=(8, 8, 8),
        is_exclusive=False,
    )
    np.testing.assert_array_equal(made, SCALE)


def test_label_of_another_size_is_refused() -> None:
    with pytest.raises(DatasetError, match=r"has the size \(4, 4, 5\), its image \(4, 4, 4\); run nnUNetv2"):
        preprocess_case(
            np.zeros((1, 4, 4, 5), np.float32),
            properties((4, 4, 4), [[0, 4]] * 3, [1, 1, 1]),
            *fake_plan([1, 1, 1]),
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


# ---------------------------------------------------------------- current or stale


@pytest.fixture
def own(planned_dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A copy of the planned data set that the test may change."""
    return planned_dataset.copy_to(tmp_path, monkeypatch)


def remade(dataset) -> str:
    """The reason for which soft labels are made again, or an empty text."""
    lines: list[str] = []
    preparation(dataset).ensure(log=lines.append)
    return lines[0].rsplit("(", 1)[1].rstrip(")") if lines else ""


def test_copied_data_are_current(own) -> None:
    for path in own.preprocessed.rglob("*"):
        os.utime(path, (1, 1))
    assert remade(own) == ""


def test_nothing_is_read_from_raw_where_it_is_absent(own, monkeypatch) -> None:
    shutil.rmtree(own.raw)
    assert remade(own) == ""
    monkeypatch.delenv("nnUNet_raw")
    assert remade(own) == ""


def test_read_only_folder_is_enough_for_training(own) -> None:
    made = preparation(own)
    (made.folder / "preparation.lock").unlink()
    before = tree(made.folder)
    made.ensure()
    assert tree(made.folder) == before


def test_missing_labels_without_raw_are_refused(own) -> None:
    shutil.rmtree(own.raw)
    (preparation(own).folder / "manifest.json").unlink()
    with pytest.raises(
        DatasetError, match=r"not usable \(not done yet\), and Dataset911_Tiny is not in nnUNet_raw"
    ):
        preparation(own).ensure()


def test_changed_plan_makes_them_again(own) -> None:
    plans = read_json(own.preprocessed / "nnUNetPlans.json")
    plans["configurations"]["3d_fullres"]["resampling_fn_probabilities_kwargs"]["order"] = 0
    write_json(own.preprocessed / "nnUNetPlans.json", plans)
    before = soft_files(preparation(own).folder)
    assert remade(own) == "the plan or the labels changed"
    assert soft_files(preparation(own).folder) != before
    assert remade(own) == ""


def test_reduced_plan_shares_them(own) -> None:
    manager = PlansManager(read_json(own.preprocessed / "nnUNetPlansReduced.json"))
    lines: list[str] = []
    Preparation(own.preprocessed, manager, manager.get_configuration("3d_fullres")).ensure(log=lines.append)
    assert lines == []


def test_changed_soft_label_is_made_again_alone(own) -> None:
    dataset = SoftDataset(own.raw)
    source, target = dataset.soft_files("case_01")[0], dataset.soft_files("case_00")[0]
    shutil.copyfile(source, target)
    folder = preparation(own).folder
    before = {path: path.stat().st_ino for path in folder.glob("*.b2nd")}
    assert remade(own) == "the soft label of case_00 changed"
    changed = {path.stem for path, inode in before.items() if path.stat().st_ino != inode}
    assert changed == {"case_00"}
    assert remade(own) == ""


@pytest.mark.parametrize("kind", ["shape", "crop"])
def test_changed_image_makes_its_label_again(own, kind: str) -> None:
    images = preparation(own).images
    if kind == "shape":
        for name in ("case_00.b2nd", "case_00_seg.b2nd"):
            array = np.asarray(blosc2.open(str(images / name), mode="r")[:])[:, :-1]
            blosc2.asarray(np.ascontiguousarray(array), urlpath=str(images / name), mode="w")
    else:
        props = load_pickle(str(images / "case_00.pkl"))
        props["bbox_used_for_cropping"][0] = [1, 20]
        write_pickle(props, str(images / "case_00.pkl"))
    assert remade(own) == "the preprocessed image of case_00 changed"
    assert remade(own) == ""


def test_new_and_missing_files_are_noticed(own) -> None:
    made = preparation(own)
    complete = soft_files(made.folder)
    (made.folder / "case_03.b2nd").unlink()
    assert remade(own) == "case_03.b2nd is missing"
    assert soft_files(made.folder) == complete
    for path in made.images.glob("case_05*"):
        path.unlink()
    assert remade(own) == "the preprocessed cases changed"


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9])
def test_file_written_in_part_is_made_again(own, share: float) -> None:
    made = preparation(own)
    complete = soft_files(made.folder)
    (made.folder / "manifest.json").unlink()
    path = made.folder / "case_02.b2nd"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    (made.folder / f"{case_preprocessing.TEMPORARY}abc.b2nd").write_bytes(b"left by a kill")
    assert remade(own) == "not done yet"
    assert soft_files(made.folder) == complete


def test_conversion_after_planning_is_refused(own) -> None:
    about = read_json(own.raw / "dataset.json")
    about["soft_labels"]["digest"] = "another"
    write_json(own.raw / "dataset.json", about)
    with pytest.raises(
        DatasetError, match=r"Dataset911_Tiny: was converted again after nnU-Net preprocessed it"
    ):
        preparation(own).ensure()


def test_soft_labels_added_again_are_preprocessed_again(own) -> None:
    raters = str(own.raw / "raterLabelsTr" / "{rater}" / "{case}.nii.gz")
    shutil.copytree(own.raw / "raterLabelsTr", own.raw.parent / "raters")
    raters = str(own.raw.parent / "raters" / "{rater}" / "{case}.nii.gz")
    into = ["convert", "--into", "911", "--raters", raters, "-np", "1", "--overwrite"]
    assert run(*into, "--fusion", "majority") == 0
    assert "changed" in remade(own)
    assert set(np.unique(SoftDataset(own.raw).read_soft("case_00"))) == {0, 1}


def test_lost_soft_label_is_named(own) -> None:
    SoftDataset(own.raw).soft_files("case_00")[0].unlink()
    with pytest.raises(DatasetError, match=r"Case case_00: has no soft label .*case_00_0001.nii.gz; convert"):
        preparation(own).ensure()


def test_unreadable_soft_label_is_named(own) -> None:
    SoftDataset(own.raw).soft_files("case_00")[0].write_bytes(b"x")
    with pytest.raises(
        DatasetError, match=r"Case case_00: soft label .*case_00_0001.nii.gz cannot be read; convert"
    ):
        preparation(own).ensure()


# ---------------------------------------------------------------- the command


def test_command_preprocesses_several_configurations(own, capsys) -> None:
    assert run("preprocess", "-d", "911", "-c", "3d_fullres", "2d", "--overwrite") == 0
    out = capsys.readouterr().out
    assert "Soft labels of 3d_fullres are in" in out
    assert "Soft labels of 2d are in" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-d", "3"], "-d 3: no such data set in"),
        (["-d", "911", "-p", "Other"], "-p Other: .*Other.json is not there; run nnUNetv2_plan"),
        (["-d", "911", "-c", "4d"], "-c 4d: nnUNetPlans has no such configuration; it has 2d"),
        (["-d", "911", "-np", "0"], "-np 0: takes a number from 1"),
    ],
)  # fmt: skip
def test_command_refuses(planned_dataset, capsys, arguments: list[str], message: str) -> None:
    import re

    assert run("preprocess", *arguments) == 2
    assert re.search(message, capsys.readouterr().err)


def test_configuration_that_nnunet_did_not_preprocess(own) -> None:
    shutil.rmtree(own.preprocessed / "nnUNetPlans_2d")
    with pytest.raises(
        DatasetError, match="nnUNetPlans_2d: is not there; run nnUNetv2_plan_and_preprocess first"
    ):
        preprocess(911, "2d")


def test_number_of_processes_is_checked() -> None:
    with pytest.raises(UsageError, match="-np 0"):
        preprocess(911, "2d", num_processes=0)


# ---------------------------------------------------------------- several processes at once


def _train(preprocessed: Path, log: Path) -> None:
    """What each of several trainings does when it starts; every case takes a while."""
    original = preprocessing.make_case

    def make_case(*args: object) -> str:
        time.sleep(0.2)
        return original(*args)

    def write(text: str) -> None:
        if text.startswith("Preprocessing"):
            (log / str(os.getpid())).touch()

    preprocessing.make_case = make_case
    preprocessing.POLL_SECONDS = 0.05
    manager = PlansManager(read_json(preprocessed / "nnUNetPlans.json"))
    Preparation(preprocessed, manager, manager.get_configuration("3d_fullres")).ensure(log=write)


@pytest.mark.slow
@pytest.mark.parametrize("is_killed", [False, True])
def test_five_trainings_that_start_at_once(own, tmp_path: Path, is_killed: bool) -> None:
    made = preparation(own)
    complete = soft_files(made.folder)
    shutil.rmtree(made.folder)
    log = tmp_path / "log"
    log.mkdir()
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_train, args=(own.preprocessed, log)) for _ in range(5)]
    for process in processes:
        process.start()
    if is_killed:
        while not (made.folder.is_dir() and len(list(made.folder.glob("case*.b2nd"))) >= 2):
            time.sleep(0.01)
        (worker,) = log.iterdir()
        os.kill(int(worker.name), signal.SIGKILL)
    for process in processes:
        process.join(300)
    assert sorted(process.exitcode for process in processes) == [-9 if is_killed else 0, 0, 0, 0, 0]
    assert len(list(log.iterdir())) == 1 + is_killed
    assert soft_files(made.folder) == complete
    assert remade(own) == ""


def test_five_threads_that_start_at_once_work_once(own, monkeypatch) -> None:
    """The fast form of the test above: a lock of this kind is between threads as between processes."""
    made = preparation(own)
    complete = soft_files(made.folder)
    shutil.rmtree(made.folder)
    monkeypatch.setattr(preprocessing, "POLL_SECONDS", 0.02)
    lines: list[str] = []
    preparations = [preparation(own) for _ in range(5)]
    with ThreadPool(5) as pool:
        manifests = pool.map(lambda one: one.ensure(log=lines.append), preparations)
    assert sum(line.startswith("Preprocessing") for line in lines) == 1
    assert all(manifest == manifests[0] for manifest in manifests)
    assert soft_files(made.folder) == complete


def test_killed_preparation_is_taken_up(own, monkeypatch) -> None:
    """Killed after two cases: the next makes the rest only."""

    class Killed(BaseException):
        pass

    made = preparation(own)
    complete = soft_files(made.folder)
    shutil.rmtree(made.folder)
    original = preprocessing.make_case

    def make_case(case: str, *args: object) -> str:
        if case == "case_02":
            raise Killed
        return original(case, *args)

    with monkeypatch.context() as patch:
        patch.setattr(preprocessing, "make_case", make_case)
        with pytest.raises(Killed):
            made.ensure(log=lambda text: None)
    inode = (made.folder / "case_00.b2nd").stat().st_ino
    assert not (made.folder / "manifest.json").exists()
    assert remade(own) == "not done yet"
    assert soft_files(made.folder) == complete
    assert (made.folder / "case_00.b2nd").stat().st_ino == inode


def test_lock_that_does_not_function_only_costs_work(own, monkeypatch) -> None:
    def broken(self: object, **options: object) -> None:
        raise NotImplementedError

    made = preparation(own)
    complete = soft_files(made.folder)
    shutil.rmtree(made.folder)
    monkeypatch.setattr(preprocessing.FileLock, "acquire", broken)
    assert remade(own) == "not done yet"
    assert soft_files(made.folder) == complete


def test_waiting_has_an_end(own, monkeypatch) -> None:
    from filelock import FileLock

    made = preparation(own)
    (made.folder / "manifest.json").unlink()
    monkeypatch.setattr(preprocessing, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(preprocessing, "PATIENCE_SECONDS", 0.05)
    lines: list[str] = []
    with FileLock(made.folder / "preparation.lock"):
        made.ensure(log=lines.append)
    assert lines[0].startswith("Waiting for another process")
    assert lines[1].startswith("Preprocessing soft labels")
    assert json.loads((made.folder / "manifest.json").read_text(encoding="utf-8"))["cases"]
