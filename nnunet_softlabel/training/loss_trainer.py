"""What all our trainers share: the loss inside nnU-Net's deep supervision, and its balanced start."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor, nn

from nnunet_softlabel.cases.splits import refuse_random_fold
from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.files import Json
from nnunet_softlabel.losses import BalancedStart, CompactTargetLoss, FusedSoftLoss, RegionSums, TermWeights
from nnunet_softlabel.losses.inputs import Activation
from nnunet_softlabel.preprocessing.preparation import cases_left_out
from nnunet_softlabel.training.checkpoints import has_finite_weights
from nnunet_softlabel.training.foreground import PLENTY, foreground_share
from nnunet_softlabel.training.records import OfNnunet

START_KEY = "balanced_start"


class LossTrainer(nnUNetTrainer):
    """Swaps the loss inside nnU-Net's deep supervision; what its target is, subclasses decide.

    Attributes:
        epochs: number of epochs, None for nnU-Net's 1,000.
        learning_rate: the initial one, None for nnU-Net's 0.01.
    """

    epochs: int | None = None
    learning_rate: float | None = None

    def __init__(
        self,
        plans: Json,
        configuration: str,
        fold: int,
        dataset_json: Json,
        device: torch.device = torch.device("cuda"),  # noqa: B008  # nnU-Net's signature
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        if self.epochs is not None:
            self.num_epochs = self.epochs
        if self.learning_rate is not None:
            self.initial_lr = self.learning_rate

    def build_soft_loss(self) -> Callable[..., Tensor]:
        """The recipe: ``f(logits, target, *, mask, activation)`` on probabilities, or a `FusedSoftLoss`."""
        raise NotImplementedError(f"{type(self).__name__} must define build_soft_loss()")

    @property
    def region_sums(self) -> RegionSums:
        """What the plan says to a region term: ``batch_dice``, and ``ddp`` if several GPUs share a batch."""
        return RegionSums(batch_dice=self.configuration_manager.batch_dice, ddp=self.is_ddp)

    @property
    def activation(self) -> Activation:
        """``sigmoid`` for regions, else ``softmax``."""
        return "sigmoid" if self.label_manager.has_regions else "softmax"

    @property
    def num_soft_channels(self) -> int:
        """C, the number of foreground classes or regions."""
        return self.label_manager.num_segmentation_heads - (not self.label_manager.has_regions)

    def fused_loss(self, **weights: float) -> FusedSoftLoss:
        """DML + CE + NKL + TV in one computation; ``weights`` are those of `TermWeights`."""
        return FusedSoftLoss(
            TermWeights(**weights),
            activation=self.activation,
            sums=self.region_sums,
            has_ignore=self.label_manager.has_ignore_label,
            compiles=self._do_i_compile(),
        )

    def with_balanced_start(self, settled: FusedSoftLoss) -> BalancedStart:
        """A fused loss with class-balanced voxel terms at the start, so that small lesions are not lost."""
        return BalancedStart(settled.with_balance(), settled, ddp=self.is_ddp)

    def do_split(self) -> tuple[list[str], list[str]]:
        """nnU-Net's split, without cases that are not trained on.

        A fold that nnU-Net would make at random is refused where cases have patients.
        """
        base = Path(self.preprocessed_dataset_folder_base)
        groups = (self.dataset_json.get("soft_labels") or {}).get("groups")
        refuse_random_fold(base / "splits_final.json", self.fold, groups)
        left_out = cases_left_out(Path(self.preprocessed_dataset_folder))
        training, validation = super().do_split()
        return [c for c in training if c not in left_out], [c for c in validation if c not in left_out]

    def _build_loss(self) -> nn.Module:
        if self._get_deep_supervision_scales() == []:
            raise DatasetError(
                f"{self.plans_manager.plans_name}, {self.configuration_name}: a network of one resolution "
                f"stage has no output to learn from; plan larger patches."
            )
        with np.errstate(invalid="ignore"):  # 0 / 0, see below
            wrapped = super()._build_loss()
        loss = self._adapt_loss(self._on_compact_targets(self.build_soft_loss()))
        if not isinstance(wrapped, DeepSupervisionWrapper):
            return loss
        if not np.isfinite(wrapped.weight_factors).all():
            # nnU-Net leaves out the output of the lowest resolution, of two stages the only one
            wrapped.weight_factors = (1.0,)
            self.print_to_log_file("A network of two resolution stages: its only output has the weight 1.")
        wrapped.loss = loss
        return wrapped

    def _on_compact_targets(self, loss: Callable[..., Tensor]) -> nn.Module:
        if isinstance(loss, FusedSoftLoss):
            return loss
        if isinstance(loss, BalancedStart):
            loss.start, loss.settled = map(self._on_compact_targets, (loss.start, loss.settled))
            return loss
        return CompactTargetLoss(
            loss, activation=self.activation, has_ignore=self.label_manager.has_ignore_label
        )

    @property
    def balanced_start(self) -> BalancedStart | None:
        """The loss's balanced start, if it has one."""
        return next((m for m in self.loss.modules() if isinstance(m, BalancedStart)), None)

    def get_tr_and_val_datasets(self) -> tuple[Any, Any]:
        """nnU-Net's; the training cases are remembered for `foreground_share`."""
        training, validation = super().get_tr_and_val_datasets()
        self._training_cases = training
        return training, validation

    def on_train_start(self) -> None:
        """No balanced start where foreground is plenty."""
        super().on_train_start()
        if self.balanced_start is None or self.current_epoch > 0:
            return
        share, number = foreground_share(self._training_cases, self.label_manager.ignore_label)
        found = f"foreground is {share:.2%} of the voxels of {number} training cases"
        if share >= PLENTY:
            self.balanced_start.skip()
            self.print_to_log_file(f"No balanced start: {found}, at least {PLENTY:.0%}.")
        else:
            self.print_to_log_file(f"Balanced start: {found}, less than {PLENTY:.0%}.")

    def on_train_epoch_start(self) -> None:
        """Bound the balanced start by the length of the training, which may have been set late."""
        super().on_train_epoch_start()
        if self.balanced_start is not None:
            self.balanced_start.set_length(self.num_epochs * self.num_iterations_per_epoch)

    def train_step(self, batch: OfNnunet) -> OfNnunet:
        """nnU-Net's step, which a balanced start counts."""
        result = super().train_step(batch)
        reason = None if self.balanced_start is None else self.balanced_start.advance()
        if reason is not None:
            self.print_to_log_file(f"The balanced start ended {reason}.")
        return result

    def on_train_epoch_end(self, train_outputs: list[OfNnunet]) -> None:
        """nnU-Net's; a training whose loss is lost ends here, before its weights are saved.

        In mixed precision a step without a finite gradient changes no weight, so a few of them do no harm.
        """
        super().on_train_epoch_end(train_outputs)
        steps = len(train_outputs)
        lost = sum(not np.isfinite(output["loss"]) for output in train_outputs)
        what = None
        if lost == steps:
            what = "no step has a finite loss"
        elif not has_finite_weights(self.network.state_dict()):
            what = "weights are no longer finite numbers"
        if what is not None:
            raise DatasetError(
                f"{type(self).__name__}, epoch {self.current_epoch}: {what}, so this network cannot learn; "
                f"see whether images hold values that are no numbers, else train with a lower learning rate."
            )
        if lost:
            self.print_to_log_file(f"{lost} of {steps} steps had no finite loss; they changed no weight.")

    def save_checkpoint(self, filename: str) -> None:
        """nnU-Net's checkpoint; how far the balanced start is lies beside the arguments of the trainer."""
        if self.balanced_start is not None:
            self.my_init_kwargs[START_KEY] = self.balanced_start.progress()
        super().save_checkpoint(filename)

    def load_checkpoint(self, filename_or_checkpoint: OfNnunet | str) -> None:
        """Go on where the balanced start was."""
        super().load_checkpoint(filename_or_checkpoint)
        progress, start = self.my_init_kwargs.get(START_KEY), self.balanced_start
        if start is None:
            return
        if progress is not None:
            start.resume(progress, self.device)
        else:  # a checkpoint of an earlier version
            start.iteration = self.current_epoch * self.num_iterations_per_epoch

    def _adapt_loss(self, loss: nn.Module) -> nn.Module:
        return loss


def describe(loss: Any) -> str:
    """A loss in words for the log."""
    if isinstance(loss, FusedSoftLoss):
        weights = loss.options.weights
        voxel_terms = _sum_text({"CE": weights.ce, "NKL": weights.nkl, "TV": weights.tv})
        if loss.options.balanced and voxel_terms:
            voxel_terms = f"class-balanced ({voxel_terms})"
        return " + ".join(part for part in (_sum_text({"DML": weights.dml}), voxel_terms) if part)
    if isinstance(loss, BalancedStart):
        return f"{describe(loss.settled)}, after a start with {describe(loss.start)}"
    terms = getattr(loss, "terms", None)
    if terms:
        return " + ".join(f"{weight} {describe(term)}" for weight, term in terms)
    function = getattr(loss, "func", loss)
    named = getattr(loss, "keywords", {})
    options = ", ".join(f"{key}={describe(v) if callable(v) else v}" for key, v in named.items())
    name = getattr(function, "__name__", type(function).__name__)
    return f"{name}({options})" if options else name


def _sum_text(weights: dict[str, float]) -> str:
    return " + ".join(f"{weight} {name}" for name, weight in weights.items() if weight)
