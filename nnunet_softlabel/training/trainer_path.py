"""Where nnU-Net finds our trainers."""

from __future__ import annotations

import os
from pathlib import Path

PLUGIN_FOLDER = Path(__file__).parent / "nnunet_plugin"


def trainer_path() -> str:
    """``nnUNet_extTrainer`` with the folder of our trainers in it, once; what was there stays."""
    before = [part for part in os.environ.get("nnUNet_extTrainer", "").split(os.pathsep) if part.strip()]
    return os.pathsep.join([*before, *([] if str(PLUGIN_FOLDER) in before else [str(PLUGIN_FOLDER)])])
