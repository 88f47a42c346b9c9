"""Trainers on tiny planned data sets, on the CPU, in process."""

from __future__ import annotations

import multiprocessing
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import (
    PlannedDataset,
    RaterFolder,
    _enter,
    _ThreadContext,
    ellipsoid,
    make_planned_dataset,
    write_volume,
)

os.environ.setdefault("nnUNet_def_n_proc", "1")  # read once, when nnU-Net is imported
torch.set_num_threads(1)

REDUCED = "nnUNetPlansReduced"
IGNORE_VALUE = 9


def seed_everything(seed: int = 0) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def make_trainer(
    trainer_class: type,
    dataset: Any,
    configuration: str = "3d_fullres",
    *,
    plans: str = REDUCED,
    fold: int | str = 0,
    changes: dict[str, Any] | None = None,
) -> Any:
    """An nnU-Net trainer as its command builds it, two epochs of two iterations long.

    ``changes`` replace values of the planned configuration.
    """
    from nnunet_softlabel.formats.files import read_json

    content = read_json(dataset.preprocessed / f"{plans}.json")
    content["configurations"][configuration].update(changes or {})
    content["continue_training"] = False
    trainer = trainer_class(
        plans=content,
        configuration=configuration,
        fold=fold,
        dataset_json=read_json(dataset.preprocessed / "dataset.json"),
        device=torch.device("cpu"),
    )
    trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 2, 2, 1
    return trainer


def batches(trainer: Any, number: int = 4) -> tuple[list, list]:
    """Training and validation batches of a trainer, drawn from the same seed every time."""
    trainer.initialize()
    seed_everything(3)
    train, val = trainer.get_dataloaders()
    return [next(train) for _ in range(number)], [next(val) for _ in range(number)]


def log_text(trainer: Any) -> str:
    return Path(trainer.log_file).read_text(encoding="utf-8")


def _without_processes_and_plots(patch: pytest.MonkeyPatch) -> None:
    from nnunetv2.training.logging.nnunet_logger import MetaLogger

    patch.setattr(multiprocessing, "get_context", lambda method=None: _ThreadContext)
    patch.setattr(MetaLogger, "plot_progress_png", lambda self, folder: Path(folder, "progress.png").touch())


def in_fresh_process(function: Callable[..., object], *arguments: object) -> SpawnProcess:
    """Start ``function(*arguments)``, of module level, in a new interpreter, with no pools and no plots.

    A fork of the tests' process would wait for threads of ITK, torch or blosc2 that only its parent has.
    """
    process = SpawnContext().Process(target=_without_pools, args=(function, arguments))
    process.start()
    return process


def _without_pools(function: Callable[..., object], arguments: tuple[object, ...]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        _without_processes_and_plots(patch)
        function(*arguments)


@pytest.fixture
def trainer_factory(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`make_trainer` without background processes, seeded."""
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    _without_processes_and_plots(monkeypatch)
    seed_everything()
    return make_trainer


@pytest.fixture(scope="session")
def planned_unanimous(tmp_path_factory: pytest.TempPathFactory) -> PlannedDataset:
    """A data set with two classes, a cascade and a single rater: soft labels are one-hot."""
    base = tmp_path_factory.mktemp("unanimous")
    return make_planned_dataset(base, 913, num_classes=2, num_raters=1, with_cascade=True)


@pytest.fixture
def planned_unanimous_dataset(
    planned_unanimous: PlannedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> PlannedDataset:
    """`planned_unanimous` with nnU-Net's variables set."""
    return _enter(planned_unanimous, tmp_path, monkeypatch)


def _with_regions_and_ignore(folder: RaterFolder) -> RaterFolder:
    """Background of the images 0, as in skull-stripped MRI; a block that no rater answered in every case."""
    import SimpleITK as sitk

    for case in folder.cases:
        image = sitk.ReadImage(str(folder.image(case)))
        array = sitk.GetArrayFromImage(image)
        shape = np.array(array.shape)
        array[~ellipsoid(array.shape, shape / 2, shape * 0.42)] = 0
        write_volume(folder.image(case), array, image.GetSpacing())
        for i, rater in enumerate(folder.raters):
            path = folder.rater(case, rater)
            mask = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
            mask[:, :14, 14 - i :] = IGNORE_VALUE  # all raters together ignore the smallest block
            write_volume(path, mask, image.GetSpacing())
    return replace(folder, labels=("whole=1,2", "core=2", f"ignore={IGNORE_VALUE}"))


@pytest.fixture(scope="session")
def planned_regions(tmp_path_factory: pytest.TempPathFactory) -> PlannedDataset:
    """Two overlapping regions, an ignore label, masked normalisation and a cascade; three raters."""
    return make_planned_dataset(
        tmp_path_factory.mktemp("regions"),
        914,
        num_classes=2,
        change_source=_with_regions_and_ignore,
        with_cascade=True,
    )


@pytest.fixture
def planned_regions_dataset(
    planned_regions: PlannedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> PlannedDataset:
    """`planned_regions` with nnU-Net's variables set."""
    return _enter(planned_regions, tmp_path, monkeypatch)


@pytest.fixture(scope="session")
def planned_ignore(tmp_path_factory: pytest.TempPathFactory) -> PlannedDataset:
    """Two classes and an ignore label, 3d_fullres only; three raters."""

    def with_classes(folder: RaterFolder) -> RaterFolder:
        labels = ("part1=1", "part2=2", f"ignore={IGNORE_VALUE}")
        return replace(_with_regions_and_ignore(folder), labels=labels)

    base = tmp_path_factory.mktemp("ignore")
    return make_planned_dataset(base, 915, 2, ("3d_fullres",), with_classes, num_cases=5)


@pytest.fixture
def planned_ignore_dataset(
    planned_ignore: PlannedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> PlannedDataset:
    """`planned_ignore` with nnU-Net's variables set."""
    return _enter(planned_ignore, tmp_path, monkeypatch)


@pytest.fixture(scope="session")
def planned_png(tmp_path_factory: pytest.TempPathFactory) -> PlannedDataset:
    """Real 2D images, PNG files, two classes and three raters."""
    options = {"ending": ".png", "shape": (48, 64), "spacing_mm": (1.0, 1.0), "num_cases": 5}
    return make_planned_dataset(tmp_path_factory.mktemp("png"), 916, 2, ("2d",), **options)


@pytest.fixture
def planned_png_dataset(
    planned_png: PlannedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> PlannedDataset:
    """`planned_png` with nnU-Net's variables set."""
    return _enter(planned_png, tmp_path, monkeypatch)


def _train_lowres(dataset: PlannedDataset, folder: Path) -> Path:
    """``3d_lowres`` of ``nnUNetTrainerAPL`` on all cases, which predicts them for the next stage."""
    from nnunet_softlabel.training.recipes import nnUNetTrainerAPL

    with pytest.MonkeyPatch.context() as patch:
        _enter(dataset, folder, patch)
        patch.setenv("nnUNet_n_proc_DA", "0")
        _without_processes_and_plots(patch)
        seed_everything()
        trainer = make_trainer(nnUNetTrainerAPL, dataset, "3d_lowres", fold="all")
        trainer.run_training()
        trainer.perform_actual_validation(False)
    return Path(trainer.output_folder_base)


@pytest.fixture(scope="session")
def lowres_of_unanimous(planned_unanimous: PlannedDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Result folder of the lowres stage on `planned_unanimous`."""
    return _train_lowres(planned_unanimous, tmp_path_factory.mktemp("lowres_unanimous"))


@pytest.fixture(scope="session")
def lowres_of_regions(planned_regions: PlannedDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Result folder of the lowres stage on `planned_regions`."""
    return _train_lowres(planned_regions, tmp_path_factory.mktemp("lowres_regions"))


@pytest.fixture(scope="session")
def trained(
    planned_one_class: PlannedDataset, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[PlannedDataset, Path]]:
    """A data set and the results of ``nnUNetTrainerAPL``: 3d_fullres and 2d, fold 0, with probabilities."""
    from nnunet_softlabel.training.budget import Budget
    from nnunet_softlabel.training.run import train
    from nnunet_softlabel.training.trainer_path import trainer_path

    results = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        _enter(planned_one_class, results, patch)
        patch.setenv("nnUNet_n_proc_DA", "0")
        patch.setenv("nnUNet_extTrainer", trainer_path())
        _without_processes_and_plots(patch)
        for configuration in ("3d_fullres", "2d"):
            options = {"plans": REDUCED, "budget": Budget(2, 2, "cpu"), "seed": 1}
            train(planned_one_class.id, configuration, 0, "nnUNetTrainerAPL", **options)
    return planned_one_class, results / "results"


@pytest.fixture
def trained_model(
    trained: tuple[PlannedDataset, Path], monkeypatch: pytest.MonkeyPatch
) -> tuple[PlannedDataset, Path]:
    """`trained` with nnU-Net's variables set. Read only."""
    dataset, results = trained
    _enter(dataset, results.parent, monkeypatch)
    return dataset, results
