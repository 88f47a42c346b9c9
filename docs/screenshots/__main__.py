"""The screenshots of the reports in this folder, of pages as `benchmark` writes them.

    python -m docs.screenshots --demo nnunet_softlabel_demo --lidc FOLDER/report/report.html

LIDC: the head of the page that `python -m docs.studies.lidc --work FOLDER --recalibrate` leaves; the
pictures of patients are further down. Demo: a folder that `nnunet_softlabel demo` has written; and the same
without its network that has not learned. Needs a Chromium on the path.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from nnunet_softlabel import demo as knees

HERE = Path(__file__).parent
WIDTH, HEIGHT = 1400, 1150


def demo_page(folder: Path, work: Path, trainers: Sequence[str], name: str) -> Path:
    """The page of a demo that has been run, of some of its trainers; its own page stays as it is."""
    knees.set_environment(work)
    from nnunet_softlabel.benchmark import BenchmarkGrid, CellScoring, Trainings, benchmark, report
    from nnunet_softlabel.training.budget import Budget

    before = {path: path.read_bytes() for path in work.iterdir() if path.is_file()}
    grid = BenchmarkGrid(
        knees.DATASET_ID, work, Trainings(trainers, folds=[0], plans=knees.REDUCED),
        budget=Budget(8, 80, "cpu"), scoring=CellScoring(truth=work / "knees" / "truth"),
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
    parser.add_argument("--lidc", type=Path, required=True, help="The page of the benchmark on LIDC.")
    args = parser.parse_args()
    work = args.demo.absolute()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        alive = [name for name in knees.TRAINERS if name != "nnUNetTrainerHardBCE"]
        shoot(args.lidc.absolute(), HERE / "report_lidc.png")
        shoot(demo_page(folder, work, alive, "demo.html"), HERE / "report_demo.png")
        shoot(demo_page(folder, work, knees.TRAINERS, "dead.html"), HERE / "report_dead_network.png")


if __name__ == "__main__":
    main()
