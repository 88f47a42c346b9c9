"""The screenshots of the reports in this folder, of pages as `benchmark` writes them.

    python -m docs.screenshots --demo nnunet_softlabel_demo

LIDC: the scores that the study `lidc` keeps, so without pictures of patients. Demo: a folder that
`nnunet_softlabel demo` has written; and the same without its network that has not learned. Needs a Chromium
on the path.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from nnunet_softlabel import demo as knees
from nnunet_softlabel.evaluation.case_scores import Row
from nnunet_softlabel.report.comparison import compare
from nnunet_softlabel.report.page import write_report
from nnunet_softlabel.report.runs import RunResult
from nnunet_softlabel.report.verdict import verdict

HERE = Path(__file__).parent
LIDC = HERE.parent / "studies" / "lidc" / "results.csv"
ITERATIONS = 1500  # of the study `lidc`
OF_MASKS = ("dice", "precision", "recall")
OF_MAPS = ("soft_dice", "qubiq_dice", "brier_near", "nll_near", "ece_near", "volume_error_abs")
TRAINERS = ("nnUNetTrainer", "nnUNetTrainerSoftCE", "nnUNetTrainerHardBCE")
WIDTH, HEIGHT = 1400, 1150


def lidc_page(folder: Path) -> Path:
    """The page of the five folds on LIDC, from the scores of every nodule."""
    rows: dict[str, list[Row]] = {name: [] for name in TRAINERS}
    with LIDC.open(newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            if line["trainer"] in rows:
                keys: Row = {
                    "case": line["case"],
                    "group": line["group"],
                    "class": "nodule",
                    "prediction": "model",
                }
                for reference, metrics in (("consensus", OF_MASKS), ("soft", OF_MAPS)):
                    scores = {metric: float(line[metric] or "nan") for metric in metrics}
                    rows[line["trainer"]].append({**keys, "reference": reference, **scores})
    first, *others = TRAINERS
    metrics = [*OF_MASKS, *OF_MAPS]
    tests = [
        test
        for name in others
        for test in compare(
            rows[first], rows[name], names=(first, name), metrics=metrics, primary=["dice", "brier_near"]
        )
    ]
    return write_report(
        folder / "lidc.html",
        title="LIDC nodules: 3 trainers",
        runs=[RunResult(name, own, settings={"folds": [0, 1, 2, 3, 4]}) for name, own in rows.items()],
        comparisons=tests,
        metrics=metrics,
        plan={
            "configuration": "2d",
            "plans": "reduced",
            "epochs": 15,
            "iterations per epoch": 100,
            "device": "cpu",
        },
        sentences=verdict(rows, tests, iterations=ITERATIONS),
    )


def demo_page(folder: Path, work: Path, trainers: Sequence[str], name: str) -> Path:
    """The page of a demo that has been run, of some of its trainers; its own page stays as it is."""
    knees.set_environment(work)
    from nnunet_softlabel.benchmark import BenchmarkGrid, Budget, benchmark, report

    before = {path: path.read_bytes() for path in work.iterdir() if path.is_file()}
    grid = BenchmarkGrid(
        knees.DATASET_ID, work, trainers=trainers, folds=[0], seeds=[0], plans=knees.REDUCED,
        budget=Budget(8, 80), device="cpu", truth=work / "knees" / "truth",
    )  # fmt: skip
    page = report(grid, benchmark(grid, only="report", log=print), commands=["nnunet_softlabel demo"])
    made = folder / name
    made.write_bytes(page.read_bytes())
    for path, content in before.items():
        path.write_bytes(content)
    return made


def shoot(page: Path, target: Path) -> None:
    """The upper part of a page, as a screen shows it."""
    subprocess.run(
        [
            "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={target}", page.as_uri(),
        ],
        check=True, capture_output=True,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--demo", type=Path, required=True, help="Folder that `nnunet_softlabel demo` has written."
    )
    args = parser.parse_args()
    work = args.demo.absolute()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        alive = [name for name in knees.TRAINERS if name != "nnUNetTrainerHardBCE"]
        shoot(lidc_page(folder), HERE / "report_lidc.png")
        shoot(demo_page(folder, work, alive, "demo.html"), HERE / "report_demo.png")
        shoot(demo_page(folder, work, knees.TRAINERS, "dead.html"), HERE / "report_dead_network.png")


if __name__ == "__main__":
    main()
