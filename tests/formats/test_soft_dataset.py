from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_softlabel.cases.names import check_case_names
from nnunet_softlabel.cases.recode import recoded
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.formats.encoding import SCALE, consensus, dequantise, quantise, with_background
from nnunet_softlabel.formats.files import read_json, write_json
from nnunet_softlabel.formats.labels import Labels, parse_labels, parse_rater_labels
from nnunet_softlabel.formats.nnunet_folders import environment_folder, find_dataset, missing_model
from nnunet_softlabel.formats.soft_dataset import SoftDataset

CLASSES = ["a=1", "b=2", "c=3"]
REGIONS = ["whole=1,2,3", "core=2,3", "enhancing=3"]


def nnunet_hard_label(probabilities: np.ndarray, labels: Labels) -> np.ndarray:
    described = labels.to_dataset_json()
    manager = LabelManager(described["labels"], described.get("regions_class_order"))
    return manager.convert_probabilities_to_segmentation(torch.from_numpy(probabilities)).numpy()


def votes(num_raters: int, num_channels: int, *, exclusive: bool) -> np.ndarray:
    """Number of votes of each channel at many voxels, ties included."""
    random = np.random.default_rng(num_raters)
    if exclusive:
        return random.multinomial(num_raters, [1 / (num_channels + 1)] * (num_channels + 1), 3000).T[1:]
    return random.integers(0, num_raters + 1, (num_channels, 3000))


@pytest.mark.parametrize("num_raters", range(1, 11))
def test_consensus_of_classes_is_nnunets(num_raters: int) -> None:
    labels, _ = parse_labels(CLASSES)
    counts = votes(num_raters, 3, exclusive=True)
    soft = counts.astype(np.float32) / np.float32(num_raters)
    # whole numbers are exact in float32, so that a tie is a tie in nnU-Net's argmax as well
    exact = np.concatenate([num_raters - counts.sum(axis=0, keepdims=True), counts]).astype(np.float32)
    np.testing.assert_array_equal(consensus(soft, labels), nnunet_hard_label(exact, labels))


@pytest.mark.parametrize("num_raters", range(1, 11))
def test_consensus_of_regions_is_nnunets(num_raters: int) -> None:
    labels, _ = parse_labels(REGIONS)
    soft = votes(num_raters, 3, exclusive=False).astype(np.float32) / np.float32(num_raters)
    np.testing.assert_array_equal(consensus(soft, labels), nnunet_hard_label(soft, labels))


def test_consensus_of_any_probabilities_is_nnunets() -> None:
    labels, _ = parse_labels(CLASSES)
    soft = np.random.default_rng(0).dirichlet(np.ones(4), 5000).T.astype(np.float32)
    np.testing.assert_array_equal(consensus(soft[1:], labels), nnunet_hard_label(soft, labels))


def test_consensus_by_hand() -> None:
    labels, _ = parse_labels(["a=1", "b=2"])
    # background .5 ties with a; a and b tie above background: the first wins; b leads; nobody answered
    soft = np.array([[0.5, 0.4, 0.1, 0.0], [0.0, 0.4, 0.6, 0.0]], np.float32)
    np.testing.assert_array_equal(consensus(soft, labels), [0, 1, 2, 0])


def test_ignored_voxels_get_the_ignore_value() -> None:
    labels, _ = parse_labels(["a=1", "ignore=7"])
    ignored = np.array([False, True])
    np.testing.assert_array_equal(consensus(np.array([[1, 0]], np.float32), labels, ignored), [1, 2])


def test_ignored_voxels_without_ignore_value_are_a_bug_of_the_caller() -> None:
    with pytest.raises(ValueError, match="no ignore value"):
        consensus(np.zeros((1, 2), np.float32), Labels({"a": (1,)}), np.array([True, False]))


@pytest.mark.parametrize("num_raters", range(1, 11))
def test_votes_of_up_to_ten_raters_are_whole_multiples(num_raters: int) -> None:
    soft = np.arange(num_raters + 1, dtype=np.float32) / np.float32(num_raters)
    expected = np.arange(num_raters + 1) * SCALE
    np.testing.assert_array_equal(quantise(soft).astype(int) * num_raters, expected)
    np.testing.assert_allclose(dequantise(quantise(soft)), soft, atol=1e-4)


def test_quantisation_is_near_and_keeps_sums() -> None:
    soft = np.random.default_rng(0).dirichlet(np.ones(4), 5000).T.astype(np.float32)[1:]
    back = dequantise(quantise(soft))
    np.testing.assert_allclose(back, soft, atol=1.6e-5)
    np.testing.assert_allclose(with_background(back).sum(axis=0), 1, atol=1e-6)


def test_ignored_and_padded_voxels_dequantise_to_zero() -> None:
    np.testing.assert_array_equal(dequantise(np.array([-1, 0, SCALE], np.int16)), [0, 0, 1])


def test_label_values_of_raters_become_1_2_3() -> None:
    labels, mapping = parse_labels(["posterior=20", "anterior=10", "ignore=255"])
    assert labels == Labels({"anterior": (1,), "posterior": (2,)}, 3)
    assert mapping == {0: 0, 10: 1, 20: 2, 255: 3}


def test_values_may_be_named_background() -> None:
    labels, mapping = parse_labels(["a=2", "background=7,255"])
    assert mapping == {0: 0, 7: 0, 255: 0, 2: 1}
    assert labels.to_dataset_json() == {"labels": {"background": 0, "a": 1}}
    assert recoded(np.array([0, 7, 2, 255]), mapping, "m").tolist() == [0, 0, 1, 0]
    of_rater = parse_rater_labels(["r:a=255"], labels, mapping)["r"]
    assert of_rater == {0: 0, 7: 0, 255: 1}


def test_regions_keep_their_order() -> None:
    labels, _ = parse_labels(REGIONS)
    assert labels.names == ("whole", "core", "enhancing")
    assert labels.region_order == (1, 2, 3)
    assert labels.to_dataset_json() == {
        "labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3},
        "regions_class_order": [1, 2, 3],
    }


def test_labels_survive_dataset_json() -> None:
    for texts in (CLASSES, REGIONS, ["a=1", "ignore=2"]):
        labels, _ = parse_labels(texts)
        again = Labels.from_dataset_json(json.loads(json.dumps(labels.to_dataset_json())))
        assert (dict(again.values), again.ignore) == (dict(labels.values), labels.ignore)
        if labels.has_regions:
            assert again.region_order == labels.region_order


def test_given_region_order_is_honoured() -> None:
    dataset_json = {
        "labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3]},
        "regions_class_order": [1, 3],
    }
    labels = Labels.from_dataset_json(dataset_json)
    np.testing.assert_array_equal(consensus(np.ones((2, 1), np.float32), labels), [3])


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["nodule="], "--labels nodule=: expected name=value"),
        (["nodule=1,x"], "--labels nodule=1,x: expected name=value"),
        (["no dule"], "--labels no dule: expected name=value"),
        (["1"], "--labels 1: expected name=value"),
        (["a=1", "b=B"], "give numbers for all labels, or names of segments for all"),
        (["a", "ignore=3"], "give numbers for all labels, or names of segments for all"),
        (["a=S", "b=S"], "two names share a value"),
        (["nodule=-1"], "--labels nodule=-1: expected name=value"),
        (["a=1", "a=2"], "the name 'a' is given twice"),
        (["a=0"], "0 is the background"),
        (["background=1"], "0 is the background"),
        (["a=1", "b=1"], "two names share a value"),
        (["ignore=1"], "name at least one foreground label"),
        (["a=1", "ignore=1"], "ignore takes one value of its own"),
        (["a=1", "ignore=2,3"], "ignore takes one value of its own"),
        (["core=2", "whole=1,2"], "every value of region 'core' is in a later region"),
        (["a=70000"], "70000 is too large"),
        (["a=1", "background=1"], "background shares a value with a label"),
        (["a=1", "Ignore=255"], "Ignore would be a label to learn; write ignore in small letters"),
        (["a=1", "BACKGROUND=2"], "BACKGROUND would be a label to learn; write background in small letters"),
    ],
)
def test_wrong_labels_are_refused(texts: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_labels(texts)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a/b"], "path separator"),
        (["a\\b"], "path separator"),
        ([""], "cannot be empty"),
        ([".."], "begin with a dot"),
        (["a", "b", "a"], "Case a: given twice"),
        (["a_seg"], "Case a_seg: nnU-Net takes names that end in _seg"),
    ],
)
def test_wrong_case_names_are_refused(names: list[str], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        check_case_names(names)


def test_json_is_replaced_whole(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": 1})
    write_json(tmp_path / "x.json", {"a": 2}, temporary=tmp_path / "growing")
    assert read_json(tmp_path / "x.json") == {"a": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file"), ("{", "cannot be read as JSON"), ("[]", "holds a list, expected an object")],
)
def test_unreadable_json_is_named(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "x.json").write_text(content)
    with pytest.raises(DatasetError, match=f"x.json: {message}"):
        read_json(tmp_path / "x.json")


def test_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("nnUNet_raw", raising=False)
    with pytest.raises(UsageError, match="nnUNet_raw is not set; export it"):
        environment_folder("nnUNet_raw")


def test_data_set_is_found_by_id_and_name(tmp_path: Path) -> None:
    (tmp_path / "Dataset007_X").mkdir()
    for dataset in (7, "7", "Dataset007_X"):
        assert find_dataset(tmp_path, dataset).name == "Dataset007_X"
    with pytest.raises(UsageError, match="-d 8: no such data set"):
        find_dataset(tmp_path, 8)
    with pytest.raises(UsageError, match="-d X: give the number"):
        find_dataset(tmp_path, "X")
    with pytest.raises(UsageError, match="-d DatasetX: give the number"):
        find_dataset(tmp_path, "DatasetX")
    (tmp_path / "Dataset007_Y").mkdir()
    with pytest.raises(UsageError, match="-d 7: several data sets"):
        find_dataset(tmp_path, 7)


def test_a_missing_data_set_is_an_earlier_step_or_the_list_of_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("raw/Dataset007_X", "preprocessed", "results", "raw/Dataset012_Y"):
        (tmp_path / folder).mkdir(parents=True)
    for folder in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{folder}", str(tmp_path / folder))
    for dataset in (7, "Dataset007_X"):
        with pytest.raises(UsageError, match=r"; plan it first: nnUNetv2_plan_and_preprocess -d 7"):
            find_dataset(tmp_path / "preprocessed", dataset)
        with pytest.raises(UsageError, match=r"; train it first: nnUNetv2_train 7 CONFIGURATION FOLD"):
            find_dataset(tmp_path / "results", dataset)
    with pytest.raises(UsageError, match=r"-d 8: .*raw; there is Dataset007_X, Dataset012_Y"):
        find_dataset(tmp_path / "raw", 8)
    with pytest.raises(UsageError, match=r"-d 8: .*results, which holds none"):
        find_dataset(tmp_path / "results", 8)


def test_a_missing_model_is_told_with_those_that_are_there(tmp_path: Path) -> None:
    model = tmp_path / "nnUNetTrainer__nnUNetPlans__2d"
    assert missing_model("nnUNetTrainer", model).endswith("is not there; train the model first.")
    (tmp_path / "nnUNetTrainer__Small__2d").mkdir()
    choice = "first, or choose with -tr, -p and -c what is there: nnUNetTrainer__Small__2d."
    assert missing_model("nnUNetTrainer", model).endswith(choice)


def test_data_set_without_soft_labels_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "dataset.json", {"labels": {"background": 0, "a": 1}})
    with pytest.raises(DatasetError, match="holds no soft labels; make them with"):
        SoftDataset(tmp_path)


def test_data_set_of_another_format_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "dataset.json", {"labels": {"a": 1}, "soft_labels": {"format_version": 99}})
    with pytest.raises(DatasetError, match="soft-label format 99, this version reads 1"):
        SoftDataset(tmp_path)
