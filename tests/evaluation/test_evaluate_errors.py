"""What `evaluate` refuses, with which words, and that it then writes nothing."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.evaluation.apply_threshold import ImageFiles, apply_threshold
from nnunet_softlabel.evaluation.average import average
from nnunet_softlabel.evaluation.calibrate import calibrate
from nnunet_softlabel.evaluation.maps import write_maps
from nnunet_softlabel.evaluation.run import Scoring, evaluate
from nnunet_softlabel.evaluation.tuning import tune_threshold
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.images import read_mask, write_image


def damage_probabilities(data) -> None:
    np.savez_compressed(data.predictions / "case1.npz", probabilities=np.zeros((2, 3, 3, 3)))


def store_nan(data) -> None:
    shape = np.load(data.predictions / "case1.npz")["probabilities"].shape
    np.savez_compressed(data.predictions / "case1.npz", probabilities=np.full(shape, np.nan))


def damage_rater(data) -> None:
    path = data.dataset.rater_files("case1")["bob"]
    write_image(path, *_smaller(path))


def _smaller(path):
    array, grid = read_mask(path)
    return array[:-1], Grid((*grid.size[:2], grid.size[2] - 1), grid.spacing_mm, grid.origin, grid.direction)


BAD = {
    "no folder": (lambda d: shutil.rmtree(d.predictions), "no such folder"),
    "no npz": (
        lambda d: [p.unlink() for p in d.predictions.glob("*.npz")],
        r"segmentations alone, .*--save_probabilities.*_ensemble .* --save_npz.*_evaluate_folder` scores",
    ),
    "nothing": (
        lambda d: [p.unlink() for p in d.predictions.iterdir()],
        r"holds no \.npz probabilities; predict with `nnUNetv2_predict --save_probabilities`",
    ),
    "one npz missing": (
        lambda d: (d.predictions / "case1.npz").unlink(),
        "case case1 has a segmentation but no",
    ),
    "no archive": (lambda d: (d.predictions / "case1.npz").write_bytes(b"no"), "cannot be read"),
    "other shape": (damage_probabilities, "have shape"),
    "nan": (store_nan, r"case1.npz: .*no probabilities \(not a number\); see in the log of its training"),
    "no consensus": (lambda d: d.dataset.label_file("case1").unlink(), "Case case1: its reference"),
    "other rater": (damage_rater, "Case case1: bob has shape"),
}


@pytest.mark.parametrize("damage", BAD)
def test_bad_input_is_named_and_nothing_is_written(build, tmp_path, damage):
    data = build(cases=2)
    act, message = BAD[damage]
    act(data)
    with pytest.raises(DatasetError, match=message):
        evaluate(data.dataset, data.predictions, tmp_path / "out", num_processes=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"split": "Va"}, UsageError, "split: 'Va' is none of 'Tr', 'Ts'"),
        ({"split": "Ts"}, DatasetError, "is it split Tr"),
        ({"cases": ["case7"]}, DatasetError, "Case case7"),
    ],
)
def test_wrong_arguments_are_refused(build, tmp_path, arguments, error, message):
    data = build(cases=2)
    with pytest.raises(error, match=message):
        evaluate(
            data.dataset, data.predictions, tmp_path / "out", num_processes=1, scoring=Scoring(**arguments)
        )


def test_a_case_without_reference_asked_for_by_name_is_refused(build, tmp_path):
    data = build(cases=2)
    for path in data.dataset.soft_files("case1"):
        path.unlink()
    with pytest.raises(DatasetError, match=r"Case case1: .* no reference"):
        evaluate(
            data.dataset,
            data.predictions,
            tmp_path / "out",
            num_processes=1,
            scoring=Scoring(cases=["case1"]),
        )


def test_a_truth_of_another_shape_is_refused(build, tmp_path):
    data = build(cases=2)
    truth = tmp_path / "truth"
    shutil.copytree(data.dataset.folder / "labelsTr", truth)
    path = truth / "case0.nii.gz"
    write_image(path, *_smaller(path))
    with pytest.raises(DatasetError, match="the truth has shape"):
        evaluate(
            data.dataset, data.predictions, tmp_path / "out", num_processes=1, scoring=Scoring(truth=truth)
        )


OTHER_COMMANDS = {
    "apply_threshold": lambda d, out: apply_threshold(
        d.predictions, out, 0.3, d.dataset.labels, files=ImageFiles(".nii.gz"), num_processes=1
    ),
    "average": lambda d, out: average(d.dataset, [d.predictions, d.others], out, num_processes=1),
    "calibrate": lambda d, out: calibrate(d.dataset, d.predictions, out, num_processes=1),
    "write_maps": lambda d, out: write_maps(d.dataset, d.predictions, out, num_processes=1),
    "tune_threshold": lambda d, out: tune_threshold(d.dataset, d.predictions, out, num_processes=1),
}


@pytest.mark.parametrize("command", OTHER_COMMANDS)
def test_probabilities_that_are_no_numbers_are_named_by_every_command(build, tmp_path, command):
    data, others = build(cases=2), tmp_path / "others"
    shutil.copytree(data.predictions, others)
    store_nan(data)
    both = SimpleNamespace(dataset=data.dataset, predictions=data.predictions, others=others)
    with pytest.raises(DatasetError, match=r"predictions.case1.npz: .*\(not a number\)"):
        OTHER_COMMANDS[command](both, tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()
