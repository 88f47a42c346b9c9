"""What a benchmark found: scores of its finished cells, tests against the baseline, one HTML page."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_softlabel.benchmark import Cell, Grid
from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.evaluation.pictures import CasePicture, case_picture, pick_cases
from nnunet_softlabel.evaluation.report import RunResult, write_report
from nnunet_softlabel.evaluation.statistics import PairedDifference, compare, home_reference
from nnunet_softlabel.evaluation.tables import METRICS_FILE, SUMMARY_FILE, TITLES, means, write_rows
from nnunet_softlabel.soft_labels import read_json, write_json

REPORT_FILE = "report.html"
TABLE_METRICS = (
    "dice",
    "precision",
    "recall",
    "soft_dice",
    "qubiq_dice",
    "brier_near",
    "ece_near",
    "volume_error_abs",
)


def report(grid: Grid, outcome: Mapping[str, str], *, commands: Sequence[str] = ()) -> Path:
    """Write ``soft_metrics.csv``, ``soft_summary.json`` and ``report.html`` into the benchmark's folder.

    Args:
        grid: the benchmark.
        outcome: what became of each cell, as `benchmark` returns it.
        commands: shown on the page.

    Returns:
        The page.

    Raises:
        DatasetError: if no cell is done.
    """
    finished = _finished_cells(grid, outcome)
    if not finished:
        raise DatasetError(f"{grid.output}: no training is done; see {grid.output / 'logs'}.")
    runs = [_run(grid, name, cells) for name, cells in finished.items()]
    comparisons = [
        test for run in runs[1:] for test in compare(runs[0].rows, run.rows, names=(runs[0].name, run.name))
    ]
    notes = _notes(grid, outcome, finished)
    named_rows = [{"trainer": run.name, **row} for run in runs for row in run.rows]
    write_rows(grid.output / METRICS_FILE, named_rows, more_columns=["trainer"])
    write_json(grid.output / SUMMARY_FILE, _summary(grid, runs, comparisons, notes))
    return write_report(
        grid.output / REPORT_FILE,
        title=f"{grid.dataset.folder.name}: {' against '.join(run.name for run in runs)}",
        runs=runs,
        comparisons=comparisons,
        pictures=_pictures(grid, runs, finished),
        plan=_settings(grid),
        commands=commands,
        notes=notes,
        overwrite=True,  # of this benchmark's own page, which grows with its cells
    )


def _finished_cells(grid: Grid, outcome: Mapping[str, str]) -> dict[str, list[Cell]]:
    """Name on the page -> finished cells, in the order of the grid, baseline first."""
    several = len({cell.configuration for cell in grid.cells}) > 1
    cells: dict[str, list[Cell]] = defaultdict(list)
    for cell in grid.cells:
        if outcome.get(cell.name) == "done":
            cells[f"{cell.trainer} {cell.configuration}" if several else cell.trainer].append(cell)
    return dict(cells)


def _run(grid: Grid, name: str, cells: Sequence[Cell]) -> RunResult:
    records = [grid.record(cell) or {} for cell in cells]
    curves: dict[str, list[list[float]]] = defaultdict(list)
    for record in records:
        for curve, values in record["curves"].items():
            curves[curve].append(values)
    # trainings of one grid are equally long; after a resume with other folds the shortest decides
    averaged = {
        curve: np.mean([v[: min(map(len, values))] for v in values], axis=0).tolist()
        for curve, values in curves.items()
    }
    return RunResult.from_folders(
        name,
        [grid.evaluation_folder(cell) for cell in cells],
        curves=averaged,
        training_seconds=sum(record["train_seconds"] for record in records),
        peak_memory_gib=max(record["peak_memory_gb"] for record in records),
        settings={"folds": sorted({c.fold for c in cells}), "seeds": sorted({c.seed for c in cells})},
    )


def _settings(grid: Grid) -> dict[str, Any]:
    first = grid.cells[0]
    settings = grid.made_with(first)
    configuration = read_json(grid.plans_file)["configurations"][first.configuration]
    network = configuration.get("architecture", {}).get("arch_kwargs", {})
    record = next((r for r in map(grid.record, grid.cells) if r and r["status"] == "done"), {})
    assert grid.dataset.about is not None
    return {
        "data set": grid.dataset.folder.name,
        "fusion": json.dumps(grid.dataset.about["fusion"]),
        "plans": f"{grid.plans} ({settings['plans_hash'][:12]})",
        "configuration": first.configuration,
        "patch size": configuration.get("patch_size"),
        "batch size": configuration.get("batch_size"),
        "features per stage": network.get("features_per_stage"),
        "epochs": record.get("epochs"),
        "iterations per epoch": record.get("iterations"),
        "device": record.get("device"),
        "nnunet_softlabel": settings["code"],
    }


def _notes(grid: Grid, outcome: Mapping[str, str], finished: Mapping[str, Sequence[Cell]]) -> list[str]:
    notes = [
        f"{cell.name}: {outcome[cell.name]}, not in this page."
        for cell in grid.cells
        if outcome[cell.name] != "done"
    ]
    sets = {
        name: sorted((cell.configuration, cell.fold, cell.seed) for cell in cells)
        for name, cells in finished.items()
    }
    if len({json.dumps(folds) for folds in sets.values()}) > 1:
        notes.append(
            "Trainers have finished different folds or seeds: tests use the cases they share, means do not."
        )
    return notes


def _pictures(
    grid: Grid, runs: Sequence[RunResult], finished: Mapping[str, Sequence[Cell]]
) -> list[CasePicture]:
    """Best, median and worst case of the last trainer in each class, with what every trainer predicted."""
    pictures = []
    last = runs[-1]
    where = {
        run.name: {
            str(row["case"]): grid.fold_folder(cell) / "validation"
            for cell in finished[run.name]
            for row in run.rows
            if (grid.fold_folder(cell) / "validation" / f"{row['case']}.npz").is_file()
        }
        for run in runs
    }
    for class_name in last.classes:
        for case, caption in pick_cases(last.rows, class_name=class_name).items():
            folders = {name: cases[case] for name, cases in where.items() if case in cases}
            caption = f"{last.name}, {class_name}, {caption}"
            pictures.append(case_picture(grid.dataset, case, folders, class_name=class_name, caption=caption))
    return pictures


def _summary(
    grid: Grid, runs: Sequence[RunResult], comparisons: Sequence[PairedDifference], notes: Sequence[str]
) -> dict[str, Any]:
    return {
        "settings": _settings(grid),
        "notes": list(notes),
        "trainers": {
            run.name: {
                "cases": len(run.cases),
                "train_seconds": run.training_seconds,
                "peak_memory_gb": run.peak_memory_gib,
                **run.settings,
                "mean": means(run.rows),
            }
            for run in runs
        },
        "differences": [
            {
                "trainer": test.second,
                "baseline": test.first,
                "class": test.class_name,
                "metric": test.metric,
                "reference": test.reference,
                "difference": _finite(test.difference.mean),
                "low": _finite(test.difference.low),
                "high": _finite(test.difference.high),
                "p_holm": _finite(test.p_holm),
            }
            for test in comparisons
        ],
    }


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def format_benchmark(folder: Path, *, reference: str | None = None) -> str:
    """The table for the terminal: each metric against its home reference, or all against the one given."""
    summary = read_json(folder / SUMMARY_FILE)
    lines = []
    trainers = summary["trainers"]
    width = max(map(len, trainers))
    classes = next(iter(next(iter(trainers.values()))["mean"]["model"].values()))
    for class_name in classes:
        lines += ["", f"{class_name:<{width}}" + "".join(f"  {TITLES[m][:18]:>18}" for m in TABLE_METRICS)]
        for name, found in trainers.items():
            cells = []
            for metric in TABLE_METRICS:
                place = (
                    found["mean"]["model"].get(reference or home_reference(metric), {}).get(class_name, {})
                )
                value = place.get(metric, {}).get("mean")
                cells.append(f"  {'-' if value is None else format(value, '.4f'):>18}")
            lines.append(f"{name:<{width}}" + "".join(cells))
    return "\n".join([*lines, *summary["notes"]])
