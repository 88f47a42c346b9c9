"""Regions, ignore label, masked normalisation, pseudo-2D augmentation, cascade, residual encoders."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_softlabel.formats.encoding import IGNORED, SCALE
from nnunet_softlabel.formats.files import read_json
from nnunet_softlabel.preprocessing.reduced_plans import NetworkSize, reduce_plans
from nnunet_softlabel.training import recipes
from nnunet_softlabel.training.recipes import (
    nnUNetTrainerAPL,
    nnUNetTrainerAPLExpectation,
    nnUNetTrainerHardAPL,
    nnUNetTrainerHardBCE,
)
from tests.training.conftest import batches, seed_everything

# one class per recipe; shortened ones differ in a number, and fine-tuning has tests of its own
ALL_TRAINERS = [
    name
    for name in vars(recipes)
    if name.startswith("nnUNetTrainer") and "epoch" not in name and "FineTune" not in name
]
MODES = [
    ("unanimous", "2d", None),
    ("png", "2d", None),
    ("unanimous", "3d_fullres", None),
    ("unanimous", "3d_fullres", {"patch_size": [6, 24, 24]}),  # anisotropic: augmented slice by slice
    ("unanimous", "3d_fullres", {"use_mask_for_norm": [True]}),
    ("unanimous", "3d_lowres", None),
    ("unanimous", "3d_cascade_fullres", None),
    ("regions", "2d", None),
    ("regions", "3d_fullres", None),
    ("regions", "3d_lowres", None),
    ("regions", "3d_cascade_fullres", None),
    ("ignore", "3d_fullres", None),
]
TRAINED_MODES = [
    *((trainer, "regions", "3d_fullres") for trainer in ALL_TRAINERS),
    *((nnUNetTrainerAPL.__name__, "regions", configuration) for configuration in ("2d", "3d_lowres")),
    *((trainer, "ignore", "3d_fullres") for trainer in ("nnUNetTrainerAPL", "nnUNetTrainerHardBCE")),
]


class SamplesAsStock(nnUNetTrainerAPL):
    """Draws patches where stock nnU-Net draws them."""

    oversamples_disputed = False


@pytest.fixture
def dataset(request):
    return request.getfixturevalue(f"planned_{request.param}_dataset")


@pytest.fixture
def previous_stage(request, dataset):
    """Gives the trainers of a test the predictions of the lowres stage."""

    def give(*trainer_classes):
        lowres = request.getfixturevalue(f"lowres_of_{'regions' if dataset.id == 914 else 'unanimous'}")
        results = Path(request.getfixturevalue("tmp_path")) / "results" / dataset.name
        for trainer_class in trainer_classes:
            target = results / lowres.name.replace("nnUNetTrainerAPL", trainer_class.__name__)
            shutil.copytree(lowres / "predicted_next_stage", target / "predicted_next_stage")

    return give


@pytest.mark.parametrize(("dataset", "configuration", "changes"), MODES, indirect=["dataset"], ids=str)
def test_what_the_network_sees_is_bit_equal_to_stock(
    trainer_factory, dataset, previous_stage, configuration, changes
):
    if "cascade" in configuration:
        previous_stage(nnUNetTrainer, SamplesAsStock)
    (stock_train, stock_val), (train, val) = (
        batches(trainer_factory(trainer, dataset, configuration, changes=changes), 3)
        for trainer in (nnUNetTrainer, SamplesAsStock)
    )
    for stock, ours in zip(stock_train + stock_val, train + val, strict=True):
        assert list(stock["keys"]) == list(ours["keys"])
        assert torch.equal(stock["data"], ours["data"])
    for stock, ours in zip(stock_val, val, strict=True):
        hard = stock["target"][0]
        assert torch.equal(hard.short(), ours["target"][0][:, : hard.shape[1]])
    for stock, ours in zip(stock_train, train, strict=True):
        for hard, soft in zip(stock["target"], ours["target"], strict=True):
            assert soft.shape[2:] == hard.shape[2:]
            assert soft.shape[1] == len(dataset_channels(dataset))
            assert soft.dtype == torch.int16


def dataset_channels(dataset):
    labels = read_json(dataset.preprocessed / "dataset.json")["labels"]
    return [name for name in labels if name not in ("background", "ignore")]


@pytest.mark.parametrize(
    ("dataset", "trainer"), [("regions", "regions"), ("ignore", "ignore")], indirect=["dataset"]
)
def test_ignored_voxels_are_those_of_stock(trainer_factory, dataset, trainer):
    stock, _ = batches(trainer_factory(nnUNetTrainer, dataset), 4)
    ours, _ = batches(trainer_factory(SamplesAsStock, dataset), 4)
    num_ignored = 0
    for batch, soft_batch in zip(stock, ours, strict=True):
        hard, soft = batch["target"][0], soft_batch["target"][0]
        ignored = hard[:, -1:] if trainer == "regions" else hard == 3
        assert torch.equal(ignored.bool().expand_as(soft), soft == IGNORED)
        num_ignored += int(ignored.sum())
    assert num_ignored > 100


@pytest.mark.parametrize("dataset", ["regions"], indirect=True)
def test_regions_keep_their_order_and_nesting(trainer_factory, dataset):
    stock, _ = batches(trainer_factory(nnUNetTrainer, dataset), 4)
    ours, _ = batches(trainer_factory(SamplesAsStock, dataset), 4)
    for batch, soft_batch in zip(stock, ours, strict=True):
        hard, soft = batch["target"][0], soft_batch["target"][0]
        whole, core = soft[:, 0], soft[:, 1]
        assert (core <= whole + 1).all()  # every rater's core lies in the whole
        agrees = (soft > SCALE // 2) == hard[:, :2]
        assert agrees.float().mean() > 0.98


@pytest.mark.parametrize(("trainer", "dataset", "configuration"), TRAINED_MODES, indirect=["dataset"])
def test_trainer_trains_with_regions_and_ignore_label(trainer_factory, dataset, trainer, configuration):
    trainer = trainer_factory(getattr(recipes, trainer), dataset, configuration)
    trainer.num_epochs = 1
    trainer.run_training()
    log = trainer.logger.get_checkpoint()
    assert np.isfinite(log["train_losses"] + log["val_losses"]).all()
    assert len(log["dice_per_class_or_region"][0]) == 2


@pytest.mark.parametrize("dataset", ["png"], indirect=True)
def test_trainer_trains_and_validates_on_flat_images(trainer_factory, dataset):
    trainer = trainer_factory(nnUNetTrainerAPL, dataset, "2d")
    trainer.run_training()
    trainer.perform_actual_validation(True)
    assert np.isfinite(trainer.logger.get_checkpoint()["train_losses"]).all()
    assert list((Path(trainer.output_folder) / "validation").glob("*.png"))


@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
@pytest.mark.parametrize("dataset", ["regions"], indirect=True)
def test_validation_with_regions_writes_a_probability_per_region(trainer_factory, dataset, configuration):
    trainer = trainer_factory(nnUNetTrainerAPL, dataset, configuration)
    trainer.initialize()
    trainer.perform_actual_validation(True)
    validation = Path(trainer.output_folder) / "validation"
    files = list(validation.glob("*.npz"))
    assert len(files) == 2
    assert np.load(files[0])["probabilities"].shape[0] == 2
    assert (validation / "summary.json").is_file()


@pytest.mark.parametrize("name", ALL_TRAINERS)
@pytest.mark.parametrize("dataset", ["regions", "ignore"], indirect=True)
def test_patch_that_is_all_ignored_gives_zero_loss_and_gradient(trainer_factory, dataset, name):
    trainer = trainer_factory(getattr(recipes, name), dataset)
    trainer.initialize()
    shapes = [t.shape for t in trainer.network(torch.zeros(2, 1, *trainer.configuration_manager.patch_size))]
    logits = [torch.randn(shape, requires_grad=True) for shape in shapes]
    is_hard, has_regions = "Hard" in name, trainer.label_manager.has_regions
    if not is_hard:
        target = [torch.full((2, 2, *shape[2:]), IGNORED, dtype=torch.int16) for shape in shapes]
    elif has_regions:  # the last channel is nnU-Net's ignore label
        target = [torch.zeros(2, 3, *shape[2:], dtype=torch.bool) for shape in shapes]
        for t in target:
            t[:, -1] = True
    else:
        target = [torch.full((2, 1, *shape[2:]), 3, dtype=torch.int16) for shape in shapes]
    loss = trainer.loss(logits, target)
    loss.backward()
    assert loss.item() == 0
    assert all((x.grad == 0).all() for x in logits if x.grad is not None)


@pytest.mark.parametrize(
    ("dataset", "trainer_class"),
    [
        ("unanimous", nnUNetTrainerAPL),
        ("unanimous", nnUNetTrainerHardAPL),
        ("regions", nnUNetTrainerAPL),
    ],
    indirect=["dataset"],
)
def test_cascade_trains_and_validates(trainer_factory, dataset, previous_stage, trainer_class):
    previous_stage(trainer_class)
    trainer = trainer_factory(trainer_class, dataset, "3d_cascade_fullres")
    trainer.run_training()
    trainer.perform_actual_validation(True)
    assert trainer.num_input_channels == 3  # the image and two labels of the previous stage
    assert np.isfinite(trainer.logger.get_checkpoint()["train_losses"]).all()
    assert len(list((Path(trainer.output_folder) / "validation").glob("*.npz"))) == 2


@pytest.mark.parametrize("dataset", ["unanimous"], indirect=True)
def test_lowres_stage_predicts_for_the_cascade(lowres_of_unanimous, dataset):
    predicted = lowres_of_unanimous / "predicted_next_stage" / "3d_cascade_fullres"
    assert sorted(path.stem for path in predicted.glob("*.b2nd")) == sorted(dataset.cases)


@pytest.mark.parametrize("dataset", ["unanimous"], indirect=True)
def test_cascade_predicts_new_images(
    trainer_factory, dataset, previous_stage, lowres_of_unanimous, tmp_path, monkeypatch
):
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    from nnunet_softlabel.training.trainer_path import trainer_path

    monkeypatch.setenv("nnUNet_extTrainer", trainer_path())
    previous_stage(nnUNetTrainerAPL)
    trainer = trainer_factory(nnUNetTrainerAPL, dataset, "3d_cascade_fullres")
    trainer.num_epochs = 1
    trainer.run_training()
    image = [[str(dataset.raw / "imagesTr" / f"{dataset.cases[0]}_0000.nii.gz")]]
    previous = None
    for model, fold in ((lowres_of_unanimous, "all"), (Path(trainer.output_folder_base), 0)):
        predictor = nnUNetPredictor(device=torch.device("cpu"), perform_everything_on_device=False)
        predictor.initialize_from_trained_model_folder(str(model), (fold,), "checkpoint_final.pth")
        out = tmp_path / f"out_{fold}"
        out.mkdir()
        predictor.predict_from_files_sequential(
            image, str(out), folder_with_segs_from_prev_stage=None if previous is None else str(previous)
        )
        previous = out
    assert len(list(previous.glob("*.nii.gz"))) == 1


@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
def test_residual_encoder_plans_train(trainer_factory, planned_dataset, tmp_path, monkeypatch, configuration):
    from nnunetv2.experiment_planning.experiment_planners.residual_unets import (
        residual_encoder_unet_planners as resenc,
    )
    from nnunetv2.experiment_planning.plan_and_preprocess_api import plan_experiment_dataset

    copied = planned_dataset.copy_to(tmp_path, monkeypatch)
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")  # 0 makes nnU-Net's planner divide by zero
    plan_experiment_dataset(copied.id, resenc.nnUNetPlannerResEncM)
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    plans = reduce_plans(
        copied.id,
        plans="nnUNetResEncUNetMPlans",
        name="Small",
        network=NetworkSize(features=4, patch_size=[16, 24, 24], max_stages=3),
    )
    trainer = trainer_factory(nnUNetTrainerAPL, copied, configuration, plans=plans.stem)
    assert "Residual" in trainer.configuration_manager.network_arch_class_name
    trainer.num_epochs = 1
    trainer.run_training()
    assert np.isfinite(trainer.logger.get_checkpoint()["train_losses"]).all()


@pytest.mark.parametrize("dataset", ["regions"], indirect=True)
def test_masked_normalisation_is_on_and_keeps_the_outside_zero(trainer_factory, dataset):
    trainer = trainer_factory(nnUNetTrainerAPL, dataset)
    assert trainer.configuration_manager.use_mask_for_norm == [True]
    train, _ = batches(trainer, 2)
    assert all((batch["data"] == 0).float().mean() > 0.1 for batch in train)


def test_expectation_recipe_equals_its_formula_on_regions(trainer_factory, planned_regions_dataset):
    """DML + NCE + MAE of nnUNetTrainerAPLExpectation, with the ignore mask, from the pure functions."""
    from nnunet_softlabel.losses import RegionSums, active_passive_loss, dice_semimetric_loss, expand_target

    trainer = trainer_factory(nnUNetTrainerAPLExpectation, planned_regions_dataset)
    trainer.initialize()
    seed_everything(1)
    logits = torch.randn(2, 2, 4, 4, 4)
    compact = torch.randint(0, SCALE, (2, 2, 4, 4, 4)).short()
    compact[:, :, 0] = IGNORED
    target, mask = expand_target(compact, activation="sigmoid", has_ignore=True)
    options = {"mask": mask, "activation": "sigmoid"}
    expected = dice_semimetric_loss(logits, target, sums=RegionSums(batch_dice=True), **options)
    expected = expected + active_passive_loss(logits, target, mode="expectation", **options)
    torch.testing.assert_close(trainer.loss.loss(logits, compact), expected)


def test_hard_bce_is_nnunets_cross_entropy_where_nothing_is_ignored(trainer_factory, planned_ignore_dataset):
    trainer = trainer_factory(nnUNetTrainerHardBCE, planned_ignore_dataset)
    trainer.initialize()
    logits, target = torch.randn(2, 3, 4, 4, 4), torch.randint(0, 4, (2, 1, 4, 4, 4))
    expected = torch.nn.functional.cross_entropy(logits, target[:, 0], ignore_index=3)
    torch.testing.assert_close(trainer.loss.loss(logits, target.short()), expected)
