from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_softlabel.errors import UsageError
from nnunet_softlabel.formats.files import read_json, write_json
from nnunet_softlabel.preprocessing.reduced_plans import NetworkSize, reduce_plans
from tests.conversion.conversion_helpers import run, tree
from tests.nnunet_commands import check_nnunet_understands


@pytest.fixture
def own(planned_dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    return planned_dataset.copy_to(tmp_path, monkeypatch)


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_reduced_network_can_be_built_and_run(own, configuration: str) -> None:
    size = NetworkSize(features=2, batch_size=3, patch_size=[10, 17, 20], max_stages=3)
    path = reduce_plans(911, name="Small", network=size)
    manager = PlansManager(read_json(path)).get_configuration(configuration)
    assert manager.batch_size == 3
    assert len(manager.network_arch_init_kwargs["features_per_stage"]) <= 3
    assert manager.network_arch_init_kwargs["features_per_stage"][0] == 2
    network = get_network_from_plans(
        manager.network_arch_class_name,
        manager.network_arch_init_kwargs,
        manager.network_arch_init_kwargs_req_import,
        1,
        2,
        deep_supervision=False,
    )
    output = network(torch.zeros(1, 1, *manager.patch_size))
    assert output.shape == (1, 2, *manager.patch_size)


def test_reduced_plan_shares_the_preprocessed_images(own) -> None:
    reduced = read_json(reduce_plans(911, name="Small"))
    original = read_json(own.preprocessed / "nnUNetPlans.json")
    for name, configuration in reduced["configurations"].items():
        assert configuration.get("data_identifier") == original["configurations"][name].get("data_identifier")
        assert configuration.get("spacing") == original["configurations"][name].get("spacing")
    assert reduced["plans_name"] == "Small"


def test_plans_are_not_overwritten(own, capsys) -> None:
    with pytest.raises(UsageError, match=r"nnUNetPlansReduced.json: is already there; add overwrite=True"):
        reduce_plans(911)
    with pytest.raises(UsageError, match=r"nnUNetPlans.json: is already there"):
        reduce_plans(911, name="nnUNetPlans", overwrite=True)
    with pytest.raises(
        UsageError, match=r"plans Absent: .*Absent.json is not there; choose one of nnUNetPlans"
    ):
        reduce_plans(911, plans="Absent")
    assert run("reduce-plans", "-d", "911", "--overwrite") == 0
    assert "train with -p nnUNetPlansReduced" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["911", "Dataset911_Tiny"])
def test_a_cascades_next_command_is_one_that_nnunet_takes(own, capsys, monkeypatch, name: str) -> None:
    """nnU-Net's preprocessing takes the number only, whatever the user gave."""
    assert run("reduce-plans", "-d", name, "-o", "Small", "--cascade") == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "nnUNetv2" in line]
    command = line.removeprefix("First run: ")
    assert command == "nnUNetv2_preprocess -d 911 -plans_name Small -c 3d_lowres"
    check_nnunet_understands(command, monkeypatch)


def test_images_of_a_cascade_that_are_there_need_no_command(own, capsys) -> None:
    (own.preprocessed / "Small_3d_lowres").mkdir()
    assert run("reduce-plans", "-d", "911", "-o", "Small", "--cascade") == 0
    assert "First run" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flag", "values"),
    [
        ("--features", ["0"]),
        ("--features", ["-4"]),
        ("--batch-size", ["0"]),
        ("--max-stages", ["0"]),
        ("--patch-size", ["16", "0", "16"]),
    ],
)
def test_network_of_nothing_is_refused(own, capsys, flag: str, values: list[str]) -> None:
    assert run("reduce-plans", "-d", "911", "-o", "New", flag, *values) == 2
    assert f"{flag} " in (message := capsys.readouterr().err)
    assert "takes numbers from 1" in message
    assert not (own.preprocessed / "New.json").exists()


@pytest.mark.parametrize(
    ("flags", "note"),
    [
        (["--max-stages", "2"], "3d_fullres: 3 resolution stages, not 2; with fewer than 3 nnU-Net's loss"),
        (["--max-stages", "1"], "2d: 3 resolution stages, not 1; "),
        (["--patch-size", "8", "8", "8"], "a patch of 8 x 8 x 8 has 3 resolution stages, not 2; with fewer"),
        (["--patch-size", "8", "8", "8"], "2d: feature maps get down to 2 voxels along an edge, not 4"),
    ],
)
def test_no_network_has_fewer_than_three_stages_and_the_user_is_told(own, capsys, flags, note) -> None:
    """Of two stages nnU-Net weighs the only output 0 and divides by the sum."""
    assert run("reduce-plans", "-d", "911", "-o", "New", *flags) == 0
    assert note in capsys.readouterr().out
    for configuration in read_json(own.preprocessed / "New.json")["configurations"].values():
        network = configuration["architecture"]["arch_kwargs"]
        assert network["n_stages"] == 3
        assert len(network["strides"]) == len(network["features_per_stage"]) == 3
        assert len(network["n_conv_per_stage_decoder"]) == 2
        bottleneck = np.array(configuration["patch_size"]) / np.prod(network["strides"], axis=0)
        assert (bottleneck >= 2).all()


def test_what_fits_is_taken_as_it_was_asked_for(own, capsys) -> None:
    assert run("reduce-plans", "-d", "911", "-o", "New", "--max-stages", "3") == 0
    assert "stages" not in capsys.readouterr().out


def test_a_patch_without_room_for_three_stages_is_refused(own, capsys) -> None:
    assert run("reduce-plans", "-d", "911", "-o", "New", "--patch-size", "4", "4", "4") == 2
    message = capsys.readouterr().err
    assert "--patch-size: 2d: a patch of 4 x 4 voxels has no room for 3 resolution stages" in message
    assert "give a larger one" in message
    assert not (own.preprocessed / "New.json").exists()


def test_images_without_room_for_three_stages_are_refused(own) -> None:
    plan = read_json(own.preprocessed / "nnUNetPlans.json")
    plan["configurations"]["2d"]["patch_size"] = [4, 6]
    write_json(own.preprocessed / "Tiny.json", plan)
    with pytest.raises(UsageError, match=r"2d: a patch of 4 x 6 voxels has no room.*pad the images before"):
        reduce_plans(911, plans="Tiny", name="New")
    assert not (own.preprocessed / "New.json").exists()


@pytest.mark.parametrize("name", ["dataset", "dataset_fingerprint", "splits_final", "../x", "", ".x", "a/b"])
def test_other_files_of_nnunet_are_no_reduced_plans(own, capsys, name: str) -> None:
    before = tree(own.preprocessed)
    assert run("reduce-plans", "-d", "911", "-o", name, "--overwrite") == 2
    assert "choose another name" in (message := capsys.readouterr().err) or "a plan's name" in message
    assert tree(own.preprocessed) == before
