"""BU-BIL data set 1: rat smooth muscle cells in phase contrast microscopy, four experts, 2D.

Tested on the real data (35 images).

Source: Boston University Biomedical Image Library; a copy is in the GitHub project
    tobastin/CS760-Project-Lungs.
Terms: ORIGINAL_README.txt in the data set (the wording of the 4-clause BSD licence; publications must
    cite).
Citation: Gurari et al., "How to Collect Segmentations for Biomedical Images? A Benchmark Evaluating the
    Performance of Experts, Crowdsourced Non-Experts, and Algorithms", WACV 2015.

Expected tree:
    SOURCE/RawImages/B01.png ... B35.png
    SOURCE/ExpertsAnnotations/Person1_Amira/seg_B01.png ...

Persons 1, 3, 4, 5, drawn with Amira: the masks of person 2 are those of the gold standard, and a person's
second mask (ImageJ) is no independent rater. The object is black, also where a third value (24) stands.
Masks come as grey or RGB, one image has a palette, some mask names begin with a capital S. There are no
patients: nnU-Net's own split, by image.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from conversion_cli import build_parser, run

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats import images

PERSONS = (1, 3, 4, 5)


def cases(source: Path) -> Iterator[Case]:
    masks = {
        f"person{person}": masks_of(source / "ExpertsAnnotations" / f"Person{person}_Amira")
        for person in PERSONS
    }
    for image in sorted((source / "RawImages").glob("B*.png")):
        for person, files in masks.items():
            if image.stem not in files:
                raise DatasetError(f"{image}: {person} has no mask seg_{image.stem}.png; add it.")
        yield Case(
            image.stem,
            [partial(read_grey, image)],
            raters={person: partial(read_object, files[image.stem]) for person, files in masks.items()},
        )


def masks_of(folder: Path) -> dict[str, Path]:
    """Image name -> mask, whatever the case of ``seg_``."""
    return {path.stem[len("seg_") :]: path for path in folder.glob("[sS]eg_*.png")}


def read_grey(path: Path) -> np.ndarray:
    """One channel of a grey image, also if it comes as palette or RGB."""
    array, _ = images.read_grey(path)
    return array.astype(np.uint8) if array.dtype == bool else array


def read_object(path: Path) -> np.ndarray:
    """1 where the expert saw the cell, which is drawn dark."""
    return (read_grey(path) < 128).astype(np.uint8)


def main(arguments: Sequence[str] | None = None) -> int:
    args = build_parser(__doc__).parse_args(arguments)
    return run(args, cases(args.source), name="BUBIL", labels=["cell=1"], channel_names=["phase_contrast"])


if __name__ == "__main__":
    sys.exit(main())
