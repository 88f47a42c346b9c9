"""LIDC, five folds, nnU-Net's 2d configuration with a reduced plan: our trainers against stock.

    python -m docs.studies.lidc --work FOLDER                 # runs what results.csv lacks, then the tables
    python -m docs.studies.lidc --work FOLDER --recalibrate   # makes recalibrated.csv, then the tables
    python -m docs.studies.lidc --work FOLDER --default-plan  # makes fold0_default_plan.csv, then the tables
    python -m docs.studies.lidc --work FOLDER --fine-tune     # makes fine_tuned.csv, then the tables
    python -m docs.studies.lidc --work FOLDER --ending        # makes ending.csv, then the tables
    python -m docs.studies.lidc --work FOLDER --seeds         # makes seeds.csv, then the tables
    python -m docs.studies.lidc --tables                      # only rewrites tables.md

``FOLDER`` gets nnU-Net's raw, preprocessed and result folders and may be thrown away afterwards. The design
is in DESIGN.md, written before the first run. Needs the LIDC nodules beside the source tree.
"""

from __future__ import annotations

import argparse
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from docs.studies.lidc import fine_tuning, seeds, tables
from docs.studies.lidc.tables import METRICS, SHARES, THRESHOLDS
from docs.studies.shared.cases import LIDC
from docs.studies.shared.resumable import Cell, Row, run_missing
from nnunet_softlabel.evaluation.average import average
from nnunet_softlabel.evaluation.case_scores import MODEL
from nnunet_softlabel.evaluation.run import Scoring, evaluate
from nnunet_softlabel.evaluation.tables import read_rows
from nnunet_softlabel.formats.files import write_csv
from nnunet_softlabel.formats.predictions import read_probabilities
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from nnunet_softlabel.report.comparison import home_reference

HERE = Path(__file__).parent
RESULTS = HERE / "results.csv"
DATASET, PLANS = fine_tuning.DATASET, "nnUNetPlansReduced12"
TRAINERS = (
    "nnUNetTrainer",
    "nnUNetTrainerSoftCE",
    "nnUNetTrainerHardBCE",
    "nnUNetTrainerAPL",
    "nnUNetTrainerSoftCEPlainSampling",
)
FOLDS = ("0", "1", "2", "3", "4")
KEY = ("trainer", "fold")
COUNTS = tuple(f"{what} {share}" for what in ("voxels", "marked") for share in SHARES)
AT_THRESHOLDS = tuple(f"{what} at {t}" for what in ("marked", "hits") for t in THRESHOLDS)
COLUMNS = (*KEY, "case", "group", *METRICS, *COUNTS, "expected voxels", *AT_THRESHOLDS)

TOLERANCE = 1e-4  # a stored probability is right to 2e-5

CONVERT = (
    "nnunet_softlabel", "convert", "-d", DATASET, "-n", "LIDC",
    "--images", f"{LIDC}/images/{{case}}.nii.gz", "--channel-names", "CT",
    "--raters", f"{LIDC}/raters/{{case}}_rater{{rater}}.nii.gz", "--labels", "nodule=1",
    "--groups", f"{LIDC}/cases.csv", "--group-column", "patient", "--anonymous-raters",
)  # fmt: skip
TRAIN = (
    "nnunet_softlabel", "benchmark", "-d", DATASET, "-c", "2d", "-device", "cpu", "-np", "1",
)  # fmt: skip
REDUCED = ("-p", PLANS, "--epochs", "15", "--iterations", "100")
# nnU-Net's own network, patch and batch; its schedule is 1000 epochs of 250 iterations
DEFAULT_PLAN = ("-p", "nnUNetPlans", "--epochs", "8", "--iterations", "25")


def set_environment(work: Path) -> None:
    """nnU-Net's folders below ``work``, and where it finds the trainers of the study."""
    for name in ("raw", "preprocessed", "results"):
        folder = work / name
        folder.mkdir(parents=True, exist_ok=True)
        os.environ[f"nnUNet_{name}"] = str(folder)
    os.environ["nnUNet_extTrainer"] = str(HERE / "trainers")


def prepare(work: Path) -> None:
    """Convert, plan and preprocess what is not there yet."""
    raw, preprocessed = (work / name / f"Dataset{DATASET}_LIDC" for name in ("raw", "preprocessed"))
    if not raw.is_dir():
        subprocess.run(CONVERT, check=True)
    if not (preprocessed / "nnUNetPlans.json").is_file():
        subprocess.run(["nnUNetv2_plan_and_preprocess", "-d", DATASET, "-c", "3d_fullres"], check=True)
    if not (preprocessed / "nnUNetPlans_2d").is_dir():
        subprocess.run(["nnUNetv2_preprocess", "-d", DATASET, "-c", "2d"], check=True)
    if not (preprocessed / f"{PLANS}.json").is_file():
        reduce = ["nnunet_softlabel", "reduce-plans", "-d", DATASET, "--batch-size", "12", "-o", PLANS]
        subprocess.run(reduce, check=True)


def run_cell(cell: Cell, *, work: Path) -> list[Row]:
    """Train one trainer on one fold; a row for every case of the fold's validation part."""
    trainer, fold = cell
    return score(cell, trained(work, trainer, fold), work)


def trained(work: Path, trainer: str, fold: str, seed: str = "0") -> Path:
    """The validation folder of a network, which is trained if it is not there."""
    run_benchmark(work / "report", *REDUCED, "-tr", trainer, "-f", fold, "--seeds", seed, "--only", "train")
    return model_folder(work, trainer, seed) / f"fold_{fold}" / "validation"


def model_folder(work: Path, trainer: str, seed: str = "0") -> Path:
    """Results of a trainer of the benchmark."""
    results = work / "report" / "results" / f"seed_{seed}" / f"Dataset{DATASET}_LIDC"
    return results / f"{trainer}__{PLANS}__2d"


def seed_cell(cell: Cell, *, work: Path) -> list[Row]:
    """A network with some seed, or the mean of the networks of all seeds."""
    name, seed, fold = cell
    if not name.endswith(seeds.AVERAGED):
        return score(cell, trained(work, name, fold, seed), work, seeds.KEY)
    trainer = name.removesuffix(seeds.AVERAGED)
    folders = [trained(work, trainer, fold, s) for s in seeds.SEEDS]
    mean = work / "averaged" / trainer / fold
    dataset = SoftDataset.find(DATASET)
    average(dataset, folders, mean, of="probabilities", num_processes=1, overwrite=True)
    return score(cell, mean, work, seeds.KEY)


def score(cell: Cell, folder: Path, work: Path, key: Sequence[str] = KEY) -> list[Row]:
    """A row for every case of a validation folder."""
    dataset, scores = SoftDataset.find(DATASET), work / "scores" / "_".join(cell)
    evaluate(dataset, folder, scores, num_processes=1, overwrite=True, scoring=Scoring(with_ceiling=False))
    return rows_of(dataset, folder, scores / "soft_metrics.csv", dict(zip(key, cell, strict=True)))


def run_benchmark(report: Path, *flags: str) -> None:
    """Train what is missing, the same way each time."""
    training = os.environ | {"nnUNet_n_proc_DA": "0", "OMP_NUM_THREADS": "1"}
    subprocess.run([*TRAIN, *flags, "-o", str(report)], check=True, env=training)


def recalibrate(work: Path) -> None:
    """Stock and the default on all folds, as trained and recalibrated: a row for every case of each."""
    report = work / "report"
    trainers = (*REDUCED, "-tr", tables.BASE, tables.DEFAULT, "-f", *FOLDS)
    run_benchmark(report, *trainers, "--only", "train")
    run_benchmark(report, *trainers, "--only", "report", "--calibrate", "isotonic")
    write_scores(report, tables.RECALIBRATED)


def default_plan(work: Path) -> None:
    """Stock and the default on fold 0 with nnU-Net's own plan: a row for every case of each."""
    report = work / "default_plan"
    run_benchmark(report, *DEFAULT_PLAN, "-tr", tables.BASE, tables.DEFAULT, "-f", "0")
    write_scores(report, tables.OWN_PLAN)


def fine_tuned_cell(cell: Cell, *, work: Path) -> list[Row]:
    """A network of the benchmark, or one that goes on from its stock network of the same fold."""
    name, fold = cell
    if name in TRAINERS:
        return run_cell(cell, work=work)
    stock = model_folder(work, tables.BASE)
    os.environ["nnUNet_results"] = str(stock.parent.parent)
    return score(cell, fine_tuning.train(name, fold, stock, PLANS), work)


def fine_tune(work: Path, jobs: int) -> None:
    """All variants on the folds that choose, then what was chosen on the others."""
    job = partial(fine_tuned_cell, work=work)
    for _ in range(2):
        wanted = fine_tuning.cells(tables.chosen_variant(tables.FINE_TUNED))
        run_missing(tables.FINE_TUNED, wanted, job, key=KEY, columns=COLUMNS, jobs=jobs)


def endings(work: Path) -> None:
    """Stock, the default, and the default that ends with cross entropy alone, on all folds."""
    wanted = [
        (trainer, fold) for fold in FOLDS for trainer in (tables.BASE, tables.DEFAULT, tables.ENDS_IN_CE)
    ]
    job = partial(run_cell, work=work)
    run_missing(tables.ENDING, wanted, job, key=KEY, columns=COLUMNS)


def with_seeds(work: Path) -> None:
    """Stock and the default with all seeds, and the means of their networks, on all folds."""
    wanted = seeds.cells((tables.BASE, tables.DEFAULT), FOLDS)
    columns = (*seeds.KEY, *(name for name in COLUMNS if name not in KEY))
    run_missing(tables.SEEDS, wanted, partial(seed_cell, work=work), key=seeds.KEY, columns=columns)


def write_scores(report: Path, path: Path) -> None:
    """The scores of every trainer and case of a benchmark, each metric against its home reference."""
    found: dict[tuple[str, str], Row] = {}
    for scored in read_rows(report / "soft_metrics.csv"):
        key = (str(scored["trainer"]), str(scored["case"]))
        row = found.setdefault(key, {"trainer": key[0], "case": key[1], "group": str(scored["group"])})
        row.update(home_scores(scored))
    write_csv(path, ("trainer", "case", "group", *METRICS), found.values())


def home_scores(scored: Mapping[str, object]) -> Row:
    """The metrics of a row of scores whose home reference it is."""
    return {
        metric: float(str(scored[metric]))
        for metric in METRICS
        if scored["reference"] == home_reference(metric)
        and scored["prediction"] == MODEL
        and scored.get(metric) is not None
    }


def rows_of(dataset: SoftDataset, predictions: Path, scores: Path, about: Row) -> list[Row]:
    """One row per case: each metric against its home reference, and what is marked by votes."""
    found: dict[str, Row] = {}
    for scored in read_rows(scores):
        case = str(scored["case"])
        row = found.setdefault(case, {**about, "case": case, "group": str(scored["group"])})
        row.update(home_scores(scored))
    for case, row in found.items():
        soft = dataset.read_soft(case, "Tr")
        probability = read_probabilities(predictions, case, dataset.labels, soft.shape[1:])[1]
        row.update(marked_by_votes(soft[0], probability > 0.5))
        row.update(marked_at_thresholds(soft[0], probability))
    return list(found.values())


def marked_by_votes(soft: np.ndarray, marked: np.ndarray) -> Row:
    """Number of voxels, and of marked ones, by the share of readers who marked them.

    Args:
        soft: mean of the readers ``(Z, Y, X)``.
        marked: bool of the same shape.
    """
    edges = (TOLERANCE, 0.5 - TOLERANCE, 0.5 + TOLERANCE, 1 - TOLERANCE)
    share = np.digitize(soft, edges)
    count = partial(np.bincount, minlength=len(SHARES))
    numbers = np.concatenate([count(share.ravel()), count(share[marked])])
    return dict(zip(COUNTS, numbers.tolist(), strict=True))


def marked_at_thresholds(soft: np.ndarray, probability: np.ndarray) -> Row:
    """Voxels marked at each of `THRESHOLDS`, those of them in the consensus, and the readers' mean volume."""
    consensus = soft > 0.5 + TOLERANCE
    masks = [probability > float(threshold) for threshold in THRESHOLDS]
    numbers = [np.sum(mask) for mask in masks] + [np.sum(mask & consensus) for mask in masks]
    found = dict(zip(AT_THRESHOLDS, map(int, numbers), strict=True))
    return {"expected voxels": float(soft.sum()), **found}


def cells() -> Iterator[Cell]:
    """All trainers of a fold before the next fold."""
    for fold in FOLDS:
        yield from ((trainer, fold) for trainer in TRAINERS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--work", type=Path, help="Folder for nnU-Net's files; may be thrown away afterwards.")
    what.add_argument("--tables", action="store_true", help="Only rewrite the tables from the CSV.")
    parser.add_argument("--jobs", type=int, default=1, help="Networks trained at the same time.")
    parser.add_argument(
        "--recalibrate", action="store_true", help="Only stock and the default, recalibrated."
    )
    parser.add_argument("--default-plan", action="store_true", help="Only fold 0, with nnU-Net's own plan.")
    parser.add_argument("--fine-tune", action="store_true", help="Only networks that go on from stock's.")
    parser.add_argument("--ending", action="store_true", help="Only the default with another ending.")
    parser.add_argument("--seeds", action="store_true", help="Only stock and the default, three seeds.")
    args = parser.parse_args()
    if args.work is not None:
        work = args.work.resolve()
        set_environment(work)
        prepare(work)
    if args.work is not None and args.recalibrate:
        recalibrate(work)
    elif args.work is not None and args.default_plan:
        default_plan(work)
    elif args.work is not None and args.fine_tune:
        fine_tune(work, args.jobs)
    elif args.work is not None and args.ending:
        endings(work)
    elif args.work is not None and args.seeds:
        with_seeds(work)
    elif args.work is not None:
        job = partial(run_cell, work=work)
        run_missing(RESULTS, cells(), job, key=KEY, columns=COLUMNS, jobs=args.jobs)
    tables.write(RESULTS)


if __name__ == "__main__":
    main()
