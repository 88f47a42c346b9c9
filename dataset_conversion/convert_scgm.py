"""SCGM: grey and white matter of the spinal cord on MRI, four sites, four raters, 3D (few thick slices).

Tested on a tree built with the set's real names and formats; the data themselves were not at hand. Layout
and label values confirmed by the curation script for GmSegChallenge2016 of the NeuroPoly group (BIDS
conversion) and by the test files of the project medicaltorch.

Source: the Spinal Cord Grey Matter Segmentation Challenge 2016,
    http://niftyweb.cs.ucl.ac.uk/program.php?p=CHALLENGE (registration).
Terms: license.txt in the download (not read here).
Citation: Prados et al., "Spinal cord grey matter segmentation challenge", NeuroImage 152, 2017.

Expected tree:
    SOURCE/site1-sc01-image.nii.gz                 sites 1 to 4, subjects 01 to 10
    SOURCE/site1-sc01-mask-r1.nii.gz ... -r4       1 grey matter, 2 white matter

Images without any mask (the challenge's test subjects, 11 to 20) are left out. Raters are the same four
persons throughout, one from each site.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from conversion_cli import build_parser, required, run

from nnunet_softlabel.cases.case import Case

LABELS = ("grey_matter=1", "white_matter=2")


def cases(source: Path) -> Iterator[Case]:
    masks = source.glob("site*-sc*-mask-r*.nii.gz")
    for subject in sorted({path.name.partition("-mask-r")[0] for path in masks}):
        image, raters = required(source / f"{subject}-image.nii.gz"), {}
        for path in sorted(source.glob(f"{subject}-mask-r*.nii.gz")):
            match = re.fullmatch(r".*-mask-r(\d+)\.nii\.gz", path.name)
            if match:
                raters[f"rater{match[1]}"] = path
        if raters:
            yield Case(subject, [image], raters=raters)


def main(arguments: Sequence[str] | None = None) -> int:
    args = build_parser(__doc__).parse_args(arguments)
    return run(args, cases(args.source), name="SCGM", labels=LABELS, channel_names=["T2star"])


if __name__ == "__main__":
    sys.exit(main())
