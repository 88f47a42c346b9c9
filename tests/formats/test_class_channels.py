"""Channels of classes: all but the background have a label, and the numbers are not shifted by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.channels import Channel
from nnunet_softlabel.formats.class_channels import check_maps, check_masks
from nnunet_softlabel.formats.labels import channels_of_labels, parse_labels

BACKGROUND, LESION, BONE = np.array(
    [[1, 1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 1, 1, 0], [0, 0, 0, 0, 0, 0, 1]], bool
)
CARTILAGE = np.array([1, 0, 0, 0, 0, 0, 0], bool)


def check(masks: list[np.ndarray], *texts: str) -> None:
    check_masks(masks, *parse_labels(texts), "a")


def test_the_background_needs_no_label_in_either_place() -> None:
    check([LESION, BONE, BACKGROUND], "lesion=1", "bone=2")
    check([BACKGROUND, LESION, BONE], "lesion=2", "bone=3")
    check([LESION, BONE], "lesion=1", "bone=2")
    check([LESION, BONE, BONE & False, BACKGROUND], "lesion=1", "bone=2")  # an empty channel is no class


def test_two_channels_without_label_are_refused() -> None:
    masks = [LESION, BONE, CARTILAGE, BACKGROUND & ~CARTILAGE]
    message = r"4 channels, and no --labels entry names the channels 3 and 4; .*name the others \(LABEL=3\)"
    with pytest.raises(DatasetError, match=message):
        check(masks, "lesion=1", "bone=2")
    with pytest.raises(DatasetError, match="no --labels entry names the channels 3"):
        check(masks, "lesion=1", "bone=2", "background=4")
    check(masks, "lesion=1", "bone=2", "cartilage=3")


def test_names_of_segments_name_no_channel() -> None:
    with pytest.raises(DatasetError, match="holds the channel 1, which no --labels entry names"):
        check([LESION | True], "lesion=Lesion")


def test_numbers_that_count_the_background_as_0_are_refused() -> None:
    message = (
        "channel 3 has no label and would be the background, but channel 1 marks more; if channel 1 is the "
        "background, write --labels lesion=2 bone=3; if channel 3 is, add background=3"
    )
    with pytest.raises(DatasetError, match=message):
        check([BACKGROUND, LESION, BONE], "lesion=1", "bone=2")
    with pytest.raises(DatasetError, match="write --labels lesion=2; "):
        check([~LESION, LESION], "lesion=1")


def test_a_background_may_be_small_where_it_is_named_or_comes_first() -> None:
    large = ~BONE & ~LESION
    check([large, LESION, BONE], "organ=1", "lesion=2", "background=3")
    check([BONE, LESION, large], "lesion=2", "organ=3")
    with pytest.raises(
        DatasetError, match="holds the channel 2, background, and it is not just what the other"
    ):
        check([large, LESION], "organ=1", "background=2")


def test_regions_whose_channels_are_nested_the_other_way_are_refused() -> None:
    whole, core, enhancing = BACKGROUND | LESION | BONE, LESION | BONE, BONE
    with pytest.raises(
        DatasetError, match=r"channel 2 lies inside channel 1, but .* as in whole=1,2,3 core=2,3"
    ):
        check([whole, core, enhancing], "WT=1,2,3", "TC=1,3", "ET=3")
    check([whole, core, enhancing], "WT=1,2,3", "TC=2,3", "ET=3")
    check([LESION, BACKGROUND, BONE], "WT=1,2,3", "TC=1,3", "ET=3")  # a channel per value


def test_regions_are_numbered_in_their_order() -> None:
    assert channels_of_labels(*parse_labels(["WT=1,2,3", "TC=1,3", "ET=3"])) == {"WT": 1, "TC": 2, "ET": 3}
    assert channels_of_labels(*parse_labels(["lesion=3", "bone=2"])) == {"bone": 2, "lesion": 3}


def maps(folder: Path, channels: list[np.ndarray]) -> Path:
    path = folder / "a.nii.gz"
    sitk.WriteImage(sitk.JoinSeries([sitk.GetImageFromArray(c[None, None]) for c in channels]), str(path))
    return path


def check_soft(path: Path, *texts: str, scale: float | None = None) -> None:
    labels, values = parse_labels(texts)
    sources = {name: Channel(path, n - 1) for name, n in channels_of_labels(labels, values).items()}
    check_maps(sources, labels, values, scale=scale, what="Case a")


def test_probability_maps_are_checked_by_their_sums(tmp_path: Path) -> None:
    lesion, bone = np.float32([0.1, 0.2, 0.3, 0]), np.float32([0.3, 0.1, 0.1, 0])
    background = 1 - lesion - bone
    check_soft(maps(tmp_path, [background, lesion, bone]), "lesion=2", "bone=3")
    with pytest.raises(DatasetError, match=r"channel 1 marks more; .* write --labels lesion=2 bone=3"):
        check_soft(tmp_path / "a.nii.gz", "lesion=1", "bone=2")
    with pytest.raises(DatasetError, match="no --labels entry names the channels 2 and 3"):
        check_soft(maps(tmp_path, [lesion, bone, background]), "lesion=1")
    with pytest.raises(
        DatasetError, match="holds the channel 2, which no --labels entry names, and it is not"
    ):
        check_soft(maps(tmp_path, [lesion, bone]), "lesion=1")
    with pytest.raises(DatasetError, match="has 2 channels, but --labels names channel 3"):
        check_soft(tmp_path / "a.nii.gz", "lesion=1", "bone=2", "background=3")


def test_rounded_probability_maps_sum_to_nearly_1(tmp_path: Path) -> None:
    third = np.full(4, 33, np.uint8)  # percent: three channels sum to 99
    check_soft(maps(tmp_path, [third, third, third]), "lesion=2", "bone=3", scale=100)


def test_a_file_of_regions_has_a_channel_for_each(tmp_path: Path) -> None:
    channel = np.float32([0.1, 0.2, 0.3, 0])
    check_soft(maps(tmp_path, [channel, channel]), "whole=1,2", "core=2")
    message = r"has 3 channels for 2 regions; store a channel for each region, in the order .*whole 1, core 2"
    with pytest.raises(DatasetError, match=message):
        check_soft(maps(tmp_path, [channel] * 3), "whole=1,2", "core=2")
