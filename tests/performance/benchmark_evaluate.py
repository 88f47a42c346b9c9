"""How long `evaluate` takes on the LIDC nodules against four raters, and the report for six trainers.

Run: ``python tests/performance/benchmark_evaluate.py FOLDER_OF_LIDC_NODULES [PROCESSES]``.
Goals: 486 cases in <= 60 s on 2 cores at constant memory; the report for six trainers in <= 30 s.
"""

from __future__ import annotations

import csv
import json
import resource
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from nnunet_softlabel.evaluation.run import evaluate
from nnunet_softlabel.formats.encoding import consensus
from nnunet_softlabel.formats.images import read_mask, write_image
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.formats.probability_maps import write_probability
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from nnunet_softlabel.report.comparison import compare
from nnunet_softlabel.report.findings import Findings
from nnunet_softlabel.report.page import write_report
from nnunet_softlabel.report.pictures import case_picture, pick_cases
from nnunet_softlabel.report.runs import RunResult

TRAINERS = 6


def write_dataset(source: Path, folder: Path, predictions: Path) -> SoftDataset:
    """LIDC as a soft-label data set, with blurred and noisy soft labels for predictions."""
    labels, groups, rng = Labels({"nodule": (1,)}), {}, np.random.default_rng(0)
    predictions.mkdir(parents=True)
    for name in ("imagesTr", "labelsTr", "softLabelsTr"):
        (folder / name).mkdir(parents=True)
    for row in csv.DictReader((source / "cases.csv").open(encoding="utf-8")):
        case, masks = row["case"], []
        groups[case] = row["patient"]
        for rater in range(1, int(row["n_raters"]) + 1):
            mask, grid = read_mask(source / "raters" / f"{case}_rater{rater}.nii.gz")
            target = folder / "raterLabelsTr" / str(rater)
            target.mkdir(parents=True, exist_ok=True)
            write_image(target / f"{case}.nii.gz", mask, grid)
            masks.append(mask > 0)
        soft = np.mean(masks, axis=0).astype(np.float32)
        write_probability(folder / "softLabelsTr" / f"{case}_0001.nii.gz", soft, grid)
        write_image(folder / "labelsTr" / f"{case}.nii.gz", consensus(soft[None], labels), grid)
        (folder / "imagesTr" / f"{case}_0000.nii.gz").symlink_to(source / "images" / f"{case}.nii.gz")
        p = (
            (gaussian_filter(soft, 1) + rng.normal(0, 0.02, soft.shape))
            .clip(1e-5, 1 - 1e-5)
            .astype(np.float32)
        )
        np.savez_compressed(predictions / f"{case}.npz", probabilities=np.stack([1 - p, p]))
        write_image(predictions / f"{case}.nii.gz", (p > 0.5).astype(np.uint8), grid)
    about = {
        "format_version": 1, "fusion": {"method": "mean"}, "prior": None, "groups": groups,
        "digest": "of no conversion", "made_hard_labels": True,
    }  # fmt: skip
    content = {"channel_names": {"0": "CT"}, "numTraining": len(groups), "file_ending": ".nii.gz"}
    content |= {"soft_labels": about} | labels.to_dataset_json()
    (folder / "dataset.json").write_text(json.dumps(content))
    return SoftDataset(folder)


def time_report(dataset: SoftDataset, predictions: Path, scores: Path, path: Path) -> float:
    """Seconds for tests, pictures and page of six trainers that differ by noise."""
    base, rng = RunResult.from_folders("nnUNetTrainer", [scores]), np.random.default_rng(0)
    runs = [base]
    for index in range(1, TRAINERS):
        rows = [
            {k: v * rng.normal(1, 0.02) if isinstance(v, float) else v for k, v in row.items()}
            for row in base.rows
        ]
        runs.append(replace(base, name=f"nnUNetTrainer{index}", rows=rows))
    start = time.perf_counter()
    tests = [t for run in runs[1:] for t in compare(base.rows, run.rows, names=(base.name, run.name))]
    folders = {run.name: predictions for run in runs}
    pictures = [
        case_picture(dataset, case, folders, class_name="nodule", caption=text)
        for case, text in pick_cases(base.rows, class_name="nodule").items()
    ]
    write_report(path, Findings(runs, tests), title="LIDC", pictures=pictures)
    return time.perf_counter() - start


def main() -> None:
    source, processes = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 2
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        predictions, scores = root / "predictions", root / "scores"
        dataset = write_dataset(source, root / "Dataset501_LIDC", predictions)
        start = time.perf_counter()
        summary = evaluate(dataset, predictions, scores, num_processes=processes)
        seconds = time.perf_counter() - start
        worker = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        page = time_report(dataset, predictions, scores, root / "report.html")
    print("| what | measured | goal |\n|---|---|---|")
    print(
        f"| evaluate, {summary['number_of_cases']} cases, {processes} processes | {seconds:.1f} s | <= 60 s |"
    )
    print(f"| peak memory of a worker | {worker:.0f} MiB | constant |")
    print(f"| tests, pictures and report, {TRAINERS} trainers | {page:.1f} s | <= 30 s |")


if __name__ == "__main__":
    main()
