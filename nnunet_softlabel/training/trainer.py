"""The trainers: this file and `loss_trainer` alone know nnU-Net's.

`SoftLabelTrainer` overrides methods of ``nnUNetTrainer`` and calls ``super()``, so that it combines with
nnU-Net's own trainer variants by inheritance: ``class Mine(nnUNetTrainerAPL, nnUNetTrainerNoMirroring)``.
"""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from nnunetv2.configuration import default_num_processes
from torch import Tensor, nn
from torch import distributed as dist

from nnunet_softlabel import __version__
from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.losses.targets import HardTargetLoss
from nnunet_softlabel.preprocessing.preparation import Preparation
from nnunet_softlabel.preprocessing.records import Manifest
from nnunet_softlabel.training.loss_trainer import LossTrainer, describe
from nnunet_softlabel.training.records import OfNnunet
from nnunet_softlabel.training.soft_scores import SoftScores
from nnunet_softlabel.training.sparse_labels import with_sparse_interpolation
from nnunet_softlabel.training.stacked_dataset import StackedDataset
from nnunet_softlabel.training.transforms import MergeSoftLabel, SplitSoftLabel

SCORES_FILE = "soft_validation.csv"


class SoftLabelTrainer(LossTrainer):
    """nnU-Net's trainer on soft labels. A recipe is a subclass that defines `build_soft_loss`.

    Attributes:
        oversamples_disputed: foreground oversampling also draws voxels that some rater, but not the
            consensus, marked. False draws from the consensus alone, as stock nnU-Net.
    """

    oversamples_disputed = True

    def get_tr_and_val_datasets(self) -> tuple[StackedDataset, StackedDataset]:
        """nnU-Net's data sets with the soft labels stacked on; makes those that are missing."""
        preparation = Preparation(
            Path(self.preprocessed_dataset_folder_base), self.plans_manager, self.configuration_manager
        )
        manifest = preparation.ensure(num_processes=default_num_processes, log=self.print_to_log_file)
        self._log_labels(manifest)
        manager = self.label_manager
        keys = manager.foreground_regions if manager.has_regions else manager.foreground_labels
        wrap = partial(
            StackedDataset,
            soft_folder=preparation.folder,
            class_keys=keys,
            oversamples_disputed=self.oversamples_disputed,
        )
        training, validation = super().get_tr_and_val_datasets()
        return wrap(training), wrap(validation)

    def _log_labels(self, manifest: Manifest) -> None:
        about = manifest["about"]
        channels = next(iter(manifest["cases"].values()))["shape"][0]
        if channels != self.num_soft_channels:
            raise DatasetError(
                f"{self.preprocessed_dataset_folder}: soft labels have {channels} channel(s), the data "
                f"set {self.num_soft_channels} labels; run nnUNetv2_plan_and_preprocess again."
            )
        fusion = about["fusion"] or {"method": "none, ready probability maps"}
        self.print_to_log_file(
            f"nnunet_softlabel {__version__}: loss {describe(self.build_soft_loss())}; raters "
            f"{', '.join(about['raters']) or 'unknown'}; fusion {fusion}; prior {about['prior']}; "
            f"{about['soft_voxels']} soft voxels in {len(about['disputed_share'])} cases; "
            f"oversampling of disputed voxels {'on' if self.oversamples_disputed else 'off'}"
        )

    def get_training_transforms(  # static in nnU-Net
        self,
        patch_size: Any,
        rotation_for_DA: Any,  # noqa: N803  # nnU-Net's name
        deep_supervision_scales: Any,
        *args: Any,
        use_mask_for_norm: list[bool] | None = None,
        is_cascaded: bool = False,
        regions: Any = None,
        ignore_label: int | None = None,
        **kwargs: Any,
    ) -> BasicTransform:
        """nnU-Net's own list between Split and Merge."""
        needs_hard = is_cascaded or ignore_label is not None or any(use_mask_for_norm or [])
        inner = super().get_training_transforms(
            patch_size,
            rotation_for_DA,
            None,
            *args,
            use_mask_for_norm=use_mask_for_norm,
            is_cascaded=is_cascaded,
            regions=None,
            ignore_label=ignore_label,
            **kwargs,
        )
        split = SplitSoftLabel(self.num_soft_channels, keeps_hard=needs_hard)
        merge = MergeSoftLabel(
            deep_supervision_scales,
            ignore_label=ignore_label,
            is_exclusive=not self.label_manager.has_regions,
        )
        return ComposeTransforms([split, with_sparse_interpolation(inner), merge])

    def get_validation_transforms(  # static in nnU-Net
        self,
        deep_supervision_scales: Any,
        *args: Any,
        ignore_label: int | None = None,
        **kwargs: Any,
    ) -> BasicTransform:
        """As for training, but the hard segmentation stays: nnU-Net's pseudo Dice is against it."""
        inner = super().get_validation_transforms(None, *args, ignore_label=ignore_label, **kwargs)
        split = SplitSoftLabel(self.num_soft_channels, keeps_hard=True, ignore_label=ignore_label)
        merge = MergeSoftLabel(
            deep_supervision_scales,
            is_marked=ignore_label is not None,
            keeps_hard=True,
            is_exclusive=not self.label_manager.has_regions,
        )
        return ComposeTransforms([split, inner, merge])

    def on_validation_epoch_start(self) -> None:
        """Begin the soft scores of this epoch."""
        super().on_validation_epoch_start()
        self._scores = SoftScores(self.num_soft_channels, self.activation)

    def validation_step(self, batch: OfNnunet) -> OfNnunet:
        """nnU-Net's step against the hard segmentation; loss and soft scores against the soft label."""
        target = batch["target"]
        has_scales = isinstance(target, list)
        stacked = target[0] if has_scales else target
        num_hard = stacked.shape[1] - self.num_soft_channels
        hard, soft = stacked[:, :num_hard], stacked[:, num_hard:].to(self.device, non_blocking=True)
        if self.label_manager.has_regions:
            hard = hard.bool()
        training_loss: Any = self.loss  # type: ignore[has-type]

        def soft_loss(output: Any, _: Any) -> Tensor:
            self._scores.update(output[0] if has_scales else output, soft)
            if not has_scales:
                return training_loss(output, soft)
            return training_loss(output, [soft, *(t.to(self.device, non_blocking=True) for t in target[1:])])

        self.loss = soft_loss
        try:
            return super().validation_step({**batch, "target": [hard] if has_scales else hard})
        finally:
            self.loss = training_loss

    def on_validation_epoch_end(self, val_outputs: list[OfNnunet]) -> None:
        """Log soft Dice and Brier score beside nnU-Net's pseudo Dice, into a file of our own."""
        super().on_validation_epoch_end(val_outputs)
        sums = self._scores.sums()
        if self.is_ddp:
            gathered: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(gathered, sums)
            sums = np.sum(gathered, axis=0)
        dice, brier = SoftScores.results(sums)
        self.print_to_log_file(
            "Pseudo soft dice", [round(float(d), 4) for d in dice], "Brier", round(float(brier), 6)
        )
        if self.local_rank == 0:
            self._append_scores([float(d) for d in dice], float(brier))

    def _append_scores(self, dice: list[float], brier: float) -> None:
        """Append a row to `SCORES_FILE`; rows of epochs that are trained again after --c go."""
        path = Path(self.output_folder) / SCORES_FILE
        header = ["epoch", *(f"soft_dice_{i}" for i in range(1, len(dice) + 1)), "brier"]
        rows: list[list[str]] = []
        if path.is_file() and self.current_epoch > 0:
            with path.open(newline="") as file:
                rows = [
                    row for row in csv.reader(file) if row[0].isdigit() and int(row[0]) < self.current_epoch
                ]
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([header, *rows, [self.current_epoch, *dice, brier]])


class HardLabelTrainer(LossTrainer):
    """A loss of ours on the hard consensus: nnU-Net's pipeline unchanged, labels one-hot."""

    def _adapt_loss(self, loss: nn.Module) -> nn.Module:
        return HardTargetLoss(loss, self.num_soft_channels, self.label_manager.ignore_label)
