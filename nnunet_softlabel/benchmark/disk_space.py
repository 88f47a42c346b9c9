"""Space that the probabilities of a benchmark will take, before the first training."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from functools import partial

from nnunet_softlabel.benchmark.cell_training import recorded_outcome
from nnunet_softlabel.benchmark.grid import BenchmarkGrid
from nnunet_softlabel.benchmark.held_out import is_predicted
from nnunet_softlabel.benchmark.settings import Cell
from nnunet_softlabel.errors import DatasetError, UsageError

COMPRESSION = 10  # nnU-Net's .npz are at least ten times smaller than float32, where most voxels are certain


def space_problems(grid: BenchmarkGrid) -> Iterator[str]:
    """Too little space for the probabilities even if they compress well."""
    missing = _missing(grid)
    needed = sum(map(partial(_prediction_bytes, grid), missing)) / COMPRESSION
    if grid.scoring.test:
        unpredicted = [cell for cell in grid.cells if cell in missing or not is_predicted(grid, cell)]
        needed += len(unpredicted) * _bytes_of(grid, grid.test_cases, "Ts") / COMPRESSION
    there = next(folder for folder in (grid.output, *grid.output.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        which = "validation and test" if grid.scoring.test else "validation"
        yield (
            f"-o {grid.output}: probabilities of the {which} "
            f"cases take about {needed / 1e9:.1f} GB, "
            f"{free / 1e9:.1f} GB are free there."
        )


def _missing(grid: BenchmarkGrid) -> list[Cell]:
    found = []
    for cell in grid.cells:
        try:
            if recorded_outcome(grid, cell).is_done:
                continue
        except (UsageError, DatasetError):
            pass  # find_problems reports it
        found.append(cell)
    return found


def _prediction_bytes(grid: BenchmarkGrid, cell: Cell) -> float:
    return _bytes_of(grid, grid.validation_cases(cell), "Tr")


def _bytes_of(grid: BenchmarkGrid, cases: Sequence[str], split: str) -> float:
    """Size of the probabilities of cases, uncompressed."""
    there = [case for case in cases[:5] if grid.dataset.label_file(case, split).is_file()]
    sizes = [grid.case_voxels(case, split) for case in there]
    mean = sum(sizes) / len(sizes) if sizes else 0
    return 4 * mean * len(cases) * (len(grid.dataset.labels.names) + 1)
