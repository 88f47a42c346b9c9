"""Shared fixtures: folders of raters, nnU-Net's environment, and data sets that nnU-Net has planned."""

from __future__ import annotations

import csv
import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.pool import ThreadPool
from pathlib import Path
from shutil import copytree, rmtree
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_softlabel import command_line
from tests.flags_of_commands import strange_flags

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"
SHAPE = (20, 32, 32)


@dataclass(frozen=True)
class RaterFolder:
    """Images and raters' masks on disk, as a user has them; ``CASE_patient`` pairs in ``cases.csv``."""

    root: Path
    cases: tuple[str, ...]
    raters: tuple[str, ...]
    labels: tuple[str, ...]
    channel_names: tuple[str, ...]
    ending: str

    @property
    def images(self) -> list[str]:
        """``--images`` patterns, one per channel."""
        return [
            str(self.root / f"images{c}" / f"{{case}}{self.ending}") for c in range(len(self.channel_names))
        ]

    @property
    def rater_pattern(self) -> str:
        """The ``--raters`` pattern."""
        return str(self.root / "raters" / f"{{case}}_rater{{rater}}{self.ending}")

    def image(self, case: str, channel: int = 0) -> Path:
        return self.root / f"images{channel}" / f"{case}{self.ending}"

    def rater(self, case: str, rater: str) -> Path:
        return self.root / "raters" / f"{case}_rater{rater}{self.ending}"

    def arguments(self, dataset_id: int = 901, name: str = "Tiny") -> list[str]:
        """A complete command line of ``convert``, without groups."""
        return [
            *("convert", "-d", str(dataset_id), "-n", name, "-np", "1"),
            *("--images", *self.images, "--channel-names", *self.channel_names),
            *("--raters", self.rater_pattern, "--labels", *self.labels),
        ]


@dataclass(frozen=True)
class PlannedDataset:
    """A data set that is converted, planned and preprocessed, soft labels included."""

    id: int
    name: str
    raw_base: Path
    preprocessed_base: Path
    cases: tuple[str, ...]
    plans: str = "nnUNetPlans"
    reduced_plans: str = "nnUNetPlansReduced"

    @property
    def raw(self) -> Path:
        return self.raw_base / self.name

    @property
    def preprocessed(self) -> Path:
        return self.preprocessed_base / self.name

    def copy_to(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> PlannedDataset:
        """A copy that a test may change; nnU-Net's variables point at it from then on."""
        copied = replace(self, raw_base=folder / "raw_copy", preprocessed_base=folder / "preprocessed_copy")
        copytree(self.raw, copied.raw)
        copytree(self.preprocessed, copied.preprocessed)
        monkeypatch.setenv("nnUNet_raw", str(copied.raw_base))
        monkeypatch.setenv("nnUNet_preprocessed", str(copied.preprocessed_base))
        return copied


def write_volume(
    path: Path, array: np.ndarray, spacing_mm: tuple[float, ...] = (1.0, 1.0, 2.0), **geometry: object
) -> None:
    """Write ``(z, y, x)`` or ``(y, x)``; spacing, ``origin`` and ``direction`` are SimpleITK's."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing_mm[: array.ndim])
    if "origin" in geometry:
        image.SetOrigin(geometry["origin"])
    if "direction" in geometry:
        image.SetDirection(geometry["direction"])
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


def write_array(path: Path, array: np.ndarray, spacing_mm: tuple[float, ...]) -> None:
    if path.suffix == ".png":
        from skimage import io

        path.parent.mkdir(parents=True, exist_ok=True)
        io.imsave(path, array, check_contrast=False)
    else:
        write_volume(path, array, spacing_mm)


def ellipsoid(shape: tuple[int, ...], centre: np.ndarray, radii: np.ndarray) -> np.ndarray:
    axes = np.ogrid[tuple(slice(0, size) for size in shape)]
    return sum(((axis - c) / r) ** 2 for axis, c, r in zip(axes, centre, radii, strict=True)) <= 1


def make_rater_folder(
    root: Path,
    *,
    num_cases: int = 6,
    num_raters: int = 3,
    num_classes: int = 1,
    num_channels: int = 1,
    shape: tuple[int, ...] = SHAPE,
    spacing_mm: tuple[float, ...] = (1.0, 1.0, 2.0),
    ending: str = ".nii.gz",
    seed: int = 0,
) -> RaterFolder:
    """Bright blobs on noise; raters draw them with errors of their own. Two classes are halves that touch."""
    random = np.random.default_rng(seed)
    cases = tuple(f"case_{i:02d}" for i in range(num_cases))
    raters = tuple(str(i) for i in range(1, num_raters + 1))
    labels = ("lesion=1",) if num_classes == 1 else tuple(f"part{i}={i}" for i in range(1, num_classes + 1))
    channel_names = ("MR", "noNorm", "CT")[:num_channels]
    folder = RaterFolder(root, cases, raters, labels, channel_names, ending)
    radii = np.array(shape) * 0.28
    for i, case in enumerate(cases):
        spacing = (
            *spacing_mm[:-1],
            spacing_mm[-1] * (1.25 if i % 3 == 2 else 1.0),
        )  # so that some are resampled
        centre = np.array(shape) / 2 + random.uniform(-2, 2, len(shape))
        for channel in range(num_channels):
            image = random.normal(60, 12, shape) + 90 * ellipsoid(shape, centre, radii)
            write_array(folder.image(case, channel), np.clip(image, 1, 255).astype(np.uint8), spacing)
        for rater in raters:
            own_centre = centre + random.normal(0, 0.6, len(shape))
            drawn = ellipsoid(shape, own_centre, radii * random.uniform(0.85, 1.15)).astype(np.uint8)
            position = np.arange(shape[-1]) - own_centre[-1]
            parts = 1 + np.clip(position // (shape[-1] / 4) + num_classes // 2, 0, num_classes - 1)
            write_array(folder.rater(case, rater), (drawn * parts).astype(np.uint8), spacing)
    with (root / "cases.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [("case", "patient"), *((case, f"p{i // 2}") for i, case in enumerate(cases))]
        )
    return folder


@pytest.fixture(scope="session")
def rater_folder_factory() -> Callable[..., RaterFolder]:
    """`make_rater_folder`, for tests that need a folder of their own kind."""
    return make_rater_folder


@pytest.fixture
def rater_folder(tmp_path: Path) -> RaterFolder:
    """Four 3D cases, three raters, one class."""
    return make_rater_folder(tmp_path / "source", num_cases=4, shape=(8, 16, 16))


@pytest.fixture
def nnunet_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Empty nnU-Net folders; the environment variables point at them."""
    folders = {}
    for name in ("raw", "preprocessed", "results"):
        folders[name] = tmp_path / f"nnUNet_{name}"
        folders[name].mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(folders[name]))
    return SimpleNamespace(**folders)


@pytest.fixture
def plain_dataset(rater_folder: RaterFolder, nnunet_folders: SimpleNamespace) -> Path:
    """A converted data set whose soft labels were taken away."""
    from nnunet_softlabel.cli import main
    from nnunet_softlabel.formats.files import read_json, write_json

    assert main(rater_folder.arguments()) == 0
    folder = nnunet_folders.raw / "Dataset901_Tiny"
    content = read_json(folder / "dataset.json")
    del content["soft_labels"]
    write_json(folder / "dataset.json", content)
    rmtree(folder / "softLabelsTr")
    rmtree(folder / "raterLabelsTr")
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real data sets beside the source tree."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"{SHARED_DATA} is not there")
    return SHARED_DATA


class _ThreadContext:
    """Stands in for the "spawn" context: importing nnU-Net anew in every worker costs seconds."""

    Pool = ThreadPool


def plan_in_process(dataset_id: int, configurations: tuple[str, ...]) -> None:
    """``nnUNetv2_plan_and_preprocess`` by nnU-Net's own functions, with threads in place of processes."""
    from nnunetv2.experiment_planning.dataset_fingerprint import fingerprint_extractor
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprint_dataset,
        plan_experiment_dataset,
        preprocess_dataset,
    )
    from nnunetv2.utilities import utils

    class QuickExtractor(fingerprint_extractor.DatasetFingerprintExtractor):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **kwargs)
            # nnU-Net draws 1e8, from images however small
            self.num_foreground_voxels_for_intensitystats = 1e5

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_n_proc_DA", "1")  # 0 makes nnU-Net's planner divide by zero
        patch.setattr(multiprocessing, "get_context", lambda method=None: _ThreadContext)
        patch.setattr(utils, "Pool", ThreadPool)
        options = {"verbose": False, "show_progress_bar": False}
        extract_fingerprint_dataset(dataset_id, QuickExtractor, 1, check_dataset_integrity=False, **options)
        plan_experiment_dataset(dataset_id)
        preprocess_dataset(dataset_id, configurations=configurations, num_processes=[1], **options)


def preprocess_in_process(dataset_id: int, plans: str, configurations: tuple[str, ...]) -> None:
    """``nnUNetv2_preprocess`` with threads in place of processes."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import preprocess_dataset
    from nnunetv2.utilities import utils

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multiprocessing, "get_context", lambda method=None: _ThreadContext)
        patch.setattr(utils, "Pool", ThreadPool)
        preprocess_dataset(dataset_id, plans, configurations, num_processes=[1], show_progress_bar=False)


def make_planned_dataset(
    base: Path,
    dataset_id: int,
    num_classes: int,
    configurations: tuple[str, ...] = ("3d_fullres", "2d"),
    change_source: Callable[[RaterFolder], RaterFolder] = lambda folder: folder,
    with_cascade: bool = False,
    **options: Any,
) -> PlannedDataset:
    from nnunet_softlabel.cases.find import find_cases
    from nnunet_softlabel.cases.groups import read_groups, with_groups
    from nnunet_softlabel.conversion.run import convert
    from nnunet_softlabel.preprocessing.reduced_plans import NetworkSize, reduce_plans
    from nnunet_softlabel.preprocessing.run import preprocess

    with pytest.MonkeyPatch.context() as patch:
        for name in ("raw", "preprocessed", "results"):
            (base / name).mkdir(parents=True)
            patch.setenv(f"nnUNet_{name}", str(base / name))
        folder = make_rater_folder(base / "source", num_classes=num_classes, seed=dataset_id, **options)
        folder = change_source(folder)
        groups = read_groups(folder.root / "cases.csv", group_column="patient")
        cases = with_groups(find_cases(folder.images, raters=[folder.rater_pattern]), groups, "cases.csv")
        raw = convert(
            cases,
            f"Dataset{dataset_id:03d}_Tiny",
            labels=folder.labels,
            channel_names=folder.channel_names,
        )
        plan_in_process(dataset_id, configurations)
        small = NetworkSize(features=4, patch_size=[16, 24, 24], max_stages=3)
        reduce_plans(dataset_id, network=small, with_cascade=with_cascade)
        for configuration in configurations:
            preprocess(dataset_id, configuration)
        if with_cascade:
            preprocess_in_process(dataset_id, "nnUNetPlansReduced", ("3d_lowres",))
    return PlannedDataset(dataset_id, raw.name, base / "raw", base / "preprocessed", folder.cases)


@pytest.fixture(scope="session")
def planned_one_class(tmp_path_factory: pytest.TempPathFactory) -> PlannedDataset:
    """Six 3D cases, three raters, one class; prefer `planned_dataset`, which sets the environment too."""
    return make_planned_dataset(tmp_path_factory.mktemp("one_class"), 911, num_classes=1)


@pytest.fixture(scope="session")
def planned_two_classes(tmp_path_factory: pytest.TempPathFactory) -> PlannedDataset:
    """As `planned_one_class` with two classes that touch; prefer `planned_dataset_two_classes`."""
    return make_planned_dataset(tmp_path_factory.mktemp("two_classes"), 912, num_classes=2)


def _enter(dataset: PlannedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlannedDataset:
    monkeypatch.setenv("nnUNet_raw", str(dataset.raw_base))
    monkeypatch.setenv("nnUNet_preprocessed", str(dataset.preprocessed_base))
    results = tmp_path / "results"
    results.mkdir(exist_ok=True)
    monkeypatch.setenv("nnUNet_results", str(results))
    return dataset


@pytest.fixture(autouse=True)
def messages_name_only_flags_of_their_command(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever error a test provokes: its message names no flag that the command does not have."""
    strange: list[str] = []
    fail = command_line._fail

    def checked(program: str, message: str) -> int:
        strange.extend(f"{flag} in {program}: {message}" for flag in strange_flags(program, message))
        return fail(program, message)

    monkeypatch.setattr(command_line, "_fail", checked)
    yield
    assert strange == []


@pytest.fixture
def planned_dataset(
    planned_one_class: PlannedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> PlannedDataset:
    """`planned_one_class` with nnU-Net's variables set, results in ``tmp_path``. Read only: see `copy_to`."""
    return _enter(planned_one_class, tmp_path, monkeypatch)


@pytest.fixture
def planned_dataset_two_classes(
    planned_two_classes: PlannedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> PlannedDataset:
    """`planned_two_classes` with nnU-Net's variables set. Read only: see `copy_to`."""
    return _enter(planned_two_classes, tmp_path, monkeypatch)
