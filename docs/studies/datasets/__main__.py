"""Small networks on the real data sets: losses by fold, and how much raters and cases bring.

    python -m docs.studies.datasets --jobs 2       # runs what results.csv lacks, then tables and plot
    python -m docs.studies.datasets --only bubil   # some of the experiments
    python -m docs.studies.datasets --tables       # only rewrites tables.md and scaling.png

Designs and criteria are in DESIGN.md, written before the first run. Needs the data sets beside the source
tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from docs.studies.datasets import tables
from docs.studies.shared.cases import CaseData, bubil_cases, hippocampus_cases, lidc_cases
from docs.studies.shared.losses import CANDIDATES, Candidate, fused
from docs.studies.shared.resumable import Cell, Row, run_missing, study_parser
from docs.studies.shared.small_network import NetworkBudget, predict, train
from nnunet_softlabel.metrics.calibration import brier, expected_calibration_error
from nnunet_softlabel.metrics.near import near_object
from nnunet_softlabel.metrics.overlap import dice, qubiq_dice, relative_volume_error

RESULTS = Path(__file__).parent / "results.csv"
N_FOLDS = 5
SHORT = NetworkBudget(iterations=400, batch_size=8, optimizer="adamw")
FIVEFOLD = replace(SHORT, iterations=5 * SHORT.iterations)
LONG = NetworkBudget(iterations=1000, batch_size=4, optimizer="adamw")
# nnU-Net's, the paper's baseline, the default here, and with the noise-robust terms
SOFT_CE, APL = "balanced start, DML+CE", "balanced start, DML+CE+NKL+TV"
NO_START, READER = "DML+CE", "one reader, against the others"
LOSSES = ("stock", "HardBCE", SOFT_CE, APL, NO_START, READER)
FEW_LOSSES = ("stock", SOFT_CE, APL)
SOFT_CE_ALONE = "CE"
LOSS = CANDIDATES | {SOFT_CE_ALONE: Candidate("soft", lambda: fused(dml=0.0, nkl=0.0, tv=0.0))}
N_RATERS, N_CASES = ("1", "2", "3"), ("25", "50", "100", "all")
SAME, BY_LOT = "one, always the same", "one, drawn by lot"
KEY = ("experiment", "variant", "fold", "loss")
METRICS = ("dice", "qubiq_dice", "brier_near", "ece_near", "volume_error_abs")
COLUMNS = (*KEY, "case", "group", "class", *METRICS)


@dataclass(frozen=True)
class Experiment:
    """A data set, what varies, and with which losses; three seeds are folds 0 to 2."""

    cases: Callable[[], tuple[CaseData, ...]]
    near_mm: float
    budget: NetworkBudget = LONG
    variants: tuple[str, ...] = ("all",)
    folds: int = N_FOLDS
    losses: tuple[str, ...] = LOSSES
    varies: Literal["nothing", "readers", "cases"] = "nothing"


EXPERIMENTS = {
    "bubil": Experiment(bubil_cases, near_mm=3),
    "hippocampus": Experiment(hippocampus_cases, near_mm=5),
    "raters": Experiment(lidc_cases, 5, SHORT, N_RATERS, 3, FEW_LOSSES, "readers"),
    "cases": Experiment(lidc_cases, 5, SHORT, N_CASES, 3, (*FEW_LOSSES, NO_START, SOFT_CE_ALONE), "cases"),
    "raters_long": Experiment(lidc_cases, 5, FIVEFOLD, N_RATERS, 3, ("stock", SOFT_CE), "readers"),
    "cases_long": Experiment(lidc_cases, 5, FIVEFOLD, N_CASES, 3, ("stock", SOFT_CE), "cases"),
    "one": Experiment(hippocampus_cases, 5, LONG, (SAME, BY_LOT), 3, ("stock", SOFT_CE), "readers"),
}


def split(cases: Sequence[CaseData], fold: int) -> tuple[list[CaseData], list[CaseData]]:
    """Cases to train on, shuffled, and to test on: a fifth of the patients."""
    groups = np.random.default_rng(0).permutation(sorted({case.group for case in cases}))
    held_out = set(groups[fold::N_FOLDS].tolist())
    training = [case for case in cases if case.group not in held_out]
    order = np.random.default_rng(fold).permutation(len(training))
    return [training[i] for i in order], [case for case in cases if case.group in held_out]


def votes_used(case: CaseData, variant: str, fold: int) -> np.ndarray:
    """Votes that label a training case: of all readers, of some drawn by lot, or of one for all cases."""
    if variant == SAME:
        return case.votes[[fold % len(case.votes)]]
    n_readers = 1 if variant == BY_LOT else int(variant)
    digits = [ord(letter) for letter in case.name]
    return case.votes[np.random.default_rng([fold, *digits]).permutation(len(case.votes))[:n_readers]]


def labels_of(votes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of readers and their majority, ``(C, Z, H, W)``."""
    soft = votes.mean(axis=0, dtype=np.float32)
    return soft, consensus(soft)


def consensus(soft: np.ndarray) -> np.ndarray:
    """The most probable class, one-hot without background, which wins ties."""
    background = 1 - soft.sum(axis=0) + 1e-6
    best = np.concatenate([background[None], soft]).argmax(axis=0)
    return np.stack([best == c + 1 for c in range(len(soft))]).astype(np.float32)


def run_cell(cell: Cell) -> list[Row]:
    """Train one network on slices, score it case by case in 3D; or score the readers."""
    name, variant, fold, loss = cell
    experiment = EXPERIMENTS[name]
    training, test = split(experiment.cases(), int(fold))
    about = dict(zip(KEY, cell, strict=True))
    if loss == READER:
        return [
            {**about, "case": case.name, "group": case.group, **row}
            for case in test
            for row in scores_of_readers(case, experiment.near_mm)
        ]
    if experiment.varies == "cases" and variant != "all":
        training = training[: int(variant)]
    votes = [case.votes for case in training]
    if experiment.varies == "readers":
        votes = [votes_used(case, variant, int(fold)) for case in training]
    pairs = [labels_of(v) for v in votes]
    wanted = [soft if LOSS[loss].label == "soft" else majority for soft, majority in pairs]
    label = np.concatenate([w.swapaxes(0, 1) for w in wanted])
    network = train(
        np.concatenate([case.image for case in training]),
        label,
        LOSS[loss].loss(),
        seed=int(fold),
        budget=experiment.budget,
        draw=np.concatenate([soft.any(axis=(0, 2, 3)) for soft, _ in pairs]),
    )
    return [
        {**about, "case": case.name, "group": case.group, **row}
        for case in test
        for row in scores(case, predict(network, case.image).swapaxes(0, 1), experiment.near_mm)
    ]


def scores(case: CaseData, probability: np.ndarray, near_mm: float) -> Iterator[Row]:
    """A row per class: Dice to the truth, or to the consensus of all readers; the rest against their mean."""
    soft = case.votes.mean(axis=0, dtype=np.float32)
    reference = consensus(soft) > 0 if case.truth is None else case.truth
    predicted = consensus(probability) > 0
    for c in range(len(soft)):
        q, p = soft[c], probability[c]
        near = near_object(q > 0, spacing_mm=case.spacing_mm, near_mm=near_mm)
        yield {
            "class": str(c + 1),
            "dice": dice(reference[c], predicted[c]),
            "qubiq_dice": qubiq_dice(q, p),
            "brier_near": brier(q, p, mask=near),
            "ece_near": expected_calibration_error(q, p, mask=near),
            "volume_error_abs": abs(relative_volume_error(q, p)),
        }


def scores_of_readers(case: CaseData, near_mm: float) -> list[Row]:
    """Each reader as if a network, against the others; the mean over readers."""
    found = []
    for reader in range(len(case.votes)):
        others = replace(case, votes=np.delete(case.votes, reader, axis=0))
        found.append(list(scores(others, case.votes[reader].astype(np.float32), near_mm)))
    return [
        {**rows[0], **{m: float(np.mean([float(row[m]) for row in rows])) for m in METRICS}}
        for rows in zip(*found, strict=True)
    ]


def cells(names: Sequence[str]) -> Iterator[Cell]:
    """Cells of the experiments named."""
    for name in names:
        experiment = EXPERIMENTS[name]
        for fold in range(experiment.folds):
            for variant in experiment.variants:
                yield from ((name, variant, str(fold), loss) for loss in experiment.losses)


def main() -> None:
    parser = study_parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=EXPERIMENTS, default=list(EXPERIMENTS))
    args = parser.parse_args()
    if not args.tables:
        run_missing(RESULTS, cells(args.only), run_cell, key=KEY, columns=COLUMNS, jobs=args.jobs)
    tables.write(RESULTS)


if __name__ == "__main__":
    main()
