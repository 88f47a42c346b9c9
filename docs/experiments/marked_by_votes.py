"""Which voxels do trainers mark, by the share of readers who marked them? For a benchmark of one class.

    python docs/experiments/marked_by_votes.py report -d 501   # counts into marked_by_votes.csv, then table
    python docs/experiments/marked_by_votes.py                 # the table of docs/benchmark.md, from the CSV

``report`` is the folder that ``nnunet_softlabel benchmark -o report`` wrote; needs ``nnUNet_raw``.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from resumable import read_rows, replace_between
from study_numbers import Rows, markdown, select, values

from nnunet_softlabel.image_io import read_mask
from nnunet_softlabel.soft_labels import SoftDataset

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "marked_by_votes.csv", HERE.parent / "benchmark.md"
SHARES = ("nobody", "less than half", "half", "more than half", "all")
COLUMNS = ("trainer", "fold", "share", "voxels", "marked")
BASE = "nnUNetTrainer"


def share_of_readers(soft: np.ndarray) -> np.ndarray:
    """Index into `SHARES` of every voxel of a mean of readers."""
    edges = (1e-4, 0.5 - 1e-4, 0.5 + 1e-4, 1 - 1e-4)  # a stored probability is right to 2e-5
    return np.digitize(soft, edges)


def count(report: Path, dataset: SoftDataset) -> Iterator[dict[str, str | int]]:
    """Voxels, and marked voxels, of the validation cases of every trainer and fold."""
    for folder in sorted(report.glob(f"results/seed_*/{dataset.folder.name}/*/fold_*/validation")):
        voxels: Counter[int] = Counter()
        marked: Counter[int] = Counter()
        for file in sorted(folder.glob(f"*{dataset.file_ending}")):
            share = share_of_readers(dataset.read_soft(file.name.removesuffix(dataset.file_ending), "Tr")[0])
            prediction, _ = read_mask(file)
            voxels.update(dict(enumerate(np.bincount(share.ravel(), minlength=len(SHARES)).tolist())))
            hits = np.bincount(share[prediction == 1], minlength=len(SHARES))
            marked.update(dict(enumerate(hits.tolist())))
        trainer, fold = folder.parents[1].name.split("__")[0], folder.parent.name.removeprefix("fold_")
        for index, share_name in enumerate(SHARES):
            yield dict(zip(COLUMNS, (trainer, fold, share_name, voxels[index], marked[index]), strict=True))


def table(rows: Rows) -> str:
    """Share of voxels marked, and where the surplus over stock outside the consensus lies."""
    trainers = list(dict.fromkeys([BASE, *(row["trainer"] for row in rows)]))
    totals = {s: values(select(rows, trainer=BASE, share=s), "voxels").sum() for s in SHARES}
    marked = {
        (name, s): values(select(rows, trainer=name, share=s), "marked").sum()
        for name in trainers
        for s in SHARES
    }
    lines = [["voxels", *(f"{totals[s]:.0f}" for s in SHARES), "", ""]]
    for name in trainers:
        shares = [f"{100 * marked[name, s] / totals[s]:.{2 if s == 'nobody' else 1}f} %" for s in SHARES]
        surplus = {s: marked[name, s] - marked[BASE, s] for s in SHARES[:3]}
        beyond = sum(surplus.values())
        at_half = "-" if name == BASE or beyond <= 0 else f"{100 * surplus['half'] / beyond:.0f} %"
        lines.append([f"`{name}`", *shares, "-" if name == BASE else f"{beyond:+.0f}", at_half])
    head = ["trainer", *SHARES, "outside the consensus, beyond stock", "of this, at half"]
    title = "Share of the voxels that a trainer marks, by how many readers marked them:"
    return f"{title}\n\n{markdown(head, lines)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("report", type=Path, nargs="?", help="Folder of a benchmark; else only the table.")
    parser.add_argument("-d", "--dataset", help="Its data set, number or name.")
    args = parser.parse_args()
    if args.report is not None:
        if args.dataset is None:
            parser.error("-d is missing: the number or name of the data set of the benchmark")
        found = list(count(args.report, SoftDataset.find(args.dataset)))
        with RESULTS.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(found)
    replace_between(PAGE, "votes", table(read_rows(RESULTS)))


if __name__ == "__main__":
    main()
