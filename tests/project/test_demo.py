import numpy as np
import pytest

from nnunet_softlabel import demo as module
from nnunet_softlabel.cli import main
from nnunet_softlabel.demo import DemoSize, demo
from nnunet_softlabel.errors import UsageError
from nnunet_softlabel.simulation import knee_files
from nnunet_softlabel.simulation.knee_files import READERS, write_knees


def test_same_seed_same_files(tmp_path):
    for name in ("a", "b"):
        write_knees(tmp_path / name, seed=3, number=2, readers=READERS)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.nii.gz"))
    assert len(files) == 2 * (3 + 3)
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)


def test_demo_refuses_a_folder_that_is_not_empty(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="is not empty; choose another -o"):
        demo(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("flag", ["--epochs", "--iterations", "--seed"])
def test_demo_refuses_wrong_numbers_before_any_work(tmp_path, capsys, flag):
    assert main(["demo", "-o", str(tmp_path / "demo"), flag, "-1"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"nnunet_softlabel demo: error: {flag} -1: give a number from ")
    assert not (tmp_path / "demo").exists()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_demo_runs_to_the_report(tmp_path, monkeypatch):
    monkeypatch.setattr(knee_files, "SHAPE", (12, 32, 32))
    monkeypatch.setattr(module, "TRAINERS", ("nnUNetTrainer", "nnUNetTrainerAPL"))
    for name in (
        "nnUNet_raw",
        "nnUNet_preprocessed",
        "nnUNet_results",
        "nnUNet_n_proc_DA",
        "nnUNet_def_n_proc",
    ):
        monkeypatch.setenv(name, "elsewhere")  # the demo sets its own, monkeypatch restores them
    lines: list[str] = []
    page = demo(tmp_path / "demo", size=DemoSize(5, 2, epochs=1, iterations=2), log=lines.append)
    assert page.is_file()
    assert any("nnUNetTrainerAPL" in line for line in lines)
    assert np.any(["Report:" in line for line in lines])
