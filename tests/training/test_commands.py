"""nnU-Net's real commands, with a trainer of a user's own on top of ours."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.conftest import REDUCED

# nnU-Net's epochs have 250 iterations
SHORT = """
import os

from nnunet_softlabel.training.recipes import nnUNetTrainerAPL


class nnUNetTrainerShort(nnUNetTrainerAPL):
    def initialize(self):
        self.num_epochs = int(os.environ["EPOCHS"])
        self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 2, 1
        super().initialize()
"""
TRAIN = f"nnUNetv2_train {{id}} 3d_fullres 0 -p {REDUCED} -device cpu --npz"


def shell(script: str, **variables: str) -> str:
    """Run lines in bash with this environment's commands; stop at the first that fails."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "nnUNet_n_proc_DA": "1",
        "nnUNet_def_n_proc": "1",
        "OMP_NUM_THREADS": "1",
        **variables,
    }
    done = subprocess.run(
        ["bash", "-ec", script],
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=1500,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture
def trainer_folder(tmp_path):
    folder = tmp_path / "my trainers"
    folder.mkdir()
    (folder / "short_trainer.py").write_text(SHORT)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_commands_train_continue_validate_and_predict(planned_dataset, trainer_folder, tmp_path):
    train = TRAIN.format(id=planned_dataset.id)
    model = tmp_path / "results" / planned_dataset.name / f"nnUNetTrainerShort__{REDUCED}__3d_fullres"
    ours = model.with_name(f"nnUNetTrainerAPL__{REDUCED}__3d_fullres")
    images, out = planned_dataset.raw / "imagesTr", tmp_path / "out"
    printed = shell(
        f"""
        eval "$(nnunet_softlabel env)"
        EPOCHS=1 {train} -tr nnUNetTrainerShort
        EPOCHS=2 {train} -tr nnUNetTrainerShort --c
        cp -r {model} {ours}
        rm -r {ours}/fold_0/validation
        {train} -tr nnUNetTrainerAPL --val
        EPOCHS=2 nnUNetv2_predict -d {planned_dataset.id} -i {images} -o {out} -c 3d_fullres -f 0 \
            -tr nnUNetTrainerShort -p {REDUCED} -device cpu -npp 1 -nps 1 --save_probabilities
        """,
        nnUNet_extTrainer=str(trainer_folder),
    )
    assert "nnunet_softlabel" in printed
    assert (model / "fold_0" / "soft_validation.csv").read_text(encoding="utf-8").count(
        "\n"
    ) == 3  # header, two epochs
    assert len(list((ours / "fold_0" / "validation").glob("*.npz"))) == 2
    assert len(list(out.glob("*.npz"))) == len(planned_dataset.cases)
