"""One page per question: another threshold or truth does not replace the page of the first."""

from __future__ import annotations

import os
import re
from pathlib import Path

from nnunet_softlabel.benchmark.grid import BenchmarkGrid
from nnunet_softlabel.benchmark.records import Asked
from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.evaluation.tables import METRICS_FILE, SUMMARY_FILE
from nnunet_softlabel.formats.files import Json, read_json

REPORT_FILE = "report.html"
TEST_METRICS_FILE = "test_metrics.csv"
FILES = (REPORT_FILE, METRICS_FILE, TEST_METRICS_FILE, SUMMARY_FILE)


def asked_of(grid: BenchmarkGrid) -> Asked:
    """What tells one page of a benchmark from another."""
    asked: Asked = {
        "threshold": grid.scoring.threshold,
        "truth": None if grid.scoring.truth is None else str(grid.scoring.truth),
    }
    return {**asked, "test": True} if grid.scoring.test else asked


def keep_earlier_page(grid: BenchmarkGrid) -> list[Path]:
    """Give the page, CSV and JSON of another threshold or truth names that say which; they stay.

    Returns:
        The files under their new names; empty if those that are there answer the same question.
    """
    summary = grid.output / SUMMARY_FILE
    if not summary.is_file():
        return []
    try:
        asked = read_json(summary).get("asked")
    except DatasetError:  # cut off by a full disk of before; it is written again
        return []
    if not isinstance(asked, dict) or asked == asked_of(grid):
        return []
    kept = []
    for name in FILES:
        old = grid.output / name
        if old.is_file():
            new = old.with_stem(f"{old.stem}_{_in_words(asked)}")
            os.replace(old, new)
            kept.append(new)
    return kept


def _in_words(asked: Json) -> str:
    truth = asked.get("truth")
    words = f"threshold_{asked.get('threshold')}" + (f"_truth_{Path(truth).name}" if truth else "")
    words += "_test" if asked.get("test") else ""
    return re.sub(r"[^\w.\-]", "_", words)
