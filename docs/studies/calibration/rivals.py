"""Other ways to calibrated probabilities, on LIDC: other losses, other labels, networks of single readers.

A network here learns the training part of a fold and is scored on its test part, as those of the main rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from docs.studies.calibration.networks import DATA_SETS, FIRST_THREE, FOLDS, fit, seed_of
from docs.studies.datasets.__main__ import labels_of, split
from docs.studies.shared.cases import CaseData
from docs.studies.shared.losses import CANDIDATES, fused, last_part_ce
from docs.studies.shared.resumable import Cell, Row
from docs.studies.shared.small_network import Augmentation, StudyLoss, predict
from nnunet_softlabel.fusion import RaterVotes
from nnunet_softlabel.fusion.smoothing import spatially_varying_label_smoothing

NAME = "lidc"
KEY = ("rival", "fold", "seed")
SMOOTHED = 0.1
LAST = 0.4  # share of a training that ends with cross entropy alone
SLOTS = 12  # three readers four times, or four readers three times
Label = Literal["mean", "consensus", "consensus smoothed", "SVLS of the consensus", "by lot", "one reader"]


@dataclass(frozen=True)
class Rival:
    """What is learnt, with which loss, and of how many networks the probabilities are averaged."""

    label: Label
    loss: Callable[[], StudyLoss]
    networks: int = 1


STOCK, DML_CE, DML_CE_START = (
    CANDIDATES[name].loss for name in ("stock", "DML+CE", "balanced start, DML+CE")
)
RIVALS = {
    "DML + CE with balanced start, mean": Rival("mean", DML_CE_START),
    "CE alone, mean": Rival("mean", lambda: fused(dml=0.0, nkl=0.0, tv=0.0)),
    "DML + CE, the last 40 % CE alone, mean": Rival("mean", lambda: last_part_ce(DML_CE(), LAST)),
    "DML + CE, one reader by lot per image and iteration": Rival("by lot", DML_CE),
    "DML + CE, SVLS of the consensus": Rival("SVLS of the consensus", DML_CE),
    "DML + CE, label smoothing of the consensus": Rival("consensus smoothed", DML_CE),
    "Dice + CE, mean of three networks, one reader each": Rival("one reader", STOCK, networks=3),
}


def cells(names: Iterable[str] = tuple(RIVALS)) -> Iterator[Cell]:
    """All of these on a fold before the next fold, and all folds of a seed before the next seed."""
    for seed in FIRST_THREE:
        for fold in FOLDS:
            yield from ((name, str(fold), str(seed)) for name in names)


def run_cell(cell: Cell, score: Callable[[dict[str, np.ndarray]], list[Row]]) -> list[Row]:
    """Train the networks of a cell and score their mean.

    Args:
        cell: rival, fold, seed.
        score: rows of the probabilities ``(1 + C, Z, H, W)`` of each case.
    """
    name, fold, seed = cell
    rival = RIVALS[name]
    training, test = split(DATA_SETS[NAME].cases(), int(fold))
    members = [
        trained(rival, training, seed_of(int(seed), int(fold)), reader) for reader in range(rival.networks)
    ]
    found = {case.name: np.mean([predicted(m, case) for m in members], axis=0) for case in test}
    return [{**dict(zip(KEY, cell, strict=True)), **row} for row in score(found)]


def trained(rival: Rival, training: list[CaseData], seed: int, reader: int) -> nn.Module:
    """One network; ``reader`` counts where each network has its own."""
    labels = [label_of(case.votes, rival.label, reader) for case in training]
    augment = one_reader_by_lot(seed) if rival.label == "by lot" else None
    return fit(training, labels, rival.loss(), seed=seed, budget=DATA_SETS[NAME].budget, augment=augment)


def label_of(votes: np.ndarray, label: Label, reader: int) -> np.ndarray:
    """What a network learns of a case with votes ``(R, 1, Z, H, W)``, as slices ``(Z, 1, H, W)``."""
    soft, majority = labels_of(votes)
    if label == "SVLS of the consensus":
        # within slices, for the networks see slices
        slices = [
            RaterVotes(majority[None, :, z] > 0.5, ("consensus",), (1.0, 1.0))
            for z in range(majority.shape[1])
        ]
        soft = np.stack([spatially_varying_label_smoothing(one) for one in slices], axis=1)
    elif label == "consensus":
        soft = majority
    elif label == "consensus smoothed":
        soft = majority * (1 - SMOOTHED) + SMOOTHED / 2
    elif label == "one reader":
        soft = votes[reader].astype(np.float32)
    elif label == "by lot":
        soft = coded(votes)
    return soft.swapaxes(0, 1)


def coded(votes: np.ndarray) -> np.ndarray:
    """All readers ``(R, 1, Z, H, W)`` in one number of `SLOTS` bits, ``(1, Z, H, W)`` float32."""
    bits = np.arange(SLOTS).reshape(-1, 1, 1, 1, 1)
    every = np.tile(votes, (SLOTS // len(votes), 1, 1, 1, 1)).astype(np.int64)
    return (every << bits).sum(axis=0).astype(np.float32)


def one_reader_by_lot(seed: int) -> Augmentation:
    """Takes one reader of each image out of `coded` numbers, another one each time."""
    rng = np.random.default_rng([seed, 5])

    def augment(images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        slots = torch.from_numpy(rng.integers(SLOTS, size=len(target))).reshape(-1, 1, 1, 1)
        vote = ((target[:, 1:].long() >> slots) & 1).to(target.dtype)
        return images, torch.cat([1 - vote, vote], dim=1)

    return augment


def predicted(network: nn.Module, case: CaseData) -> np.ndarray:
    """Probabilities ``(1 + C, Z, H, W)``."""
    foreground = predict(network, case.image).swapaxes(0, 1)
    return np.concatenate([1 - foreground.sum(axis=0, keepdims=True), foreground])
