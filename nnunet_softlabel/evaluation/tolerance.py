"""How far the raters' outlines lie apart: the tolerance of surface scores."""

from __future__ import annotations

from functools import partial
from itertools import combinations

import numpy as np

from nnunet_softlabel.evaluation.references import References
from nnunet_softlabel.formats.encoding import is_member
from nnunet_softlabel.formats.images import voxels_in
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from nnunet_softlabel.metrics.shapes import Shapes
from nnunet_softlabel.metrics.surface import distances_between, mean_distance_mm
from nnunet_softlabel.processes import for_each_case

TOLERANCE_CASES = 50  # enough for a median; taken evenly from all cases of the split
FEW_VOXELS = 1 << 25  # of raters' masks, which take less than a second: workers take longer to start


def inter_rater_distance(
    dataset: SoftDataset, *, split: str = "Tr", num_processes: int = 2
) -> tuple[float, str]:
    """How far the raters' outlines lie apart: the tolerance within which a model need not be better.

    The median, over pairs of raters, classes and up to 50 cases taken evenly from the split (so that it is
    the same for all models and folds), of the mean distance of their surfaces; never less than the finest
    voxel spacing (median of the cases), below which grids tell no distances apart.

    Returns:
        The distance in mm, and where it comes from in words.
    """
    cases = dataset.cases(split)
    picked = [
        cases[i] for i in np.unique(np.linspace(0, len(cases) - 1, TOLERANCE_CASES).round().astype(int))
    ]
    job = partial(_distances_of_raters, dataset=dataset, split=split)
    voxels = sum(
        voxels_in(dataset.label_file(case, split)) * len(dataset.rater_files(case, split)) for case in picked
    )
    processes = num_processes if voxels > FEW_VOXELS else 1
    found = list(for_each_case(job, picked, processes, title="tolerance"))
    distances = [d for _, case_distances in found for d in case_distances if d == d]
    finest = float(np.median([spacing for spacing, _ in found]))
    if not distances or np.median(distances) < finest:
        return finest, "finest voxel spacing; the raters' distance is " + (
            f"{np.median(distances):.3g} mm" if distances else "unknown"
        )
    return float(np.median(distances)), f"median inter-rater surface distance of {len(picked)} cases"


def _distances_of_raters(case: str, *, dataset: SoftDataset, split: str) -> tuple[float, list[float]]:
    references = References.of(dataset, case, split=split)
    spacing_mm = references.grid.spacing_of_axes_mm
    ignore, shapes = dataset.labels.ignore, Shapes(spacing_mm)
    distances = []
    for (_, one), (_, other) in combinations(references.raters(), 2):
        # as scores do: what one of the two did not answer is cut off from both
        answered = None if ignore is None else (one != ignore) & (other != ignore)
        for values in dataset.labels.values.values():
            pair = [is_member(drawn, values) for drawn in (one, other)]
            surfaces = [shapes.surface(m if answered is None else m & answered) for m in pair]
            distances.append(mean_distance_mm(distances_between(*surfaces)))
    return min(spacing_mm), distances
