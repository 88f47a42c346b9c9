"""DICOM-SEG files that highdicom makes of a CT series made here."""

from __future__ import annotations

import locale
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.cases.label_maps import Reading, on_grid, read_label_map
from nnunet_softlabel.conversion.run import convert
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.formats.dicom_seg import _common_step, is_dicom_file, read_dicom_segments
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.images import write_image
from nnunet_softlabel.formats.labels import parse_labels
from nnunet_softlabel.formats.regrid import GridError
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from nnunet_softlabel.inspection.read import read_case
from tests.formats.dicom_files import write_dicom as write_on

pytest.importorskip("highdicom")

SHAPE = (6, 8, 10)  # slices, rows, columns
GRID = Grid((10, 8, 6), (0.7, 0.9, 2.5), (-30.0, 12.0, 100.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))


LOCALE = locale.setlocale(locale.LC_ALL)


@pytest.fixture(autouse=True)
def _kept_locale():
    """Writing DICOM sets the C locale, in which later tests could not read their pages."""
    yield
    locale.setlocale(locale.LC_ALL, LOCALE)


def write_dicom(path: Path, masks: dict[str, np.ndarray], kind: str = "BINARY") -> None:
    write_on(path, masks, grid=GRID, kind=kind)


@pytest.fixture
def drawn() -> dict[str, np.ndarray]:
    """A lesion in the slices 1 and 4, and bone: frames in between are left out of the file."""
    lesion, bone = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    lesion[1, 2:5, 3:6] = lesion[4, 2:4, 3:5] = True
    bone[1, 5:7, 6:9] = True
    return {"Lesion": lesion, "Bone": bone}


@pytest.mark.parametrize("order", [("Lesion", "Bone"), ("Bone", "Lesion")])
def test_segments_are_matched_by_label_and_frames_placed_by_position(tmp_path: Path, drawn, order) -> None:
    write_dicom(tmp_path / "a.dcm", {name: drawn[name] for name in order})
    labels, values = parse_labels(["lesion=Lesion", "bone=Bone"])
    label_map = read_label_map(tmp_path / "a.dcm", labels, Reading(values), what="a")
    array, _ = on_grid(label_map, GRID, None)
    np.testing.assert_array_equal(array, drawn["Lesion"] + 2 * drawn["Bone"])


def test_an_image_with_turned_axes_is_met(tmp_path: Path, drawn) -> None:
    write_dicom(tmp_path / "a.dcm", drawn)
    labels, values = parse_labels(["lesion=Lesion", "bone=Bone"])
    flipped = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)  # as dcm2niix stores it
    origin = (-30.0 + 9 * 0.7, 12.0 + 7 * 0.9, 100.0)
    image = Grid(GRID.size, GRID.spacing_mm, origin, flipped)
    label_map = read_label_map(tmp_path / "a.dcm", labels, Reading(values), what="a")
    array, _ = on_grid(label_map, image, None)
    np.testing.assert_array_equal(array[:, ::-1, ::-1], drawn["Lesion"] + 2 * drawn["Bone"])


def test_convert_takes_dicom(tmp_path: Path, drawn, nnunet_folders) -> None:
    write_image(tmp_path / "a.nii.gz", np.zeros(SHAPE, np.int16), GRID)
    write_dicom(tmp_path / "a_1.dcm", drawn)
    write_dicom(tmp_path / "a_2.dcm", {"Bone": drawn["Bone"]})
    raters = {rater: tmp_path / f"a_{rater}.dcm" for rater in "12"}
    cases = [Case("a", [tmp_path / "a.nii.gz"], raters)]
    folder = convert(cases, "Dataset901_T", labels=["lesion=Lesion", "bone=Bone"], channel_names=["CT"])
    soft = SoftDataset(folder).read_soft("a")
    np.testing.assert_array_equal(soft[0], drawn["Lesion"] / 2)
    np.testing.assert_array_equal(soft[1], drawn["Bone"])


def write_without_spacing(path: Path, slices: list[int], thickness: float | None = None) -> np.ndarray:
    """A lesion in some slices alone; the file does not say how far slices are apart."""
    import pydicom

    lesion = np.zeros(SHAPE, bool)
    lesion[slices, 2:5, 3:6] = True
    write_dicom(path, {"Lesion": lesion})
    content = pydicom.dcmread(path)
    measures = content.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    del measures.SpacingBetweenSlices
    if thickness is not None:
        measures.SliceThickness = thickness
    content.save_as(path)
    return lesion


@pytest.mark.parametrize("slices", [[1, 5], [0, 2, 5], [3], [1, 3, 5], [1, 2, 3]], ids=str)
@pytest.mark.parametrize("regrid", [None, "nearest"])
def test_without_slice_spacing_frames_lie_on_the_slices_of_the_image(tmp_path: Path, slices, regrid) -> None:
    lesion = write_without_spacing(tmp_path / "a.dcm", slices)
    label_map = read_label_map(tmp_path / "a.dcm", *lesion_reading(), what="a")
    array, _ = on_grid(label_map, GRID, regrid)
    np.testing.assert_array_equal(array, lesion)


def lesion_reading() -> tuple:
    labels, values = parse_labels(["lesion=Lesion"])
    return labels, Reading(values)


def test_without_slice_spacing_nothing_is_regridded(tmp_path: Path) -> None:
    write_without_spacing(tmp_path / "a.dcm", [1, 5])
    label_map = read_label_map(tmp_path / "a.dcm", *lesion_reading(), what="a")
    assert not label_map.has_slice_spacing
    image = replace(GRID, spacing_mm=(0.7, 0.9, 3.0))
    with pytest.raises(
        GridError, match=r"does not say how far its slices are apart \(SpacingBetweenSlices\)"
    ):
        on_grid(label_map, image, "nearest")


@pytest.mark.parametrize(
    ("places", "step"),
    [
        ([0, 12, 36], 12),
        ([0, 6, 15], 3),
        ([0, 0.0002, 5], 5),
        ([4], None),
        ([0, 1, 1 + (1 + 5**0.5) / 2], None),
    ],
)
def test_the_step_between_frames(places: list[float], step: float | None) -> None:
    found = _common_step(np.array(places, float))
    assert found is None if step is None else found == pytest.approx(step, rel=1e-3)


def test_frames_one_thickness_apart_have_a_spacing(tmp_path: Path) -> None:
    lesion = write_without_spacing(tmp_path / "a.dcm", [1, 2, 3], thickness=2.5)
    label_map = read_label_map(tmp_path / "a.dcm", *lesion_reading(), what="a")
    assert label_map.has_slice_spacing
    image = replace(GRID, spacing_mm=(0.7, 0.9, 1.25), size=(10, 8, 11))
    array, _ = on_grid(label_map, image, "nearest")
    np.testing.assert_array_equal(array[::2], lesion)
    assert array[[3, 5]].any(axis=(1, 2)).all()  # no slice between is left out


def test_inspect_needs_the_image_of_frames_without_slice_spacing(tmp_path: Path) -> None:
    write_without_spacing(tmp_path / "a.dcm", [1, 5])
    write_dicom(tmp_path / "b.dcm", {"Lesion": np.ones(SHAPE)})
    case = Case("a", [], raters={rater: tmp_path / f"{rater}.dcm" for rater in "ab"})
    read = read_case(case, *lesion_reading())
    assert read.raters is not None
    assert list(read.raters.maps) == ["b"]
    assert read.problems[0].endswith("(SpacingBetweenSlices); give the images, too (--images)")
    write_image(tmp_path / "i.nii.gz", np.zeros(SHAPE, np.int16), GRID)
    read = read_case(replace(case, images=[tmp_path / "i.nii.gz"]), *lesion_reading())
    assert read.raters is not None
    assert list(read.raters.maps) == ["a", "b"]


def test_only_dicom_files_count(tmp_path: Path, drawn) -> None:
    write_dicom(tmp_path / "IM0001", drawn)
    assert is_dicom_file(tmp_path / "IM0001")
    assert is_dicom_file(tmp_path / "absent.dcm")
    assert not is_dicom_file(tmp_path / "absent")
    assert not is_dicom_file(tmp_path / "a.nii.gz")


def test_fractions_and_other_files_are_refused(tmp_path: Path, drawn) -> None:
    write_dicom(tmp_path / "a.dcm", {"Lesion": drawn["Lesion"] * 0.5}, "FRACTIONAL")
    with pytest.raises(DatasetError, match="segment Lesion holds fractions"):
        read_dicom_segments(tmp_path / "a.dcm")
    (tmp_path / "b.dcm").write_bytes(b"no DICOM")
    with pytest.raises(DatasetError, match=r"b\.dcm: cannot be read as a DICOM segmentation"):
        read_dicom_segments(tmp_path / "b.dcm")


def test_without_the_extra_the_message_says_what_to_install(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(UsageError, match=r"needs highdicom; pip install 'nnunet-softlabel\[dicom\]'"):
        read_dicom_segments(tmp_path / "a.dcm")
