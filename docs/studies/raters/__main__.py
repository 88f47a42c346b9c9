"""Seven real raters, and networks within their spread: brain growth, LIDC.

    python -m docs.studies.raters --jobs 2       # runs what results.csv lacks, then the tables
    python -m docs.studies.raters --only labels  # some of the experiments
    python -m docs.studies.raters --tables       # only rewrites tables.md

Design and questions are in DESIGN.md, written before the first run. Needs the data sets beside the source
tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np

from docs.studies.datasets.__main__ import FIVEFOLD, LOSS, SOFT_CE, consensus, scores, split
from docs.studies.raters import tables
from docs.studies.shared.cases import BRAIN_GROWTH_RATERS, CaseData, brain_growth_cases, lidc_cases
from docs.studies.shared.resumable import Cell, Row, run_missing, study_parser
from docs.studies.shared.small_network import NetworkBudget, predict, train
from nnunet_softlabel.fusion import RaterVotes, estimate_rater_rates, mean_vote, staple, weighted_vote
from nnunet_softlabel.metrics.overlap import dice

RESULTS = Path(__file__).parent / "results.csv"
BUDGET = NetworkBudget(iterations=1000, batch_size=4, optimizer="adamw")
N_FOLDS, LIDC_FOLDS = 5, 3
RATERS = tuple(f"rater{r + 1}" for r in range(BRAIN_GROWTH_RATERS))
STOCK = "stock"
MEAN, WEIGHTED, STAPLE, AVERAGED = "mean", "weighted", "staple", "one network per rater, averaged"
NUMBERS = ("1", "2", "3", "5")
LABELS = (MEAN, WEIGHTED, STAPLE, AVERAGED)
BY_LOT = "one of each nodule's readers, by lot"
KEY = ("experiment", "variant", "fold", "loss")
METRICS = ("dice", "qubiq_dice", "brier_near", "ece_near", "volume_error_abs")
TO_LEFT_OUT = ("network", "other_raters", "closer_than", "consensus")
RATES = ("sensitivity", "false_positives", "dice_to_others")
COLUMNS = (*KEY, "case", "group", *METRICS, *TO_LEFT_OUT, *RATES)
NEAR_MM = {"brain": 3.0, "lidc": 5.0}


@dataclass(frozen=True)
class Experiment:
    """What varies, in how many folds, and with which losses."""

    run: Callable[[str, int, str], list[Row]]
    variants: tuple[str, ...]
    folds: int = N_FOLDS
    losses: tuple[str, ...] = (SOFT_CE,)


def fit_and_predict(
    training: Sequence[CaseData],
    soft: Sequence[np.ndarray],
    test: Sequence[CaseData],
    loss: str,
    *,
    fold: int,
    budget: NetworkBudget | None = None,
) -> list[np.ndarray]:
    """``(C, Z, H, W)`` probabilities of each case to test on."""
    wanted = soft if LOSS[loss].label == "soft" else [consensus(s) for s in soft]
    network = train(
        np.concatenate([case.image for case in training]),
        np.concatenate([w.swapaxes(0, 1) for w in wanted]),
        LOSS[loss].loss(),
        seed=fold,
        budget=budget or BUDGET,
        draw=np.concatenate([s.any(axis=(0, 2, 3)) for s in soft]),
    )
    return [predict(network, case.image).swapaxes(0, 1) for case in test]


def means(cases: Sequence[CaseData], raters: Sequence[int] | None = None) -> list[np.ndarray]:
    """``(C, Z, H, W)`` mean of the raters of each case, of all or of some."""
    return [
        (case.votes if raters is None else case.votes[list(raters)]).mean(axis=0, dtype=np.float32)
        for case in cases
    ]


def number_of_raters(variant: str, fold: int, loss: str) -> list[Row]:
    """Networks of some of the raters, the same in all cases, against the mean of all seven."""
    training, test = split(brain_growth_cases(), fold)
    raters = np.random.default_rng([fold, 7]).permutation(BRAIN_GROWTH_RATERS)[: int(variant)]
    found = fit_and_predict(training, means(training, raters.tolist()), test, loss, fold=fold)
    return scored(test, found)


def ways_to_fuse(variant: str, fold: int, loss: str) -> list[Row]:
    """Networks of the labels of all seven, against their mean."""
    training, test = split(brain_growth_cases(), fold)
    if variant == AVERAGED:
        every = [
            fit_and_predict(training, means(training, [r]), test, loss, fold=fold)
            for r in range(BRAIN_GROWTH_RATERS)
        ]
        return scored(test, [np.mean(own, axis=0) for own in zip(*every, strict=True)])
    votes = [votes_of(case) for case in training]
    if variant == STAPLE:
        rates = estimate_rater_rates(votes)
        soft = [staple(v, rates=rates) for v in votes]
    else:
        soft = [{MEAN: mean_vote, WEIGHTED: weighted_vote}[variant](v) for v in votes]
    return scored(test, fit_and_predict(training, soft, test, loss, fold=fold))


def votes_of(case: CaseData) -> RaterVotes:
    return RaterVotes(case.votes, RATERS, case.spacing_mm)


def rater_left_out(variant: str, fold: int, loss: str) -> list[Row]:
    """A network of the mean of six raters, against the seventh."""
    training, test = split(brain_growth_cases(), fold)
    left_out = RATERS.index(variant)
    others = [r for r in range(BRAIN_GROWTH_RATERS) if r != left_out]
    found = fit_and_predict(training, means(training, others), test, loss, fold=fold)
    return [about(case) | against_left_out(case, left_out, p) for case, p in zip(test, found, strict=True)]


def reader_left_out(variant: str, fold: int, loss: str) -> list[Row]:
    """LIDC, where readers are no persons: of each nodule one reader, drawn by lot, is left out."""
    training, test = split(lidc_cases(), fold)
    used = [replace(case, votes=np.delete(case.votes, drawn_reader(case, fold), axis=0)) for case in training]
    found = fit_and_predict(used, means(used), test, loss, fold=fold, budget=FIVEFOLD)
    return [
        about(case) | against_left_out(case, drawn_reader(case, fold), p)
        for case, p in zip(test, found, strict=True)
    ]


def drawn_reader(case: CaseData, fold: int) -> int:
    letters = [ord(letter) for letter in case.name]
    return int(np.random.default_rng([fold, *letters]).integers(len(case.votes)))


def against_left_out(case: CaseData, left_out: int, probability: np.ndarray) -> Row:
    """Dice of the network, of the other raters and of their consensus to the rater who was left out.

    ``closer_than``: the share of the other raters to whom the network is closer to the one left out; ties
    are half.
    """
    reference = case.votes[left_out, 0]
    others = np.delete(case.votes, left_out, axis=0)
    network = dice(reference, probability[0] > 0.5)
    of_others = np.array([dice(reference, other[0]) for other in others])
    return {
        "network": network,
        "other_raters": float(of_others.mean()),
        "closer_than": float((network > of_others).mean() + (network == of_others).mean() / 2),
        "consensus": dice(reference, consensus(others.mean(axis=0, dtype=np.float32))[0] > 0),
    }


def rates_of_raters(variant: str, fold: int, loss: str) -> list[Row]:
    """Each rater of brain growth: pooled rates (Dawid and Skene), Dice to the consensus of the others."""
    cases = brain_growth_cases()
    rates = estimate_rater_rates([votes_of(case) for case in cases])
    rows: list[Row] = []
    for r, name in enumerate(RATERS):
        sensitivity, specificity = rates.of(name, 0)
        agreement = [
            dice(case.votes[r, 0], consensus(np.delete(case.votes, r, axis=0).mean(axis=0))[0] > 0)
            for case in cases
        ]
        rows.append(
            {
                "case": name,
                "group": name,
                "sensitivity": sensitivity,
                "false_positives": 1 - specificity,
                "dice_to_others": float(np.mean(agreement)),
            }
        )
    return rows


def scored(test: Sequence[CaseData], found: Sequence[np.ndarray]) -> list[Row]:
    """A row per case, against the mean of all raters."""
    rows = []
    for case, probability in zip(test, found, strict=True):
        (row,) = scores(case, probability, NEAR_MM["brain"])
        rows.append(about(case) | {metric: row[metric] for metric in METRICS})
    return rows


def about(case: CaseData) -> Row:
    return {"case": case.name, "group": case.group}


EXPERIMENTS = {
    "rates": Experiment(rates_of_raters, ("all",), folds=1, losses=("",)),
    "labels": Experiment(ways_to_fuse, (MEAN, WEIGHTED, STAPLE)),
    "stock": Experiment(ways_to_fuse, (MEAN,), losses=(STOCK,)),
    "lidc": Experiment(reader_left_out, (BY_LOT,), folds=LIDC_FOLDS),
    "left out": Experiment(rater_left_out, RATERS),
    "number": Experiment(number_of_raters, NUMBERS, losses=(SOFT_CE, STOCK)),
    "averaged": Experiment(ways_to_fuse, (AVERAGED,)),
}


def run_cell(cell: Cell) -> list[Row]:
    name, variant, fold, loss = cell
    own = dict(zip(KEY, cell, strict=True))
    return [own | row for row in EXPERIMENTS[name].run(variant, int(fold), loss)]


def cells(names: Sequence[str]) -> Iterator[Cell]:
    """Fold by fold, so that a study that is cut off has every variant."""
    folds = range(max(EXPERIMENTS[name].folds for name in names))
    return chain.from_iterable(
        (
            (name, variant, str(fold), loss)
            for name in names
            if fold < EXPERIMENTS[name].folds
            for variant in EXPERIMENTS[name].variants
            for loss in EXPERIMENTS[name].losses
        )
        for fold in folds
    )


def main() -> None:
    parser = study_parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=EXPERIMENTS, default=list(EXPERIMENTS))
    args = parser.parse_args()
    if not args.tables:
        run_missing(RESULTS, cells(args.only), run_cell, key=KEY, columns=COLUMNS, jobs=args.jobs)
    tables.write(RESULTS)


if __name__ == "__main__":
    main()
