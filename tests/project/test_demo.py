import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from nnunet_softlabel import demo as module
from nnunet_softlabel.benchmark import second_round
from nnunet_softlabel.cli import main
from nnunet_softlabel.demo import DemoSize, demo
from nnunet_softlabel.errors import UsageError
from nnunet_softlabel.formats.files import read_json
from nnunet_softlabel.formats.images import read_image
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from nnunet_softlabel.refinement import page as page_module
from nnunet_softlabel.simulation import knee_files
from nnunet_softlabel.simulation.knee_files import READERS, write_knees

N_KNEES = 24  # fewer hold too few lesions to judge readers by


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


@pytest.fixture
def small_demo(monkeypatch):
    monkeypatch.setattr(knee_files, "SHAPE", (12, 32, 32))
    for name in (
        "nnUNet_raw",
        "nnUNet_preprocessed",
        "nnUNet_results",
        "nnUNet_n_proc_DA",
        "nnUNet_def_n_proc",
    ):
        monkeypatch.setenv(name, "elsewhere")  # the demo sets its own, monkeypatch restores them


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_demo_runs_to_the_report(tmp_path, monkeypatch, small_demo):
    monkeypatch.setattr(module, "TRAINERS", ("nnUNetTrainer", "nnUNetTrainerAPL"))
    lines: list[str] = []
    page = demo(tmp_path / "demo", size=DemoSize(5, 2, epochs=1, iterations=2), log=lines.append)
    assert page.is_file()
    assert any("nnUNetTrainerAPL" in line for line in lines)
    assert np.any(["Report:" in line for line in lines])


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_demo_trains_both_rounds_in_nnunet_and_puts_them_on_one_page(tmp_path, monkeypatch, small_demo):
    """nnU-Net itself trains, predicts and preprocesses; only what it learnt in two iterations is replaced."""
    monkeypatch.setattr(module, "REFINED_FOLDS", 2)
    monkeypatch.setattr(page_module, "PICTURED", 2)
    refine, output = second_round.refine, tmp_path / "demo"

    def refine_what_learnt_networks_say(dataset, training, **options):
        predicted = sorted(training.folder(dataset).rglob("validation/*.npz"))
        assert len(predicted) == N_KNEES
        for path in predicted:
            truth = read_image(output / "knees" / "truth" / f"{path.stem}.nii.gz")[0] == 1
            p = 0.9 * gaussian_filter(truth.astype(np.float32), 0.4)
            with np.load(path) as of_nnunet:
                assert of_nnunet["probabilities"].shape == (2, *truth.shape)
            np.savez(path, probabilities=np.stack([1 - p, p]))
        return refine(dataset, training, **options)

    monkeypatch.setattr(second_round, "refine", refine_what_learnt_networks_say)
    lines: list[str] = []
    size = DemoSize(N_KNEES - 2, 2, epochs=1, iterations=2)
    page = demo(output, size=size, variant="refine", log=lines.append)
    rows = read_json(output / "soft_summary.json")["trainers"]
    assert list(rows) == [module.REFINED_TRAINER, f"{module.REFINED_TRAINER}, refined labels"]
    assert {row["mean"]["model"]["truth"]["lesion"]["dice"]["n"] for row in rows.values()} == {N_KNEES}
    refined = SoftDataset.find(module.REFINED_ID)
    assert "Rows with refined labels were trained on" in page.read_text(encoding="utf-8")
    checkpoints = sorted((output / "refined").rglob(f"{refined.folder.name}/*/fold_*/checkpoint_final.pth"))
    assert len(checkpoints) == 2
