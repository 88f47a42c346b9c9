"""MSSEG-2016 (MSSEG-1): multiple sclerosis lesions on brain MRI, seven experts, 3D, five sequences.

Tested on a tree built with the set's real names and formats; the data themselves were not at hand. Layout
confirmed by several loaders on GitHub that read Training and Testing, centres, patients and these file
names.

Source: the Shanoir server of Inria, on request (the MICCAI 2016 challenge of OFSEP and France Life Imaging).
Terms: the data user agreement of OFSEP and France Life Imaging (not read here).
Citation: Commowick et al., "Multiple sclerosis lesions segmentation from multiple experts: The MICCAI 2016
    challenge dataset", NeuroImage 244, 2021.

Expected tree:
    SOURCE/Training/Center_01/Patient_01/Preprocessed_Data/FLAIR_preprocessed.nii.gz
                                                           the same with T1, T2, DP, GADO
    SOURCE/Training/Center_01/Patient_01/Masks/ManualSegmentation_1.nii.gz ... _7    (Consensus: unused)
    SOURCE/Testing/...                                     optional: becomes the test set

The preprocessed images are used: they share one grid, the raw sequences do not.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from conversion_cli import build_parser, run

from nnunet_softlabel.cases.case import Case

SEQUENCES = ("FLAIR", "T1", "T2", "DP", "GADO")


def cases(source: Path) -> Iterator[Case]:
    for folder, is_test in (("Training", False), ("Testing", True)):
        for patient in sorted((source / folder).glob("Center_*/Patient_*")):
            raters = {}
            for path in sorted((patient / "Masks").glob("ManualSegmentation_*.nii.gz")):
                match = re.fullmatch(r"ManualSegmentation_(\d+)\.nii\.gz", path.name)
                if match:
                    raters[f"expert{match[1]}"] = path
            # the number of a patient may occur in both folders, so the folder is a part of the name
            yield Case(
                f"{folder}_{patient.parent.name}_{patient.name}",
                [patient / "Preprocessed_Data" / f"{sequence}_preprocessed.nii.gz" for sequence in SEQUENCES],
                raters=raters,
                is_test=is_test,
            )


def main(arguments: Sequence[str] | None = None) -> int:
    args = build_parser(__doc__).parse_args(arguments)
    return run(args, cases(args.source), name="MSSEG2016", labels=["lesion=1"], channel_names=SEQUENCES)


if __name__ == "__main__":
    sys.exit(main())
