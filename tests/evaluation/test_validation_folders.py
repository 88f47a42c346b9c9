"""Cases that a fold's network was trained on are no validation cases."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from nnunet_softlabel.cli import main
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.evaluation.calibrate import calibrate
from nnunet_softlabel.evaluation.run import Scoring, evaluate
from nnunet_softlabel.evaluation.tuning import tune_threshold
from tests.scored_dataset import predict_again

FOLDS = {"0": ["case0", "case1"], "1": ["case2", "case3"]}


@pytest.fixture
def model(build, tmp_path, monkeypatch):
    """A data set, and a model of two folds with the splits that it was trained with."""
    data = build()
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / data.dataset.folder.name).symlink_to(data.dataset.folder)
    folder = tmp_path / "results" / data.dataset.folder.name / "nnUNetTrainer__nnUNetPlans__2d"
    for fold, cases in FOLDS.items():
        predict(data, folder / f"fold_{fold}" / "validation", *cases)
    splits = [{"val": own, "train": FOLDS[str(1 - i)]} for i, own in enumerate(FOLDS.values())]
    file = tmp_path / "preprocessed" / data.dataset.folder.name / "splits_final.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(splits))
    return data, folder, file


def predict(data, folder, *cases):
    folder.mkdir(parents=True, exist_ok=True)
    for case in cases:
        for path in data.predictions.glob(f"{case}.*"):
            shutil.copy(path, folder / path.name)


READERS = {
    "evaluate": lambda data, folder, out: evaluate(data.dataset, folder, out, num_processes=1),
    "tune-threshold": lambda data, folder, out: tune_threshold(data.dataset, folder, out, num_processes=1),
    "calibrate": lambda data, folder, out: calibrate(data.dataset, folder, out, num_processes=1),
}


@pytest.mark.parametrize("command", READERS)
def test_a_case_that_an_earlier_split_left_is_refused(model, tmp_path, command):
    data, folder, splits = model
    predict(data, folder / "fold_0/validation", "case2")
    (tmp_path / "link").symlink_to(folder / "fold_0/validation")
    for given in (folder / "fold_0/validation", tmp_path / "link"):
        with pytest.raises(DatasetError, match="Case case2: fold_0 predicted it and was trained on it"):
            READERS[command](data, given, tmp_path / "out")
        assert not (tmp_path / "out").exists()
    splits.unlink()  # now nobody knows
    READERS[command](data, folder / "fold_0/validation", tmp_path / "out")


def test_cases_that_are_left_out_of_the_scores_may_be_of_another_split(model, tmp_path):
    data, folder, _ = model
    predict(data, folder / "fold_0/validation", "case2")
    scoring = Scoring(cases=["case0"])
    evaluate(data.dataset, folder / "fold_0/validation", tmp_path / "out", scoring=scoring, num_processes=1)


@pytest.mark.parametrize("command", ["tune-threshold", "calibrate"])
def test_nothing_is_fitted_on_fold_all(model, tmp_path, command):
    data, folder, _ = model
    predict(data, folder / "fold_all/validation", "case0", "case1")
    with pytest.raises(UsageError, match="fold all was trained on these cases"):
        READERS[command](data, folder / "fold_all/validation", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_scores_of_fold_all_are_said_to_be_of_training_cases(model, tmp_path, capsys):
    data, folder, _ = model
    validation = folder / "fold_all/validation"
    predict(data, validation, "case0")
    command = ["evaluate", "-d", "900", "-np", "1", "-i", str(validation), "-o", str(tmp_path / "out")]
    assert main(command) == 0
    assert "the network of fold all was trained on these cases" in capsys.readouterr().out


def test_calibrate_leaves_out_fold_all_and_says_so(model, capsys):
    data, folder, _ = model
    for case in data.dataset.cases():  # unsure, so that a map helps
        soft = data.dataset.read_soft(case)[0]
        predict_again(data, case, 0.3 + 0.4 * np.stack([1 - soft, soft]))
    for fold, cases in FOLDS.items():
        predict(data, folder / f"fold_{fold}" / "validation", *cases)
    predict(data, folder / "fold_all/validation", *data.dataset.cases())
    command = ["calibrate", "-d", "900", "-c", "2d", "-tr", "nnUNetTrainer", "-np", "1"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "fold_all is left out" in printed
    assert "4 cases in 2 parts" in printed
    assert "models' probabilities" not in printed
    assert main([*command, "--overwrite", "-f", "all"]) == 2
    assert "fold all was trained on these cases" in capsys.readouterr().err
    assert (folder / "calibration.json").is_file()
    for fold in FOLDS:
        shutil.rmtree(folder / f"fold_{fold}")
    assert main([*command, "--overwrite"]) == 2
    assert "fold all was trained on these cases" in capsys.readouterr().err
