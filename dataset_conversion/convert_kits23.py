"""KiTS23: kidneys, renal tumours and cysts on CT, up to three annotations of each object, 3D, regions.

Tested on real masks of two cases; their CT was not at hand, and a blank image stands for it. Layout,
label values and the order of merging confirmed by the files and the code of the project neheller/kits23.

Source: https://github.com/neheller/kits23, then ``kits23_download_data`` for the images.
Terms: CC BY-NC-SA 4.0.
Citation: Heller et al., "The KiTS21 Challenge: Automatic segmentation of kidneys, renal tumors, and renal
    cysts in corticomedullary-phase CT", arXiv:2307.01984, 2023.

Expected tree:
    SOURCE/dataset/case_00000/imaging.nii.gz
    SOURCE/dataset/case_00000/instances/kidney_instance-1_annotation-1.nii.gz    also tumor_ and cyst_

Rater k is the k-th annotation of every object of a case, merged as KiTS merges them: kidney, then cyst,
then tumour. Each object was given to annotators of its own, so rater k is no fixed person. Numbers that
some object of a case lacks make no rater there. Cases with a single annotation (those added in 2023) are
dropped, as dataset.json records.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from conversion_cli import build_parser, run

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.conversion.settings import Fusion
from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.images import read_mask

VALUES = {"kidney": 1, "cyst": 3, "tumor": 2}  # in the order of merging: later ones overwrite
FEWEST_RATERS = 2
LABELS = ("kidney_and_mass=1,2,3", "mass=2,3", "tumor=2")


def cases(source: Path) -> Iterator[Case]:
    for folder in sorted((source / "dataset").glob("case_*")):
        objects: dict[tuple[str, str], dict[str, Path]] = {}
        for path in sorted((folder / "instances").glob("*.nii.gz")):
            match = re.fullmatch(r"(kidney|tumor|cyst)_instance-(\d+)_annotation-(\d+)\.nii\.gz", path.name)
            if match:
                objects.setdefault((match[1], match[2]), {})[match[3]] = path
        complete = (
            set.intersection(*(set(annotations) for annotations in objects.values())) if objects else set()
        )
        raters = {
            f"annotation{number}": partial(merge, parts(objects, number)) for number in sorted(complete)
        }
        yield Case(folder.name, [folder / "imaging.nii.gz"], raters=raters)


def with_images(cases: Iterable[Case]) -> Iterator[Case]:
    """The same cases; images lie elsewhere than masks, so one that is needed may not be there yet.

    Raises:
        DatasetError: naming the program that fetches it.
    """
    for case in cases:
        image = case.images[0]
        if len(case.raters) >= FEWEST_RATERS and isinstance(image, Path) and not image.is_file():
            raise DatasetError(
                f"{image}: no such file; `kits23_download_data` of the KiTS23 repository fetches the images."
            )
        yield case


def parts(objects: dict[tuple[str, str], dict[str, Path]], number: str) -> list[tuple[int, Path]]:
    """Value and file of every object in annotation ``number``, in the order of merging."""
    return [
        (value, annotations[number])
        for kind, value in VALUES.items()
        for (own_kind, _), annotations in objects.items()
        if own_kind == kind
    ]


def merge(files: Sequence[tuple[int, Path]]) -> tuple[np.ndarray, Grid]:
    """One label map of several binary masks; later masks overwrite earlier ones."""
    first, grid = read_mask(files[0][1])
    merged = np.zeros(first.shape, dtype=np.uint8)
    for value, path in files:
        mask, own_grid = read_mask(path)
        if difference := grid.difference(own_grid):
            raise DatasetError(f"{path}: is on another grid than {files[0][1].name}: {difference}.")
        merged[mask > 0] = value
    return merged, grid


def main(arguments: Sequence[str] | None = None) -> int:
    args = build_parser(__doc__).parse_args(arguments)
    return run(
        args,
        with_images(cases(args.source)),
        name="KiTS23",
        labels=LABELS,
        channel_names=["CT"],
        fusion=Fusion(has_anonymous_raters=True, min_raters=FEWEST_RATERS, few_raters="drop"),
    )


if __name__ == "__main__":
    sys.exit(main())
