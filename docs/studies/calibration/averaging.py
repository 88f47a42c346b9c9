"""What one network's prediction is averaged over, on LIDC: mirrored images, weights of late iterations.

nnU-Net predicts with mirrored images (test-time augmentation) unless told not to; the small networks of the
other parts do not. Averaged weights cost nothing at prediction.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, combinations

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from docs.studies.calibration.networks import DATA_SETS, fit, seed_of
from docs.studies.calibration.rivals import DML_CE_START, NAME, STOCK, Rival, label_of
from docs.studies.datasets.__main__ import split
from docs.studies.shared.cases import CaseData
from docs.studies.shared.resumable import Cell, Row

KEY = ("learnt", "fold", "seed")
TRAININGS = {"stock": Rival("consensus", STOCK), "default": Rival("mean", DML_CE_START)}
DECAY = 0.998  # of the averaged weights: about 500 iterations, a quarter of a training
PLAIN, MIRRORED, LATE_WEIGHTS, BOTH = "nothing", "mirrored images", "late weights", "both"


def run_cell(cell: Cell, score: Callable[[dict[str, np.ndarray]], list[Row]]) -> list[Row]:
    """Train one network and score its prediction, averaged over each of the four.

    Args:
        cell: training, fold, seed.
        score: rows of the probabilities ``(1 + C, Z, H, W)`` of each case.
    """
    name, fold, seed = cell
    training, test = split(DATA_SETS[NAME].cases(), int(fold))
    last, late = trained(TRAININGS[name], training, seed_of(int(seed), int(fold)))
    rows: list[Row] = []
    for averaged, network, mirrors in (
        (PLAIN, last, False), (MIRRORED, last, True), (LATE_WEIGHTS, late, False), (BOTH, late, True)
    ):  # fmt: skip
        found = {case.name: predicted(network, case, mirrors=mirrors) for case in test}
        about = {**dict(zip(KEY, cell, strict=True)), "averaged": averaged}
        rows += [{**about, **row} for row in score(found)]
    return rows


def trained(wanted: Rival, training: list[CaseData], seed: int) -> tuple[nn.Module, nn.Module]:
    """The network of the last iteration, and the one with averaged weights."""
    averages: list[AveragedModel] = []

    def update(iteration: int, network: nn.Module) -> None:
        if not averages:
            averages.append(AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(DECAY)))
        averages[0].update_parameters(network)

    labels = [label_of(case.votes, wanted.label, 0) for case in training]
    last = fit(training, labels, wanted.loss(), seed=seed, budget=DATA_SETS[NAME].budget, watch=update)
    return last, averages[0].module.eval()


@torch.no_grad()
def predicted(network: nn.Module, case: CaseData, *, mirrors: bool) -> np.ndarray:
    """Probabilities ``(1 + C, Z, H, W)``; logits are averaged over mirrored images, as nnU-Net does."""
    slices = torch.from_numpy(case.image.astype(np.float32))[:, None]
    flips = list(chain.from_iterable(combinations((2, 3), n) for n in range(3))) if mirrors else [()]
    logits: Tensor = sum(network(slices.flip(axes)).flip(axes) for axes in flips) / len(flips)
    return torch.softmax(logits, dim=1).numpy().swapaxes(0, 1)
