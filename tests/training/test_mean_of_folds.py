"""The mean of folds on disk, against nnU-Net's own prediction with several folds."""

import shutil

import numpy as np
import pytest
import torch

from nnunet_softlabel.evaluation.average import average
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from tests.training.test_stock_model import model_and_image, plugin

__all__ = ["plugin"]
CHECKPOINT = "checkpoint_final.pth"


def two_folds(model, folder):
    """The model with a second fold, whose weights differ a little."""
    shutil.copytree(model, folder)
    shutil.copytree(folder / "fold_0", folder / "fold_1")
    checkpoint = torch.load(folder / "fold_1" / CHECKPOINT, weights_only=False)
    torch.manual_seed(0)
    for name, weight in checkpoint["network_weights"].items():
        if weight.is_floating_point():
            checkpoint["network_weights"][name] = weight * (1 + 0.3 * torch.randn_like(weight))
    torch.save(checkpoint, folder / "fold_1" / CHECKPOINT)
    return folder


def predict(model, image, out, folds):
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    out.mkdir()
    predictor = nnUNetPredictor(device=torch.device("cpu"), perform_everything_on_device=False)
    predictor.initialize_from_trained_model_folder(str(model), folds, CHECKPOINT)
    predictor.predict_from_files_sequential([[str(image)]], str(out), save_probabilities=True)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
def test_mean_of_logits_is_the_prediction_with_several_folds(
    trained_model, plugin, tmp_path, monkeypatch, configuration
):
    model, image = model_and_image(trained_model, configuration)
    model = two_folds(model, tmp_path / model.name)
    monkeypatch.setattr(torch, "half", torch.float32)  # nnU-Net sums logits in half precision
    folders = [predict(model, image, tmp_path / f"fold_{fold}", (fold,)) for fold in (0, 1)]
    both = predict(model, image, tmp_path / "both", (0, 1))
    dataset = SoftDataset.find(trained_model[0].id)
    for of in ("logits", "probabilities"):
        average(dataset, folders, tmp_path / of, of=of, num_processes=1)
    (name,) = [path.name for path in both.glob("*.npz")]
    nnunet, logits, probabilities = (
        np.load(folder / name)["probabilities"]
        for folder in (both, tmp_path / "logits", tmp_path / "probabilities")
    )
    np.testing.assert_allclose(logits, nnunet, atol=1e-5)
    assert np.abs(probabilities - nnunet).max() > 1e-3
