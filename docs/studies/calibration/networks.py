"""Networks of the calibration study: data sets, trainings, probabilities of the held-out cases.

Weights are kept in a work folder (some MB): a run that is cut off goes on, and scoring needs no training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from skimage.io import imread

from docs.studies.datasets.__main__ import labels_of, split
from docs.studies.shared.cases import DATA, CaseData, hippocampus_cases, lidc_cases
from docs.studies.shared.losses import CANDIDATES
from docs.studies.shared.small_network import (
    Augmentation,
    NetworkBudget,
    StudyLoss,
    build_network,
    normalised,
    train,
)

STOCK, SOFT = "stock", "soft"
LOSS_OF = {STOCK: "stock", SOFT: "DML+CE"}  # of docs/studies/shared/losses.py
SEEDS = (0, 1, 2, 3, 4)
FIRST_THREE = SEEDS[:3]  # of what is only tried on LIDC
# networks of a mean of three: each seed is in three of them, so their mean is paired with that of all seeds
TRIPLES = tuple(tuple((first + k) % len(SEEDS) for k in range(3)) for first in SEEDS)
FOLDS = (0, 1, 2, 3, 4)
BRAIN_GROWTH = DATA / "qubiq_brain_growth"


@cache
def brain_growth_cases() -> tuple[CaseData, ...]:
    """White matter of newborns, 39 images of 128 x 128 pixels, each outlined by the same seven readers."""
    cases = []
    for path in sorted((BRAIN_GROWTH / "images").glob("*.png")):
        readers = [imread(BRAIN_GROWTH / "raters" / str(r) / path.name) > 127 for r in range(1, 8)]
        image = normalised(imread(path).astype(np.float32))[None]
        votes = np.stack(readers)[:, None, None]
        cases.append(CaseData(path.stem, path.stem, image, votes, None, (1.0, 1.0, 1.0)))
    return tuple(cases)


@dataclass(frozen=True)
class StudyData:
    """A data set of the study: its cases, how far *near* reaches, how long networks are trained."""

    cases: Callable[[], tuple[CaseData, ...]]
    near_mm: float
    budget: NetworkBudget


DATA_SETS = {
    "lidc": StudyData(lidc_cases, 5, NetworkBudget(iterations=2000, batch_size=8, optimizer="adamw")),
    "brain growth": StudyData(
        brain_growth_cases, 5, NetworkBudget(iterations=500, batch_size=4, optimizer="adamw")
    ),
    "hippocampus": StudyData(
        hippocampus_cases, 5, NetworkBudget(iterations=1000, batch_size=4, optimizer="adamw")
    ),
}


@dataclass(frozen=True)
class Network:
    """One training of the study."""

    data: str
    fold: int
    label: str
    seed: int

    def file(self, work: Path) -> Path:
        """Where its weights are."""
        return work / f"{self.data.replace(' ', '_')}__fold_{self.fold}__{self.label}__seed_{self.seed}.pt"


def networks(data: Sequence[str], folds: Sequence[int] = FOLDS) -> Iterator[Network]:
    """All trainings, fold by fold, so that a fold is complete as early as possible."""
    for name in data:
        for fold in folds:
            for seed in SEEDS:
                yield from (Network(name, fold, label, seed) for label in (STOCK, SOFT))


def train_missing(work: Path, wanted: Sequence[Network]) -> None:
    """Train what the work folder lacks."""
    work.mkdir(parents=True, exist_ok=True)
    for number, network in enumerate(wanted, start=1):
        if not network.file(work).is_file():
            weights = _trained(network).state_dict()
            temporary = network.file(work).with_suffix(".tmp")
            torch.save(weights, temporary)
            temporary.replace(network.file(work))
            print(f"{number}/{len(wanted)} {network.file(work).stem}", flush=True)


def seed_of(seed: int, fold: int) -> int:
    """Of the training of a fold."""
    return 100 * seed + fold


def _trained(network: Network) -> torch.nn.Module:
    data = DATA_SETS[network.data]
    training, _ = split(data.cases(), network.fold)
    pairs = [labels_of(case.votes) for case in training]
    wanted = [(soft if network.label == SOFT else majority).swapaxes(0, 1) for soft, majority in pairs]
    loss = CANDIDATES[LOSS_OF[network.label]].loss()
    return fit(training, wanted, loss, seed=seed_of(network.seed, network.fold), budget=data.budget)


def fit(
    training: Sequence[CaseData],
    labels: Sequence[np.ndarray],
    loss: StudyLoss,
    *,
    seed: int,
    budget: NetworkBudget,
    augment: Augmentation | None = None,
    watch: Callable[[int, torch.nn.Module], None] | None = None,
) -> torch.nn.Module:
    """Train on slices with labels ``(Z, C, H, W)`` per case; those that a reader marked come more often."""
    return train(
        np.concatenate([case.image for case in training]),
        np.concatenate(labels),
        loss,
        seed=seed,
        budget=budget,
        draw=np.concatenate([case.votes.any(axis=(0, 1, 3, 4)) for case in training]),
        augment=augment,
        watch=watch,
    )


@torch.no_grad()
def probabilities(work: Path, network: Network, cases: Sequence[CaseData]) -> dict[str, np.ndarray]:
    """Case -> probabilities ``(1 + C, Z, H, W)`` with the background first, float32."""
    model = build_network(1 + cases[0].votes.shape[1], DATA_SETS[network.data].budget).eval()
    model.load_state_dict(torch.load(network.file(work), weights_only=True))
    found = {}
    for case in cases:
        parts = torch.from_numpy(case.image.astype(np.float32))[:, None].split(32)
        logits = torch.cat([model(part) for part in parts])
        found[case.name] = torch.softmax(logits, dim=1).numpy().swapaxes(0, 1)
    return found
