"""Training that goes on from a trained model: where the model comes from, and what it has seen."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor, nn

from nnunet_softlabel.cases.splits import read_splits
from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.files import visible
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


@dataclass(frozen=True)
class FoldCases:
    """What a fold trains on, and what it validates on."""

    fold: int | str
    training: Sequence[str]
    validation: Sequence[str]


def check_origin(origin: Origin, now: FoldCases, splits_file: Path, *, file_ending: str) -> str:
    """Refuse a model that was trained on cases that this fold validates on.

    The same fold number is no proof, for the splits may have been changed since. nnU-Net stores none in a
    checkpoint; but the folder ``validation`` beside it has a segmentation of each case that was left out.

    Args:
        origin: the model.
        now: what is trained.
        splits_file: ``splits_final.json``.
        file_ending: of segmentations.

    Returns:
        What could not be checked, for the log; empty if all is known.

    Raises:
        DatasetError: that names cases it has seen, and what to do.
    """
    if now.fold == "all":
        return ""
    advice = f"start fold {now.fold} from the checkpoint of fold {now.fold}"
    if origin.fold == "all":
        raise DatasetError(
            f"{origin.checkpoint}: fold all has seen every case, so those that fold {now.fold} validates on; "
            f"{advice}."
        )
    then = now if origin.fold == str(now.fold) else _fold_of_today(origin, splits_file, advice)
    folder = origin.checkpoint.parent / "validation"
    validated = {
        path.name.removesuffix(ending)
        for ending in (file_ending, ".npz")
        for path in visible(folder, f"*{ending}")
    }
    is_whole = (folder / "summary.json").is_file()  # nnU-Net writes it at the end
    left_out, trained = set(now.validation), set(now.training) - set(now.validation)
    if left_out <= validated and not validated & trained:
        return ""
    if then is not None and not validated & (set(then.training) - set(then.validation)):
        missing = set(then.validation) & (left_out | trained) - validated
        if not (is_whole and missing):  # today's splits are those of its training, as far as can be seen
            _refuse_seen(origin, now, left_out & set(then.training) if then is not now else (), f"; {advice}")
            return "" if is_whole else _doubt(folder, splits_file)
    if then is None and not is_whole:
        return _doubt(folder, splits_file)
    since = (
        f"; {splits_file} is not that of its training, says {folder}: put back the one of its training, or "
        f"train that model again"
    )
    _refuse_seen(origin, now, left_out - validated, since)
    raise DatasetError(
        f"{origin.checkpoint}: was not trained on {min(validated & trained)}, which fold {now.fold} trains on"
        f"{since} (into an empty folder)."
    )


def _fold_of_today(origin: Origin, splits_file: Path, advice: str) -> FoldCases | None:
    """What the fold of a model is in today's splits; None for a folder without a number."""
    if not origin.fold.isdigit():
        return None
    splits, number = read_splits(splits_file), int(origin.fold)
    if number >= len(splits):
        raise DatasetError(f"{origin.checkpoint}: {splits_file} has no fold {number}; {advice}.")
    return FoldCases(number, splits[number]["train"], splits[number]["val"])


def _refuse_seen(origin: Origin, now: FoldCases, seen: Collection[str], what_to_do: str) -> None:
    if seen:
        names = sorted(seen)
        raise DatasetError(
            f"{origin.checkpoint}: has seen {len(names)} of the cases that fold {now.fold} validates on "
            f"({', '.join(names[:3])}{', ...' if len(names) > 3 else ''}){what_to_do}."
        )


def _doubt(folder: Path, splits_file: Path) -> str:
    return (
        f"{folder} does not say which cases that model was not trained on, so it could not be checked "
        f"whether {splits_file.name} is still the one of its training."
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
        now = FoldCases(self.fold, *self.do_split())
        splits_file = Path(self.preprocessed_dataset_folder_base) / "splits_final.json"
        doubt = check_origin(origin, now, splits_file, file_ending=self.dataset_json["file_ending"])
        if doubt:
            self.print_to_log_file(doubt)
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
