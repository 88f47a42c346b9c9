"""Cells of an experiment in one CSV: what is there is not run again, what is run is appended at once."""

from __future__ import annotations

import argparse
import csv
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from nnunet_softlabel.formats.files import write_text

Cell = tuple[str, ...]
Row = dict[str, str | float]


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV, none if it is not there."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def study_parser(description: str | None) -> argparse.ArgumentParser:
    """The command line of a study: ``--tables`` runs nothing, ``--jobs`` runs cells beside each other."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tables", action="store_true", help="Only rewrite the tables from the CSV.")
    parser.add_argument("--jobs", type=int, default=1, help="Cells at the same time.")
    return parser


def run_missing(
    path: Path,
    cells: Iterable[Cell],
    function: Callable[[Cell], Sequence[Row]],
    *,
    key: Sequence[str],
    columns: Sequence[str],
    jobs: int = 1,
) -> None:
    """Run every cell that the CSV lacks.

    The rows of a cell are added when it is done, all or none of them, so a run that is cut off loses the
    cells it was at and nothing else.

    Args:
        path: the CSV; made if it is not there.
        cells: one tuple of texts per cell, the values of the ``key`` columns.
        function: rows of a cell; pickled into ``jobs`` processes.
        key: columns that name a cell.
        columns: all columns, the key among them.
        jobs: cells at the same time, each on one thread.
    """
    _begin(path, columns)
    done = {tuple(row[name] for name in key) for row in read_rows(path)}
    missing = [cell for cell in cells if cell not in done]
    print(f"{path.name}: {len(done)} cells done, {len(missing)} to run", flush=True)
    for number, rows in enumerate(_results(function, missing, jobs), start=1):
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        for row in rows:
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
        write_text(path, path.read_text(encoding="utf-8") + text.getvalue())
        print(f"{number}/{len(missing)} {' '.join(str(rows[0][name]) for name in key)}", flush=True)


def _begin(path: Path, columns: Sequence[str]) -> None:
    """Write the header of a new file; refuse one of another script; drop a last line without an end."""
    if not path.is_file():
        write_text(path, ",".join(columns) + "\n")
        return
    text = path.read_text(encoding="utf-8")
    if text.split("\n", 1)[0] != ",".join(columns):
        raise SystemExit(f"{path}: has other columns than this script writes; move it away to begin anew.")
    if not text.endswith("\n"):  # a copy that was cut off
        write_text(path, text[: text.rfind("\n") + 1])


def _results(
    function: Callable[[Cell], Sequence[Row]], cells: Sequence[Cell], jobs: int
) -> Iterator[Sequence[Row]]:
    with ProcessPoolExecutor(jobs, initializer=_one_thread) as pool:
        try:
            for future in as_completed([pool.submit(function, cell) for cell in cells]):
                yield future.result()
        finally:  # a cell that fails is told at once, not when all others have run in vain
            pool.shutdown(cancel_futures=True)


def _one_thread() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    torch.set_num_threads(1)
