"""Stands in for a training: writes the probabilities of the soft label, a little blurred.

Run as a process by jobs of a cluster, called by the other tests; takes the two files that
``python -m nnunet_softlabel.training`` takes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from nnunet_softlabel.formats.encoding import with_background
from nnunet_softlabel.formats.files import write_json
from nnunet_softlabel.formats.soft_dataset import SoftDataset

BLUR = {
    "nnUNetTrainer": 0.5,
    "nnUNetTrainerAPL": 1.5,
    "nnUNetTrainerSoftCE": 1.5,
    "nnUNetTrainerSoftCEFineTune": 1.0,
}


def fake_training(arguments_file: Path, result_file: Path, environment: Mapping[str, str]) -> int:
    """The exit code; the trainer ``nnUNetTrainerBroken`` fails, ``...WithoutNpz`` leaves no probabilities."""
    arguments = json.loads(arguments_file.read_text(encoding="utf-8"))
    trainer, dataset = arguments["trainer"], SoftDataset.find(arguments["dataset"])
    if trainer == "nnUNetTrainerBroken":
        return 1
    name = f"{trainer}__{arguments['plans']}__{arguments['configuration']}"
    folder = Path(environment["nnUNet_results"]) / dataset.folder.name / name / f"fold_{arguments['fold']}"
    (folder / "validation").mkdir(parents=True, exist_ok=True)
    if trainer != "nnUNetTrainerWithoutNpz":
        blur = BLUR[trainer]
        splits = Path(environment["nnUNet_preprocessed"]) / dataset.folder.name / "splits_final.json"
        for case in json.loads(splits.read_text(encoding="utf-8"))[arguments["fold"]]["val"]:
            soft = with_background(gaussian_filter(dataset.read_soft(case), (0, blur, blur, blur)))
            np.savez(folder / "validation" / f"{case}.npz", probabilities=soft)
            (folder / "validation" / f"{case}.pkl").write_bytes(b"")
    (folder / "checkpoint_final.pth").write_bytes(name.encode())
    result = {
        "train_seconds": 1.0,
        "validation_seconds": 1.0,
        "peak_memory_gb": 0.1,
        "curves": {"train_losses": [1.0]},
        "epochs": 1,
        "iterations": 1,
        "device": "cpu",
    }
    write_json(result_file, result)
    return 0


def popen(command: Sequence[str], *, env: Mapping[str, str], stdout: Any, **options: Any) -> SimpleNamespace:
    """In place of ``subprocess.Popen``: the fake training, in this process."""
    code = fake_training(Path(command[-2]), Path(command[-1]), env)
    if code:
        stdout.write("RuntimeError: no such trainer\n")
    return SimpleNamespace(poll=lambda: code, returncode=code, stdin=None)


def subprocess_with(start: Callable[..., SimpleNamespace]) -> SimpleNamespace:
    """In place of the module ``subprocess`` in `cell_training`, which others go on using as it is."""
    return SimpleNamespace(Popen=start, STDOUT=subprocess.STDOUT, PIPE=subprocess.PIPE)


if __name__ == "__main__":
    code = fake_training(Path(sys.argv[1]), Path(sys.argv[2]), os.environ)
    if code:
        print("RuntimeError: no such trainer")
    sys.exit(code)
