"""Probabilities read channel by channel decide and fail as those read at once."""

from __future__ import annotations

import shutil
import weakref
from dataclasses import replace

import numpy as np
import pytest

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.evaluation.calibration_file import Calibration
from nnunet_softlabel.evaluation.ensemble import Predictions
from nnunet_softlabel.evaluation.prediction_stream import PredictionStream
from nnunet_softlabel.evaluation.recalibration import AffineMap, recalibrated
from nnunet_softlabel.evaluation.thresholds import Threshold, decide
from nnunet_softlabel.formats import predictions as stored
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.formats.predictions import probability_channels, read_probabilities, write_probabilities
from tests.scored_dataset import predict_again

CLASSES = Labels({"a": (1,), "b": (2,), "c": (3,)})
REGIONS = Labels({"whole": (1, 2), "core": (2,)})
SHAPE = (3, 5, 4)


def write(folder, array, *, name="case", key="probabilities", **options):
    np.savez_compressed(folder / f"{name}.npz", **{key: array}, **options)


def softmax(rng, channels: int) -> np.ndarray:
    p = rng.random((channels, *SHAPE)).astype(np.float32)
    return p / p.sum(axis=0)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("piece", [7, 1 << 20])
def test_channels_are_those_of_the_whole_file(tmp_path, rng, monkeypatch, dtype, piece):
    monkeypatch.setattr(stored, "PIECE", piece)
    for order in ("C", "F"):
        write(tmp_path, np.asarray(softmax(rng, 4).astype(dtype), order=order))
        whole = read_probabilities(tmp_path, "case", CLASSES, SHAPE)
        channels = list(probability_channels(tmp_path, "case", CLASSES, SHAPE))
        np.testing.assert_array_equal(channels, whole)
        assert {c.dtype for c in channels} == {np.dtype(np.float32)}


def test_flat_images_with_an_axis_of_one_are_read_channel_by_channel(tmp_path, rng):
    write(tmp_path, softmax(rng, 4)[:, :1])
    channels = list(probability_channels(tmp_path, "case", CLASSES, SHAPE[1:]))
    np.testing.assert_array_equal(channels, read_probabilities(tmp_path, "case", CLASSES, SHAPE[1:]))


def damaged(rng) -> dict[str, np.ndarray]:
    p = softmax(rng, 4)
    not_a_number, large, unequal = p.copy(), p.copy(), p.copy()
    not_a_number[2, 0, 0, 0], large[1, 0, 0, 0], unequal[3] = np.nan, 1.2, 0.5
    return {"nan": not_a_number, "large": large, "sums": unequal, "shape": p[:3], "text": p.astype(str)}


@pytest.mark.parametrize("kind", ["nan", "large", "sums", "shape", "text"])
def test_what_is_no_prediction_is_refused_in_the_same_words(tmp_path, rng, kind):
    write(tmp_path, damaged(rng)[kind])
    with pytest.raises(DatasetError) as expected:
        read_probabilities(tmp_path, "case", CLASSES, SHAPE)
    with pytest.raises(DatasetError) as found:
        list(probability_channels(tmp_path, "case", CLASSES, SHAPE))
    assert str(found.value) == str(expected.value)


def test_damaged_files_are_refused(tmp_path, rng):
    write(tmp_path, softmax(rng, 4))
    path = tmp_path / "case.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="cannot be read as nnU-Net's probabilities"):
        list(probability_channels(tmp_path, "case", CLASSES, SHAPE))
    write(tmp_path, softmax(rng, 4), key="other")
    with pytest.raises(DatasetError, match="cannot be read as nnU-Net's probabilities"):
        list(probability_channels(tmp_path, "case", CLASSES, SHAPE))


@pytest.mark.parametrize("labels", [None, CLASSES, REGIONS], ids=["one", "classes", "regions"])
@pytest.mark.parametrize("rule", ["stock", "single", "each"])
def test_the_stream_decides_as_the_whole_does(build, labels, rule):
    data = build(labels)
    dataset, names = data.dataset, data.dataset.labels.names
    given = {"stock": 0.5, "single": 0.2, "each": {name: 0.3 - 0.1 * k for k, name in enumerate(names)}}
    threshold = Threshold.of(given[rule], names)
    predictions = Predictions.find(data.predictions, file_ending=dataset.file_ending)
    shape = dataset.read_hard("case0").shape
    stream = PredictionStream(predictions, "case0", dataset, shape, threshold=threshold)
    channels = list(stream.channels())
    whole = np.stack(list(predictions.channels("case0", dataset, shape)))
    np.testing.assert_array_equal(channels, whole if dataset.labels.has_regions else whole[1:])
    np.testing.assert_array_equal(stream.decision(), decide(whole, dataset.labels, threshold))


def test_a_segmentation_of_another_case_is_refused_after_the_last_channel(build):
    data = build()
    predictions = Predictions.find(data.predictions, file_ending=data.dataset.file_ending)
    shape = data.dataset.read_hard("case0").shape
    target, source = (data.predictions / f"{case}{data.dataset.file_ending}" for case in ("case0", "case1"))
    target.write_bytes(source.read_bytes())
    rule = Threshold.of(0.5, ("lesion",))
    stream = PredictionStream(predictions, "case0", data.dataset, shape, threshold=rule)
    with pytest.raises(DatasetError, match="differs in"):
        list(stream.channels())


def test_a_call_too_close_to_make_is_no_other_segmentation(build):
    data = build()
    shape = data.dataset.read_hard("case0").shape
    p = np.full((2, *shape), 0.5, np.float32)
    p[1] += 1e-4
    p[0] -= 1e-4
    predict_again(data, "case0", p)
    write(data.predictions, p[::-1])
    (data.predictions / "case.npz").replace(data.predictions / "case0.npz")
    predictions = Predictions.find(data.predictions, file_ending=data.dataset.file_ending)
    rule = Threshold.of(0.5, ("lesion",))
    stream = PredictionStream(predictions, "case0", data.dataset, shape, threshold=rule)
    assert len(list(stream.channels())) == 1


def second_model(data, tmp_path, rng):
    """Another folder with other probabilities of the same cases."""
    other = tmp_path / "other"
    shutil.copytree(data.predictions, other)
    for case in data.dataset.cases():
        with np.load(other / f"{case}.npz") as content:
            p = content["probabilities"] ** np.float32(rng.uniform(0.7, 1.3))
        p = p if data.dataset.labels.has_regions else p / p.sum(axis=0)
        predict_again(replace(data, predictions=other), case, p.astype(np.float32))
    return other


@pytest.mark.parametrize("labels", [None, CLASSES, REGIONS], ids=["one", "classes", "regions"])
@pytest.mark.parametrize("is_recalibrated", [False, True])
def test_a_mean_of_models_is_to_the_bit_that_of_whole_arrays(build, tmp_path, rng, labels, is_recalibrated):
    data = build(labels)
    dataset, count = data.dataset, len(data.dataset.labels.names)
    folders = [data.predictions, second_model(data, tmp_path, rng)]
    found = Predictions.find(folders, file_ending=dataset.file_ending)
    shape = dataset.read_hard("case0").shape
    first, second = (read_probabilities(f, "case0", dataset.labels, shape) for f in folders)
    expected = (first + second) / np.float32(2)
    if is_recalibrated:
        own = AffineMap(tuple(np.linspace(0.7, 1.2, count)), tuple(np.linspace(-0.3, 0.4, count)))
        found = replace(found, calibration=Calibration(tmp_path / "c.json", "d", own, {}, {}))
        expected = recalibrated(expected, own, has_regions=dataset.labels.has_regions)
    np.testing.assert_array_equal(list(found.channels("case0", dataset, shape)), expected)
    np.testing.assert_array_equal(np.stack(list(found.channels("case0", dataset.labels, shape))), expected)


def test_every_model_of_a_mean_is_held_against_its_segmentation(build, tmp_path, rng):
    data = build()
    folders = [data.predictions, second_model(data, tmp_path, rng)]
    found = Predictions.find(folders, file_ending=data.dataset.file_ending)
    shape = data.dataset.read_hard("case0").shape
    target, source = (folders[1] / f"{case}{data.dataset.file_ending}" for case in ("case0", "case1"))
    target.write_bytes(source.read_bytes())
    with pytest.raises(DatasetError, match=r"other.case0\.nii\.gz: differs in"):
        next(found.channels("case0", data.dataset, shape))


def test_no_channel_is_kept_when_it_is_handed_over(build, tmp_path, rng):
    data = build(CLASSES)
    folders = [data.predictions, second_model(data, tmp_path, rng)]
    shape = data.dataset.read_hard("case0").shape
    for given in (folders[0], folders):
        found = Predictions.find(given, file_ending=data.dataset.file_ending)
        rule = Threshold.of(0.4, CLASSES.names)
        channels = PredictionStream(found, "case0", data.dataset, shape, threshold=rule).channels()
        first = weakref.ref(next(channels))
        assert first() is None


def test_probabilities_written_channel_by_channel_are_those_of_one_array(tmp_path, rng):
    p = softmax(rng, 4)
    write_probabilities(tmp_path / "case.npz", iter(p), p.shape)
    with np.load(tmp_path / "case.npz") as content:
        np.testing.assert_array_equal(content["probabilities"], p)
