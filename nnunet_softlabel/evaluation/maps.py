"""Probability files as images that people can open, and as volumes with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr

from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.evaluation.consistency import channels_of_models, exhaust
from nnunet_softlabel.evaluation.ensemble import Predictions, check_geometry
from nnunet_softlabel.formats.encoding import is_member
from nnunet_softlabel.formats.files import refuse_left_over, write_csv
from nnunet_softlabel.formats.images import read_image
from nnunet_softlabel.formats.orientation import orientation_of
from nnunet_softlabel.formats.predictions import foreground_channels
from nnunet_softlabel.formats.probability_maps import write_probability
from nnunet_softlabel.formats.soft_dataset import SoftDataset, soft_ending
from nnunet_softlabel.formats.staging import staged
from nnunet_softlabel.metrics.far import chunks
from nnunet_softlabel.metrics.raters_together import COVERAGE
from nnunet_softlabel.processes import for_each_case
from nnunet_softlabel.public import public

VOLUMES_FILE = "volumes.csv"
VOXELS = 1 << 16  # worked on at a time
COLUMNS = (
    "case", "class", "expected_ml", "low_ml", "high_ml",
    "models", "models_low_ml", "models_high_ml",
    "raters", "raters_mean_ml", "raters_low_ml", "raters_high_ml",
)  # fmt: skip
Row = dict[str, str | int | float]


def binary_entropy(p: NDArray[Any]) -> NDArray[Any]:
    """``-p log2 p - (1 - p) log2 (1 - p)`` in bits, float32: 0 where p is 0 or 1, 1 where p is one half.

    >>> binary_entropy(np.array([0.0, 0.5, 1.0])).tolist()
    [0.0, 1.0, 0.0]
    """
    p = p.astype(np.float64)
    return ((entr(p) + entr(1 - p)) / np.log(2)).astype(np.float32)


def mutual_information(models: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """How far models differ: entropy of their mean minus mean of their entropies, in bits, float32 [1].

    0 where all give the same p, 1 where half are certain of 0 and half of 1.

    References:
        [1] Lakshminarayanan et al., "Simple and Scalable Predictive Uncertainty Estimation using Deep
            Ensembles", NeurIPS 2017; Depeweg et al., ICML 2018.

    >>> mutual_information([np.array([0.0, 0.5]), np.array([1.0, 0.5])]).tolist()
    [1.0, 0.0]
    """
    mean = np.asarray(np.mean(models, axis=0, dtype=np.float64))
    own = np.mean([binary_entropy(p) for p in models], axis=0, dtype=np.float64)
    return np.clip(binary_entropy(mean) - own, 0, 1).astype(np.float32)


@public
def write_maps(
    dataset: SoftDataset,
    predictions: Path | Sequence[Path],
    output: Path,
    *,
    num_processes: int = 2,
    overwrite: bool = False,
) -> list[Path]:
    """Write maps of every class (or region) on the grid of the image, and ``volumes.csv``: all, or nothing.

    Per case and class: ``CASE_CLASS_probability``, ``CASE_CLASS_entropy`` and, of several models,
    ``CASE_CLASS_mutual_information``, in the format of the data set (flat images: 16 bit, 65535 = 1). A
    recalibration is applied first, by `apply_calibration`.

    >>> files = ns.write_maps(501, ["predictions", "predictions_b"], "maps", num_processes=1)
    >>> files[0].name, files[-1].name
    ('knee_000_lesion_probability.nii.gz', 'volumes.csv')

    Args:
        dataset: says what channels mean; its raters' volumes stand beside the model's.
        predictions: folder with ``CASE.npz``; of several models, the probability is their mean. Folders of
            different cases (folds) are taken together.
        output: folder for the files.
        num_processes: spawned workers.
        overwrite: replace earlier files.

    Returns:
        The files, the table last. Its volumes are in ml (pixels of flat images count as 1 mm thick): expected
        volume ``sum(p)``; 80 % interval between the volumes of ``p > 0.9`` and ``p > 0.1``; least and largest
        expected volume of the models; number, mean, least and largest volume of the raters.

    Raises:
        DatasetError: if a prediction or its segmentation is missing, or the folders hold other cases.
        UsageError: if files are there, or other maps of an earlier run, or the maps of two classes would be
            one file.
    """
    found = Predictions.find(predictions, file_ending=dataset.file_ending)
    found.refuse_as_output(output)
    dataset = dataset.for_predictions(found.folders)
    kinds = ["probability", "entropy", *(["mutual_information"] if found.models > 1 else [])]
    ending = soft_ending(dataset.file_ending)
    names = _map_names(found.cases, dataset.labels.names, kinds, ending)
    for kind in MAPS if (output / VOLUMES_FILE).is_file() else ():
        refuse_left_over(output, names, f"*_{kind}{ending}")
    with staged(output, [*names, VOLUMES_FILE], overwrite=overwrite) as new:
        job = partial(_write_case, found=found, folder=new, dataset=dataset, ending=ending)
        fitting = found.processes_that_fit(num_processes, dataset.labels, command="maps")
        of_cases = for_each_case(job, found.cases, fitting, title="maps")
        write_csv(new / VOLUMES_FILE, COLUMNS, [row for rows in of_cases for row in rows])
    return [output / name for name in (*names, VOLUMES_FILE)]


def _map_names(cases: Sequence[str], classes: Sequence[str], kinds: Sequence[str], ending: str) -> list[str]:
    """Names of all maps, case by case.

    Classes that differ in capitals only are one file on some disks. Cases that do are not, for they lie
    beside each other already, as predictions.

    Raises:
        UsageError: if two maps would be one file.
    """
    owner: dict[str, tuple[str, str]] = {}
    names = []
    for case, class_name, kind in product(cases, classes, kinds):
        name = map_name(case, class_name, kind, ending)
        key = map_name(case, class_name.lower(), kind, ending)
        other = owner.setdefault(key, (case, class_name))
        if other != (case, class_name):
            raise UsageError(
                f"the map of case {case}, class {class_name}, and that of case {other[0]}, class "
                f"{other[1]}, would be one file, {name}; give the class another name in dataset.json."
            )
        names.append(name)
    return names


def map_name(case: str, class_name: str, kind: str, ending: str) -> str:
    """File name of a map."""
    return f"{case}_{class_name.replace('/', '_')}_{kind}{ending}"


def _write_case(
    case: str, *, found: Predictions, folder: Path, dataset: SoftDataset, ending: str
) -> list[Row]:
    """Maps of one case; returns its rows of the table."""
    mask = found.mask_file(case, dataset.file_ending)
    check_geometry(case, mask)
    _, grid = read_image(mask)
    orientation = orientation_of(dataset.reader, grid, dataset.file_ending)
    shape = orientation.turn_grid(grid).shape
    models = [
        foreground_channels(model, dataset.labels)
        for model in channels_of_models(dataset, found.folders_of[case], case, shape)
    ]
    ml = float(np.prod(grid.spacing_mm)) / 1000
    raters = _rater_volumes(dataset, case, shape)
    rows = []
    for index, name in enumerate(dataset.labels.names):
        own = [next(model) for model in models]
        p = _piecewise(_mean, own) if len(own) > 1 else own[0]
        rows.append({"case": case, "class": name, **_volumes(p, own, raters[index], ml)})
        for kind, function in MAPS.items():
            if kind != "mutual_information" or len(own) > 1:
                file = folder / map_name(case, name, kind, ending)
                write_probability(file, orientation.turn_back(_piecewise(function, own)), grid)
        del own, p  # before the next channel is read
    for model in models:
        exhaust(model)
    return rows


def _mean(models: Sequence[NDArray[Any]]) -> NDArray[Any]:
    if len(models) == 1:
        return models[0]
    return np.asarray(np.mean(models, axis=0, dtype=np.float64), dtype=np.float32)


# kind of a map -> of the probabilities of the models
MAPS: dict[str, Callable[[Sequence[NDArray[Any]]], NDArray[Any]]] = {
    "probability": _mean,
    "entropy": lambda models: binary_entropy(_mean(models)),
    "mutual_information": mutual_information,
}


def _piecewise(
    function: Callable[[Sequence[NDArray[Any]]], NDArray[Any]], models: Sequence[NDArray[Any]]
) -> NDArray[Any]:
    """A function that looks at each voxel alone, float32, so many voxels at a time that memory is spared."""
    found = np.empty(models[0].shape, np.float32)
    for piece, *own in chunks(found, *models, size=VOXELS):
        piece[...] = function(own)
    return found


def _volumes(p: NDArray[Any], models: Sequence[NDArray[Any]], raters: NDArray[Any], ml: float) -> Row:
    """Volumes of one class in ml; ``raters`` in voxels."""
    tail = (1 - COVERAGE) / 2
    expected = [float(model.sum(dtype=np.float64)) * ml for model in models]
    row: Row = {
        "expected_ml": float(p.sum(dtype=np.float64)) * ml,
        "low_ml": np.count_nonzero(p > 1 - tail) * ml,
        "high_ml": np.count_nonzero(p > tail) * ml,
        "models": len(models),
        "raters": len(raters),
    }
    if len(models) > 1:
        row |= {"models_low_ml": min(expected), "models_high_ml": max(expected)}
    if len(raters):
        own = raters * ml
        row |= {
            "raters_mean_ml": float(own.mean()),
            "raters_low_ml": float(own.min()),
            "raters_high_ml": float(own.max()),
        }
    return row


def _rater_volumes(dataset: SoftDataset, case: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Voxels ``(C, R)`` that each rater of the case marked; no raters where the data set does not know it."""
    split = next((s for s in ("Tr", "Ts") if dataset.label_file(case, s).is_file()), None)
    counts = []
    for rater, path in ({} if split is None else dataset.rater_files(case, split)).items():
        drawn, _ = dataset.read(path)
        if drawn.shape != shape:
            raise DatasetError(
                f"Case {case}: rater {rater} has shape {drawn.shape}, the prediction {shape}; is this the "
                f"data set it was predicted for?"
            )
        counts.append([np.count_nonzero(is_member(drawn, v)) for v in dataset.labels.values.values()])
    return np.array(counts, dtype=np.float64).reshape(len(counts), len(dataset.labels.names)).T
