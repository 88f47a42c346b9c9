"""Training that goes on from a trained model: where the model comes from, and what it has seen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor, nn

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.training.checkpoints import read_checkpoint

LAST_LAYERS = ".seg_layers."  # which -pretrained_weights leaves out


@dataclass(frozen=True)
class Origin:
    """The checkpoint that holds the weights a training begins with."""

    checkpoint: Path
    weights: dict[str, Tensor]

    @property
    def fold(self) -> str:
        """The fold that trained it: a number, or ``all``."""
        return self.checkpoint.parent.name.removeprefix("fold_")


def bare(network: Any) -> nn.Module:
    """The network without the wrappers of several GPUs and of torch.compile."""
    network = getattr(network, "module", network)
    return getattr(network, "_orig_mod", network)


def find_origin(weights: dict[str, Tensor], results: Path) -> Origin | None:
    """The checkpoint under a data set's results whose network is this one, but for its last layers.

    Args:
        weights: of the network, by name.
        results: ``nnUNet_results/DatasetXXX_NAME``.
    """
    paths = results.glob("*/fold_*/checkpoint_*.pth")
    for path in sorted(paths, key=lambda path: ("final" not in path.name, path)):
        try:
            saved = read_checkpoint(path, keeps_on_disk=True).get("network_weights")
        except DatasetError:
            continue  # damaged, or none of nnU-Net's: its weights cannot be these
        if not isinstance(saved, dict):
            continue
        if set(saved) == set(weights) and all(
            torch.equal(saved[key], value.cpu()) for key, value in weights.items() if LAST_LAYERS not in key
        ):
            return Origin(path, dict(saved))
    return None


def check_origin(origin: Origin, fold: int | str, splits_file: Path) -> None:
    """Refuse a model that was trained on cases that this fold validates on.

    Raises:
        DatasetError: that names the fold to start from.
    """
    if str(fold) in ("all", origin.fold):
        return
    advice = f"start fold {fold} from the checkpoint of fold {fold}"
    if origin.fold == "all":
        raise DatasetError(
            f"{origin.checkpoint}: fold all has seen every case, so those that fold {fold} validates on; "
            f"{advice}."
        )
    if not splits_file.is_file() or not origin.fold.isdigit():
        return
    splits = load_json(splits_file)
    numbers = (int(origin.fold), int(fold))
    if max(numbers) >= len(splits):
        raise DatasetError(f"{origin.checkpoint}: {splits_file} has no fold {max(numbers)}; {advice}.")
    seen = sorted(set(splits[numbers[0]]["train"]) & set(splits[numbers[1]]["val"]))
    if seen:
        raise DatasetError(
            f"{origin.checkpoint}: has seen {len(seen)} of the cases that fold {fold} validates on "
            f"({', '.join(seen[:3])}{', ...' if len(seen) > 3 else ''}); {advice}."
        )


class StartsFromModel(nnUNetTrainer):
    """A trainer that must be given a trained model: ``nnUNetv2_train ... -pretrained_weights CHECKPOINT``."""

    def initialize(self) -> None:
        """nnU-Net's; the random weights are kept until training starts, to see whether others came."""
        super().initialize()
        name, value = next(iter(bare(self.network).state_dict().items()))
        self._random_weight = (name, value.detach().clone())

    def on_train_start(self) -> None:
        """Refuse a model that has seen the validation cases, and take its last layers too."""
        if not self.was_initialized:
            self.initialize()
        if self.current_epoch == 0:
            self._take_over()
        super().on_train_start()

    def _take_over(self) -> None:
        network = bare(self.network)
        weights = network.state_dict()
        name, random = self._random_weight
        if torch.equal(weights[name], random):
            raise DatasetError(
                f"{type(self).__name__}: goes on from a trained model and was given none; "
                f"add -pretrained_weights {self._example()}"
            )
        origin = find_origin(weights, Path(self.output_folder_base).parent)
        if origin is None:
            self.print_to_log_file(
                "The model that this training starts from is not in nnUNet_results of this data "
                "set, so it is not known whether it has seen cases that this fold validates on. Its last "
                "layers begin anew."
            )
            return
        check_origin(origin, self.fold, Path(self.preprocessed_dataset_folder_base) / "splits_final.json")
        same = all(origin.weights[key].shape == value.shape for key, value in weights.items())
        if same:
            network.load_state_dict(origin.weights)
        taken = "are taken too" if same else "have another shape and begin anew"
        self.print_to_log_file(f"This training starts from {origin.checkpoint}; its last layers {taken}.")

    def _example(self) -> Path:
        _, _, rest = Path(self.output_folder_base).name.partition("__")
        return (
            Path(self.output_folder_base).parent
            / f"nnUNetTrainer__{rest}/fold_{self.fold}/checkpoint_final.pth"
        )
