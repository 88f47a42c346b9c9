"""Pipes, hidden files of macOS, byte order marks, names that a spreadsheet runs: one line or no change."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from nnunet_softlabel.cli import main
from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.encoding import with_background
from nnunet_softlabel.formats.files import read_json, write_json
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from tests.conversion.conversion_helpers import run, tree
from tests.scored_dataset import Evaluated, build, build_at

__all__ = ["build", "build_at"]
posix = pytest.mark.skipif(sys.platform == "win32", reason="mkfifo")


@pytest.fixture
def made(build, monkeypatch) -> Evaluated:
    made = build(cases=3)
    monkeypatch.setenv("nnUNet_raw", str(made.dataset.folder.parent))
    return made


def evaluate(made: Evaluated, output: Path) -> int:
    return main(["evaluate", "-d", "900", "-i", str(made.predictions), "-o", str(output), "-np", "1"])


@posix
@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["pipe", "link"])
@pytest.mark.parametrize(
    "name",
    [
        "predictions/case0.npz",
        "predictions/case0.nii.gz",
        "Dataset900_Balls/dataset.json",
        "Dataset900_Balls/softLabelsTr/case0_0001.nii.gz",
        "Dataset900_Balls/labelsTr/case0.nii.gz",
        "Dataset900_Balls/raterLabelsTr/ann/case0.nii.gz",
    ],
)
def test_what_cannot_be_opened_is_one_line(
    made: Evaluated, tmp_path: Path, capsys, name: str, kind: str
) -> None:
    path = tmp_path / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(tmp_path / "gone")
    assert evaluate(made, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert path.name in error
    assert not (tmp_path / "out").exists()


@posix
@pytest.mark.timeout(60)
@pytest.mark.parametrize("flag", ["--groups", "--cases-csv", "--test-cases"])
def test_a_table_that_is_a_pipe_is_one_line(
    rater_folder, nnunet_folders, tmp_path: Path, capsys, flag: str
) -> None:
    os.mkfifo(tmp_path / "pipe")
    arguments = rater_folder.arguments()
    if flag == "--cases-csv":
        arguments = [*arguments[:7], "--channel-names", "MR", "--labels", "lesion=1"]
    assert run(*arguments, flag, str(tmp_path / "pipe")) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert tree(nnunet_folders.raw) == {}


@posix
def test_what_a_shell_hands_over_is_read() -> None:
    reading, writing = os.pipe()
    os.write(writing, b'{"a": 1}')
    os.close(writing)
    assert read_json(Path(f"/dev/fd/{reading}")) == {"a": 1}
    os.close(reading)


def test_hidden_files_of_macos_change_nothing(made: Evaluated, tmp_path: Path, capsys) -> None:
    truth = tmp_path / "truth"
    shutil.copytree(made.dataset.folder / "labelsTr", truth)
    results = []
    for output in ("before", "after"):
        arguments = ["evaluate", "-d", "900", "-i", str(made.predictions), "-o", str(tmp_path / output)]
        assert main([*arguments, "--truth", str(truth), "-np", "1"]) == 0
        results.append((tmp_path / output / "soft_metrics.csv").read_bytes())
        folder = made.dataset.folder
        for path in [*folder.rglob("*.nii.gz"), *made.predictions.iterdir(), *truth.iterdir()]:
            path.with_name(f"._{path.name}").write_bytes(b"of macOS")
        (folder / "raterLabelsTr" / ".DS_Store").write_bytes(b"of macOS")
        (folder.parent / "._Dataset900_Balls").write_bytes(b"of macOS")
    assert results[0] == results[1]
    assert main(["inspect", "-d", "900", "-np", "1"]) == 0
    assert "Problems" not in capsys.readouterr().out


def test_a_rater_that_the_data_set_recorded_and_lost_is_one_line(
    rater_folder, nnunet_folders, capsys
) -> None:
    assert run(*rater_folder.arguments()) == 0
    folder = nnunet_folders.raw / "Dataset901_Tiny"
    (folder / "raterLabelsTr" / "2" / "case_01.nii.gz").unlink()
    with pytest.raises(DatasetError, match=r"Case case_01: .*case_01.nii.gz of rater 2 is missing"):
        SoftDataset(folder).rater_files("case_01")
    assert set(SoftDataset(folder).rater_files("case_00")) == {"1", "2", "3"}
    assert run("inspect", "-d", "901", "-np", "1") == 2
    assert "of rater 2 is missing" in capsys.readouterr().err
    shutil.rmtree(folder / "raterLabelsTr")  # whoever hands a data set on may leave them out
    assert SoftDataset(folder).rater_files("case_01") == {}


def test_swapped_soft_labels_are_refused_where_they_are_scored_against(
    rater_folder, nnunet_folders, tmp_path: Path, capsys
) -> None:
    assert run(*rater_folder.arguments()) == 0
    dataset, predictions = SoftDataset(nnunet_folders.raw / "Dataset901_Tiny"), tmp_path / "predictions"
    predictions.mkdir()
    for case in dataset.cases():
        probabilities = with_background(dataset.read_soft(case))
        np.savez(predictions / f"{case}.npz", probabilities=probabilities)
    first, second = dataset.soft_files("case_00")[0], dataset.soft_files("case_01")[0]
    first.rename(tmp_path / "kept")
    second.rename(first)
    (tmp_path / "kept").rename(second)
    common = ["-d", "901", "-i", str(predictions)]
    for command, name in (("evaluate", "out"), ("tune-threshold", "t.json"), ("calibrate", "c.json")):
        assert run(command, *common, "-o", str(tmp_path / name)) == 2
        assert "is not the one that was converted" in capsys.readouterr().err
        assert not (tmp_path / name).exists()


def test_files_and_folders_of_nnunet_are_not_replaced(made: Evaluated, tmp_path: Path, capsys) -> None:
    common = ["-d", "900", "-i", str(made.predictions), "--overwrite"]
    before = tree(made.dataset.folder)
    for command in ("tune-threshold", "calibrate"):
        assert run(command, *common, "-o", str(made.dataset.folder / "dataset.json")) == 2
        assert f"is there and no result of {command}" in capsys.readouterr().err
        assert run(command, *common, "-o", str(tmp_path / "own.json")) == 0
        assert run(command, *common, "-o", str(tmp_path / "own.json")) == 0
        (tmp_path / "own.json").unlink(missing_ok=True)
    for command, extra in {"maps": [], "apply-threshold": ["--threshold", "0.3"], "evaluate": []}.items():
        assert run(command, *common, *extra, "-o", str(made.dataset.folder / "labelsTr")) == 2
        assert "nnU-Net's data sets have folders of this name" in capsys.readouterr().err
    assert tree(made.dataset.folder) == before


@posix
@pytest.mark.parametrize("command", ["tune-threshold", "calibrate", "inspect", "evaluate", "maps"])
def test_an_output_that_cannot_be_made_is_found_before_the_work(
    made: Evaluated, tmp_path: Path, capsys, monkeypatch, command: str
) -> None:
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr(SoftDataset, "read_soft", None)  # nothing is worked on
    monkeypatch.setattr(SoftDataset, "rater_files", lambda *_: {})
    predictions = [] if command == "inspect" else ["-i", str(made.predictions)]
    for output in (tmp_path / "file" / "out", Path("/proc/out/x")):
        assert run(command, "-d", "900", *predictions, "-o", str(output)) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert f"-o {output}" in error
        assert "cannot be made" in error


@posix
def test_links_to_nowhere_are_not_replaced(rater_folder, nnunet_folders, tmp_path: Path, capsys) -> None:
    splits = nnunet_folders.preprocessed / "Dataset901_Tiny" / "splits_final.json"
    splits.parent.mkdir()
    splits.symlink_to(tmp_path / "another disk")
    groups = ["--groups", str(rater_folder.root / "cases.csv"), "--group-column", "patient"]
    for more in ([], groups, [*groups, "--overwrite"]):
        assert run(*rater_folder.arguments(), *more) == 2
        assert "splits_final.json: is a link to a file that is not there" in capsys.readouterr().err
    splits.unlink()
    (nnunet_folders.raw / "Dataset901_Tiny").symlink_to(tmp_path / "another disk")
    assert run(*rater_folder.arguments()) == 2
    assert "Dataset901_Tiny: is already there" in capsys.readouterr().err
    assert [path.name for path in nnunet_folders.raw.iterdir()] == ["Dataset901_Tiny"]


@pytest.mark.parametrize("ending", [".txt", ".csv"])
def test_a_byte_order_mark_before_the_test_cases_is_no_part_of_a_name(
    rater_folder, nnunet_folders, tmp_path: Path, ending: str
) -> None:
    header = b"case\r\n" if ending == ".csv" else b""
    names = tmp_path / f"t{ending}"
    names.write_bytes(b"\xef\xbb\xbf" + header + b"case_00\r\ncase_01\r\n")
    assert run(*rater_folder.arguments(), "--test-cases", str(names)) == 0
    found = (nnunet_folders.raw / "Dataset901_Tiny" / "labelsTs").iterdir()
    assert {path.name for path in found} == {"case_00.nii.gz", "case_01.nii.gz"}


@pytest.mark.parametrize("sign", ["=", "+", "@"])
def test_labels_and_groups_that_a_spreadsheet_runs_are_refused(
    rater_folder, nnunet_folders, capsys, sign: str
) -> None:
    arguments = rater_folder.arguments()
    if sign != "=":  # which is no part of a name
        assert run(*arguments[:-1], f"{sign}lesion=1") == 2
        assert "a spreadsheet would run it as a formula" in capsys.readouterr().err
    table = rater_folder.root / "cases.csv"
    text = table.read_text()
    groups = ["--groups", str(table), "--group-column", "patient"]
    table.write_text(text.replace("p0", f"{sign}cmd|x"))
    assert run(*arguments, *groups) == 2
    assert f"Case case_00: group '{sign}cmd|x': a group cannot begin with" in capsys.readouterr().err
    table.write_text(text.replace("p0", "-1").replace("p1", "+2"))
    assert run(*arguments, *groups) == 0


def test_splits_and_summaries_of_another_shape_are_one_line(rater_folder, nnunet_folders, capsys) -> None:
    assert run(*rater_folder.arguments()) == 0
    path = nnunet_folders.raw / "Dataset901_Tiny" / "dataset.json"
    content = read_json(path)
    for key in ("summary", "moved", "prior", "fusion", "label_values", "raters_of_case"):
        write_json(path, content | {"soft_labels": content["soft_labels"] | {key: 3}})
        assert run("inspect", "-d", "901", "-np", "1") == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert key in error
