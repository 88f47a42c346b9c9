"""Folds that nnU-Net would make at random are refused where cases have patients."""

import json

import pytest

from nnunet_softlabel.cases.splits import read_splits, refuse_random_fold
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.training.recipes import nnUNetTrainerAPL, nnUNetTrainerHardBCE

GROUPS = {"a": "p0", "b": "p1"}


@pytest.fixture
def splits_file(tmp_path):
    path = tmp_path / "splits_final.json"
    path.write_text(json.dumps([{"train": ["a"], "val": ["b"]}, {"train": ["b"], "val": ["a"]}]))
    return path


def test_the_folds_of_the_file_and_all_are_accepted(splits_file):
    for fold in (0, 1, "all"):
        refuse_random_fold(splits_file, fold, GROUPS)
    refuse_random_fold(splits_file, 7, None)  # no groups: nnU-Net's own affair


@pytest.mark.parametrize("fold", [2, 5, 17])
def test_a_fold_beyond_the_file_is_refused(splits_file, fold):
    with pytest.raises(UsageError, match=rf"fold {fold}: .* has the folds 0 to 1; .* patients on both sides"):
        refuse_random_fold(splits_file, fold, GROUPS)


def test_without_a_file_of_splits_nothing_is_split_at_random(tmp_path):
    with pytest.raises(UsageError, match="is not there, and nnU-Net would split cases at random"):
        refuse_random_fold(tmp_path / "splits_final.json", 0, GROUPS)


@pytest.mark.parametrize("content", ["{", "3", "[3]", '[{"train": []}]', '[{"train": 1, "val": 2}]'])
def test_splits_of_another_shape_are_one_line(tmp_path, content):
    path = tmp_path / "splits_final.json"
    path.write_text(content)
    with pytest.raises(DatasetError, match="cannot be read as nnU-Net's splits"):
        read_splits(path)


@pytest.mark.parametrize("trainer", [nnUNetTrainerAPL, nnUNetTrainerHardBCE])
def test_our_trainers_refuse_a_random_fold(planned_dataset, trainer_factory, trainer):
    with pytest.raises(UsageError, match=r"fold 5: .* has the folds 0 to 2"):
        trainer_factory(trainer, planned_dataset, fold=5).do_split()
    train, validation = trainer_factory(trainer, planned_dataset, fold=0).do_split()
    assert set(train).isdisjoint(validation)


@pytest.mark.parametrize("trainer", [nnUNetTrainerAPL, nnUNetTrainerHardBCE])
def test_cases_without_raters_are_left_out_of_every_fold(
    planned_dataset, trainer_factory, trainer, tmp_path, monkeypatch
):
    own = planned_dataset.copy_to(tmp_path, monkeypatch)
    path = own.raw / "dataset.json"
    content = json.loads(path.read_text())
    content["soft_labels"]["dropped_cases"] = ["case_01"]
    path.write_text(json.dumps(content))
    everything = [case for case in own.cases if case != "case_01"]
    assert sorted(trainer_factory(trainer, own, fold="all").do_split()[0]) == everything
    train, validation = trainer_factory(trainer, own, fold=0).do_split()
    assert "case_01" not in {*train, *validation}
