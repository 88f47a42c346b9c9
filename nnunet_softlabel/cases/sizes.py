"""How large cases are, from the headers of their files, and how many processes fit into memory for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.formats.channels import Channel
from nnunet_softlabel.formats.images import voxels_in
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.memory import LargestCase, largest_of, processes_that_fit


def processes_for_cases(cases: Sequence[Case], num_processes: int, labels: Labels, command: str) -> int:
    """At most ``num_processes``, fewer where memory is short for the largest case; then a line is printed.

    Args:
        cases: arrays and functions in place of files have no header, and are passed over.
        num_processes: as asked for.
        labels: of the data set.
        command: that reads the cases, see `PER_VOXEL`.
    """
    files = {case.name: path for case in cases if (path := _a_file_of(case)) is not None}
    name, voxels = largest_of(files, voxels_in)
    raters = max((len(case.raters) for case in cases), default=0)
    largest = LargestCase(name, voxels, len(labels.names), raters)
    return processes_that_fit(num_processes, len(cases), largest, command)


def _a_file_of(case: Case) -> Path | None:
    """The image, or the first file of a rater."""
    for source in (*case.images, *case.raters.values()):
        if isinstance(source, Path):
            return source
        if isinstance(source, Channel):
            return source.path
    return None
