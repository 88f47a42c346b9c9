"""Probability files in, probability files out: the mean of several models, and recalibrated ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path
from shutil import copy2
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.evaluation.consistency import channels_of_models, stock_threshold
from nnunet_softlabel.evaluation.decision import Decision
from nnunet_softlabel.evaluation.ensemble import (
    RECORD,
    SEARCHED,
    Predictions,
    check_geometry,
    joined_digests,
)
from nnunet_softlabel.evaluation.recalibration import log_odds_of, probabilities_of
from nnunet_softlabel.evaluation.records import CalibrationRecord
from nnunet_softlabel.formats.channel_store import ChannelStore
from nnunet_softlabel.formats.files import write_json
from nnunet_softlabel.formats.images import read_image, write_image
from nnunet_softlabel.formats.orientation import orientation_of
from nnunet_softlabel.formats.predictions import write_probabilities
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from nnunet_softlabel.formats.staging import staged
from nnunet_softlabel.processes import for_each_case
from nnunet_softlabel.public import public

if TYPE_CHECKING:
    from typing_extensions import NotRequired

Of = Literal["probabilities", "logits"]
BESIDE = ("dataset.json", "plans.json")  # what nnU-Net's own commands look for beside predictions
Reader = Callable[[Predictions, SoftDataset, str, tuple[int, ...]], Iterator[NDArray[Any]]]


class MadeFrom(TypedDict):
    """What probability files were made from; lies beside them.

    ``digest`` names the calibration, or all of those behind a mean; None for the network's own probabilities.
    """

    command: str
    of: NotRequired[str]
    folders: list[str]
    calibration: NotRequired[CalibrationRecord]
    recalibrated: bool
    digest: str | None


@public
def average(
    dataset: SoftDataset,
    folders: Sequence[Path],
    output: Path,
    *,
    of: Of = "probabilities",
    num_processes: int = 2,
    overwrite: bool = False,
) -> list[str]:
    """Write the mean of several models' predictions of the same cases, as nnU-Net would have written it.

    The mean of probabilities is what ``nnUNetv2_ensemble`` computes. ``nnUNetv2_predict -f 0 1 2`` averages
    logits instead (``of="logits"``), which is surer: another volume and another calibration.

    Examples:
        >>> ns.average(501, ["predictions", "predictions_b"], "averaged", num_processes=1)[:2]
        ['knee_000', 'knee_001']

    Args:
        dataset: says what channels mean, and how files are read.
        folders: with ``CASE.npz``, at least two.
        output: for ``CASE.npz``, ``CASE<file_ending>`` and nnU-Net's files beside them.
        of: what is averaged.
        num_processes: spawned workers.
        overwrite: replace earlier files.

    Returns:
        The cases.

    Raises:
        DatasetError: if the folders do not hold the same cases.
        UsageError: for fewer than two folders, or if files are there.
    """
    if len(folders) < 2:
        raise UsageError("-i: name at least two folders; a mean of one is that one.")
    found = Predictions.find(folders, file_ending=dataset.file_ending)
    if found.models != len(folders):
        raise DatasetError(
            f"-i: each case lies in {found.models} of the {len(folders)} folders; every folder must hold "
            f"every case."
        )
    digest = joined_digests(folders)
    record: MadeFrom = {
        "command": "average",
        "of": of,
        "folders": [str(f) for f in folders],
        "recalibrated": digest is not None,
        "digest": digest,
    }
    return _write_all(
        dataset,
        found,
        output,
        _mean_of_logits if of == "logits" else _mean,
        record=record,
        num_processes=num_processes,
        overwrite=overwrite,
    )


@public
def apply_calibration(
    dataset: SoftDataset,
    folders: Path | Sequence[Path],
    output: Path,
    *,
    file: Path | str = SEARCHED,
    num_processes: int = 2,
    overwrite: bool = False,
) -> Predictions:
    """Write recalibrated probabilities, as nnU-Net would have written them; every other command takes them.

    A case that the calibration was fitted on gets the map that has not seen it.

    >>> found = ns.calibrate(501, "predictions", "map.json", method="temperature", num_processes=1)
    >>> made = ns.apply_calibration(501, "predictions", "calibrated", file="map.json", num_processes=1)
    >>> made.cases[0]
    'knee_000'

    Args:
        dataset: says what channels mean, and how files are read.
        folders: with ``CASE.npz``; of several models the mean is recalibrated.
        output: for ``CASE.npz``, ``CASE<file_ending>`` and nnU-Net's files beside them.
        file: of `calibrate`; by default ``calibration.json`` beside the predictions or their model.
        num_processes: spawned workers.
        overwrite: replace earlier files.

    Returns:
        What was read, with its calibration.

    Raises:
        DatasetError: if a prediction is missing or the calibration does not fit.
        UsageError: if there is no calibration, if files are there, or for recalibrated probabilities.
    """
    found = Predictions.find(folders, file_ending=dataset.file_ending)
    found = found.with_calibration(file, dataset)
    assert found.calibration is not None  # a file was asked for
    record: MadeFrom = {
        "command": "apply-calibration",
        "folders": [str(folder) for folder in found.folders],
        "calibration": found.calibration.about,
        "recalibrated": True,
        "digest": found.calibration.digest,
    }
    _write_all(dataset, found, output, _mean, record=record, num_processes=num_processes, overwrite=overwrite)
    return found


def _mean(
    found: Predictions, dataset: SoftDataset, case: str, shape: tuple[int, ...]
) -> Iterator[NDArray[Any]]:
    """Mean of the probabilities, recalibrated if asked, channel by channel."""
    return found.channels(case, dataset, shape)


def _mean_of_logits(
    found: Predictions, dataset: SoftDataset, case: str, shape: tuple[int, ...]
) -> Iterator[NDArray[Any]]:
    """As ``nnUNetv2_predict -f 0 1 2``: softmax or sigmoid of the mean logits."""
    labels, folders = dataset.labels, found.folders_of[case]
    count = labels.network_channels
    models = channels_of_models(dataset, folders, case, shape)

    def mean(block: NDArray[Any]) -> NDArray[Any]:
        total: NDArray[Any] | float = 0.0
        for p in block.reshape(len(folders), count, -1):
            total = total + log_odds_of(p.astype(np.float64), has_regions=labels.has_regions)
        return probabilities_of(np.asarray(total / len(folders)), has_regions=labels.has_regions)

    with ChannelStore(chain.from_iterable(models), count * len(folders), shape) as store:
        store.change(mean)  # now the first channels hold the mean
        yield from islice(store.channels(), count)


def _write_all(
    dataset: SoftDataset,
    found: Predictions,
    output: Path,
    read: Reader,
    *,
    record: MadeFrom,
    num_processes: int,
    overwrite: bool,
) -> list[str]:
    """All cases or none, with nnU-Net's files beside them and a record of what they were made from."""
    found.refuse_as_output(output, replaces=True)
    left = {path.stem for path in output.glob("*.npz")}.difference(found.cases)
    if left:
        raise UsageError(f"{output / min(left)}.npz: is no case of -i; choose another -o.")
    dataset = dataset.for_predictions(found.folders)
    for case in found.cases:
        check_geometry(case, found.mask_file(case, dataset.file_ending))
    beside = [found.folders[0] / name for name in BESIDE if (found.folders[0] / name).is_file()]
    properties = [
        path.with_suffix(".pkl")
        for case, folders in found.folders_of.items()
        if (path := folders[0] / f"{case}.npz").with_suffix(".pkl").is_file()
    ]
    endings = (".npz", dataset.file_ending)
    names = [f"{case}{ending}" for case in found.cases for ending in endings]
    names += [RECORD, *(path.name for path in (*beside, *properties))]
    with staged(output, names, overwrite=overwrite) as new:
        write_json(new / RECORD, record)
        for path in (*beside, *properties):
            copy2(path, new / path.name)
        job = partial(_write, found=found, folder=new, dataset=dataset, read=read)
        fitting = found.processes_that_fit(num_processes, dataset.labels)
        return list(for_each_case(job, found.cases, fitting, title=str(record["command"])))


def _write(case: str, *, found: Predictions, folder: Path, dataset: SoftDataset, read: Reader) -> str:
    """One case: probabilities in the shape that nnU-Net gave them, and their segmentation."""
    _, grid = read_image(found.mask_file(case, dataset.file_ending))
    orientation = orientation_of(dataset.reader, grid, dataset.file_ending)
    shape, labels = orientation.turn_grid(grid).shape, dataset.labels
    decision = Decision(labels, stock_threshold(labels), shape)
    channels = map(decision.take, read(found, dataset, case, shape))
    count = labels.network_channels
    # nnU-Net stores flat images with an axis of one
    stored_shape = (count, 1, *shape) if len(grid.shape) == 2 else (count, *shape)
    write_probabilities(folder / f"{case}.npz", channels, stored_shape)
    hard = decision.settled()
    write_image(folder / f"{case}{dataset.file_ending}", orientation.turn_back(hard), grid)
    return case
