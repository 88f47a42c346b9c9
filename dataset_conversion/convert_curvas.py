"""CURVAS 2024: pancreas, kidneys and liver on CT, three radiologists, 3D.

Tested on a tree built with the set's real names and formats; the data themselves were not at hand. Layout
confirmed by the loaders of the projects torch-em and SYCAI-Technologies/curvas-challenge (``training_set``,
file names), and by scripts on GitHub that evaluate ``testing_set`` (label values).

Source: https://zenodo.org/records/12687192 (training set; challenge: https://curvas.grand-challenge.org).
Terms: as stated on Zenodo (not read here); the challenge's code is CC BY-NC-SA.
Citation: Riera-Marín, Kleiß, Aubanell and Antolín, "CURVAS dataset", Zenodo 2024,
    doi:10.5281/zenodo.11147560.

Expected tree:
    SOURCE/training_set/UKCHLL001/image.nii.gz
    SOURCE/training_set/UKCHLL001/annotation_1.nii.gz ... _3      1 pancreas, 2 kidneys, 3 liver
    SOURCE/testing_set/...                                        optional: becomes the test set

One annotation of UKCHLL007 in the testing set is known for a wrong header; the conversion stops there and
names it. Take that file out to go on with the two other raters.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from conversion_cli import build_parser, required, run

from nnunet_softlabel.cases.case import Case

LABELS = ("pancreas=1", "kidney=2", "liver=3")


def cases(source: Path) -> Iterator[Case]:
    for folder, is_test in (("training_set", False), ("testing_set", True)):
        files = [
            *(source / folder).glob("*/image.nii.gz"),
            *(source / folder).glob("*/annotation_*.nii.gz"),
        ]
        for patient in sorted({path.parent for path in files}):
            image, raters = required(patient / "image.nii.gz"), {}
            for path in sorted(image.parent.glob("annotation_*.nii.gz")):
                match = re.fullmatch(r"annotation_(\d+)\.nii\.gz", path.name)
                if match:
                    raters[f"radiologist{match[1]}"] = path
            yield Case(image.parent.name, [image], raters=raters, is_test=is_test)


def main(arguments: Sequence[str] | None = None) -> int:
    args = build_parser(__doc__).parse_args(arguments)
    return run(args, cases(args.source), name="CURVAS", labels=LABELS, channel_names=["CT"])


if __name__ == "__main__":
    sys.exit(main())
