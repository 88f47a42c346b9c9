"""Stock and soft labels, raw and recalibrated, one network and the mean of three, on three data sets.

    python -m docs.studies.calibration --work FOLDER   # trains what FOLDER lacks, scores, tables
    python -m docs.studies.calibration --rivals        # trains what rivals.csv lacks, then the tables
    python -m docs.studies.calibration --averaging     # trains what averaging.csv lacks, then the tables
    python -m docs.studies.calibration --tables        # only rewrites tables.md and reliability.png

The design, with the rule of choice, is in DESIGN.md, written before the first training. Weights of the
networks are kept in the work folder (150 trainings, about two hours on one core). Needs the data sets beside
the source tree.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from docs.studies.calibration import averaging, rivals, tables
from docs.studies.calibration.networks import (
    DATA_SETS,
    FOLDS,
    SEEDS,
    SOFT,
    STOCK,
    TRIPLES,
    Network,
    networks,
    probabilities,
    train_missing,
)
from docs.studies.datasets.__main__ import consensus, split
from docs.studies.shared.cases import CaseData
from docs.studies.shared.resumable import Cell, run_missing
from nnunet_softlabel.evaluation.map_fitting import METHODS, WEIGHTINGS, cross_fit
from nnunet_softlabel.evaluation.recalibration import RecalibrationMap, log_odds_of, recalibrated
from nnunet_softlabel.evaluation.voxel_sample import VoxelSample, sample_voxels
from nnunet_softlabel.metrics import calibration as metrics
from nnunet_softlabel.metrics.near import near_object as voxels_near
from nnunet_softlabel.metrics.overlap import dice, qubiq_dice, relative_volume_error

HERE = Path(__file__).parent
SCREENING, RESULTS, RELIABILITY, RIVALS, AVERAGING = (
    HERE / f"{name}.csv" for name in ("screening", "results", "reliability", "rivals", "averaging")
)
RAW, NEAR = "raw", "near"
VOXELS = 2**18  # drawn from all cases of a data set together
SCREENED_SEEDS = SEEDS[:1]  # of part 1, see DESIGN.md
ONE, THREE = "one", "mean of three"
Maps = dict[str, np.ndarray]  # case -> probabilities (1 + C, Z, H, W)


def case_parts(name: str) -> dict[str, list[CaseData]]:
    """Fold -> its test cases."""
    return {str(fold): split(DATA_SETS[name].cases(), fold)[1] for fold in FOLDS}


def predictions(work: Path, name: str, label: str, seed: int) -> Maps:
    """Every case, predicted by the network that has not seen it."""
    found: Maps = {}
    for fold, cases in case_parts(name).items():
        found |= probabilities(work, Network(name, int(fold), label, seed), cases)
    return found


_NEAR: dict[tuple[str, int, float], np.ndarray] = {}  # distances cost more than all scores


def near_object(case: CaseData, channel: int, near_mm: float) -> np.ndarray:
    """Voxels near anything that a reader marked as this class."""
    key = (case.name, channel, near_mm)
    if key not in _NEAR:
        marked = case.votes[:, channel].any(axis=0)
        _NEAR[key] = voxels_near(marked, spacing_mm=case.spacing_mm, near_mm=near_mm)
    return _NEAR[key]


def draw(case: CaseData, p: np.ndarray, most: int, near_mm: float | None) -> VoxelSample:
    """Voxels of a case, of the part near any object if ``near_mm`` is given."""
    soft = case.votes.mean(axis=0, dtype=np.float32)
    mask = None
    if near_mm is not None:
        mask = np.any([near_object(case, c, near_mm) for c in range(len(soft))], axis=0)
    rng = np.random.default_rng([ord(letter) for letter in case.name])
    return sample_voxels(
        log_odds_of(p, has_regions=False), soft, most=most, rng=rng, has_regions=False, mask=mask
    )


def fitted(name: str, found: Maps, method: str, weighting: str) -> dict[str, RecalibrationMap]:
    """Fold -> the map of the other folds."""
    data, parts = DATA_SETS[name], case_parts(name)
    near_mm = data.near_mm if weighting == NEAR else None
    most = VOXELS // len(data.cases())
    samples = {
        fold: [draw(case, found[case.name], most, near_mm) for case in cases] for fold, cases in parts.items()
    }
    weights = "voxels" if weighting == NEAR else weighting
    return cross_fit(samples, method=method, has_regions=False, weighting=weights)


def mapped(name: str, found: Maps, maps: Mapping[str, RecalibrationMap]) -> Maps:
    """Probabilities after the map of each case's fold."""
    return {
        case.name: recalibrated(found[case.name], maps[fold], has_regions=False)
        for fold, cases in case_parts(name).items()
        for case in cases
    }


def scores(case: CaseData, p: np.ndarray, near_mm: float) -> Iterator[dict[str, float | str]]:
    """A row per class: Dice to the truth or the consensus, the rest against the readers' mean."""
    soft = case.votes.mean(axis=0, dtype=np.float32)
    reference = consensus(soft) > 0 if case.truth is None else case.truth
    decided = p.argmax(axis=0)
    for c in range(len(soft)):
        q, near = soft[c], near_object(case, c, near_mm)
        yield {
            "class": str(c + 1),
            "dice": dice(reference[c], decided == c + 1),
            "qubiq_dice": qubiq_dice(q, p[c + 1]),
            "brier_near": metrics.brier(q, p[c + 1], mask=near),
            "nll_near": metrics.nll_above_entropy(q, p[c + 1], mask=near),
            "ece_near": metrics.expected_calibration_error(q, p[c + 1], mask=near),
            "volume_error_abs": abs(relative_volume_error(q, p[c + 1])),
        }


def scored(name: str, found: Maps) -> list[dict[str, float | str]]:
    """Rows of all cases of a data set that were predicted."""
    data = DATA_SETS[name]
    return [
        {"case": case.name, "group": case.group, **row}
        for case in data.cases()
        if case.name in found
        for row in scores(case, found[case.name], data.near_mm)
    ]


def run_rival(cell: Cell) -> list[dict[str, float | str]]:
    """Part 3: one of the other ways, on one fold."""
    return rivals.run_cell(cell, lambda found: scored(rivals.NAME, found))


def run_averaging(cell: Cell) -> list[dict[str, float | str]]:
    """Part 4: one training on one fold, its prediction averaged over more and more."""
    return averaging.run_cell(cell, lambda found: scored(rivals.NAME, found))


def mean_rows(runs: Sequence[list[dict[str, float | str]]]) -> list[dict[str, float | str]]:
    """The same cases scored several times: the mean of each score."""
    return [
        {k: v if isinstance(v, str) else float(np.mean([row[k] for row in rows])) for k, v in rows[0].items()}
        for rows in zip(*runs, strict=True)
    ]


def screen(work: Path, name: str) -> list[dict[str, float | str]]:
    """Part 1: means of every method and weighting, one network."""
    found = []
    for label in (STOCK, SOFT):
        runs: dict[tuple[str, str], list[list[dict[str, float | str]]]] = {}
        for seed in SCREENED_SEEDS:
            raw = predictions(work, name, label, seed)
            runs.setdefault((RAW, ""), []).append(scored(name, raw))
            for method in [m for m in METHODS if m != "none"]:
                for weighting in (NEAR, *WEIGHTINGS):
                    after = mapped(name, raw, fitted(name, raw, method, weighting))
                    runs.setdefault((method, weighting), []).append(scored(name, after))
        for (method, weighting), rows in runs.items():
            averaged = mean_rows(rows)
            means = {m: float(np.nanmean([row[m] for row in averaged])) for m in tables.METRICS}
            found.append({"data": name, "label": label, "method": method, "weight": weighting, **means})
            print(name, label, method, weighting, {k: round(v, 4) for k, v in means.items()}, flush=True)
    return found


def compare(work: Path, name: str) -> tuple[list[dict[str, float | str]], list[dict[str, float | str]]]:
    """Part 2: scores of every case in all rows, and reliability tables of the first class or all."""
    rows, diagrams = [], []
    for label in (STOCK, SOFT):
        single = [predictions(work, name, label, seed) for seed in SEEDS]
        averaged = [
            {case: np.mean([single[seed][case] for seed in three], axis=0) for case in single[0]}
            for three in TRIPLES
        ]
        for size, runs in ((ONE, single), (THREE, averaged)):
            for method, weighting in tables.COMPARED:
                after = runs if method == RAW else [
                    mapped(name, run, fitted(name, run, method, weighting)) for run in runs
                ]  # fmt: skip
                named = f"{method} {weighting}".strip()
                about = {"data": name, "label": label, "networks": size, "recalibration": named}
                found = [scored(name, run) for run in after]
                if (size, method) == (ONE, RAW):  # seed by seed, for part 3
                    for seed, own in zip(SEEDS, found, strict=True):
                        rows += [about | {"seed": str(seed)} | row for row in own]
                else:
                    rows += [about | {"seed": ""} | row for row in mean_rows(found)]
                diagrams += [about | row for row in reliability(name, after[0])]
                print(*about.values(), flush=True)
    return rows, diagrams


def reliability(name: str, found: Maps) -> list[dict[str, float | str]]:
    """Voxels, sum of p and sum of q near the object per bin, all classes together."""
    data = DATA_SETS[name]
    total = np.zeros((metrics.BINS, 3))
    for case in data.cases():
        soft = case.votes.mean(axis=0, dtype=np.float32)
        for c in range(len(soft)):
            near = near_object(case, c, data.near_mm)
            total += metrics.reliability(soft[c], found[case.name][c + 1], mask=near)
    return [
        {"bin": str(i), "voxels": float(n), "sum_p": float(p), "sum_q": float(q)}
        for i, (n, p, q) in enumerate(total)
    ]


def write_csv(path: Path, rows: Sequence[Mapping[str, float | str]]) -> None:
    """All rows, floats with six digits."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, help="For the weights of the networks.")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--part", choices=["1", "2"], help="Only the choice of the map, or only the rows.")
    what.add_argument("--rivals", action="store_true", help="Only other ways, on LIDC.")
    what.add_argument(
        "--averaging", action="store_true", help="Only what a prediction is averaged over, on LIDC."
    )
    parser.add_argument(
        "--jobs", type=int, default=1, help="Of --rivals and --averaging: cells at the same time."
    )
    what.add_argument("--tables", action="store_true", help="Only rewrite the tables from the CSV files.")
    args = parser.parse_args()
    scores = ("case", "group", "class", *tables.METRICS)
    if args.rivals:
        columns = (*rivals.KEY, *scores)
        run_missing(RIVALS, rivals.cells(), run_rival, key=rivals.KEY, columns=columns, jobs=args.jobs)
    elif args.averaging:
        own, columns = rivals.cells(averaging.TRAININGS), (*averaging.KEY, "averaged", *scores)
        run_missing(AVERAGING, own, run_averaging, key=averaging.KEY, columns=columns, jobs=args.jobs)
    elif not args.tables:
        if args.work is None:
            parser.error("--work is needed for anything but --tables")
        train_missing(args.work, list(networks(list(DATA_SETS))))
        if args.part != "2":
            write_csv(SCREENING, [row for name in DATA_SETS for row in screen(args.work, name)])
        if args.part != "1":
            found = [compare(args.work, name) for name in DATA_SETS]
            write_csv(RESULTS, [row for rows, _ in found for row in rows])
            write_csv(RELIABILITY, [row for _, rows in found for row in rows])
    if SCREENING.is_file() and RESULTS.is_file():
        tables.write(SCREENING, RESULTS, RELIABILITY, RIVALS, AVERAGING)


if __name__ == "__main__":
    main()
