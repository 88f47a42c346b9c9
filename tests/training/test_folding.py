"""A recalibration folded into the last convolution."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn

from nnunet_softlabel.cli import main
from nnunet_softlabel.errors import UsageError
from nnunet_softlabel.evaluation.average import apply_calibration
from nnunet_softlabel.evaluation.recalibration import AffineMap, IsotonicMap, recalibrated
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from nnunet_softlabel.training.folding import folded
from nnunet_softlabel.training.recipes import nnUNetTrainerAPL
from nnunet_softlabel.training.stock_model import export_stock
from tests.training.conftest import REDUCED
from tests.training.test_stock_model import TRAINER, model_and_image, plugin, predict

__all__ = ["plugin"]
MAP = AffineMap((0.4, 1.3), (0.3, -0.5))


def network(kind: type[nn.Module], inputs: int, outputs: int) -> nn.Module:
    """A small network of nnU-Net's with deep supervision; more inputs stand for a cascade's."""
    torch.manual_seed(0)
    blocks = {"n_conv_per_stage": 1} if kind is PlainConvUNet else {"n_blocks_per_stage": 1}
    return kind(
        inputs, 3, [4, 8, 16], nn.Conv3d, 3, [1, 2, 2], num_classes=outputs, n_conv_per_stage_decoder=1,
        conv_bias=True, norm_op=nn.InstanceNorm3d, norm_op_kwargs={"affine": True}, nonlin=nn.LeakyReLU,
        deep_supervision=True, **blocks,
    ).eval()  # fmt: skip


@pytest.mark.parametrize("kind", [PlainConvUNet, ResidualEncoderUNet])
@pytest.mark.parametrize("inputs", [1, 3], ids=["one stage", "cascade"])
@pytest.mark.parametrize("has_regions", [False, True], ids=["classes", "regions"])
def test_every_head_gives_the_recalibrated_probabilities(kind, inputs, has_regions):
    own = network(kind, inputs, 2 if has_regions else 3)
    new = network(kind, inputs, 2 if has_regions else 3)
    new.load_state_dict(folded(own.state_dict(), MAP, has_regions=has_regions))
    x = torch.randn(1, inputs, 16, 16, 16)
    with torch.no_grad():
        heads, folded_heads = own(x), new(x)
    assert len(heads) == 2
    nonlinearity = torch.sigmoid if has_regions else (lambda z: torch.softmax(z, dim=0))
    for before, after in zip(heads, folded_heads, strict=True):
        p = nonlinearity(before[0]).numpy()
        expected = recalibrated(p, MAP, has_regions=has_regions)
        np.testing.assert_allclose(nonlinearity(after[0]).numpy(), expected, atol=1e-5)
        assert np.abs(expected - p).max() > 0.05


def test_only_the_heads_change():
    own = network(PlainConvUNet, 1, 3).state_dict()
    new = folded(own, MAP, has_regions=False)
    changed = {name for name in own if not torch.equal(own[name], new[name])}
    assert changed == {name for name in own if "seg_layers" in name}


def test_a_network_of_another_shape_is_refused():
    own = network(PlainConvUNet, 1, 3).state_dict()
    with pytest.raises(UsageError, match="3 outputs, the calibration is of 2"):
        folded(own, MAP, has_regions=True)
    with pytest.raises(UsageError, match="no seg_layers"):
        folded({"head.weight": torch.zeros(3, 1)}, MAP, has_regions=False)


def write_calibration(path, labels, recalibration) -> None:
    content = {
        "format_version": 1,
        "channels": list(labels.names),
        "has_regions": labels.has_regions,
        "all": recalibration.to_json(),
        "parts": {},
    }
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
def test_stock_prediction_of_the_exported_model_is_apply_calibration(
    trained_model, plugin, tmp_path, monkeypatch, capsys, configuration
):
    model, image = model_and_image(trained_model, configuration)
    dataset = SoftDataset.find(trained_model[0].id)
    file = tmp_path / "calibration.json"
    write_calibration(file, dataset.labels, AffineMap((0.4,), (0.3,)))
    arguments = ["export-stock", "-d", str(trained_model[0].id), "-c", configuration, "-p", REDUCED]
    arguments += ["-tr", TRAINER, "-o", str(tmp_path / "exported"), "--calibrated", str(file)]
    assert main(arguments) == 0
    assert "recalibrated" in capsys.readouterr().out
    target = tmp_path / "exported" / model.parent.name / f"nnUNetTrainer__{REDUCED}__{configuration}"
    assert not (target / "fold_0/validation/summary.json").exists()  # scores of other probabilities
    monkeypatch.setattr(torch, "half", torch.float32)  # nnU-Net sums logits in half precision
    raw, stock = predict(model, image, tmp_path / "raw"), predict(target, image, tmp_path / "stock")
    (written,) = raw.glob("*.npz")
    apply_calibration(dataset, raw, tmp_path / "applied", file=file, num_processes=1)
    expected = np.load(tmp_path / "applied" / written.name)["probabilities"]
    found = np.load(stock / written.name)["probabilities"]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(expected - np.load(written)["probabilities"]).max() > 0.01


def test_the_stock_trainer_can_be_exported_recalibrated(trained_model, tmp_path, monkeypatch):
    model, _ = model_and_image(trained_model, "2d")
    results = tmp_path / "results"
    own = results / model.parent.name / f"nnUNetTrainer__{REDUCED}__2d"
    shutil.copytree(model, own)
    monkeypatch.setenv("nnUNet_results", str(results))
    labels = SoftDataset.find(trained_model[0].id).labels
    options = {"trainer": "nnUNetTrainer", "plans": REDUCED}
    with pytest.raises(UsageError, match="need no export"):
        export_stock(trained_model[0].id, "2d", tmp_path / "out", **options)
    with pytest.raises(UsageError, match=r"calibration.json does not exist"):
        export_stock(trained_model[0].id, "2d", tmp_path / "out", calibrated=True, **options)
    write_calibration(own / "calibration.json", labels, IsotonicMap((((0.0,), (0.5,)),)))
    with pytest.raises(UsageError, match="isotonic map is no scaling"):
        export_stock(trained_model[0].id, "2d", tmp_path / "out", calibrated=True, **options)
    write_calibration(own / "calibration.json", labels, AffineMap((0.4,), (0.3,)))
    with pytest.raises(UsageError, match="itself"):
        export_stock(trained_model[0].id, "2d", results, calibrated=True, overwrite=True, **options)
    target = export_stock(trained_model[0].id, "2d", tmp_path / "out", calibrated=True, **options)
    before, after = (
        torch.load(m / "fold_0/checkpoint_final.pth", weights_only=False)["network_weights"]
        for m in (own, target)
    )
    assert any(not torch.equal(before[name], after[name]) for name in before if "seg_layers" in name)


def predict_with(model, image, out, *, fold, previous=None):
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    out.mkdir(parents=True)
    predictor = nnUNetPredictor(device=torch.device("cpu"), perform_everything_on_device=False)
    predictor.initialize_from_trained_model_folder(str(model), (fold,), "checkpoint_final.pth")
    predictor.predict_from_files_sequential(
        [[str(image)]],
        str(out),
        save_probabilities=True,
        folder_with_segs_from_prev_stage=None if previous is None else str(previous),
    )
    return out


def check_export(planned, configuration, model, tmp_path, *, previous=None):
    """Stock prediction of the exported model is `apply_calibration` of the model's own prediction."""
    file = tmp_path / "calibration.json"
    dataset = SoftDataset.find(planned.id)
    write_calibration(file, dataset.labels, MAP)
    export = {"trainer": TRAINER, "plans": REDUCED, "calibrated": file}
    target = export_stock(planned.id, configuration, tmp_path / "exported", folds=[0], **export)
    image = planned.raw / "imagesTr" / f"{planned.cases[0]}_0000.nii.gz"
    raw = predict_with(model, image, tmp_path / "raw", fold=0, previous=previous)
    stock = predict_with(target, image, tmp_path / "stock", fold=0, previous=previous)
    apply_calibration(dataset, raw, tmp_path / "applied", file=file, num_processes=1)
    read = [
        np.load(d / f"{planned.cases[0]}.npz")["probabilities"] for d in (raw, stock, tmp_path / "applied")
    ]
    np.testing.assert_allclose(read[1], read[2], atol=1e-5)
    assert np.abs(read[0] - read[1]).max() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["unanimous", "regions"], ids=["classes", "regions"])
def test_stock_prediction_of_an_exported_cascade_is_apply_calibration(
    request, trainer_factory, plugin, tmp_path, monkeypatch, kind
):
    planned = request.getfixturevalue(f"planned_{kind}_dataset")
    lowres = request.getfixturevalue(f"lowres_of_{kind}")
    model = tmp_path / "results" / planned.name / lowres.name.replace("3d_lowres", "3d_cascade_fullres")
    shutil.copytree(lowres, model.parent / lowres.name)
    trainer = trainer_factory(nnUNetTrainerAPL, planned, "3d_cascade_fullres")
    trainer.num_epochs = 1
    trainer.run_training()
    monkeypatch.setattr(torch, "half", torch.float32)  # nnU-Net sums logits in half precision
    image = planned.raw / "imagesTr" / f"{planned.cases[0]}_0000.nii.gz"
    previous = predict_with(model.parent / lowres.name, image, tmp_path / "lowres", fold="all")
    check_export(planned, "3d_cascade_fullres", model, tmp_path, previous=previous)


@pytest.mark.slow
def test_stock_prediction_of_an_exported_model_of_regions_is_apply_calibration(
    trainer_factory, planned_regions_dataset, plugin, tmp_path, monkeypatch
):
    planned = planned_regions_dataset
    trainer = trainer_factory(nnUNetTrainerAPL, planned, "3d_fullres")
    trainer.num_epochs = 1
    trainer.run_training()
    monkeypatch.setattr(torch, "half", torch.float32)
    model = tmp_path / "results" / planned.name / f"{TRAINER}__{REDUCED}__3d_fullres"
    check_export(planned, "3d_fullres", model, tmp_path)
