"""CURVAS-PDACVI 2025: pancreatic ductal adenocarcinoma on CT, five annotations of each scan, 3D.

Tested on a tree built with the set's real names and formats; the data themselves were not at hand. File names
and the meaning of annotation 1 are confirmed by the challenge's page on its data. The values of PANORAMA are
confirmed by the loader of the project torch-em; the challenge's code of evaluation takes 1 for the tumour.

Source: https://zenodo.org/records/15401568, newer: https://zenodo.org/records/15593628 (training set;
    challenge: https://curvas-pdacvi.grand-challenge.org).
Terms: as stated on Zenodo (not read here); the challenge's code is CC BY-NC-SA.
Citation: Riera-Marín et al., "Assessing Pancreatic Ductal Adenocarcinoma Vascular Invasion: the PDACVI
    Benchmark", arXiv:2604.27582, 2026.

Expected tree (the folders of cases may lie at any depth below SOURCE):
    SOURCE/training_set/CASE/image.nii.gz
    SOURCE/training_set/CASE/annotation_1.nii.gz ... annotation_5.nii.gz      1 tumour
    SOURCE/validation_set/..., SOURCE/testing_set/...                         optional: become the test set

Annotation 1 is that of the PANORAMA challenge, 2 to 5 are those of four radiologists. PANORAMA's own files
hold 1 tumour, 2 veins, 3 arteries, 4 pancreas, 5 pancreatic duct, 6 bile duct: in annotation 1 the values 2
to 6 are taken for background. Any other value is an error. Masks whose axes lie in another order are turned.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from conversion_cli import build_parser, run

from nnunet_softlabel.cases.case import Case, Source
from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.files import visible
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.images import read_mask

LABELS = ("pdac=1",)
PANORAMA_VALUES = range(7)
TEST_FOLDERS = ("testing_set", "test_set", "validation_set")


def cases(source: Path) -> Iterator[Case]:
    for image in visible(source, "**/image.nii.gz"):
        raters: dict[str, Source] = {}
        for path in visible(image.parent, "annotation_*.nii.gz"):
            if match := re.fullmatch(r"annotation_(\d+)\.nii\.gz", path.name):
                is_panorama = match[1] == "1"
                name = "panorama" if is_panorama else f"radiologist{match[1]}"
                raters[name] = partial(read_panorama, path) if is_panorama else path
        is_test = any(part in TEST_FOLDERS for part in image.relative_to(source).parts)
        yield Case(image.parent.name, [image], raters=raters, is_test=is_test)


def read_panorama(path: Path) -> tuple[np.ndarray, Grid]:
    """The tumour of a mask in PANORAMA's values."""
    array, grid = read_mask(path)
    strangers = sorted(set(np.unique(array).tolist()) - set(PANORAMA_VALUES))
    if strangers:
        raise DatasetError(
            f"{path}: holds the value {strangers[0]:g}; PANORAMA's values are 0 to 6, and 1 is the tumour."
        )
    return (array == 1).astype(np.uint8), grid


def main(arguments: Sequence[str] | None = None) -> int:
    args = build_parser(__doc__).parse_args(arguments)
    return run(args, cases(args.source), name="CURVASPDACVI", labels=LABELS, channel_names=["CT"])


if __name__ == "__main__":
    sys.exit(main())
