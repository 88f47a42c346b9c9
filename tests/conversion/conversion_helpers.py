"""What the tests of the conversion share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.cli import main
from nnunet_softlabel.conversion.run import convert
from nnunet_softlabel.conversion.settings import Running
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.soft_dataset import SoftDataset

GRID = Grid.upright((2, 3, 4), (2.0, 1.0, 1.0))


def tree(*folders: Path) -> dict[str, bytes]:
    """Every file below, hidden ones too, with its content."""
    return {str(path): path.read_bytes() for base in folders for path in base.rglob("*") if path.is_file()}


def run(*arguments: str) -> int:
    try:
        return main(arguments)
    except SystemExit as stopped:
        return int(stopped.code or 0)


def in_memory_cases(*rater_values: list[int], num_cases: int = 2, **options: Any) -> list[Case]:
    """Cases of 2 x 3 x 4 voxels; each rater gives the first voxels the values listed."""
    raters = {}
    for i, values in enumerate(rater_values, start=1):
        array = np.zeros(GRID.shape, np.uint8)
        array.flat[: len(values)] = values
        raters[str(i)] = array
    image = np.arange(24, dtype=np.int16).reshape(GRID.shape)
    return [Case(f"c{i}", [lambda: (image, GRID)], raters, **options) for i in range(num_cases)]


def converted(
    cases: list[Case], labels: list[str], *, overwrite: bool = False, **options: Any
) -> SoftDataset:
    options = {"channel_names": ["MR"], "running": Running(overwrite=overwrite)} | options
    folder = convert(cases, "Dataset901_T", labels=labels, **options)
    return SoftDataset(folder)
