"""The lines a user types, as commands, on six real LIDC cases with four radiologists."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = Path(__file__).parents[2] / "nnunet_softlabel" / "training" / "nnunet_plugin"
# nnU-Net's command has no flag for the number of iterations; a trainer of the user's own has
QUICK_TRAINER = """
from nnunet_softlabel.training.recipes import nnUNetTrainerAPL


class nnUNetTrainerAPLQuick(nnUNetTrainerAPL):
    def __init__(self, plans, configuration, fold, dataset_json, device):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 1, 2, 1
"""


@pytest.fixture
def run(tmp_path):
    """Runs a command with nnU-Net's folders under ``tmp_path``; fails with its output."""
    (tmp_path / "trainers").mkdir()
    (tmp_path / "trainers" / "my_quick_trainer.py").write_text(QUICK_TRAINER)
    environment = os.environ | {"nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1", "OMP_NUM_THREADS": "2"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment["nnUNet_extTrainer"] = os.pathsep.join([str(tmp_path / "trainers"), str(PLUGIN)])
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        environment[f"nnUNet_{name}"] = str(tmp_path / name)

    def command(*arguments: object) -> str:
        result = subprocess.run(
            [str(a) for a in arguments],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            encoding="utf-8",
        )
        assert result.returncode == 0, f"{arguments[0]}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
        return result.stdout

    return command


@pytest.mark.slow
@pytest.mark.shared_data
@pytest.mark.timeout(1200)
def test_raters_to_scores_with_real_commands(run, tmp_path, shared_data):
    source = shared_data / "lidc_nodules"
    with (source / "cases.csv").open(encoding="utf-8") as file:
        names = [row["case"] for row in csv.DictReader(file) if row["n_raters"] == "4"][:7]
    for folder in ("images", "raters"):
        (tmp_path / folder).mkdir()
    for name in names:
        shutil.copy(source / "images" / f"{name}.nii.gz", tmp_path / "images")
        for path in (source / "raters").glob(f"{name}_rater*.nii.gz"):
            shutil.copy(path, tmp_path / "raters")
    run(
        *("nnunet_softlabel", "convert", "-d", 501, "-n", "LIDC", "--images", "images/{case}.nii.gz"),
        *("--channel-names", "CT", "--raters", "raters/{case}_rater{rater}.nii.gz", "--labels", "nodule=1"),
        *("--groups", source / "cases.csv", "--group-column", "patient", "--test-cases", names[-1], "-np", 1),
    )
    run(
        *("nnUNetv2_plan_and_preprocess", "-d", 501, "-c", "3d_fullres", "--verify_dataset_integrity"),
        *("-np", 1, "-npfp", 1),
    )
    run("nnunet_softlabel", "reduce-plans", "-d", 501, "--features", 4)
    plan = ("-p", "nnUNetPlansReduced", "-tr", "nnUNetTrainerAPLQuick", "-device", "cpu")
    log = run("nnUNetv2_train", 501, "3d_fullres", 0, *plan, "--npz")
    assert "loss 1.0 DML + 1.0 CE + 1.0 NKL + 1.0 TV, after a start with" in log
    images = tmp_path / "raw" / "Dataset501_LIDC" / "imagesTs"
    model = (*plan, "-d", 501, "-c", "3d_fullres", "-f", 0)
    run("nnUNetv2_predict", "-i", images, "-o", "predicted", *model, "--save_probabilities")
    table = run(
        *("nnunet_softlabel", "evaluate", "-d", 501, "-i", "predicted", "-o", "scores"),
        *("--split", "Ts", "-np", 1),
    )
    assert "Soft Dice" in table
    assert (tmp_path / "scores" / "soft_summary.json").is_file()
    assert (tmp_path / "scores" / "soft_metrics.csv").is_file()
