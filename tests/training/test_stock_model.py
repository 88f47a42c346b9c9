"""export-stock: a trained model without this package."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from nnunet_softlabel.cli import main
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.training import checkpoints
from nnunet_softlabel.training.checkpoints import read_checkpoint
from nnunet_softlabel.training.stock_model import export_stock
from tests.training.conftest import REDUCED

TRAINER = "nnUNetTrainerAPL"  # of the trained model

# runs with every import of this package refused
PREDICT_WITHOUT_US = """
import sys
sys.modules["nnunet_softlabel"] = None
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
torch.set_num_threads(1)
model, image, out = sys.argv[1:]
predictor = nnUNetPredictor(device=torch.device("cpu"), perform_everything_on_device=False)
predictor.initialize_from_trained_model_folder(model, (0,), "checkpoint_final.pth")
predictor.predict_from_files_sequential([[image]], out, save_probabilities=True)
"""


def predict(model, image, out):
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    out.mkdir()
    predictor = nnUNetPredictor(device=torch.device("cpu"), perform_everything_on_device=False)
    predictor.initialize_from_trained_model_folder(str(model), (0,), "checkpoint_final.pth")
    predictor.predict_from_files_sequential([[str(image)]], str(out), save_probabilities=True)
    return out


def assert_same_prediction(first, second):
    (one,), (two,) = first.glob("*.nii.gz"), second.glob("*.nii.gz")
    assert one.read_bytes() == two.read_bytes()
    (one,), (two,) = first.glob("*.npz"), second.glob("*.npz")
    np.testing.assert_array_equal(np.load(one)["probabilities"], np.load(two)["probabilities"])


def model_and_image(trained_model, configuration):
    dataset, results = trained_model
    model = results / dataset.name / f"{TRAINER}__{REDUCED}__{configuration}"
    return model, dataset.raw / "imagesTr" / f"{dataset.cases[0]}_0000.nii.gz"


@pytest.fixture
def plugin(monkeypatch):
    """nnU-Net finds our trainers."""
    from nnunet_softlabel.training.trainer_path import trainer_path

    monkeypatch.setenv("nnUNet_extTrainer", trainer_path())


@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
def test_exported_model_is_stock_and_predicts_the_same(
    trained_model, plugin, tmp_path, capsys, configuration
):
    model, image = model_and_image(trained_model, configuration)
    dataset, _ = trained_model
    out = tmp_path / "exported"
    arguments = ["export-stock", "-d", str(dataset.id), "-c", configuration, "-p", REDUCED, "-o", str(out)]
    arguments += ["-tr", TRAINER]
    assert main(arguments) == 0
    target = out / dataset.name / f"nnUNetTrainer__{REDUCED}__{configuration}"
    assert str(target) in capsys.readouterr().out
    checkpoint = torch.load(target / "fold_0/checkpoint_final.pth", weights_only=False)
    assert checkpoint["trainer_name"] == "nnUNetTrainer"
    assert (target / "fold_0/validation/summary.json").is_file()
    assert not list(target.glob("fold_0/validation/*.npz"))
    assert_same_prediction(predict(model, image, tmp_path / "a"), predict(target, image, tmp_path / "b"))


@pytest.mark.slow
def test_exported_model_predicts_where_the_package_is_not_installed(trained_model, plugin, tmp_path):
    model, image = model_and_image(trained_model, "3d_fullres")
    dataset, _ = trained_model
    target = export_stock(dataset.id, "3d_fullres", tmp_path / "exported", trainer=TRAINER, plans=REDUCED)
    environment = {k: v for k, v in os.environ.items() if k != "nnUNet_extTrainer"}
    (tmp_path / "b").mkdir()
    subprocess.run(
        [sys.executable, "-c", PREDICT_WITHOUT_US, str(target), str(image), str(tmp_path / "b")],
        env={**environment, "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=300,
    )
    assert_same_prediction(predict(model, image, tmp_path / "a"), tmp_path / "b")


def test_export_does_not_overwrite(trained_model, tmp_path):
    dataset, _ = trained_model
    export_stock(dataset.id, "2d", tmp_path, trainer=TRAINER, plans=REDUCED, folds=[0])
    with pytest.raises(UsageError, match="already there"):
        export_stock(dataset.id, "2d", tmp_path, trainer=TRAINER, plans=REDUCED)
    target = export_stock(dataset.id, "2d", tmp_path, trainer=TRAINER, plans=REDUCED, overwrite=True)
    assert [path.name for path in target.parent.iterdir()] == [target.name]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trainer": "nnUNetTrainerSoftCE"}, "train the model first"),
        ({"folds": [3]}, "folds 3: .* finish that fold first"),
    ],
)
def test_export_names_what_is_missing(trained_model, tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        export_stock(trained_model[0].id, "2d", tmp_path, plans=REDUCED, **({"trainer": TRAINER} | options))
    assert not any(tmp_path.rglob("*.pth"))


@pytest.fixture
def renamed(trained_model, tmp_path, monkeypatch):
    """Gives the trained model the name of another trainer."""
    dataset, results = trained_model

    def rename(trainer):
        copy = tmp_path / "results_copy"
        source = results / dataset.name / f"nnUNetTrainerAPL__{REDUCED}__2d"
        shutil.copytree(source, copy / dataset.name / f"{trainer}__{REDUCED}__2d")
        monkeypatch.setenv("nnUNet_results", str(copy))
        return copy / dataset.name / f"{trainer}__{REDUCED}__2d"

    return rename


@pytest.mark.parametrize(
    ("trainer", "message"),
    [
        ("nnUNetTrainer", "is nnU-Net's own"),
        ("nnUNetTrainerBN", "builds a network of its own"),
        ("nnUNetTrainerUnknown", "not found; is its folder on nnUNet_extTrainer"),
    ],
)
def test_export_refuses_what_stock_cannot_predict(trained_model, renamed, tmp_path, trainer, message):
    renamed(trainer)
    with pytest.raises(UsageError, match=message):
        export_stock(trained_model[0].id, "2d", tmp_path / "out", trainer=trainer, plans=REDUCED)


def test_export_needs_a_finished_fold(trained_model, renamed, tmp_path):
    (renamed("nnUNetTrainerAPL") / "fold_0/checkpoint_final.pth").unlink()
    with pytest.raises(UsageError, match="no fold has checkpoint_final"):
        export_stock(trained_model[0].id, "2d", tmp_path / "out", trainer=TRAINER, plans=REDUCED)


def test_printed_command_names_the_folds_that_were_exported(trained_model, renamed, tmp_path, capsys):
    model = renamed(TRAINER)
    shutil.copytree(model / "fold_0", model / "fold_all")
    (model / "fold_0/debug.json").unlink()  # prediction does not need it
    shutil.rmtree(model / "fold_0/validation")
    arguments = ["export-stock", "-d", str(trained_model[0].id), "-c", "2d", "-p", REDUCED, "-tr", TRAINER]
    assert main([*arguments, "-o", str(tmp_path / "my models")]) == 0
    out = capsys.readouterr().out
    assert f"nnUNet_results='{tmp_path}/my models' nnUNetv2_predict" in out
    assert f"-p {REDUCED} -f 0 all -i IN" in out
    assert "nnUNetv2_find_best_configuration on the model that was trained" in out


class Bomb:
    def __reduce__(self):
        return (os.system, ("touch exploded",))


def damage(path):
    path.write_bytes(path.read_bytes()[:-2000])


CHECKPOINTS = {
    "cut off": (damage, "cannot be read as a checkpoint"),
    "text": (lambda path: path.write_text("no"), "cannot be read as a checkpoint|is damaged"),
    "code": (lambda path: torch.save({"trainer_name": Bomb()}, path), "could run code of their own"),
    "list": (lambda path: torch.save([1], path), "holds no checkpoint"),
}


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_a_checkpoint_that_is_none_is_refused_and_runs_no_code(
    trained_model, renamed, tmp_path, monkeypatch, kind
):
    monkeypatch.chdir(tmp_path)
    act, message = CHECKPOINTS[kind]
    act(renamed(TRAINER) / "fold_0/checkpoint_final.pth")
    with pytest.raises(DatasetError, match=message):
        export_stock(trained_model[0].id, "2d", tmp_path / "out", trainer=TRAINER, plans=REDUCED)
    assert not (tmp_path / "exploded").exists()
    assert not list(tmp_path.glob("out/*/*"))


def test_the_old_model_stays_until_the_new_one_is_whole(trained_model, renamed, tmp_path):
    model, out = renamed(TRAINER), tmp_path / "out"
    target = export_stock(trained_model[0].id, "2d", out, trainer=TRAINER, plans=REDUCED)
    before = (target / "fold_0/checkpoint_final.pth").read_bytes()
    damage(model / "fold_0/checkpoint_best.pth")
    with pytest.raises(DatasetError, match="cannot be read as a checkpoint"):
        export_stock(trained_model[0].id, "2d", out, trainer=TRAINER, plans=REDUCED, overwrite=True)
    assert (target / "fold_0/checkpoint_final.pth").read_bytes() == before


def test_a_model_whose_training_failed_is_not_exported(trained_model, tmp_path, monkeypatch):
    (model, _), out = model_and_image(trained_model, "2d"), tmp_path / "exported"
    own = tmp_path / "own" / model.parent.name / model.name
    shutil.copytree(model, own)
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "own"))
    path = own / "fold_0/checkpoint_final.pth"
    checkpoint = torch.load(path, weights_only=False)
    next(iter(checkpoint["network_weights"].values())).fill_(torch.nan)
    torch.save(checkpoint, path)
    with pytest.raises(DatasetError, match=r"fold_0.checkpoint_final.pth: holds weights that are not finite"):
        export_stock(trained_model[0].id, "2d", out, trainer=TRAINER, plans=REDUCED)
    assert not list(out.rglob("*.pth"))


def test_what_is_trusted_in_a_checkpoint_is_trusted_nowhere_else(trained_model):
    dataset, results = trained_model
    before = set(torch.serialization.get_safe_globals())
    path = next((results / dataset.name).glob("*__2d/fold_0/checkpoint_final.pth"))
    assert "network_weights" in read_checkpoint(path)
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize(("version", "has_names"), [("2.4.1", False), ("2.5.0+cpu", False), ("2.10.0", True)])
def test_pytorch_before_2_6_is_given_types_without_names(monkeypatch, version, has_names):
    monkeypatch.setattr(torch, "__version__", version)
    assert any(isinstance(trusted, tuple) for trusted in checkpoints._numbers_of_numpy()) == has_names
