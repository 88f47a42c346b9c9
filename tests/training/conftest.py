"""Trainers on tiny planned data sets, on the CPU, in process."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

torch.set_num_threads(1)


def seed_everything(seed: int = 0) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def make_trainer(
    trainer_class: type, dataset: Any, configuration: str = "3d_fullres", *, plans: str | None = None, fold: int = 0
) -> Any:
    """An nnU-Net trainer as its command builds it, two epochs of two iterations long."""
    from nnunet_softlabel.soft_labels import read_json

    content = read_json(dataset.preprocessed / f"{plans or dataset.reduced_plans}.json")
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


@pytest.fixture
def trainer_factory(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`make_trainer` without background processes, seeded."""
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    seed_everything()
    return make_trainer


@pytest.fixture(scope="session")
def planned_unanimous(tmp_path_factory: pytest.TempPathFactory, rater_folder_factory: Any) -> Any:
    """A planned data set of a single rater: soft labels are one-hot."""
    from tests.conftest import make_planned_dataset

    return make_planned_dataset(tmp_path_factory.mktemp("unanimous"), 913, num_classes=2, num_raters=1)


@pytest.fixture
def planned_unanimous_dataset(planned_unanimous: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`planned_unanimous` with nnU-Net's variables set."""
    monkeypatch.setenv("nnUNet_raw", str(planned_unanimous.raw_base))
    monkeypatch.setenv("nnUNet_preprocessed", str(planned_unanimous.preprocessed_base))
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    return planned_unanimous
