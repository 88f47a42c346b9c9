"""Recipes for other numbers of epochs, generated, and how nnU-Net finds them."""

import inspect
import pickle

import pytest
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.training_length import nnUNetTrainer_Xepochs as stock
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from nnunet_softlabel.training import recipes
from nnunet_softlabel.training.recipes import EPOCHS, RECIPES, SHORTENED, TRAINERS
from nnunet_softlabel.training.trainer_path import trainer_path


def test_every_recipe_has_the_lengths_of_stock():
    lengths = {
        name.removeprefix("nnUNetTrainer") for name in vars(stock) if name.startswith("nnUNetTrainer_")
    }
    assert {f"_{n}epoch{'s' * (n > 1)}" for n in EPOCHS} == lengths
    for recipe in RECIPES:
        assert {name for name in SHORTENED if name.startswith(f"{recipe.__name__}_")} == {
            recipe.__name__ + length for length in lengths
        }


def test_all_recipes_of_the_module_are_registered():
    written = {
        name
        for name, value in vars(recipes).items()
        if inspect.isclass(value)
        and issubclass(value, nnUNetTrainer)
        and value.__module__ == recipes.__name__
    }
    assert written == set(TRAINERS)


@pytest.mark.parametrize(
    "name", ["nnUNetTrainerSoftCE_5epochs", "nnUNetTrainerHardBCE_1epoch", "nnUNetTrainerAPL"]
)
def test_nnunet_finds_a_recipe_of_another_length(name, monkeypatch):
    monkeypatch.setenv("nnUNet_extTrainer", trainer_path())
    found = recursive_find_trainer_class_by_name(name)
    assert found is TRAINERS[name]
    assert found.__name__ == name


@pytest.mark.parametrize("trainer", SHORTENED.values(), ids=SHORTENED.keys())
def test_a_recipe_of_another_length_can_be_pickled(trainer):
    assert pickle.loads(pickle.dumps(trainer)) is trainer


def test_a_recipe_of_another_length_differs_in_the_epochs_alone(trainer_factory, planned_dataset):
    lengths = {}
    for name in ("nnUNetTrainerSoftCE_5epochs", "nnUNetTrainerSoftCE"):
        example = trainer_factory(TRAINERS[name], planned_dataset)
        plans = {**example.my_init_kwargs["plans"], "continue_training": False}
        trainer = TRAINERS[name](**{**example.my_init_kwargs, "plans": plans})
        lengths[name] = trainer.num_epochs
        assert trainer.initial_lr == 1e-2
        assert trainer.my_init_kwargs["configuration"] == "3d_fullres"
        assert f"{name}__" in trainer.output_folder_base
    assert lengths == {"nnUNetTrainerSoftCE_5epochs": 5, "nnUNetTrainerSoftCE": 1000}
