"""The snippets of docs/extending.md, run as nnU-Net finds them, and trainer variants by inheritance."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerDA5 import nnUNetTrainerDA5
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoDA import nnUNetTrainerNoDA
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoMirroring import (
    nnUNetTrainerNoMirroring,
)
from nnunetv2.training.nnUNetTrainer.variants.network_architecture.nnUNetTrainerNoDeepSupervision import (
    nnUNetTrainerNoDeepSupervision,
)
from nnunetv2.training.nnUNetTrainer.variants.sampling.nnUNetTrainer_probabilisticOversampling import (
    nnUNetTrainer_probabilisticOversampling,
)
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from nnunet_softlabel.formats.encoding import SCALE
from nnunet_softlabel.training.recipes import nnUNetTrainerAPL
from nnunet_softlabel.training.transforms import MergeSoftLabel, SplitSoftLabel
from tests.training.conftest import batches, log_text

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"


@pytest.fixture
def documented_trainers(tmp_path, monkeypatch):
    """The files of the page, in a folder that nnU-Net searches."""
    folder = tmp_path / "my_trainers"
    folder.mkdir()
    snippets = re.findall(
        r"```python\n# my_trainers/(\w+\.py)\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL
    )
    assert len(snippets) == 2
    for name, code in snippets:
        (folder / name).write_text(code)
    monkeypatch.setenv("nnUNet_extTrainer", str(folder))
    return folder


def test_documented_recipe_is_ten_lines(documented_trainers):
    lines = (documented_trainers / "my_recipes.py").read_text(encoding="utf-8").splitlines()
    assert len([line for line in lines if line.strip()]) <= 10


@pytest.mark.parametrize("dataset", ["planned_dataset", "planned_regions_dataset"])
def test_documented_loss_trains(trainer_factory, documented_trainers, request, dataset):
    trainer_class = recursive_find_trainer_class_by_name("nnUNetTrainerMine")
    trainer = trainer_factory(trainer_class, request.getfixturevalue(dataset))
    trainer.num_epochs = 1
    trainer.run_training()
    trainer.perform_actual_validation(False)
    assert "loss 1.0 squared_error + 0.5 cross_entropy" in log_text(trainer)
    assert np.isfinite(trainer.logger.get_checkpoint()["train_losses"]).all()


@pytest.mark.parametrize("name", ["nnUNetTrainerAPLNoMirroring", "nnUNetTrainerAPLDA5"])
def test_documented_variants_train(trainer_factory, documented_trainers, planned_dataset, name):
    trainer = trainer_factory(recursive_find_trainer_class_by_name(name), planned_dataset)
    trainer.num_epochs = 1
    trainer.run_training()
    if name.endswith("NoMirroring"):
        assert trainer.inference_allowed_mirroring_axes is None
    else:
        split, inner, merge = trainer.dataloader_train.data_loader.transforms.transforms
        assert isinstance(split, SplitSoftLabel)
        assert isinstance(merge, MergeSoftLabel)
        names = [type(t).__name__ for t in _flat(inner)]
        assert {"Rot90Transform", "TransposeAxesTransform", "BlankRectangleTransform"} <= set(names)


def _flat(transform):
    inner = getattr(transform, "transforms", None) or getattr(transform, "list_of_transforms", None)
    if inner is None and hasattr(transform, "transform"):
        inner = [transform.transform]
    return [transform] if inner is None else [t for child in inner for t in _flat(child)]


@pytest.mark.parametrize("variant", [nnUNetTrainerDA5, nnUNetTrainerNoMirroring, nnUNetTrainerNoDA])
def test_target_follows_the_image_through_a_variants_augmentation(
    trainer_factory, planned_unanimous_dataset, variant
):
    """Images are the variant's own, bit by bit, and one-hot soft labels lie where its hard labels lie."""
    ours_class = type("Ours", (nnUNetTrainerAPL, variant), {"oversamples_disputed": False})
    stock, _ = batches(trainer_factory(variant, planned_unanimous_dataset), 6)
    ours, _ = batches(trainer_factory(ours_class, planned_unanimous_dataset), 6)
    for batch, soft_batch in zip(stock, ours, strict=True):
        assert torch.equal(batch["data"], soft_batch["data"])
        hard, soft = batch["target"][0], soft_batch["target"][0]
        classes = torch.arange(1, 3).view(1, -1, 1, 1, 1)
        is_one_hot = ((soft == 0) | (soft == SCALE)).all(dim=1, keepdim=True).expand_as(soft)
        assert torch.equal(soft[is_one_hot] == SCALE, (hard == classes)[is_one_hot])
        assert ((soft > SCALE // 2) == (hard == classes)).float().mean() > 0.98


@pytest.mark.parametrize("variant", [nnUNetTrainerNoDeepSupervision, nnUNetTrainer_probabilisticOversampling])
def test_other_variants_train(trainer_factory, planned_dataset, variant):
    trainer = trainer_factory(type("Ours", (nnUNetTrainerAPL, variant), {}), planned_dataset)
    trainer.num_epochs = 1
    trainer.run_training()
    assert np.isfinite(trainer.logger.get_checkpoint()["train_losses"]).all()


def test_stock_trainer_runs_on_the_same_data_set(trainer_factory, planned_dataset):
    trainer = trainer_factory(nnUNetTrainer, planned_dataset)
    trainer.num_epochs = 1
    trainer.run_training()
    assert not list(Path(trainer.output_folder).glob("soft_*"))
