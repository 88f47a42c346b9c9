"""One training by nnU-Net's own functions, with the number of epochs and iterations set on the trainer."""

from __future__ import annotations

import random
import resource
from pathlib import Path
from time import time
from typing import Any

import numpy as np
import torch
from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.public import public
from nnunet_softlabel.training.budget import Budget
from nnunet_softlabel.training.checkpoints import has_finite_weights
from nnunet_softlabel.training.records import TrainingResult
from nnunet_softlabel.training.starts_from import SHARE_OF_EPOCHS, starts_from

CURVES = ("train_losses", "val_losses", "mean_fg_dice", "ema_fg_dice", "lrs")


@public
def train(
    dataset: int | str,
    configuration: str,
    fold: int | str,
    trainer: str,
    *,
    plans: str = "nnUNetPlans",
    budget: Budget | None = None,
    seed: int | None = None,
    continues: bool = False,
) -> TrainingResult:
    """Train one fold and validate it with probabilities, as ``nnUNetv2_train ... --npz`` does.

    >>> done = ns.train(
    ...     911, "3d_fullres", 0, "nnUNetTrainerSoftCE", plans="nnUNetPlansReduced",
    ...     budget=ns.Budget(epochs=1, iterations=1, device="cpu"))
    >>> done["epochs"], Path(done["folder"]).name
    (1, 'fold_0')

    Args:
        dataset: id or name.
        configuration: such as ``3d_fullres``.
        fold: number, or ``all``.
        trainer: class name, nnU-Net's or one on ``nnUNet_extTrainer``.
        plans: plans identifier.
        budget: epochs, iterations per epoch, and the device; the pseudo validation follows the iterations in
            nnU-Net's proportion.
        seed: of weights, augmentation and sampling (reproducible with ``nnUNet_n_proc_DA=0``).
        continues: from the last checkpoint, if there is one.

    Returns:
        What happened: seconds of training and of validation, peak memory, learning curves, result folder.
    """
    budget = budget or Budget()
    device = budget.device
    if seed is not None:
        set_seed(seed)
    if device == "cuda":
        torch.set_num_threads(1)
        torch.backends.cudnn.benchmark = True
    instance: Any = get_trainer_from_args(
        str(dataset), configuration, fold, trainer, plans, continues, device=torch.device(device)
    )
    continues = continues and any(Path(instance.output_folder).glob("checkpoint_*.pth"))
    if budget.epochs is not None:
        is_new = starts_from(trainer) is None
        instance.num_epochs = budget.epochs if is_new else max(1, round(SHARE_OF_EPOCHS * budget.epochs))
    if budget.iterations is not None:
        instance.num_iterations_per_epoch = budget.iterations
        instance.num_val_iterations_per_epoch = max(1, budget.iterations // 5)
    instance.save_every = min(instance.save_every, max(1, instance.num_epochs // 10))
    maybe_load_checkpoint(instance, continues, False, None if continues else _pretrained(instance))
    _refuse_lost_loss(instance)
    started = time()
    instance.run_training()
    trained = time()
    _refuse_lost_training(instance)
    instance.perform_actual_validation(True)
    curves = instance.logger.get_checkpoint()
    return {
        "folder": str(Path(instance.output_folder)),
        "epochs": instance.num_epochs,
        "iterations": instance.num_iterations_per_epoch,
        "train_seconds": trained - started,
        "validation_seconds": time() - trained,
        "peak_memory_gb": peak_memory_gb(device),
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "curves": {name: [float(v) for v in curves[name]] for name in CURVES if name in curves},
    }


def _refuse_lost_loss(trainer: Any) -> None:
    """nnU-Net's own trainers weigh the only output of a network of two stages 0 / 0."""
    if not trainer.was_initialized:
        trainer.initialize()
    if not np.isfinite(getattr(trainer.loss, "weight_factors", 0)).all():
        plans, configuration = trainer.plans_manager.plans_name, trainer.configuration_name
        raise DatasetError(
            f"{plans}, {configuration}: with two resolution stages the loss of {type(trainer).__name__} is "
            f"not a number; make the plan again with `nnunet_softlabel reduce-plans`, which takes three."
        )


def _refuse_lost_training(trainer: Any) -> None:
    """As `LossTrainer` does after each epoch, for nnU-Net's own trainers, too."""
    losses = trainer.logger.get_value("train_losses", step=None)
    if not np.isfinite(losses).any() or not has_finite_weights(trainer.network.state_dict()):
        raise DatasetError(
            f"{trainer.output_folder}: {type(trainer).__name__} has learned nothing, its loss is not a "
            f"finite number; see progress.png there, and whether images hold values that are no numbers."
        )


def _pretrained(trainer: Any) -> str | None:
    """The checkpoint of the same fold that this trainer goes on from, None if it begins anew."""
    name = type(trainer).__name__
    base = starts_from(name)
    if base is None:
        return None
    folder = Path(trainer.output_folder)
    model = folder.parent.with_name(folder.parent.name.replace(name, base, 1))
    checkpoint = model / folder.name / "checkpoint_final.pth"
    if not checkpoint.is_file():
        raise DatasetError(
            f"{name}: goes on from {checkpoint}, which is not there; train {base} on this fold first."
        )
    return str(checkpoint)


def peak_memory_gb(device: str) -> float:
    """Most memory this process ever held: of the GPU if there is one, else of the machine."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def set_seed(seed: int) -> None:
    """Seed every source of randomness of this process."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
