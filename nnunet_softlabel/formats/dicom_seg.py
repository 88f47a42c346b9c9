"""DICOM segmentations (DICOM-SEG), read by highdicom: segments by label, frames placed by position.

highdicom is an optional extra: ``pip install 'nnunet-softlabel[dicom]'``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.segments import Segments

PREAMBLE_BYTES = 128
SAME_PLACE_MM = 1e-3
SPACING_TOLERANCE = 1e-2  # of a slice, as highdicom has it


def is_dicom_file(path: Path) -> bool:
    """True for ``.dcm``, and for a file without ending that begins as DICOM does."""
    if path.suffix.lower() == ".dcm":
        return True
    if (path.suffix and not path.suffix[1:].isdigit()) or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(PREAMBLE_BYTES + 4)[PREAMBLE_BYTES:] == b"DICM"


def read_dicom_segments(path: Path) -> Segments:
    """Read the segments of a file; two of one label are one.

    Frames lie where the file says; frames that it leaves out are empty. Where it does not say how far slices
    are apart, the largest step from frame to frame is taken that leads to all of them.

    Raises:
        UsageError: if highdicom is not installed.
        DatasetError: if the file is no segmentation, or holds fractions.
    """
    try:
        import highdicom
        import pydicom
        import pydicom.errors
    except ImportError as error:
        raise UsageError(
            f"{path}: reading DICOM-SEG needs highdicom; pip install 'nnunet-softlabel[dicom]'."
        ) from error
    try:
        content = pydicom.dcmread(path)
        has_slice_spacing = _with_slice_spacing(content)
        file = highdicom.seg.Segmentation.from_dataset(content, copy=False)
        volume = file.get_volume(skip_overlap_checks=True)
    except (OSError, ValueError, RuntimeError, AttributeError, pydicom.errors.InvalidDicomError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]
        raise DatasetError(f"{path}: cannot be read as a DICOM segmentation ({reason}).") from error
    masks: dict[int | str, NDArray[Any]] = {}
    for channel, number in enumerate(file.segment_numbers):
        name = str(file.get_segment_description(number).segment_label)
        values = volume.array[..., channel]
        if values.dtype.kind == "f" and ((values > 0) & (values < 1)).any():
            raise DatasetError(f"{path}: segment {name} holds fractions; save it as a binary segmentation.")
        mask = values != 0
        masks[name] = masks[name] | mask if name in masks else mask
    grid = _grid_of(volume.array.shape[:3], volume.affine)
    return Segments(masks, grid, has_slice_spacing=has_slice_spacing)


def _with_slice_spacing(content: Any) -> bool:
    """Whether a file says how far its slices are apart; where it does not, gets the step between its frames.

    Frames without a slice left out are one thickness apart.
    """
    frames = list(content.get("PerFrameFunctionalGroupsSequence") or [])
    groups = [*(content.get("SharedFunctionalGroupsSequence") or []), *frames]
    measures = [group.PixelMeasuresSequence[0] for group in groups if group.get("PixelMeasuresSequence")]
    orientations = [
        group.PlaneOrientationSequence[0] for group in groups if group.get("PlaneOrientationSequence")
    ]
    if any("SpacingBetweenSlices" in measure for measure in measures):
        return True
    if not (measures and orientations and frames) or any("PlanePositionSequence" not in f for f in frames):
        return True  # highdicom says what is missing
    row, column = np.reshape(np.array(orientations[0].ImageOrientationPatient, float), (2, 3))
    positions = np.array([frame.PlanePositionSequence[0].ImagePositionPatient for frame in frames], float)
    step = _common_step(np.unique((positions @ np.cross(row, column)).round(4)))
    if step is None:
        return False
    for measure in measures:
        measure.SpacingBetweenSlices = f"{step:.10g}"
    thickness = float(measures[0].get("SliceThickness") or 0)
    return abs(thickness - step) <= SPACING_TOLERANCE * step


def _common_step(places: NDArray[Any]) -> float | None:
    """The largest distance of which all gaps are multiples; None for one place, and for gaps at random."""
    gaps = np.diff(places)
    gaps = gaps[gaps > SAME_PLACE_MM]
    if not gaps.size:
        return None
    for divisor in range(1, 31):
        step = gaps.min() / divisor
        if (np.abs(gaps - np.rint(gaps / step) * step) <= SPACING_TOLERANCE * step).all():
            return float(step)
    return None


def _grid_of(shape: tuple[int, ...], affine: NDArray[Any]) -> Grid:
    """The grid of an array ``(slice, row, column)`` whose indices the affine maps to positions."""
    steps = np.asarray(affine)[:3, 2::-1]  # columns: along x, y, z of the grid
    spacing = np.linalg.norm(steps, axis=0)
    return Grid(
        tuple(int(extent) for extent in shape[::-1]),
        tuple(float(mm) for mm in spacing),
        tuple(float(mm) for mm in np.asarray(affine)[:3, 3]),
        tuple(float(cosine) for cosine in (steps / spacing).ravel()),
    )
