"""A user's own trainer is known by its files; nnU-Net's trainers and ours are not the user's."""

import os
from pathlib import Path

import pytest

from nnunet_softlabel.training import trainer_source as source
from nnunet_softlabel.training.trainer_path import PLUGIN_FOLDER

RECIPE = """
from nnunet_softlabel.training.recipes import nnUNetTrainerSoftCE
from my_losses import mine


class nnUNetTrainerMine(nnUNetTrainerSoftCE):
    pass
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Trainers of a user, before ours."""
    monkeypatch.setenv("nnUNet_extTrainer", os.pathsep.join([str(tmp_path), str(PLUGIN_FOLDER)]))
    (tmp_path / "recipes.py").write_text(RECIPE)
    (tmp_path / "my_losses.py").write_text("def mine():\n    return 1\n")
    (tmp_path / "unrelated.py").write_text("class nnUNetTrainerOther:\n    pass\n")
    return tmp_path


def names(trainer):
    return [path.name for path in source.own_trainer_files(trainer)]


def test_a_trainer_of_the_user_is_its_file_and_what_this_imports(folder):
    assert names("nnUNetTrainerMine") == ["recipes.py", "my_losses.py"]
    assert names("nnUNetTrainerOther") == ["unrelated.py"]


def test_a_change_of_a_file_that_it_imports_counts_and_one_of_others_does_not(folder):
    before = source.digest_of_own_trainer("nnUNetTrainerMine")
    (folder / "unrelated.py").write_text("class nnUNetTrainerOther:\n    rate = 1\n")
    assert source.digest_of_own_trainer("nnUNetTrainerMine") == before
    (folder / "my_losses.py").write_text("def mine():\n    return 2\n")
    assert source.digest_of_own_trainer("nnUNetTrainerMine") not in (before, None)


@pytest.mark.parametrize("trainer", ["nnUNetTrainer", "nnUNetTrainerDA5", "nnUNetTrainerSoftCE"])
def test_trainers_of_nnunet_and_ours_are_not_the_users(folder, trainer):
    assert source.digest_of_own_trainer(trainer) is None  # recipes.py imports the last, and defines it not


def test_packages_relative_imports_and_names_that_are_assigned(folder):
    inside = folder / "package"
    inside.mkdir()
    (inside / "__init__.py").write_text("")
    (inside / "variant.py").write_text(
        "from . import base\nfrom .base import Base as nnUNetTrainerTwo\n\nnnUNetTrainerThree = base.Base\n"
    )
    (inside / "base.py").write_text("import recipes\n\n\nclass Base:\n    pass\n")
    wanted = ["variant.py", "my_losses.py", "base.py", "recipes.py"]
    assert names("nnUNetTrainerTwo") == wanted
    assert names("nnUNetTrainerThree") == wanted


def test_a_file_that_python_cannot_read_defines_nothing(folder):
    (folder / "broken.py").write_text("class nnUNetTrainerBroken(:\n")
    assert names("nnUNetTrainerBroken") == []


def test_a_trainer_that_the_user_put_into_nnunet_is_the_users(folder, monkeypatch):
    shipped = source._files_of_nnunet()
    variant = source._file_in_nnunet("nnUNetTrainerDA5")
    assert variant.resolve() in shipped
    monkeypatch.setattr(source, "_files_of_nnunet", lambda: shipped - {variant.resolve()})
    assert source.own_trainer_files("nnUNetTrainerDA5") == [variant]
    monkeypatch.setattr(source, "_files_of_nnunet", lambda: frozenset[Path]())  # a clone: not known
    assert source.own_trainer_files("nnUNetTrainerDA5") == []
