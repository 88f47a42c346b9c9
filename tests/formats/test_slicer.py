"""Slicer's segmentations; files are written by slicerio, Slicer's own package, and by SimpleITK."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.labels import Labels, parse_labels
from nnunet_softlabel.formats.segments import Segments, label_map_of
from nnunet_softlabel.formats.slicer import is_slicer_file, read_segments

SHAPE = (4, 6, 8)


def write_segmentation(
    path: Path,
    segments: list[tuple[str, int, int]],
    layers: np.ndarray,
    origin: tuple[float, ...] = (0.0, 0.0, 0.0),
) -> None:
    """Write layers, ``(layer, z, y, x)``, with segments (name, layer, value), as Slicer writes them."""
    array = np.moveaxis(layers, 0, -1) if len(layers) > 1 else layers[0]
    image = sitk.GetImageFromArray(np.ascontiguousarray(array), isVector=len(layers) > 1)
    image.SetSpacing((1.0, 1.0, 2.0))
    image.SetOrigin(origin)
    image.SetMetaData("Segmentation_MasterRepresentation", "Binary labelmap")
    image.SetMetaData("Segmentation_ReferenceImageExtentOffset", "0 0 0")
    for number, (name, layer, value) in enumerate(segments):
        for key, text in (("ID", f"S_{number}"), ("Name", name), ("Layer", layer), ("LabelValue", value)):
            image.SetMetaData(f"Segment{number}_{key}", str(text))
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path), useCompression=True)


def drawing() -> tuple[np.ndarray, np.ndarray]:
    lesion, bone = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    lesion[1:3, 2:4, 2:4] = True
    bone[1:3, 2:4, 5:8] = True
    return lesion, bone


def test_segments_are_matched_by_name_whatever_their_numbers(tmp_path: Path) -> None:
    lesion, bone = drawing()
    write_segmentation(
        tmp_path / "a.seg.nrrd",
        [("lesion", 0, 1), ("bone", 0, 2)],
        (lesion + 2 * bone).astype(np.uint8)[None],
    )
    write_segmentation(
        tmp_path / "b.seg.nrrd",
        [("bone", 0, 1), ("lesion", 0, 2)],
        (bone + 2 * lesion).astype(np.uint8)[None],
    )
    labels, values = parse_labels(["lesion", "bone"])
    for name in ("a", "b"):
        segments = read_segments(tmp_path / f"{name}.seg.nrrd")
        np.testing.assert_array_equal(label_map_of(segments, labels, values, name), lesion + 2 * bone)


def test_overlapping_layers_become_regions_or_an_error(tmp_path: Path) -> None:
    whole, core = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    whole[1:3, 1:5, 1:6] = True
    core[1:3, 2:4, 2:4] = True
    write_segmentation(
        tmp_path / "a.seg.nrrd", [("Whole", 0, 1), ("Core", 1, 1)], np.stack([whole, core]).astype(np.uint8)
    )
    segments = read_segments(tmp_path / "a.seg.nrrd")
    labels, values = parse_labels(["whole=Whole,Core", "core=Core"])
    np.testing.assert_array_equal(label_map_of(segments, labels, values, "a"), whole.astype(int) + core)
    with pytest.raises(
        DatasetError, match="a: the segments Core, Whole meet in 8 voxels, for which --labels"
    ):
        label_map_of(segments, *parse_labels(["whole=Whole", "core=Core"]), "a")


def test_files_of_slicerio_are_read(tmp_path: Path) -> None:
    slicerio = pytest.importorskip("slicerio")
    lesion, bone = drawing()
    # slicerio's arrays are (i, j, k)
    content = {
        "voxels": (lesion + 2 * bone).astype(np.uint8).transpose(2, 1, 0),
        "ijkToLPS": np.diag([0.5, 0.5, 2.0, 1.0])
        + np.array([[0, 0, 0, 7.0], [0, 0, 0, -3.0], [0, 0, 0, 1.0], [0] * 4]),
        "encoding": "gzip",
        "segments": [
            {"name": "Bone", "labelValue": 2, "layer": 0, "id": "S1"},
            {"name": "Lesion", "labelValue": 1, "layer": 0, "id": "S2"},
        ],
    }
    slicerio.write_segmentation(str(tmp_path / "a.seg.nrrd"), content)
    segments = read_segments(tmp_path / "a.seg.nrrd")
    np.testing.assert_array_equal(segments.masks["Lesion"], lesion)
    np.testing.assert_array_equal(segments.masks["Bone"], bone)
    assert segments.grid.origin == pytest.approx((7, -3, 1))
    assert segments.grid.spacing_mm == pytest.approx((0.5, 0.5, 2))


def test_old_files_have_a_layer_per_segment_and_no_values(tmp_path: Path) -> None:
    lesion, bone = drawing()
    image = sitk.GetImageFromArray(np.stack([lesion, bone], axis=-1).astype(np.uint8), isVector=True)
    for number, name in enumerate(("Lesion", "Bone")):
        image.SetMetaData(f"Segment{number}_Name", name)
    sitk.WriteImage(image, str(tmp_path / "a.seg.nrrd"))
    segments = read_segments(tmp_path / "a.seg.nrrd")
    np.testing.assert_array_equal(segments.masks["Lesion"], lesion)
    np.testing.assert_array_equal(segments.masks["Bone"], bone)


def test_only_headers_with_segments_count(tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(np.zeros(SHAPE, np.uint8))
    sitk.WriteImage(image, str(tmp_path / "plain.nrrd"))
    write_segmentation(tmp_path / "renamed.nrrd", [("a", 0, 1)], np.zeros((1, *SHAPE), np.uint8))
    assert not is_slicer_file(tmp_path / "plain.nrrd")
    assert is_slicer_file(tmp_path / "renamed.nrrd")
    assert not is_slicer_file(tmp_path / "absent.seg.nrrd")


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        ([("a", 0, 1)], "holds the value 2, which no segment of its header has"),
        ([("a", 3, 1)], "segment a is in layer 3 of 1"),
    ],
)
def test_damaged_headers_are_named(tmp_path: Path, segments, message: str) -> None:
    lesion, bone = drawing()
    write_segmentation(tmp_path / "a.seg.nrrd", segments, (lesion + 2 * bone).astype(np.uint8)[None])
    with pytest.raises(DatasetError, match=message):
        read_segments(tmp_path / "a.seg.nrrd")


def test_a_file_that_is_cut_off_is_named(tmp_path: Path) -> None:
    lesion, bone = drawing()
    write_segmentation(tmp_path / "a.seg.nrrd", [("a", 0, 1)], (lesion + bone).astype(np.uint8)[None])
    path = tmp_path / "a.seg.nrrd"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DatasetError, match=r"a\.seg\.nrrd: cannot be read"):
        read_segments(path)


def as_segments(masks: dict) -> Segments:
    from nnunet_softlabel.formats.grid import Grid

    return Segments(
        {key: np.array(mask, bool)[None] for key, mask in masks.items()},
        Grid.flat((1, len(next(iter(masks.values()))))),
    )


def test_a_segment_that_no_label_names_is_an_error_unless_it_is_empty() -> None:
    labels, values = parse_labels(["lesion=Lesion"])
    with pytest.raises(DatasetError, match=r"holds the segment 'Bone', which no --labels .*LABEL=Bone"):
        label_map_of(as_segments({"Lesion": [1, 0, 0, 0], "Bone": [0, 1, 0, 0]}), labels, values, "a")
    found = label_map_of(as_segments({"Lesion": [1, 0, 0, 0], "Bone": [0] * 4}), labels, values, "a")
    assert found.tolist() == [[1, 0, 0, 0]]


def test_numbers_in_labels_leave_segments_to_their_label_names_and_ignore_works() -> None:
    labels, values = parse_labels(["lesion=7", "bone=3", "ignore=9"])
    masks = {"lesion": [1, 0, 0, 0], "bone": [0, 1, 0, 0], "ignore": [0, 0, 1, 0]}
    assert label_map_of(as_segments(masks), labels, values, "a").tolist() == [[2, 1, 3, 0]]


def test_channels_count_from_1_and_the_background_needs_no_name() -> None:
    labels, values = parse_labels(["lesion=2", "bone=3"])
    masks = {1: [0, 0, 1, 1], 2: [1, 0, 0, 0], 3: [0, 1, 0, 0]}
    assert label_map_of(as_segments(masks), labels, values, "a").tolist() == [[1, 2, 0, 0]]
    with pytest.raises(DatasetError, match="holds the channel 1, which no --labels entry names"):
        label_map_of(as_segments(masks | {1: [0, 0, 0, 1]}), labels, values, "a")


def test_a_region_alone_gets_its_own_value_or_is_ambiguous() -> None:
    labels = Labels({"whole": (1, 2), "core": (2,)})
    assert label_map_of(
        as_segments({"whole": [1, 1, 0, 0], "core": [0, 1, 1, 0]}), labels, {}, "a"
    ).tolist() == [[1, 2, 2, 0]]
    split = Labels({"whole": (1, 2), "left": (1,), "right": (2,)})
    with pytest.raises(DatasetError, match="the segments whole meet in 1 voxels"):
        label_map_of(as_segments({"whole": [1, 0, 0, 0]}), split, {}, "a")


def test_a_segment_named_as_the_label_does_not_join_the_one_that_is_named() -> None:
    labels, values = parse_labels(["lesion=Final"])
    segments = as_segments({"Final": [1, 0, 0, 0], "lesion": [0, 1, 0, 0]})
    message = (
        r"the segment 'lesion', which no --labels entry names; the label lesion is the segment Final; name"
    )
    with pytest.raises(DatasetError, match=message):
        label_map_of(segments, labels, values, "a")
    labels, values = parse_labels(["lesion=Final", "background=lesion"])
    assert label_map_of(segments, labels, values, "a").tolist() == [[1, 0, 0, 0]]


def test_more_than_64_segments_are_read() -> None:
    number = 70
    masks = {f"s{i}": np.arange(number) == i for i in range(number)}
    labels, values = parse_labels(list(masks))
    found = label_map_of(as_segments(masks), labels, values, "a")
    assert found.tolist() == [list(range(1, number + 1))]
