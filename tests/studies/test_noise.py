"""The study of noise: what wrong readers draw, on sections and on CT, and what a network gets to see."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from docs.studies.noise import __main__ as study
from docs.studies.noise import data, inside_nnunet, tables
from docs.studies.noise.augmentation import nnunet_augmentation
from docs.studies.noise.scenarios import INVENTED_ON_CT, MISSED_ON_CT, SCENARIOS, Scenario
from docs.studies.refine.scenes import Tiles


def search(trainer):
    """As nnU-Net finds it in the study's folder."""
    spec = importlib.util.spec_from_file_location("control", inside_nnunet.OWN_TRAINERS / "control.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, trainer)


@pytest.fixture
def sixty_patients(monkeypatch):
    outlines = np.zeros((3, 8, 8), bool)
    outlines[:2, 2:6, 2:6] = outlines[2, 3:5, 3:5] = True
    nodules = [(f"patient{n}", np.full((8, 8), n, np.float32), outlines) for n in range(60)]
    empty = [(f"patient{n}", np.full((8, 8), 100 + n, np.float32)) for n in range(60)]
    monkeypatch.setattr(data, "nodules_and_empty_tiles", lambda fewest: Tiles(nodules, empty))
    monkeypatch.setattr(data, "CT_PATIENTS", (30, 15))
    data.sections.cache_clear()
    yield
    data.sections.cache_clear()


def test_parts_of_ct_hold_different_patients_and_half_as_many_empty_tiles(sixty_patients):
    parts = data.sections(MISSED_ON_CT, 0)
    patients = [{int(image[0, 0]) % 100 for image in part.image} for part in parts]
    assert [len(part.image) for part in parts] == [45, 22, 22]
    assert len(set.union(*patients)) == sum(map(len, patients))
    assert [int(part.truth.any(axis=(1, 2)).sum()) for part in parts] == [30, 15, 15]


def test_nodules_are_left_out_and_never_invented_on_ct(sixty_patients):
    training = data.sections(MISSED_ON_CT, 1)[0]
    has, drawn = training.truth.any(axis=(1, 2)), training.drawn.any(axis=(1, 2))
    assert not drawn[~has].any()
    assert 0.2 < 1 - drawn[has].mean() < 0.6
    assert {int(one.sum()) for one in training.drawn[drawn]} == {4, 16}  # one reader each, not the majority


def test_nodules_are_invented_on_empty_tiles_only_and_never_left_out(sixty_patients, monkeypatch):
    monkeypatch.setattr(data, "on_vessel", lambda shape, tile, rng: np.roll(shape, 2, axis=0))
    training = data.sections(INVENTED_ON_CT, 1)[0]
    has, drawn = training.truth.any(axis=(1, 2)), training.drawn.any(axis=(1, 2))
    assert drawn[has].all()
    assert 0.1 < drawn[~has].mean() < 0.7


def masks(number):
    truth = np.zeros((number, 32, 32), bool)
    truth[:, 12:18, 12:18] = True
    truth[np.arange(number), 0, np.arange(number)] = True  # so that no two are the same
    return truth


@pytest.mark.parametrize("error", ["swap", "shift"])
def test_a_share_of_the_masks_is_displaced_and_the_others_are_right(error):
    truth = masks(20)
    drawn = data._drawn([], truth, Scenario(error, 0.4), 7)
    wrong = (drawn[0] != truth).any(axis=(1, 2))
    assert wrong.sum() == 8
    if error == "shift":
        overlap = (drawn[0] & truth)[wrong].sum(axis=(1, 2))
        assert (overlap < truth[0].sum() / 2).all()


def test_several_readers_err_independently_and_have_a_mean_and_a_majority():
    truth = masks(20)
    scenario = Scenario("swap", 0.4, readers=3, label="mean")
    drawn = data._drawn([], truth, scenario, 7)
    assert np.array_equal(drawn[0], data._drawn([], truth, Scenario("swap", 0.4), 7)[0])
    wrong = (drawn != truth).any(axis=(2, 3))
    assert not np.array_equal(wrong[0], wrong[1])
    mean = data._label(drawn, scenario)
    assert set(np.unique(np.round(3 * mean))) == {0, 1, 2, 3}
    majority = data._label(drawn, Scenario("swap", 0.4, readers=3))
    assert np.array_equal(majority, mean > 0.5)


def test_the_transforms_of_nnunet_keep_targets_hard_and_draw_the_same_again():
    images = torch.from_numpy(np.random.default_rng(0).normal(size=(4, 1, 32, 32)).astype(np.float32))
    q = torch.from_numpy(masks(4)[:, None].astype(np.float32))
    target = torch.cat([1 - q, q], dim=1)
    torch.manual_seed(5)
    first = nnunet_augmentation(32, 5)(images.clone(), target)
    torch.manual_seed(5)
    second = nnunet_augmentation(32, 5)(images.clone(), target)
    assert torch.equal(first[1], second[1])
    assert set(first[1].unique().tolist()) <= {0.0, 1.0}
    assert torch.equal(first[1].sum(dim=1), torch.ones(4, 32, 32))
    assert first[0].shape == images.shape
    assert not torch.equal(first[0], images)


def test_every_cell_is_planned_once_and_its_scenario_is_known():
    cells = list(study.section_cells())
    assert len(cells) == len(set(cells))
    assert {cell[0] for cell in cells} == {name for name in SCENARIOS if study.known(name)}
    assert {cell[2] for cell in cells} == set(study.ALL_LOSSES)


def test_inside_nnunet_the_test_sections_have_no_label_and_both_checkpoints_are_scored(tmp_path, monkeypatch):
    """nnU-Net's commands are recorded; one checkpoint predicts the truth, the other nothing."""
    parts = data.Sections(np.ones((3, 8, 8), np.float32), masks(3)[:, :8, :8], masks(3)[:, 10:18, 10:18])
    monkeypatch.setattr(inside_nnunet, "sections", lambda regime, seed: (parts, parts, parts))
    commands = []

    def run(command, environment):
        commands.append(command[:1] + [name for name in command if name.startswith("checkpoint_")])
        if command[0] == "nnunet_softlabel" and command[1] == "convert":
            (Path(environment["nnUNet_preprocessed"]) / "Dataset501_Knees").mkdir()
        if command[0] == "nnUNetv2_predict":
            into = Path(command[command.index("-o") + 1])
            into.mkdir(parents=True)
            for i, mask in enumerate(parts.truth):
                found = mask if "checkpoint_best.pth" in command else np.zeros_like(mask)
                sitk.WriteImage(
                    sitk.GetImageFromArray(found[None].astype(np.uint8)), into / f"test_{i:03d}.nii.gz"
                )

    monkeypatch.setattr(inside_nnunet, "_run", run)
    rows = inside_nnunet.run_cell(("invented100", "nnUNetTrainer", "3"), work=tmp_path)
    assert [(row["checkpoint"], row["dice"], row["volume"]) for row in rows] == [
        ("final", 0, 0),
        ("best", 1, 1),
    ]
    own = tmp_path / "invented100_3"
    drawn = sorted(path.name[:3] for path in (own / "drawn").iterdir())
    assert drawn == ["tra"] * 3 + ["val"] * 3
    assert len(list((own / "test").iterdir())) == 3
    assert commands[-2:] == [["nnUNetv2_predict", f"checkpoint_{name}.pth"] for name in ("final", "best")]
    splits = (own / "preprocessed" / "Dataset501_Knees" / "splits_final.json").read_text()
    assert splits.index("train_000") < splits.index("val_000")


def test_inside_nnunet_each_trainer_is_held_against_stock_and_the_control():
    dice = {"nnUNetTrainer": 0.5, "nnUNetTrainerHardAPLNoCE": 0.7, "nnUNetTrainerHardDMLCE": 0.6}
    about = {"regime": "invented100", "precision": "0.5", "recall": "0.5", "volume": "1"}
    rows = [
        {
            **about,
            "trainer": trainer,
            "checkpoint": name,
            "seed": str(seed),
            "dice": str(more + value + seed / 100),
        }
        for trainer, value in dice.items()
        for name, more in (("final", 0), ("best", 0.02))
        for seed in range(3)
    ]
    lines = tables._inside(rows[:-1]).splitlines()  # the last seed of one cell is missing
    own = next(line for line in lines if "`nnUNetTrainerHardAPLNoCE` | final" in line)
    assert own.startswith("| invented100 | `nnUNetTrainerHardAPLNoCE` | final | 2 | 0.705 |")
    gains = [f"+{gain} (+{gain} to +{gain}) *" for gain in ("0.200", "0.180", "0.100")]
    assert own.endswith(f"| {' | '.join(gains)} |")
    without = [{**row, "regime": "missed40"} for row in rows if "Hard" not in row["trainer"]]
    last = tables._inside(rows + without).splitlines()[-1]  # the control was not run there
    assert last.startswith("| missed40 | `nnUNetTrainer` | best | 3 | 0.530 |")
    assert last.endswith("| +0.020 (+0.020 to +0.020) * | +0.000 (+0.000 to +0.000) | - |")


def test_inside_nnunet_a_seed_is_whole_before_the_next_begins():
    cells = list(inside_nnunet.cells())
    assert len(set(cells)) == len(cells)
    assert [int(seed) for _, _, seed in cells] == sorted(int(seed) for _, _, seed in cells)


def test_the_control_differs_from_the_recipe_in_the_loss_alone():
    recipe, control = (search(name) for name in inside_nnunet.TRAINERS[1:])
    assert issubclass(control, recipe)
    assert [name for name in vars(control) if not name.startswith("__")] == ["build_soft_loss"]
