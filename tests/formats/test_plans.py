"""What is said of plans and preprocessed images that are not there: lines that nnU-Net takes as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunet_softlabel.errors import UsageError
from nnunet_softlabel.formats.nnunet_folders import dataset_number
from nnunet_softlabel.formats.plans import missing_plans, preprocessing_command
from tests.nnunet_commands import check_nnunet_understands


@pytest.fixture
def preprocessed(tmp_path: Path) -> Path:
    folder = tmp_path / "Dataset007_Knee"
    folder.mkdir()
    return folder


def test_nnunet_understands_the_line_that_preprocesses(preprocessed: Path, monkeypatch) -> None:
    line = preprocessing_command(preprocessed, "nnUNetPlansReduced", "3d_lowres")
    assert line == "nnUNetv2_preprocess -d 7 -plans_name nnUNetPlansReduced -c 3d_lowres"
    check_nnunet_understands(line, monkeypatch)


@pytest.mark.parametrize(
    "line",
    [
        "nnUNetv2_plan_and_preprocess -d 7",
        "nnUNetv2_plan_and_preprocess -d 7 --verify_dataset_integrity",
        "nnUNetv2_train 7 CONFIGURATION FOLD -tr TRAINER --npz",
    ],
)
def test_nnunet_understands_what_comes_next(line: str, monkeypatch) -> None:
    check_nnunet_understands(line, monkeypatch)


def test_nnunet_refuses_the_name_of_a_data_set_where_it_wants_the_number(monkeypatch) -> None:
    """Why our lines have numbers; should this ever fail, names would do."""
    with pytest.raises(AssertionError, match="refuses nnUNetv2_preprocess -d Dataset007_Knee"):
        check_nnunet_understands("nnUNetv2_preprocess -d Dataset007_Knee", monkeypatch)


def test_missing_plans_are_told_with_the_steps_that_make_them(preprocessed: Path) -> None:
    plan, reduce = "nnUNetv2_plan_and_preprocess -d 7", "nnunet_softlabel reduce-plans -d 7"
    assert missing_plans(preprocessed / "nnUNetPlans.json").endswith(f"is not there; run {plan} first.")
    reduced = preprocessed / "nnUNetPlansReduced.json"
    assert missing_plans(reduced).endswith(f"; run {plan} and then {reduce} first.")
    (preprocessed / "nnUNetPlans.json").write_text("{}")
    assert missing_plans(reduced).endswith(f"; run {reduce} first, or choose one of nnUNetPlans.")
    assert missing_plans(preprocessed / "Other.json").endswith("is not there; choose one of nnUNetPlans.")


@pytest.mark.parametrize("name", ["Knee", "DatasetKnee", "Dataset", "Dataset_7", "dataset007_Knee"])
def test_a_name_without_a_number_is_no_data_set(name: str) -> None:
    with pytest.raises(UsageError, match=f"-d {name}: give the number of a data set, or its full name"):
        dataset_number(name)
