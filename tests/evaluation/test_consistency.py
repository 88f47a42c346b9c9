"""Wrong results without a word: files of something else, turned axes, a truth in other values."""

import json
import shutil

import numpy as np
import pytest

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.evaluation.apply_threshold import ImageFiles, apply_threshold
from nnunet_softlabel.evaluation.digests import digest_of_scored
from nnunet_softlabel.evaluation.ensemble import Predictions
from nnunet_softlabel.evaluation.run import Scoring, evaluate
from nnunet_softlabel.evaluation.thresholds import Threshold
from nnunet_softlabel.evaluation.tuning import tune_threshold
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.images import read_mask, write_image
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.formats.soft_dataset import SoftDataset

LABELS = {
    "one class": Labels({"lesion": (1,)}),
    "classes": Labels({"a": (1,), "b": (2,)}),
    "regions": Labels({"whole": (1, 2), "core": (2,)}),
}
LOW = Threshold("0.3", {"lesion": 0.3})


def swap(data):
    """The probabilities of two cases change places, as after renaming."""
    first, second = (data.predictions / f"case{i}.npz" for i in (0, 1))
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)


COMMANDS = {
    "evaluate": lambda d, out: evaluate(d.dataset, d.predictions, out, num_processes=1),
    "tune": lambda d, out: tune_threshold(d.dataset, d.predictions, out, num_processes=1),
    "apply": lambda d, out: apply_threshold(
        d.predictions,
        out,
        LOW,
        d.dataset.labels,
        files=ImageFiles(ending=d.dataset.file_ending),
        num_processes=1,
    ),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_probabilities_of_another_case_are_refused(build, tmp_path, command):
    data = build(cases=2)
    swap(data)
    with pytest.raises(
        DatasetError, match=r"case0.nii.gz: differs in \d+ of 2400 voxels from what case0.npz"
    ):
        COMMANDS[command](data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("ending", [".nii.gz", ".png"])
def test_the_segmentation_of_the_same_probabilities_is_accepted(build, tmp_path, labels, ending):
    data = build(labels, cases=2, ending=ending)
    evaluate(data.dataset, data.predictions, tmp_path / "out", num_processes=1)


def test_rounding_of_close_calls_is_no_difference(build, tmp_path):
    data = build(cases=1)
    path = data.predictions / "case0.npz"
    p = np.load(path)["probabilities"]
    p[0], p[1] = np.where(p[1] > 0.4, 0.49996, p[0]), np.where(p[1] > 0.4, 0.50004, p[1])
    np.savez_compressed(path, probabilities=p)
    with pytest.raises(DatasetError, match="1 of 2400 voxels"):  # one voxel with p slightly above 0.4
        _with_one_clear_voxel(data, tmp_path)
    evaluate(data.dataset, data.predictions, tmp_path / "out", num_processes=1)


def _with_one_clear_voxel(data, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(data.predictions, other)
    p = np.load(other / "case0.npz")["probabilities"]
    p[:, 0, 0, 0] = (0.1, 0.9)
    np.savez_compressed(other / "case0.npz", probabilities=p)
    evaluate(data.dataset, other, tmp_path / "x", num_processes=1)


def test_the_reader_of_the_plans_beside_predictions_is_used(build):
    data = build(cases=1)
    assert data.dataset.for_predictions([data.predictions]).reader is None
    (data.predictions / "plans.json").write_text(json.dumps({"image_reader_writer": "NibabelIOWithReorient"}))
    turned = data.dataset.for_predictions([data.predictions])
    assert turned.reader == "NibabelIOWithReorient"
    straight = data.dataset.read_hard("case0")
    np.testing.assert_array_equal(turned.read_hard("case0"), straight[:, ::-1, ::-1])  # LPS to RAS
    np.testing.assert_array_equal(
        turned.read_soft("case0"), data.dataset.read_soft("case0")[:, :, ::-1, ::-1]
    )


@pytest.fixture
def with_truth(build, tmp_path):
    def make(value=1, values=None, **more):
        about = {} if values is None else {"label_values": {str(k): v for k, v in values.items()}}
        data = build(cases=2, about=about)
        for case in ("case0", "case1"):
            array, grid = read_mask(data.dataset.label_file(case))
            path = tmp_path / "truth" / f"{case}.nii.gz"
            path.parent.mkdir(exist_ok=True)
            changed = {name: getattr(grid, name) for name in Grid.__dataclass_fields__} | more
            write_image(path, (array * value).astype(np.asarray(value).dtype), Grid(**changed))
        return data, tmp_path / "truth"

    return make


@pytest.mark.parametrize("value", [np.uint8(255), np.uint8(2), np.float32(0.99999), np.int16(-1)])
def test_a_truth_with_values_that_no_label_has_is_refused(with_truth, tmp_path, value):
    data, truth = with_truth(value)
    with pytest.raises(DatasetError, match=r"case\d.nii.gz: the truth holds the value .* expected 0, 1"):
        evaluate(
            data.dataset, data.predictions, tmp_path / "out", num_processes=1, scoring=Scoring(truth=truth)
        )


def test_a_truth_in_the_values_of_the_raters_is_the_same_truth(with_truth, tmp_path):
    found = []
    for value in (np.uint8(255), np.uint8(1)):
        shutil.rmtree(tmp_path / "Dataset900_Balls", ignore_errors=True)
        shutil.rmtree(tmp_path / "predictions", ignore_errors=True)
        data, truth = with_truth(value, values={0: 0, 255: 1})
        out = tmp_path / f"out{value}"
        found.append(
            evaluate(data.dataset, data.predictions, out, num_processes=1, scoring=Scoring(truth=truth))[
                "mean"
            ]
        )
    assert found[0] == found[1]
    assert found[0]["model"]["truth"]["lesion"]["dice"]["mean"] > 0.8


@pytest.mark.parametrize(
    "geometry", [{"origin": (5.0, 0.0, 0.0)}, {"direction": (-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0)}]
)
def test_a_truth_that_lies_elsewhere_is_refused(with_truth, tmp_path, geometry):
    data, truth = with_truth(np.uint8(1), **geometry)
    with pytest.raises(DatasetError, match="lies elsewhere than the references"):
        evaluate(
            data.dataset, data.predictions, tmp_path / "out", num_processes=1, scoring=Scoring(truth=truth)
        )


def test_a_missing_truth_is_named_before_the_work(with_truth, tmp_path):
    data, truth = with_truth(np.uint8(1))
    (truth / "case1.nii.gz").unlink()
    with pytest.raises(DatasetError, match=r"Case case1: truth .* holds no case1"):
        evaluate(
            data.dataset, data.predictions, tmp_path / "out", num_processes=1, scoring=Scoring(truth=truth)
        )


def test_the_digest_of_scores_changes_with_all_that_is_scored(with_truth, tmp_path):
    data, truth = with_truth(np.uint8(1))
    dataset = SoftDataset(data.dataset.folder)

    def digest(**options):
        options = {"split": "Tr", "truth": truth} | options
        found = Predictions.find(data.predictions, file_ending=".nii.gz")
        return digest_of_scored(dataset, found, ["case0", "case1"], **options)

    first, found = digest(), {digest()}
    assert digest() == first
    found.add(digest(truth=None))
    paths = [data.predictions / "case1.npz", truth / "case0.nii.gz", dataset.label_file("case1")]
    paths += [dataset.soft_files("case0")[0], dataset.rater_files("case1")["bob"]]
    for path in paths:
        kept = path.read_bytes()
        if path.suffix == ".npz":
            np.savez_compressed(path, probabilities=np.zeros((2, 6, 20, 20), np.float32))
        else:
            array, grid = read_mask(path)
            write_image(path, array * 0, grid)
        found.add(digest())
        path.write_bytes(kept)
    assert len(found) == 2 + len(paths)
    assert digest() == first


@pytest.mark.parametrize("reader", [None, "NibabelIOWithReorient"])
def test_a_truth_is_turned_as_the_references_are(with_truth, tmp_path, reader):
    data, truth = with_truth(np.uint8(1))
    straight = evaluate(
        data.dataset, data.predictions, tmp_path / "a", num_processes=1, scoring=Scoring(truth=truth)
    )
    if reader is not None:  # what nnU-Net would have stored with this reader: LPS is turned to RAS
        (data.predictions / "plans.json").write_text(json.dumps({"image_reader_writer": reader}))
        for path in data.predictions.glob("*.npz"):
            p = np.load(path)["probabilities"]
            np.savez_compressed(path, probabilities=p[:, :, ::-1, ::-1])
    turned = evaluate(
        data.dataset, data.predictions, tmp_path / "b", num_processes=1, scoring=Scoring(truth=truth)
    )
    for reference in ("truth", "consensus", "soft"):
        first, second = (found["mean"]["model"][reference]["lesion"] for found in (straight, turned))
        assert second["soft_dice"]["mean"] == pytest.approx(first["soft_dice"]["mean"])
        if reference != "soft":
            assert second["dice"]["mean"] == pytest.approx(first["dice"]["mean"])
