"""QUBIQ 2021: nine binary tasks on MRI and CT, two to seven raters; each task becomes a data set of its own.

Tested on a tree built with the set's real names and formats, and with the real images and masks of
brain-growth in such a tree; the other tasks were not at hand. Layout
confirmed by several projects on GitHub that process the set (openmedlab's description, converters to 2D
slices and manifests); that an image of brain-tumor holds its four sequences along the last axis, by one
script.

Source: https://qubiq21.grand-challenge.org (registration).
Terms: those of the challenge (not read here).
Citation: Li et al., "QUBIQ: Uncertainty Quantification for Biomedical Image Segmentation Challenge",
    arXiv:2405.18435.

Expected tree:
    SOURCE/training_data_v3_QC/kidney/Training/case01/image.nii.gz
    SOURCE/training_data_v3_QC/kidney/Training/case01/task01_seg01.nii.gz ...   or case01_seg01.nii.gz
    SOURCE/training_data_v3_QC/pancreas/case1-1/...                             no folder Training here
    SOURCE/validation_data_qubiq2021_QC/kidney/Validation/...                   optional: the test set

Flat images become volumes of one slice, since PNG cannot hold CT values; nnU-Net then plans its 2d
configuration only. Headers of images and masks are known to differ, so masks are placed by their voxels,
and their shape is checked. case1-1 and case1-2 of the pancreas sets are taken for one patient, as a
precaution.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from conversion_cli import build_parser, required, run

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.errors import UsageError
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.images import read_image

# set -> number of tasks, channel names; the order of brain-tumor's sequences is not stated by the challenge
SETS = {
    "brain-growth": (1, ["MRI"]),
    "brain-tumor": (3, ["MRI1", "MRI2", "MRI3", "MRI4"]),
    "kidney": (1, ["CT"]),
    "pancreas": (1, ["CT"]),
    "pancreatic-lesion": (1, ["CT"]),
    "prostate": (2, ["MRI"]),
}
SLICE_DISTANCE_MM = 999.0  # of volumes with one slice, as nnU-Net's own reader of flat images says


def cases(source: Path, name: str = "kidney", task: int = 1) -> Iterator[Case]:
    if not 1 <= task <= SETS[name][0]:
        raise UsageError(f"--task {task}: {name} has the tasks 1 to {SETS[name][0]}.")
    channels = len(SETS[name][1])
    for pattern, is_test in (("training_data_*", False), ("validation_data_*", True)):
        files = [
            *source.glob(f"{pattern}/{name}/*/*.nii.gz"),
            *source.glob(f"{pattern}/{name}/*/*/*.nii.gz"),
        ]
        for folder in sorted({path.parent for path in files}):
            image = required(folder / "image.nii.gz")
            case, raters = folder.name, {}
            for path in sorted(image.parent.glob("*_seg*.nii.gz")):
                match = re.fullmatch(r"(?:task(\d+)|case.*)_seg(\d+)\.nii\.gz", path.name)
                if match and int(match[1] or 1) == task:
                    raters[f"rater{match[2]}"] = partial(read_volume_mask, path)
            yield Case(
                case,
                [
                    partial(read_volume, image, channel if channels > 1 else None)
                    for channel in range(channels)
                ],
                raters=raters,
                group=case.split("-")[0],
                is_test=is_test,
            )


def read_volume(path: Path, channel: int | None) -> tuple[np.ndarray, Grid]:
    """An image as a volume; ``channel`` picks one of several stacked flat images."""
    array, grid = read_image(path)
    if channel is not None:
        array = array[channel]
    if array.ndim == 3:
        return array, grid
    x_mm, y_mm = grid.spacing_mm[:2]
    return array[np.newaxis], Grid.upright((1, *array.shape), (SLICE_DISTANCE_MM, y_mm, x_mm))


def read_volume_mask(path: Path) -> np.ndarray:
    """A binary mask as a volume, without its header."""
    array = read_image(path)[0]
    return (array if array.ndim == 3 else array[np.newaxis]).astype(bool).astype(np.uint8)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("--set", choices=sorted(SETS), required=True, help="Which of the image sets.")
    parser.add_argument("--task", type=int, default=1, help="Which of its tasks (default 1).")
    args = parser.parse_args(arguments)
    words = args.set.replace("-", "_")
    return run(
        args,
        cases(args.source, args.set, args.task),
        name=f"QUBIQ_{words}_task{args.task}",
        labels=[f"{words}=1"],
        channel_names=SETS[args.set][1],
    )


if __name__ == "__main__":
    sys.exit(main())
