"""What a benchmark found in numbers: ``soft_summary.json``, and the table for the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from nnunet_softlabel.benchmark.grid import BenchmarkGrid
from nnunet_softlabel.benchmark.records import BenchmarkSummary, Difference, TrainerSummary
from nnunet_softlabel.benchmark.refined_rows import Round
from nnunet_softlabel.benchmark.settings import Cell
from nnunet_softlabel.evaluation.case_scores import Row
from nnunet_softlabel.evaluation.comparisons import TRUTH
from nnunet_softlabel.evaluation.tables import SUMMARY_FILE, four_digits, means
from nnunet_softlabel.formats.files import read_json
from nnunet_softlabel.metrics.registry import TITLES
from nnunet_softlabel.public import public
from nnunet_softlabel.report.comparison import PairedDifference, compare_pairs, home_reference
from nnunet_softlabel.report.runs import RunResult
from nnunet_softlabel.report.verdict import Sentence, verdict

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


def sentences_of(
    grid: BenchmarkGrid,
    rows: dict[str, Sequence[Row]],
    pairs: Sequence[tuple[str, str]],
    comparisons: Sequence[PairedDifference],
    *,
    margins: Mapping[str, float] | None,
    primary: Sequence[str] | None,
    iterations: Mapping[str, int] | None = None,
) -> list[Sentence]:
    """The verdict; a known truth decides where there is one, not raters who miss and invent.

    Args:
        grid: says whether there is a truth.
        rows: name of a run -> its rows of ``soft_metrics.csv``.
        pairs: baseline and other, by name.
        comparisons: of these pairs, each metric against its own reference.
        margins: as in `compare_pairs`.
        primary: as there.
        iterations: name of a run -> those of one of its trainings; None if not to be told.
    """
    if grid.scoring.truth is None:
        return verdict(rows, comparisons, iterations=iterations)
    tests = compare_pairs(rows, pairs, reference=TRUTH, margins=margins, primary=primary)
    return verdict(rows, tests, iterations=iterations, to="the known truth")


def iterations_of(every_round: Sequence[Round]) -> dict[str, int]:
    """Name of a run -> iterations of the shortest of its trainings."""
    return {
        name: min(record["epochs"] * record["iterations"] for record in map(own.grid.record_of_done, cells))
        for own in every_round
        for name, cells in own.finished.items()
    }


def shared_settings(grid: BenchmarkGrid, finished: Mapping[str, Sequence[Cell]]) -> dict[str, object]:
    """What all trainers share, and what each has of its own in epochs and iterations.

    Args:
        grid: the benchmark.
        finished: name of a run -> its finished cells.
    """
    made_with = grid.made_with(grid.cells[0])
    of_run = {name: [grid.record_of_done(cell) for cell in cells] for name, cells in finished.items()}
    records = [record for own in of_run.values() for record in own]
    settings: dict[str, object] = {
        "data set": grid.dataset.folder.name,
        "fusion": json.dumps(grid.dataset.about["fusion"]),
        "plans": f"{grid.plans} ({made_with['plans_hash'][:12]})",
    }
    configurations = read_json(grid.plans_file)["configurations"]
    names = list(dict.fromkeys(cell.configuration for cell in grid.cells))
    for name in names:
        network = configurations[name].get("architecture", {}).get("arch_kwargs", {})
        where = f", {name}" if len(names) > 1 else ""
        settings |= {
            f"patch size{where}": configurations[name].get("patch_size"),
            f"batch size{where}": configurations[name].get("batch_size"),
            f"spacing{where}": configurations[name].get("spacing"),
            f"features per stage{where}": network.get("features_per_stage"),
        }
    return settings | {
        "configuration": ", ".join(names),
        "epochs": _of_each({name: [r["epochs"] for r in own] for name, own in of_run.items()}),
        "iterations per epoch": _of_each(
            {name: [r["iterations"] for r in own] for name, own in of_run.items()}
        ),
        "device": _shared(record["device"] for record in records),
        "nnunet_softlabel": _shared(record["made_with"]["code"] for record in records),
    }


def _shared(values: Iterable[object]) -> object:
    """The one value, or all of them."""
    found = list(dict.fromkeys(values))
    return found[0] if len(found) == 1 else found


def _of_each(values: Mapping[str, Sequence[object]]) -> object:
    """The one value of all runs, or run -> its value."""
    found = _shared(value for own in values.values() for value in own)
    return {name: _shared(own) for name, own in values.items()} if isinstance(found, list) else found


def trainer_summaries(runs: Sequence[RunResult]) -> dict[str, TrainerSummary]:
    """Run -> what it cost, and its means."""
    return {run.name: _trainer_summary(run) for run in runs}


def _trainer_summary(run: RunResult) -> TrainerSummary:
    own = {
        "cases": len(run.cases),
        "train_seconds": run.training_seconds,
        "peak_memory_gib": run.peak_memory_gib,
        "threshold": run.threshold,
        **run.settings,
        "mean": means(run.rows),
    }
    return cast(TrainerSummary, own)


def difference_record(test: PairedDifference) -> Difference:
    """A test, for ``soft_summary.json``."""
    return {
        "trainer": test.second,
        "baseline": test.first,
        "class": test.class_name,
        "metric": test.metric,
        "reference": test.reference,
        "difference": _finite(test.difference.mean),
        "low": _finite(test.difference.low),
        "high": _finite(test.difference.high),
        "primary": test.is_primary,
        "p": _finite(test.p_value),
        "p_holm": _finite(test.p_holm),
        "effect_size": _finite(test.effect_size),
        "margin": test.margin,
        "non_inferior": test.non_inferior,
        "dropped": dict(test.dropped),
    }


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


@public
def format_benchmark(folder: Path, *, reference: str | None = None) -> str:
    """The table for the terminal: each metric against its home reference, or all against the one given.

    >>> trainings = ns.benchmark.Trainings(["nnUNetTrainerSoftCE"], folds=[0], plans="nnUNetPlansReduced")
    >>> grid = ns.benchmark.BenchmarkGrid(
    ...     911, "bench", trainings, budget=ns.Budget(epochs=1, iterations=1, device="cpu"))
    >>> outcome = ns.benchmark.benchmark(grid, num_processes=1, log=lambda line: None)
    >>> page = ns.benchmark.report(grid, outcome)
    >>> "SoftCE" in ns.benchmark.format_benchmark("bench")
    True
    """
    summary = cast(BenchmarkSummary, read_json(folder / SUMMARY_FILE))
    lines = []
    if "test" in summary:
        test = summary["test"]
        lines = ["", f"Test set, {test['cases']} cases", *_table(test["trainers"], reference), ""]
        lines += [*test["verdict"], *test["notes"], "", "Validation cases"]
    lines += _table(summary["trainers"], reference)
    return "\n".join([*lines, "", *summary.get("verdict", ()), *summary["notes"]])


def _table(trainers: Mapping[str, TrainerSummary], reference: str | None) -> list[str]:
    lines: list[str] = []
    classes = next(iter(next(iter(trainers.values()))["mean"]["model"].values()))
    width = max(map(len, [*trainers, *classes]))
    widths = {metric: max(len(TITLES[metric]), len("-0.0000")) for metric in TABLE_METRICS}
    for class_name in classes:
        headings = "".join(f"  {TITLES[metric]:>{wide}}" for metric, wide in widths.items())
        lines += ["", f"{class_name:<{width}}{headings}"]
        for name, found in trainers.items():
            cells = []
            for metric, wide in widths.items():
                place = found["mean"]["model"].get(reference or home_reference(metric), {})
                entry = place.get(class_name, {}).get(metric)
                value = None if entry is None else entry["mean"]
                cells.append(f"  {'-' if value is None else four_digits(value):>{wide}}")
            lines.append(f"{name:<{width}}" + "".join(cells))
    return lines
