"""One training by nnU-Net's own functions, with the number of epochs and iterations set on the trainer."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint


def train(
    dataset: int | str,
    configuration: str,
    fold: int | str,
    trainer: str,
    *,
    plans: str = "nnUNetPlans",
    epochs: int | None = None,
    iterations: int | None = None,
    val_iterations: int | None = None,
    seed: int | None = None,
    device: str = "cuda",
    continues: bool = False,
) -> Path:
    """Train one fold and validate it with probabilities, as ``nnUNetv2_train ... --npz`` does.

    Args:
        dataset: id or name.
        configuration: such as ``3d_fullres``.
        fold: number, or ``all``.
        trainer: class name, nnU-Net's or one on ``nnUNet_extTrainer``.
        plans: plans identifier.
        epochs: instead of the trainer's own number.
        iterations: per epoch, instead of the trainer's own number.
        val_iterations: of the pseudo validation per epoch; follows ``iterations`` in nnU-Net's proportion if None.
        seed: of weights, augmentation and sampling (reproducible with ``nnUNet_n_proc_DA=0``).
        device: ``cuda``, ``cpu`` or ``mps``.
        continues: from the last checkpoint, if there is one.

    Returns:
        The fold's result folder.
    """
    if seed is not None:
        set_seed(seed)
    if device == "cuda":
        torch.set_num_threads(1)
        torch.backends.cudnn.benchmark = True
    instance: Any = get_trainer_from_args(
        str(dataset), configuration, fold, trainer, plans, continues, device=torch.device(device)
    )
    if epochs is not None:
        instance.num_epochs = epochs
    if iterations is not None:
        instance.num_iterations_per_epoch = iterations
        instance.num_val_iterations_per_epoch = val_iterations or max(1, iterations // 5)
    instance.save_every = min(instance.save_every, max(1, instance.num_epochs // 10))
    maybe_load_checkpoint(instance, continues, False)
    instance.run_training()
    instance.perform_actual_validation(True)
    return Path(instance.output_folder)


def set_seed(seed: int) -> None:
    """Seed every source of randomness of this process."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
