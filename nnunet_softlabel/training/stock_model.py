"""A trained model as a stock nnU-Net model, which predicts where this package is not installed.

The networks are nnU-Net's own; only the checkpoint names our trainer.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from shutil import copy2

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from torch import Tensor

from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.evaluation.calibration_file import FILE_NAME
from nnunet_softlabel.formats.files import read_json
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.formats.nnunet_folders import environment_folder, find_dataset, missing_model
from nnunet_softlabel.formats.staging import staged
from nnunet_softlabel.public import public
from nnunet_softlabel.training import recipes
from nnunet_softlabel.training.checkpoints import has_finite_weights, read_checkpoint
from nnunet_softlabel.training.folding import folded, read_affine_map

STOCK = nnUNetTrainer.__name__
WeightChange = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")
# what nnU-Net's prediction, postprocessing and nnUNetv2_export_model_to_zip read
OF_MODEL = ("plans.json", "dataset.json", "dataset_fingerprint.json")
OF_FOLD = ("progress.png", "debug.json", "validation/summary.json")
OF_CHANGED_FOLD = ("progress.png", "debug.json")
OF_CROSSVALIDATION = (
    "summary.json",
    "postprocessing.pkl",
    "postprocessing.json",
    "plans.json",
    "dataset.json",
)


@public
def export_stock(
    dataset: int | str,
    configuration: str,
    output: Path,
    *,
    trainer: str = "nnUNetTrainerSoftCE",
    plans: str = "nnUNetPlans",
    folds: Sequence[int | str] | None = None,
    calibrated: bool | Path = False,
    overwrite: bool = False,
) -> Path:
    """Copy a trained model to ``output/DatasetXXX_NAME/nnUNetTrainer__PLANS__CONFIGURATION``.

    ``output`` is a results folder: with ``nnUNet_results`` set to it, ``nnUNetv2_predict`` gives the same
    bytes as the model it was made from. For a cascade, export both stages.

    >>> ns.export_stock(911, "3d_fullres", "stock", plans="nnUNetPlansReduced").name
    'nnUNetTrainer__nnUNetPlansReduced__3d_fullres'

    Args:
        dataset: id or name.
        configuration: such as ``3d_fullres``.
        output: where the result folder goes.
        trainer: class the model was trained with.
        plans: plans identifier.
        folds: numbers or ``all``; None takes every fold that finished training.
        calibrated: fold a recalibration into the last convolutions, so that the model's own predictions are
            recalibrated: the ``calibration.json`` beside the folds, or this file. Then nnU-Net's own trainer
            can be exported, too. Scores and postprocessing of the folds stay behind: they are of other
            probabilities.
        overwrite: replace a model that is there.

    Returns:
        The model's folder.

    Raises:
        UsageError: if the model or a fold is missing, the network is not nnU-Net's, or the result is there
            already.
        DatasetError: if a checkpoint cannot be read, or holds more than nnU-Net writes.
    """
    source = find_dataset(environment_folder("nnUNet_results"), dataset)
    target = output / source.name / f"{STOCK}__{plans}__{configuration}"
    source = source / f"{trainer}__{plans}__{configuration}"
    if not source.is_dir():
        raise UsageError(missing_model(trainer, source))
    _check_network(trainer, is_changed=bool(calibrated))
    change = _folding(source, calibrated)
    if target.resolve() == source.resolve():
        raise UsageError(f"-o {output}: there lies the model itself; choose another folder.")
    chosen = _folds(source, folds)
    with staged(target.parent, [target.name], overwrite=overwrite) as new:
        copied = new / target.name
        _copy(source, copied, OF_MODEL)
        for fold in chosen:
            _copy(source / fold, copied / fold, OF_FOLD if change is None else OF_CHANGED_FOLD)
            for name in CHECKPOINTS:
                _rename_trainer(source / fold / name, copied / fold / name, change)
        for folder in source.glob("crossval_results_folds_*") if change is None else ():
            _copy(folder, copied / folder.name, OF_CROSSVALIDATION)
    return target


def exported_folds(model: Path) -> list[str]:
    """Folds of a model as ``nnUNetv2_predict -f`` takes them, in order."""
    return sorted(path.name.removeprefix("fold_") for path in model.glob("fold_*"))


def _folding(source: Path, calibrated: bool | Path) -> WeightChange | None:
    """What recalibrates the weights of a model; None leaves them as they are."""
    if calibrated is False:
        return None
    labels = Labels.from_dataset_json(read_json(source / "dataset.json"))
    recalibration = read_affine_map(source / FILE_NAME if calibrated is True else calibrated, labels)
    return partial(folded, recalibration=recalibration, has_regions=labels.has_regions)


def _check_network(trainer: str, *, is_changed: bool) -> None:
    if trainer == STOCK and is_changed:
        return
    if trainer == STOCK:
        raise UsageError(f"-tr {trainer}: is nnU-Net's own; its models need no export, but for --calibrated.")
    trainer_class = getattr(recipes, trainer, None)
    if trainer_class is None:
        try:
            trainer_class = recursive_find_trainer_class_by_name(trainer)
        except RuntimeError as error:
            raise UsageError(f"-tr {trainer}: not found; is its folder on nnUNet_extTrainer?") from error
    if trainer_class.build_network_architecture is not nnUNetTrainer.build_network_architecture:
        raise UsageError(
            f"-tr {trainer}: builds a network of its own, so that {STOCK} cannot predict with its weights."
        )


def _folds(source: Path, folds: Sequence[int | str] | None) -> list[str]:
    final = CHECKPOINTS[0]
    if folds is None:
        found = sorted(path.parent.name for path in source.glob(f"fold_*/{final}"))
        if not found:
            raise UsageError(f"{source}: no fold has {final}; let a training finish first.")
        return found
    for fold in folds:
        if not (source / f"fold_{fold}" / final).is_file():
            raise UsageError(
                f"-f {fold}: {source / f'fold_{fold}' / final} is not there; finish that fold first."
            )
    return [f"fold_{fold}" for fold in folds]


def _copy(source: Path, target: Path, names: Sequence[str]) -> None:
    for name in names:
        if (source / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            copy2(source / name, target / name)


def _rename_trainer(source: Path, target: Path, change: WeightChange | None) -> None:
    if source.is_file():
        checkpoint = read_checkpoint(source)
        if not has_finite_weights(checkpoint.get("network_weights", {})):
            raise DatasetError(
                f"{source}: holds weights that are not finite numbers, so its training failed; train that "
                f"fold again."
            )
        if change is not None:
            checkpoint["network_weights"] = change(checkpoint["network_weights"])
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.save({**checkpoint, "trainer_name": STOCK}, target)
        except RuntimeError as error:  # of a full disk, for one
            reason = (str(error).strip().splitlines() or ["no reason given"])[0][:200]
            raise OSError(
                errno.EIO, f"was not written whole ({reason}); is the disk full?", str(target)
            ) from error
