"""RIGA+: optic disc and cup on colour photographs of the retina, six ophthalmologists, 2D, regions.

Tested on a tree built with the set's real names and formats; the data themselves were not at hand. Layout
and values (cup 128 inside a rim of 255) confirmed by several domain adaptation projects on GitHub that read
the set (DoCR, ProSFDA, CCSDG) and by one that indexes the archive.

Source: https://zenodo.org/records/6325549 (RIGAPlus.zip; crops of the RIGA photographs around the nerve
    head).
Terms: the Zenodo record says CC BY 4.0, the original RIGA CC BY-NC 4.0: take the stricter.
Citation: Almazroa et al., "Retinal fundus images for glaucoma analysis: the RIGA dataset", SPIE Medical
    Imaging 2018; Hu et al., "Domain Specific Convolution and High Frequency Reconstruction based
    Unsupervised Domain Adaptation for Medical Image Segmentation", MICCAI 2022.

Expected tree:
    SOURCE/RIGA/BinRushed/BinRushed1/image1.tif          also Magrabia, MESSIDOR_Base1 to 3 with Labeled
    SOURCE/RIGA-mask/BinRushed/BinRushed1/image1-1.tif ... image1-6.tif

Photographs without masks (MESSIDOR's Unlabeled) are left out, the split files of the domain adaptation
papers are not used. Patients are not named: nnU-Net's own split, by image. Whether the real TIFF files are
compressed is not known; if so, `pip install imagecodecs`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from conversion_cli import build_parser, required, run

from nnunet_softlabel.cases.case import Case

LABELS = ("disc=128,255", "cup=128")


def cases(source: Path) -> Iterator[Case]:
    for mask in sorted((source / "RIGA-mask").glob("*/*/*.tif")):  # those of images that are not there
        name = re.fullmatch(r"(.+)-\d+", mask.stem)
        if name:
            place = mask.parent.relative_to(source / "RIGA-mask")
            required(source / "RIGA" / place / f"{name[1]}.tif")
    for image in sorted((source / "RIGA").glob("*/*/*.tif")):
        place = image.parent.relative_to(source / "RIGA")
        raters = {}
        for path in sorted((source / "RIGA-mask" / place).glob(f"{image.stem}-*.tif")):
            match = re.fullmatch(re.escape(image.stem) + r"-(\d+)", path.stem)
            if match:
                raters[f"ophthalmologist{match[1]}"] = path
        if raters:
            yield Case("_".join((*place.parts, image.stem)), [image], raters=raters)


def main(arguments: Sequence[str] | None = None) -> int:
    args = build_parser(__doc__).parse_args(arguments)
    return run(args, cases(args.source), name="RIGAPlus", labels=LABELS, channel_names=["R", "G", "B"])


if __name__ == "__main__":
    sys.exit(main())
