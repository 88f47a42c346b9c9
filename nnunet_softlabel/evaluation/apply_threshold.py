"""Masks from probability files."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.evaluation.thresholds import Threshold, decide
from nnunet_softlabel.formats.images import read_image, write_image
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.formats.predictions import predicted_cases, read_probabilities
from nnunet_softlabel.processes import run_in_processes


def apply_threshold(
    predictions: Path,
    output: Path,
    threshold: Threshold,
    labels: Labels,
    *,
    file_ending: str,
    images: Path | None = None,
    num_processes: int = 2,
    overwrite: bool = False,
) -> list[Path]:
    """Make segmentations of probability files, as nnU-Net would have, at another threshold.

    Args:
        predictions: folder with ``CASE.npz``.
        output: folder for ``CASE<file_ending>``.
        threshold: from `thresholds.choose_threshold`.
        labels: what the channels mean.
        file_ending: of the images.
        images: where ``CASE_0000<file_ending>`` gives the geometry; by default nnU-Net's own segmentation
            beside the probabilities does.
        num_processes: spawned workers.
        overwrite: replace earlier segmentations.

    Returns:
        The files written.

    Raises:
        DatasetError: if a geometry is missing or does not fit.
        UsageError: if a file exists, or the output is the folder of the predictions.
    """
    if output.resolve() == predictions.resolve():
        raise UsageError(f"-o {output}: nnU-Net's own segmentations lie there; choose another folder.")
    cases = sorted(path.stem for path in predictions.glob("*.npz"))
    if images is None or not cases:
        cases = predicted_cases(predictions, file_ending=file_ending)
    files = [output / f"{case}{file_ending}" for case in cases]
    there = [file for file in files if file.exists()]
    if there and not overwrite:
        raise UsageError(f"{there[0]} is already there; choose another -o, or pass --overwrite.")
    geometry = [
        predictions / f"{case}{file_ending}" if images is None else images / f"{case}_0000{file_ending}"
        for case in cases
    ]
    for case, source in zip(cases, geometry, strict=True):
        if not source.is_file():
            raise DatasetError(f"Case {case}: its geometry should come from {source}, which does not exist.")
    output.mkdir(parents=True, exist_ok=True)
    job = partial(_write_decision, predictions=predictions, threshold=threshold, labels=labels)
    items = list(zip(cases, geometry, files, strict=True))
    return list(run_in_processes(job, items, num_processes=num_processes, title="apply threshold"))


def _write_decision(
    item: tuple[str, Path, Path], *, predictions: Path, threshold: Threshold, labels: Labels
) -> Path:
    case, source, target = item
    _, grid = read_image(source)
    hard = decide(read_probabilities(predictions, case, labels, grid.shape), labels, threshold)
    write_image(target, hard, grid)
    return target
