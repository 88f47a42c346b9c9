"""A known truth as people have it: a folder, a pattern or a table; in any format of raters' files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.cases.label_maps import LabelMap, Reading, on_grid, read_label_map
from nnunet_softlabel.cases.patterns import Pattern
from nnunet_softlabel.cases.table import read_case_table
from nnunet_softlabel.conversion.checks import labels_of
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.formats.channels import ChannelAxis
from nnunet_softlabel.formats.dicom_seg import is_dicom_file
from nnunet_softlabel.formats.file_checks import value_step
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.images import read_mask
from nnunet_softlabel.formats.labels import Values
from nnunet_softlabel.formats.regrid import GridError, Regrid
from nnunet_softlabel.formats.slicer import is_slicer_file
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from nnunet_softlabel.public import public

SEGMENT_ENDINGS = (".seg.nrrd", ".dcm")


@public
@dataclass(frozen=True)
class Truth:
    """Where the files of a truth are, and how they are read.

    Attributes:
        place: a folder of ``CASE<ending>``, a pattern with ``{case}``, or a table with case and mask.
        labels: as ``--labels`` of `convert`, if the files have values of their own.
        regrid: put files on another grid on that of the image; None: they are refused.
        class_axis: "first" or "last": files hold a channel per class, which count from 1 in ``labels``.
    """

    place: Path
    labels: Sequence[str] | None = None
    regrid: Regrid | None = None
    class_axis: ChannelAxis | None = None

    @classmethod
    def of(cls, truth: Path | Truth) -> Truth:
        """A place alone has the usual files."""
        return truth if isinstance(truth, Truth) else cls(truth)

    def __str__(self) -> str:
        return str(self.place)

    def has_segments(self, path: Path) -> bool:
        """Whether classes are apart in a file: segments, or channels."""
        return is_dicom_file(path) or is_slicer_file(path) or self.class_axis is not None

    def file(self, dataset: SoftDataset, case: str) -> Path:
        """The file of a case.

        Raises:
            DatasetError: if there is none, or more than one.
        """
        text = str(self.place)
        if "{case" in text:
            found = [Path(path) for path in Pattern(text, "--truth", ["case"]).filled_files(case=case)]
        elif self.place.is_file():
            table = read_case_table(self.place, needs_images=False)
            found = [
                p for c in table.cases if c.name == case for p in c.raters.values() if isinstance(p, Path)
            ]
        else:
            endings = (dataset.file_ending, *SEGMENT_ENDINGS)
            found = [path for ending in endings if (path := self.place / f"{case}{ending}").is_file()]
        if not found:
            other = "; for other names or formats give a pattern, as in 'truth/{case}.nrrd'"
            raise DatasetError(
                f"Case {case}: --truth {text} holds no {case}{dataset.file_ending} of it"
                f"{other if self.place.is_dir() else ''}."
            )
        if len(found) > 1:
            raise DatasetError(f"Case {case}: --truth {text} holds {found[0]} and {found[1]}; keep one.")
        return found[0]


def read_truth(
    dataset: SoftDataset, truth: Path | Truth, case: str, *, grid: Grid, values: Values
) -> NDArray[Any]:
    """Label map of a known truth, in the data set's own values.

    Args:
        dataset: says how files are read.
        truth: where the files are.
        case: its name.
        grid: of the references, as `read_references` gives it.
        values: of the truth's files -> own values, from `truth_values`.

    Raises:
        DatasetError: for a value that no label has, or another grid.
    """
    truth = Truth.of(truth)
    path = truth.file(dataset, case)
    if truth.has_segments(path):
        reading = Reading(values, class_axis=truth.class_axis)
        with _own_flag():
            label_map = read_label_map(path, dataset.labels, reading, what=str(path))
    else:
        array, own_grid = read_mask(path)
        label_map = LabelMap(_own_values(array, values, path), own_grid)
    try:
        return on_grid(label_map, grid, truth.regrid)[0]
    except GridError as error:
        array = label_map.array
        if array.shape != grid.shape:
            raise DatasetError(
                f"{path}: the truth has shape {array.shape}, the soft label {grid.shape} ({error}); add "
                f"--regrid, or resample it onto the image."
            ) from error
        raise DatasetError(
            f"{path}: the truth lies elsewhere than the references ({error}); add --regrid, resample it onto "
            f"the image, or mend its header."
        ) from error


@contextmanager
def _own_flag() -> Iterator[None]:
    """What is said of labels in raters' files is said of the truth's, which have a flag of their own."""
    try:
        yield
    except (DatasetError, UsageError) as error:
        raise type(error)(str(error).replace("--labels", "--truth-labels")) from error


def _own_values(array: NDArray[Any], values: Values, path: Path) -> NDArray[Any]:
    found = np.unique(array)
    step = min(value_step(path) / 2, 0.25) if array.dtype.kind == "f" else 0.0
    result = np.zeros(array.shape, np.uint16)
    for value in found.tolist():
        whole = round(value) if abs(value - round(value)) <= step else value
        if whole not in values:
            known = sorted(v for v in values if isinstance(v, int))
            raise DatasetError(
                f"{path}: the truth holds the value {value:g}, which no label has; "
                f"expected {', '.join(map(str, known))}."
            )
        result[array == value] = values[whole]
    return result


def truth_values(dataset: SoftDataset, truth: Path | Truth, cases: Sequence[str]) -> Values:
    """Values in the files of a truth -> the data set's own: as said, those of the raters, or the own ones.

    If raters' files used other values than the data set (255 became 1), the truth may use either, in all
    files alike: the raters' if they explain every file, else the own ones.

    Raises:
        DatasetError: if the truth of a case is missing.
        UsageError: for wrong labels.
    """
    truth = Truth.of(truth)
    files = [truth.file(dataset, case) for case in cases]
    if truth.labels is not None:
        with _own_flag():
            return labels_of(dataset.folder, dataset.dataset_json, truth.labels)[1]
    identity = dataset.labels.own_values
    said: Mapping[str, int] = dataset.about.get("label_values", {})
    named: dict[int | str, int] = {name: int(label) for name, label in said.items() if not name.isdigit()}
    of_raters: dict[int | str, int] = {int(v): int(label) for v, label in said.items() if v.isdigit()}
    of_raters = {value: label for value, label in of_raters.items() if label in identity} | {0: 0}
    if named or all(value == label for value, label in of_raters.items()):
        return identity | named
    plain = [path for path in files if not truth.has_segments(path)]
    found: set[float] = set()
    for path in plain:
        found.update(np.unique(read_mask(path)[0]).tolist())
    return of_raters if found <= set(of_raters) or not found <= set(identity) else identity


def truth_of_flags(
    place: Path | None,
    labels: Sequence[str] | None,
    regrid: Regrid | None,
    class_axis: ChannelAxis | None = None,
) -> Truth | None:
    """What the flags of a command say.

    Raises:
        UsageError: for a flag without ``--truth``.
    """
    if place is None and (labels or regrid or class_axis):
        raise UsageError("--truth-labels, --regrid and --class-axis belong to --truth; add it.")
    return None if place is None else Truth(place, labels, regrid, class_axis)
