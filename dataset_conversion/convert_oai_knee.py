"""Bone marrow lesions on knee MRI with bone masks, the case of the paper this project began with, 3D.

Tested on a tree built with names and values as below. Layout not confirmed: the Osteoarthritis Initiative
ships images without such annotations, and the paper's own are not public, so this tree is ours, to be
filled with your raters' masks. The values of the bone masks are those of OAI-ZIB (read in its own notice)
and of the project wooboyeong/Anomaly-Aware-3D-Segmentation, which add patella and bone lesions.

Source: images https://nda.nih.gov/oai (data use agreement); bone masks https://pubdata.zib.de (OAI-ZIB, 507
    knees).
Terms: the data use agreement of the OAI; OAI-ZIB as stated there (not read here).
Citation: Felfeliyan et al., "Weakly Supervised Medical Image Segmentation With Soft Labels and Noise Robust
    Loss", arXiv:2209.08172, 2022; Ambellan et al., "Automated segmentation of knee bone and cartilage
    combining statistical shape knowledge and convolutional neural networks", Medical Image Analysis 52,
    2019.

Expected tree, with subject, visit (months) and side in the name:
    SOURCE/images/9001104_00_RIGHT.nii.gz           fat-suppressed, lesions bright
    SOURCE/raters/RATER/9001104_00_RIGHT.nii.gz     1 lesion; a rater may lack cases
    SOURCE/bones/9001104_00_RIGHT.nii.gz            1 femur, 3 tibia, 5 patella are bone (2, 4, 6 cartilage)

Both knees and all visits of a subject stay on one side of a split. The bone mask is the ROI ``bone``, on the
grid of the image: masks of OAI-ZIB were drawn on DESS and carry no position, so resample them first. Labels
are fused, then fall to 0 within 2 mm outside bone, then follow the image: lesions are brighter than marrow.
``--priors roi`` leaves the image out, ``--priors none`` both.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from conversion_cli import build_parser, run

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.cases.find import find_cases
from nnunet_softlabel.conversion.prior_settings import IntensityPrior, Priors, RoiPrior
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.images import read_mask

BONES = (1, 3, 5)
ROI = RoiPrior(("bone",), margin_mm=2.0)
PRIORS = {"both": Priors(ROI, IntensityPrior("brighter")), "roi": Priors(ROI), "none": Priors()}


def cases(source: Path) -> Iterator[Case]:
    found = find_cases(
        [f"{source}/images/{{case}}.nii.gz"],
        raters=[f"{source}/raters/{{rater}}/{{case}}.nii.gz"],
        rois={"bone": f"{source}/bones/{{case}}.nii.gz"},
    )
    for case in found:
        bone = source / "bones" / f"{case.name}.nii.gz"
        yield replace(case, rois={"bone": partial(read_bone, bone)}, group=case.name.split("_")[0])


def read_bone(path: Path) -> tuple[np.ndarray, Grid]:
    """1 in bone, 0 in cartilage and elsewhere."""
    array, grid = read_mask(path)
    return np.isin(array, BONES).astype(np.uint8), grid


def main(arguments: Sequence[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument(
        "--priors", choices=sorted(PRIORS), default="both", help="Bone, and bone and brightness (default)."
    )
    args = parser.parse_args(arguments)
    return run(
        args,
        cases(args.source),
        name="KneeBML",
        labels=["lesion=1"],
        channel_names=["MRI"],
        priors=PRIORS[args.priors],
    )


if __name__ == "__main__":
    sys.exit(main())
