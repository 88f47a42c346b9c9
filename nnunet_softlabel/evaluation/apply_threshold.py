"""Masks from probability files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from nnunet_softlabel import __version__
from nnunet_softlabel.evaluation.consistency import check_label_map, exhaust, stock_threshold
from nnunet_softlabel.evaluation.decision import Decision
from nnunet_softlabel.evaluation.ensemble import Predictions, check_geometry
from nnunet_softlabel.evaluation.run import refuse_other_calibration
from nnunet_softlabel.evaluation.thresholds import Threshold
from nnunet_softlabel.formats.files import refuse_left_over, write_json
from nnunet_softlabel.formats.images import file_ending, read_image, write_image
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.formats.model_labels import check_labels_of_model
from nnunet_softlabel.formats.orientation import orientation_of, reader_of_predictions
from nnunet_softlabel.formats.predictions import probability_channels
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from nnunet_softlabel.formats.staging import staged
from nnunet_softlabel.processes import fewer_for_few, run_jobs
from nnunet_softlabel.public import public

RECORD = "apply_threshold.json"  # tells that the folder holds no rater, and how its masks were made


@public
@dataclass(frozen=True)
class ImageFiles:
    """How the images of predictions are stored.

    >>> ImageFiles(".nii.gz").folder is None
    True

    Attributes:
        ending: of the images.
        folder: where ``CASE_0000<ending>`` gives the geometry; by default nnU-Net's own segmentation beside
            the probabilities does.
        reader: nnU-Net's reader of the images, if it turns axes; the plans beside the probabilities go first.
        dataset: that holds the cases; None: a calibration knows them by their names.
    """

    ending: str
    folder: Path | None = None
    reader: str | None = None
    dataset: SoftDataset | None = None


@public
def apply_threshold(
    predictions: Path | Sequence[Path],
    output: Path,
    threshold: Threshold | float | Mapping[str, float],
    labels: Labels,
    *,
    files: ImageFiles,
    calibration: Path | str | None = None,
    num_processes: int = 2,
    overwrite: bool = False,
) -> list[Path]:
    """Make segmentations of probability files, as nnU-Net would have, at another threshold: all, or none.

    >>> masks = ns.apply_threshold("predictions", "masks", 0.4, {"lesion": 1}, files=ns.ImageFiles(".nii.gz"))
    >>> masks[0].name
    'knee_000.nii.gz'

    Args:
        predictions: folder with ``CASE.npz``; of several models the probabilities are averaged.
        output: folder for ``CASE<ending>`` and ``apply_threshold.json``, which says how they were made.
        threshold: a number, a number per channel, or a rule of `thresholds.choose_threshold`.
        labels: what the channels mean, also as ``{"nodule": 1}``.
        files: how the images are stored.
        calibration: recalibrates the probabilities first, as in `evaluate`.
        num_processes: spawned workers.
        overwrite: replace earlier segmentations.

    Returns:
        The files written.

    Raises:
        DatasetError: if a geometry is missing or does not fit.
        UsageError: if a file exists, the output cannot be made, is the folder of the predictions, or holds
            other cases of an earlier run.
    """
    threshold = Threshold.of(threshold, labels.names)
    ending, images = files.ending, files.folder
    found = Predictions.find(predictions, file_ending=ending, with_masks=images is None)
    check_labels_of_model(found.folders, labels)
    found = found.with_calibration(calibration, files.dataset or labels)
    refuse_other_calibration(threshold, found)
    found.refuse_as_output(output)
    cases = found.cases
    geometry = [
        found.mask_file(case, ending) if images is None else images / f"{case}_0000{ending}" for case in cases
    ]
    for case, source in zip(cases, geometry, strict=True):
        check_geometry(case, source)
    names = [f"{case}{ending}" for case in cases]
    if (output / RECORD).is_file():
        refuse_left_over(output, names, f"*{ending}")
    with staged(output, [*names, RECORD], overwrite=overwrite) as new:
        job = partial(
            _write_decision,
            predictions=found,
            threshold=threshold,
            labels=labels,
            reader=reader_of_predictions(found.folders[0]) or files.reader,
            is_segmentation=images is None,
        )
        jobs = list(zip(cases, geometry, [new / name for name in names], strict=True))
        fitting = found.processes_that_fit(num_processes, labels)
        workers, about = fewer_for_few(fitting, len(jobs)), [f"Case {case}" for case in cases]
        list(run_jobs(job, jobs, workers, names=about, in_order=True, title="apply threshold"))
        record = {
            "made_by": f"nnunet_softlabel {__version__}",
            "command": "apply-threshold",
            "predictions": [str(folder) for folder in found.folders],
            "threshold": {key: value for key, value in asdict(threshold).items() if key != "origin"},
            "calibration": None if found.calibration is None else found.calibration.about,
        }
        write_json(new / RECORD, record)
    return [output / name for name in names]


def _write_decision(
    case: str,
    source: Path,
    target: Path,
    *,
    predictions: Predictions,
    threshold: Threshold,
    labels: Labels,
    reader: str | None,
    is_segmentation: bool,
) -> None:
    stored, grid = read_image(source)
    orientation = orientation_of(reader, grid, file_ending(source))
    shape = orientation.turn_grid(grid).shape
    if is_segmentation:
        stock = Decision(labels, stock_threshold(labels), shape)
        exhaust(map(stock.take, probability_channels(source.parent, case, labels, shape)))
        again = partial(probability_channels, source.parent, case, labels, shape)
        stored = orientation.turn(stored)
        check_label_map(stored, stock.settled(), again, path=source, case=case, labels=labels)
    del stored
    decision = Decision(labels, threshold, shape)
    exhaust(map(decision.take, predictions.channels(case, labels, shape)))
    write_image(target, orientation.turn_back(decision.settled()), grid)
