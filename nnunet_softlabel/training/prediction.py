"""``python -m nnunet_softlabel.training.prediction ARGUMENTS.json RESULT.json``: one fold on new images.

nnU-Net's own predictor, with probabilities, in a process of its own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from time import time
from typing import TypedDict

import numpy as np

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.files import visible, write_json
from nnunet_softlabel.formats.images import read_mask
from nnunet_softlabel.formats.predictions import UNREADABLE

# what reading such a file raises
CUT_OFF: tuple[type[Exception], ...] = (*UNREADABLE, DatasetError)


class PredictArguments(TypedDict):
    """Of `predict`, as JSON holds it."""

    model: str
    fold: int
    images: list[list[str]]
    output: str
    previous_stage: str | None
    device: str
    num_processes: int


def predict(
    model: Path | str,
    fold: int,
    images: Sequence[Sequence[str]],
    output: Path | str,
    *,
    previous_stage: Path | str | None = None,
    device: str = "cuda",
    num_processes: int = 1,
) -> float:
    """Predict with one fold, as ``nnUNetv2_predict -f FOLD --save_probabilities`` does.

    Cases whose files are whole are kept; those that a killed run cut off are predicted again.

    Args:
        model: folder that holds the folds.
        fold: its number.
        images: files of every case, one per channel, as ``imagesTs`` holds them.
        output: for ``CASE.npz`` and the segmentation of every case.
        previous_stage: segmentations of the first stage of a cascade, or None.
        device: ``cuda``, ``cpu`` or ``mps``.
        num_processes: that preprocess and that write, as many each.

    Returns:
        Seconds.
    """
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    started, output = time(), Path(output)
    if device == "cuda":
        torch.set_num_threads(1)
    predictor = nnUNetPredictor(device=torch.device(device), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), (fold,))
    ending = predictor.dataset_json["file_ending"]
    output.mkdir(parents=True, exist_ok=True)
    remove_cut_off(output, ending)
    predictor.predict_from_files(
        [list(files) for files in images],
        str(output),
        save_probabilities=True,
        overwrite=False,
        num_processes_preprocessing=num_processes,
        num_processes_segmentation_export=num_processes,
        folder_with_segs_from_prev_stage=None if previous_stage is None else str(previous_stage),
    )
    return time() - started


def remove_cut_off(folder: Path, ending: str) -> list[str]:
    """Delete the files of cases that cannot be read to their end; returns these cases.

    nnU-Net takes a case for predicted if its files are there.
    """
    broken = []
    for path in visible(folder, "*.npz"):
        mask = folder / f"{path.stem}{ending}"
        try:
            with path.open("rb") as file, np.load(file) as stored:
                _ = stored["probabilities"]
            if mask.is_file():
                read_mask(mask)
        except CUT_OFF:
            path.unlink()
            mask.unlink(missing_ok=True)
            broken.append(path.stem)
    return broken


if __name__ == "__main__":  # nnU-Net's worker processes import this module again
    arguments, result = map(Path, sys.argv[1:3])
    seconds = predict(**json.loads(arguments.read_text(encoding="utf-8")))
    write_json(result, {"seconds": seconds})
