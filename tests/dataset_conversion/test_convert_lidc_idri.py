import convert_lidc_idri
import numpy as np
import pytest
import SimpleITK
from lidc_files import Outline, draw, fill

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.soft_dataset import SoftDataset

SERIES = "1.3.6.1.4.1.14519.5.2.1.6279.6001.179049373636438705059720603192"
SLICES = 10
HEADER = """<?xml version="1.0" encoding="UTF-8"?>
<LidcReadMessage uid="1.3.6.1.4.1.14519.5.2.1.6279.6001.1307390687803.0" xmlns="http://www.nih.gov"
 xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:schemaLocation="http://www.nih.gov http://troll.rad.med.umich.edu/lidc/LidcReadMessage.xsd">
<ResponseHeader><Version>1.7</Version><SeriesInstanceUid>{series}</SeriesInstanceUid></ResponseHeader>
{sessions}
</LidcReadMessage>
"""


def sop_uid(z):
    return f"1.3.6.1.4.1.14519.5.2.1.6279.6001.1000{z}"


def write_dicom(folder, series=SERIES):
    """Slices as TCIA ships them; the voxel at (z, y, x) holds 100 z + y HU."""
    folder.mkdir(parents=True)
    writer = SimpleITK.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for z in range(SLICES):
        array = (100 * z + np.arange(40)[:, None] + np.zeros((40, 48))).astype(np.int16)
        image = SimpleITK.GetImageFromArray(array[np.newaxis])
        image.SetSpacing((0.7, 0.7, 2.5))
        image.SetOrigin((-10.0, -20.0, -125.0 + 2.5 * z))
        tags = {
            "0008|0060": "CT",
            "0010|0020": "LIDC-IDRI-0001",
            "0008|0018": sop_uid(z),
            "0020|000e": series,
            "0020|000d": "1.2.3.4",
            "0020|0032": f"-10\\-20\\{-125.0 + 2.5 * z}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0028|1052": "0",
            "0028|1053": "1",
        }
        for key, value in tags.items():
            image.SetMetaData(key, value)
        writer.SetFileName(str(folder / f"1-{SLICES - z:03d}.dcm"))  # names run against the position
        writer.Execute(image)


def roi(z, rows, columns, inclusion="TRUE"):
    """A rectangular contour through all its pixels, closed as the readers' tool closed it."""
    top, bottom = rows
    left, right = columns
    points = [(top, x) for x in range(left, right)] + [(y, right) for y in range(top, bottom)]
    points += [(bottom, x) for x in range(right, left, -1)] + [(y, left) for y in range(bottom, top, -1)]
    edges = "".join(
        f"<edgeMap><xCoord>{x}</xCoord><yCoord>{y}</yCoord></edgeMap>" for y, x in [*points, points[0]]
    )
    return (
        f"<roi><imageZposition>{-125.0 + 2.5 * z}</imageZposition><imageSOP_UID>{sop_uid(z)}</imageSOP_UID>"
        f"<inclusion>{inclusion}</inclusion>{edges}</roi>"
    )


def session(*nodules):
    reads = "".join(
        f"<unblindedReadNodule><noduleID>Nodule {i}</noduleID>{''.join(rois)}</unblindedReadNodule>"
        for i, rois in enumerate(nodules)
    )
    return f"<readingSession><annotationVersion>3.12</annotationVersion>{reads}</readingSession>"


SMALL = (
    f"<roi><imageZposition>-105.0</imageZposition><imageSOP_UID>{sop_uid(8)}</imageSOP_UID><inclusion>TRUE</inclusion>"
    "<edgeMap><xCoord>30</xCoord><yCoord>30</yCoord></edgeMap></roi>"
)
SESSIONS = (
    # nodule A: three sessions that overlap; nodule B: session 2 alone; session 4: a mark below 3 mm
    session([roi(4, (9, 15), (9, 15)), roi(5, (9, 15), (9, 15))]),
    session([roi(4, (10, 16), (9, 15))], [roi(7, (29, 33), (39, 43))]),
    session([roi(4, (9, 15), (9, 17)), roi(4, (11, 13), (11, 13), "FALSE")]),
    session([SMALL]),
)


@pytest.fixture
def scan(source):
    folder = source / "LIDC-IDRI" / "LIDC-IDRI-0001" / "01-01-2000-NA-NA-30178" / "3000566.000000-NA-03192"
    write_dicom(folder)
    (folder / "069.xml").write_text(HEADER.format(series=SERIES, sessions="".join(SESSIONS)))
    (source / "LIDC-IDRI" / "radiograph.xml").write_text('<IdriReadMessage xmlns="http://www.nih.gov"/>')
    return source


def test_outlines_that_overlap_are_one_nodule(scan, tools):
    cases = list(convert_lidc_idri.cases(scan))
    assert [case.name for case in cases] == ["LIDC-IDRI-0001_nodule1", "LIDC-IDRI-0001_nodule2"]
    assert {case.group for case in cases} == {"LIDC-IDRI-0001"}
    sizes = [[int(tools.voxels(mask).sum()) for mask in case.raters.values()] for case in cases]
    # inside of a contour from 9 to 15: 5 x 5 on each of two slices; 5 x 7 without 3 x 3; nothing in session 4
    assert sizes == [[50, 25, 26, 0], [0, 9, 0, 0]]


def test_a_silent_session_can_be_missing_instead_of_empty(scan):
    cases = list(convert_lidc_idri.cases(scan, silent="missing"))
    assert [sorted(case.raters) for case in cases] == [["session1", "session2", "session3"], ["session2"]]


def test_masks_lie_where_the_contours_were_drawn(scan, tools, monkeypatch):
    monkeypatch.setattr(convert_lidc_idri, "MARGIN_MM", 2.0)  # so that the crop begins inside the scan
    case = next(convert_lidc_idri.cases(scan))
    image, grid = case.images[0]()
    mask = tools.voxels(case.raters["session1"])
    assert mask.shape == image.shape == (4, 12, 13)  # slices 3 to 6, rows 7 to 18, columns 7 to 19
    # the image holds 100 z + y: contours on slices 4 and 5, inside rows 10 to 14
    assert sorted(set(image[mask > 0].tolist())) == [*range(410, 415), *range(510, 515)]
    first = np.argwhere(mask)[0][::-1]
    position = np.array(grid.origin) + first * np.array(grid.spacing_mm)
    assert position.tolist() == pytest.approx([-10 + 10 * 0.7, -20 + 10 * 0.7, -125 + 4 * 2.5], abs=1e-3)


def test_nodules_of_a_second_scan_are_numbered_on(scan):
    folder = scan / "LIDC-IDRI" / "LIDC-IDRI-0001" / "01-01-2001-NA-NA-1" / "3000001.000000-NA-1"
    write_dicom(folder, series="1.2.3")
    (folder / "070.xml").write_text(HEADER.format(series="1.2.3", sessions=SESSIONS[0]))
    names = [case.name for case in convert_lidc_idri.cases(scan)]
    assert sorted(names) == [f"LIDC-IDRI-0001_nodule{number}" for number in (1, 2, 3)]


def test_lidc_idri_becomes_a_data_set(scan, tools):
    # a second patient makes a split possible
    cases = list(convert_lidc_idri.cases(scan))
    cases[1] = type(cases[1])(cases[1].name, cases[1].images, cases[1].raters, group="LIDC-IDRI-0002")
    folder, content = tools.to_dataset(cases, labels=["nodule=1"], channel_names=["CT"])
    assert content["soft_labels"]["raters"] == ["session1", "session2", "session3", "session4"]
    assert SoftDataset(folder).read_soft("LIDC-IDRI-0001_nodule2").max() == 0.25


def test_a_contour_on_a_missing_slice_is_refused(scan):
    next(scan.rglob("1-005.dcm")).unlink()  # slice 5
    with pytest.raises(DatasetError, match=r"Image .*10005 of a contour is not in its series"):
        list(convert_lidc_idri.cases(scan))


def test_broken_files_are_refused(scan):
    next(scan.rglob("069.xml")).write_text("<LidcReadMessage")
    with pytest.raises(DatasetError, match=r"069\.xml: cannot be read as XML"):
        list(convert_lidc_idri.cases(scan))
    for path in scan.rglob("*.dcm"):
        path.write_bytes(b"no image")
    with pytest.raises(DatasetError, match="no DICOM file"):
        list(convert_lidc_idri.cases(scan))


def test_an_exclusion_is_cut_out_with_its_contour():
    outer = Outline(0, True, (0, 0, 6, 6), (0, 6, 6, 0))
    hole = Outline(0, False, (2, 2, 4, 4, 3, 3, 2, 4), (2, 4, 4, 2, 2, 4, 3, 3))
    whole, cut = fill([outer]), fill([hole, outer])
    assert whole - cut == {(0, row, column) for row in (2, 3, 4) for column in (2, 3, 4)}


def test_a_session_that_drew_nothing_is_an_empty_mask():
    mask = draw([], (slice(1, 3), slice(0, 4), slice(2, 7)))
    assert mask.shape == (2, 4, 5)
    assert not mask.any()


def test_a_series_without_one_of_its_slices_is_refused(scan):
    next(scan.rglob("1-009.dcm")).unlink()  # the second position, on which no contour lies
    with pytest.raises(DatasetError, match=r"slices are 2.5 mm apart, but 5 mm between .* is missing"):
        list(convert_lidc_idri.cases(scan))
