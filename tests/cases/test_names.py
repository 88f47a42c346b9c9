from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from nnunet_softlabel.cases.names import check_case_names, check_file_name
from nnunet_softlabel.cases.patterns import Pattern, literal
from nnunet_softlabel.errors import DatasetError
from tests.conversion.conversion_helpers import run, tree


@pytest.mark.parametrize(
    "name", ["=1", "+a", "-a", "@a", "a\nb", "a\tb", "x" * 191, "é" * 100, "a\udcff", ""]
)
def test_names_that_do_harm_are_refused(name: str) -> None:
    with pytest.raises(DatasetError, match=r"rename|shorten"):
        check_file_name(name, "Case")


def test_two_spellings_of_one_name_are_refused() -> None:
    names = [unicodedata.normalize(form, "Müller") for form in ("NFC", "NFD")]
    with pytest.raises(DatasetError, match="differ in their Unicode spelling"):
        check_case_names(names)


def test_rater_in_two_spellings_is_refused(rater_folder, nnunet_folders, capsys) -> None:
    for form, case in (("NFC", "case_00"), ("NFD", "case_01")):
        path = rater_folder.rater(case, "1")
        path.rename(path.with_name(f"{case}_rater{unicodedata.normalize(form, 'José')}.nii.gz"))
    assert run(*rater_folder.arguments()) == 2
    assert "differ in their Unicode spelling (NFC, NFD)" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_rater_that_cannot_be_opened_is_not_left_out(
    rater_folder, nnunet_folders, capsys, tmp_path: Path, kind: str
) -> None:
    path = rater_folder.rater("case_01", "2")
    path.unlink()
    if kind == "link":
        path.symlink_to(tmp_path / "gone")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    assert run(*rater_folder.arguments()) == 2
    assert f"{path}: is a " in capsys.readouterr().err
    assert list(nnunet_folders.raw.iterdir()) == []


@pytest.mark.parametrize(
    "sign", ["plans.json", "summary.json", "apply_threshold.json", "made_from.json", "volumes.csv"]
)
def test_predictions_beside_raters_are_no_raters(tmp_path: Path, nnunet_folders, capsys, sign: str) -> None:
    from tests.conftest import write_volume

    for folder in ("images", "r1", "predicted"):
        write_volume(tmp_path / folder / "a.nii.gz", np.zeros((3, 4, 5), np.uint8))
    (tmp_path / "predicted" / sign).write_text("{}")
    arguments = ["convert", "-d", "901", "-n", "T", "--images", str(tmp_path / "images/{case}.nii.gz")]
    arguments += ["--channel-names", "MR", "--labels", "a=1", "-np", "1"]
    before = tree(tmp_path)
    assert run(*arguments, "--raters", str(tmp_path / "{rater}/{case}.nii.gz")) == 2
    assert f"rater predicted is no rater: {sign} in that folder" in capsys.readouterr().err
    assert run("inspect", "--raters", str(tmp_path / "{rater}/{case}.nii.gz"), "--labels", "a=1") == 2
    assert f"rater predicted is no rater: {sign} in that folder" in capsys.readouterr().err
    assert tree(tmp_path) == before
    assert run(*arguments, "--raters", str(tmp_path / "{rater:r1}/{case}.nii.gz")) == 0


def test_braces_of_folder_names_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "{study}").mkdir()
    (tmp_path / "{study}" / "a.nii").touch()
    pattern = Pattern(f"{literal(tmp_path / '{study}')}/{{case}}.nii", "--images", ["case"])
    assert pattern.files() == [str(tmp_path / "{study}" / "a.nii")]
    assert pattern.regex().fullmatch(pattern.files()[0])["case"] == "a"


def test_into_works_in_a_folder_with_braces(
    rater_folder, tmp_path: Path, monkeypatch, nnunet_folders
) -> None:
    raw = tmp_path / "raw {x}"
    raw.mkdir()
    monkeypatch.setenv("nnUNet_raw", str(raw))
    assert run(*rater_folder.arguments()) == 0
    into = ["convert", "--into", "901", "--raters", rater_folder.rater_pattern, "-np", "1", "--overwrite"]
    assert run(*into) == 0


@pytest.mark.parametrize("name", ["k1.nii", "k1.nii.gz", "K1.PNG", "k1.tif"])
def test_case_names_that_end_as_images_do_are_refused(name: str) -> None:
    with pytest.raises(
        DatasetError, match=rf"Case {name}: a case name cannot end in .*; write the whole ending"
    ):
        check_case_names(["k0", name])
    check_case_names(["k1.niiX", "k.1", "png"])
