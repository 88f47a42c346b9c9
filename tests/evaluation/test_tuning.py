from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.cases.raters import check_are_no_outputs
from nnunet_softlabel.cli import main
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.evaluation.apply_threshold import ImageFiles, apply_threshold
from nnunet_softlabel.evaluation.run import Scoring, evaluate
from nnunet_softlabel.evaluation.thresholds import Threshold
from nnunet_softlabel.evaluation.tuning import TuningGoal, format_tuned, tune_threshold
from nnunet_softlabel.formats.encoding import channels_of, with_background
from nnunet_softlabel.formats.files import read_json
from nnunet_softlabel.formats.images import read_mask, write_image
from nnunet_softlabel.formats.labels import Labels
from tests.scored_dataset import predict_again


def shrink(data, factor: float) -> None:
    """Make every foreground probability smaller, as a network that learned from raters who miss much."""
    for path in data.predictions.glob("*.npz"):
        p = np.load(path)["probabilities"][1:] * factor
        predict_again(data, path.stem, np.concatenate([1 - p.sum(axis=0, keepdims=True), p]))


def test_tuning_finds_the_low_threshold_that_low_probabilities_need(build, tmp_path):
    data = build()
    shrink(data, 0.5)
    found = tune_threshold(data.dataset, data.predictions, tmp_path / "t.json", num_processes=1)
    assert 0.2 <= found["thresholds"]["lesion"] <= 0.36
    assert json.loads((tmp_path / "t.json").read_text(encoding="utf-8")) == found
    assert found["cases"] == ["case0", "case1", "case2", "case3"]


def test_cases_without_the_class_are_counted_and_told(build, tmp_path):
    data = build()
    for case in ("case0", "case1"):
        empty = np.zeros_like(data.dataset.read_hard(case))
        _, grid = read_mask(data.dataset.folder / "labelsTr" / f"{case}.nii.gz")
        write_image(data.dataset.folder / "labelsTr" / f"{case}.nii.gz", empty, grid)
        p = np.load(data.predictions / f"{case}.npz")["probabilities"]
        predict_again(data, case, np.stack([np.ones_like(p[0]), np.zeros_like(p[0])]))
    found = tune_threshold(data.dataset, data.predictions, tmp_path / "t.json", num_processes=1)
    assert found["cases_without"] == {"lesion": 2}
    assert "lesion: 2 cases without it; such a case counts 1 where nothing is predicted" in format_tuned(
        found
    )
    evaluate(data.dataset, data.predictions, tmp_path / "o", num_processes=1)
    with (tmp_path / "o" / "soft_metrics.csv").open() as file:
        rows = [
            r for r in csv.DictReader(file) if (r["reference"], r["prediction"]) == ("consensus", "model")
        ]
    drawn = [float(row["dice"]) for row in rows if row["dice"] not in ("", "nan")]
    assert len(drawn) == 2
    assert found["score"]["lesion"]["0.5"] == pytest.approx((sum(drawn) + 2) / 4, abs=1e-5)


def test_more_weight_on_recall_lowers_the_threshold(build, tmp_path):
    data = build()
    tuned = [
        tune_threshold(
            data.dataset, data.predictions, tmp_path / f"{b}.json", goal=TuningGoal(beta=b), num_processes=1
        )
        for b in (0.5, 3.0)
    ]
    assert tuned[1]["thresholds"]["lesion"] < tuned[0]["thresholds"]["lesion"]


def test_several_folds_are_tuned_together_and_cases_can_be_chosen(build, tmp_path):
    data = build()
    second = tmp_path / "second"
    second.mkdir()
    for path in data.predictions.glob("case3*"):
        shutil.move(path, second / path.name)
    folders = [data.predictions, second]
    found = tune_threshold(
        data.dataset,
        folders,
        tmp_path / "t.json",
        cases=["case1", "case3"],
        goal=TuningGoal(against="raters"),
        num_processes=1,
    )
    assert found["cases"] == ["case1", "case3"]


def test_tuning_against_the_truth(build, tmp_path):
    data = build()
    truth = data.dataset.folder / "raterLabelsTr" / "eve"  # the one who draws the largest balls
    found = tune_threshold(
        data.dataset,
        data.predictions,
        tmp_path / "t.json",
        goal=TuningGoal(against="truth", truth=truth),
        num_processes=1,
    )
    assert found["thresholds"]["lesion"] < 0.5


def test_a_case_without_the_class_is_right_if_nothing_is_predicted(build, tmp_path):
    data = build(empty=(0, 1, 2, 3))
    found = tune_threshold(data.dataset, data.predictions, tmp_path / "t.json", num_processes=1)
    assert set(found["score"]["lesion"].values()) == {1.0}
    assert found["thresholds"]["lesion"] == 0.5


def test_scores_on_the_tuning_cases_are_refused(build, tmp_path):
    data = build()
    file = data.predictions.parent / "thresholds.json"
    tune_threshold(data.dataset, data.predictions, file, cases=["case0", "case1"], num_processes=1)
    with pytest.raises(UsageError, match="chose it"):
        evaluate(
            data.dataset,
            data.predictions,
            tmp_path / "out",
            scoring=Scoring(threshold="tuned"),
            num_processes=1,
        )
    assert not (tmp_path / "out").exists()
    summary = evaluate(
        data.dataset,
        data.predictions,
        tmp_path / "out",
        scoring=Scoring(threshold="tuned", cases=["case2", "case3"]),
        num_processes=1,
    )
    assert summary["threshold"]["choice"] == "tuned"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"goal": TuningGoal(beta=0)}, UsageError, "beta 0"),
        ({"goal": TuningGoal(beta=-1)}, UsageError, "beta -1"),
        ({"goal": TuningGoal(beta=float("inf"))}, UsageError, "beta inf: must be positive and finite"),
        ({"goal": TuningGoal(against="truth")}, UsageError, "folder of its label maps"),
        ({"cases": ["case9"]}, DatasetError, "Case case9: no prediction"),
    ],
)
def test_wrong_arguments_are_refused(build, tmp_path, arguments, error, message):
    data = build()
    with pytest.raises(error, match=message):
        tune_threshold(data.dataset, data.predictions, tmp_path / "t.json", num_processes=1, **arguments)
    assert not (tmp_path / "t.json").exists()


def test_tuning_against_raters_needs_raters(build, tmp_path):
    data = build(raters=())
    with pytest.raises(DatasetError, match="tune against the consensus"):
        tune_threshold(
            data.dataset,
            data.predictions,
            tmp_path / "t.json",
            goal=TuningGoal(against="raters"),
            num_processes=1,
        )


def test_tuning_overwrites_only_when_asked(build, tmp_path):
    data = build()
    (tmp_path / "t.json").write_text("{}")
    with pytest.raises(UsageError, match=r"pass overwrite=True\."):
        tune_threshold(data.dataset, data.predictions, tmp_path / "t.json", num_processes=1)
    tune_threshold(data.dataset, data.predictions, tmp_path / "t.json", num_processes=1, overwrite=True)


@pytest.mark.parametrize("ending", [".nii.gz", ".png"])
def test_applied_threshold_keeps_the_geometry(build, tmp_path, ending):
    data = build(ending=ending)
    rule = Threshold("0.2", {"lesion": 0.2})
    files = apply_threshold(
        data.predictions,
        tmp_path / "out",
        rule,
        data.dataset.labels,
        files=ImageFiles(ending=ending),
        num_processes=1,
    )
    assert [f.name for f in files] == [f"case{i}{ending}" for i in range(4)]
    hard, grid = read_mask(files[0])
    stock, stock_grid = read_mask(data.predictions / f"case0{ending}")
    assert grid.difference(stock_grid) is None
    assert hard.sum() > stock.sum()
    record = json.loads((tmp_path / "out" / "apply_threshold.json").read_text())
    assert record["threshold"]["values"] == {"lesion": 0.2}
    assert record["predictions"] == [str(data.predictions)]
    with pytest.raises(DatasetError, match=r"rater out is no rater: apply_threshold.json"):
        check_are_no_outputs([Case("case0", [], raters={"out": files[0]})])


def test_half_applied_is_what_nnunet_exported(build, tmp_path):
    labels = Labels({"whole": (1, 2), "core": (2,)})
    data = build(labels)
    rule = Threshold("0.5", dict.fromkeys(labels.names, 0.5))
    images = data.dataset.folder / "imagesTr"
    files = apply_threshold(
        data.predictions,
        tmp_path / "out",
        rule,
        labels,
        files=ImageFiles(ending=".nii.gz", folder=images),
        num_processes=1,
    )
    assert set(np.unique(read_mask(files[0])[0])) == {0, 1, 2}


def test_applying_is_refused_where_it_would_do_harm(build, tmp_path):
    data = build()
    rule, labels = Threshold("0.2", {"lesion": 0.2}), data.dataset.labels
    with pytest.raises(UsageError, match="nnU-Net's own segmentations"):
        apply_threshold(data.predictions, data.predictions, rule, labels, files=ImageFiles(ending=".nii.gz"))
    with pytest.raises(DatasetError, match="Case case0: its geometry"):
        apply_threshold(
            data.predictions,
            tmp_path / "out",
            rule,
            labels,
            files=ImageFiles(ending=".nii.gz", folder=tmp_path),
            num_processes=1,
        )
    assert not (tmp_path / "out").exists()
    for _ in range(2):
        apply_threshold(
            data.predictions,
            tmp_path / "out",
            rule,
            labels,
            files=ImageFiles(ending=".nii.gz"),
            overwrite=True,
            num_processes=1,
        )
    with pytest.raises(UsageError, match=r"pass overwrite=True\."):
        apply_threshold(data.predictions, tmp_path / "out", rule, labels, files=ImageFiles(ending=".nii.gz"))


def test_the_command_prints_score_before_and_after_and_the_number_of_cases(
    build, tmp_path, monkeypatch, capsys
):
    data = build()
    monkeypatch.setenv("nnUNet_raw", str(data.dataset.folder.parent))
    output = tmp_path / "thresholds.json"
    command = ["tune-threshold", "-d", "900", "-i", str(data.predictions), "-o", str(output), "-np", "1"]
    assert main(command) == 0
    found = read_json(output)
    value, score = found["thresholds"]["lesion"], found["score"]["lesion"]
    printed = capsys.readouterr().out
    assert "4 cases, mean Dice before (at 0.5) and after:" in printed
    assert f"lesion: threshold {value:g}, {score['0.5']:.4f} -> {score[str(value)]:.4f}" in printed
    assert "edge" not in printed


def test_a_threshold_at_the_edge_of_the_search_is_warned_of(build, tmp_path):
    data = build()
    for case in data.dataset.cases():
        reference = channels_of(data.dataset.read_hard(case), data.dataset.labels)
        predict_again(data, case, with_background(0.015 + 0.015 * reference.astype(np.float32)))
    found = tune_threshold(data.dataset, data.predictions, tmp_path / "t.json", num_processes=1)
    assert found["thresholds"]["lesion"] == 0.02
    warning = "Warning: lesion: the threshold 0.02 lies at the edge of the search, 0.02 to 0.98"
    assert warning in format_tuned(found)


def test_several_labels_are_said_to_be_tuned_each_alone():
    """In a mask they share voxels, so `evaluate` can give another Dice."""
    found = {"thresholds": {"a": 0.5}, "score": {"a": {"0.5": 0.7}}, "beta": 1.0, "cases": ["x", "y"]}
    assert format_tuned(found).startswith("2 cases, mean Dice before (at 0.5) and after:")
    found = {**found, "thresholds": {"a": 0.5, "b": 0.5}, "score": {n: {"0.5": 0.7} for n in "ab"}}
    assert format_tuned(found).startswith("2 cases, mean Dice of each label alone before (at 0.5) and after:")


def test_the_file_may_lie_in_folders_that_are_not_there_yet(build, tmp_path):
    data = build()
    file = tmp_path / "new" / "deep" / "t.json"
    found = tune_threshold(data.dataset, data.predictions, file, num_processes=1)
    assert read_json(file) == found


def test_without_a_goal_the_score_is_dice_against_the_consensus(build, tmp_path):
    data = build()
    found = [
        tune_threshold(data.dataset, data.predictions, tmp_path / f"{i}.json", goal=goal, num_processes=1)
        for i, goal in enumerate([None, TuningGoal("consensus", beta=1.0)])
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize("against", ["consensus", "raters"])
def test_ignored_voxels_choose_nothing(build, tmp_path, against):
    labels = Labels({"lesion": (1,)}, ignore=2)
    data, scores = build(labels), []
    for number, spoiled in enumerate((False, True)):
        for case in ("case0", "case1", "case2", "case3"):
            label_map, grid = data.dataset.read(data.dataset.label_file(case))
            label_map[:, :5] = 2  # the consensus ignores these rows
            write_image(data.dataset.label_file(case), label_map, grid)
            p = np.load(data.predictions / f"{case}.npz")["probabilities"][1:]
            if spoiled:
                p[:, :, :5] = 0.9
            predict_again(data, case, with_background(p))
        found = tune_threshold(
            data.dataset, data.predictions, tmp_path / f"{number}.json", goal=TuningGoal(against),
            num_processes=1,
        )  # fmt: skip
        scores.append(found["score"])
    assert scores[0] == scores[1]
    assert 0.5 < max(scores[0]["lesion"].values())


def test_voxels_that_one_rater_ignores_are_not_held_against_the_network(build, tmp_path):
    data = build(Labels({"lesion": (1,)}, ignore=2), raters=("ann",))
    for case in ("case0", "case1", "case2", "case3"):
        path = data.dataset.rater_files(case)["ann"]
        label_map, grid = data.dataset.read(path)
        label_map[:, :5] = 2
        write_image(path, label_map, grid)
        p = channels_of(label_map, data.dataset.labels).astype(np.float32) * 0.9
        p[:, :, :5] = 0.9
        predict_again(data, case, with_background(p))
    found = tune_threshold(
        data.dataset, data.predictions, tmp_path / "t.json", goal=TuningGoal("raters"), num_processes=1
    )
    assert found["score"]["lesion"]["0.5"] == 1


def test_a_named_file_of_thresholds_is_heeded_before_one_beside_the_predictions(
    build, tmp_path, monkeypatch, capsys
):
    data = build(cases=2)
    monkeypatch.setenv("nnUNet_raw", str(data.dataset.folder.parent))
    named = tmp_path / "named.json"
    for file, value in ((data.predictions / "thresholds.json", 0.2), (named, 0.6)):
        file.write_text(json.dumps({"thresholds": {"lesion": value}, "cases": ["other"]}))
    flags = ["-d", "900", "-i", str(data.predictions), "-np", "1", "--threshold", "tuned", "-o"]
    assert main(["evaluate", *flags, str(tmp_path / "a")]) == 0
    assert main(["evaluate", *flags, str(tmp_path / "b"), "--threshold-file", str(named)]) == 0
    summaries = [read_json(tmp_path / folder / "soft_summary.json") for folder in "ab"]
    assert [s["threshold"]["values"] for s in summaries] == [{"lesion": 0.2}, {"lesion": 0.6}]
    dice = [s["mean"]["model"]["consensus"]["lesion"]["dice"]["mean"] for s in summaries]
    assert dice[0] != dice[1]
    assert main(["apply-threshold", *flags, str(tmp_path / "c"), "--threshold-file", str(named)]) == 0
    p = np.load(data.predictions / "case1.npz")["probabilities"][1]
    np.testing.assert_array_equal(read_mask(tmp_path / "c" / "case1.nii.gz")[0], p > 0.6)
    assert main(["apply-threshold", *flags, str(tmp_path / "d")]) == 2
    assert "name the file" in capsys.readouterr().err


def test_a_named_file_of_rates_is_heeded_before_those_of_the_data_set(build, tmp_path, monkeypatch):
    own = {"lesion": {"sensitivity": 0.45, "false_positive_rate": 0.05}}
    data = build(cases=2, about={"rater_rates": own})
    monkeypatch.setenv("nnUNet_raw", str(data.dataset.folder.parent))
    named = tmp_path / "rater_rates.json"
    named.write_text(
        json.dumps({"rater_rates": {"lesion": {"sensitivity": 0.9, "false_positive_rate": 0.3}}})
    )
    flags = [
        "evaluate",
        "-d",
        "900",
        "-i",
        str(data.predictions),
        "-np",
        "1",
        "--threshold",
        "rater-corrected",
    ]
    assert main([*flags, "-o", str(tmp_path / "a")]) == 0
    assert main([*flags, "-o", str(tmp_path / "b"), "--threshold-file", str(named)]) == 0
    values = [read_json(tmp_path / f / "soft_summary.json")["threshold"]["values"]["lesion"] for f in "ab"]
    assert values == pytest.approx([0.25, 0.6])


def test_the_search_goes_from_2_to_98_percent_and_scores_what_it_says(build, tmp_path):
    data = build(cases=2)
    goal = TuningGoal("raters", beta=2.0)
    found = tune_threshold(data.dataset, data.predictions, tmp_path / "t.json", goal=goal, num_processes=1)
    assert list(found["score"]["lesion"]) == [str(round(0.02 * k, 2)) for k in range(1, 50)]
    assert (found["beta"], found["against"], found["models_averaged"]) == (2.0, "raters", 1)
    assert (found["dataset"], found["calibration"]) == ("Dataset900_Balls", None)
    expected = []
    for case in ("case0", "case1"):
        p = np.load(data.predictions / f"{case}.npz")["probabilities"][1] > 0.3
        for drawn in data.dataset.read_raters(case).values():
            hits = 5 * (p & (drawn == 1)).sum()
            expected.append(hits / (hits + 4 * (~p & (drawn == 1)).sum() + (p & (drawn != 1)).sum()))
    assert found["score"]["lesion"]["0.3"] == pytest.approx(np.mean(expected), abs=1e-5)
    assert "2 cases, mean F-beta (beta 2) before" in format_tuned(found)


def test_of_equal_thresholds_the_one_nearest_to_one_half_is_taken(build, tmp_path):
    data = build(cases=2)
    for case in data.dataset.cases():
        reference = channels_of(data.dataset.read_hard(case), data.dataset.labels)
        predict_again(data, case, with_background(0.1 + 0.2 * reference.astype(np.float32)))
    found = tune_threshold(data.dataset, data.predictions, tmp_path / "t.json", num_processes=1)
    # 0.3 of lesions and 0.1 elsewhere are told apart from 0.1 to 0.28
    assert found["thresholds"]["lesion"] == 0.28
    assert [t for t, s in found["score"]["lesion"].items() if s == 1][-1] == "0.28"


def test_a_truth_belongs_to_tuning_against_it(build, tmp_path):
    data = build(cases=1)
    with pytest.raises(UsageError, match="belongs to"):
        tune_threshold(
            data.dataset, data.predictions, tmp_path / "t.json", goal=TuningGoal(truth=tmp_path),
            num_processes=1,
        )  # fmt: skip


def test_masks_of_cases_of_an_earlier_run_are_refused(build, tmp_path):
    data, out = build(), tmp_path / "out"
    options = {"files": ImageFiles(".nii.gz"), "num_processes": 1, "overwrite": True}
    apply_threshold(data.predictions, out, 0.4, data.dataset.labels, **options)
    before = {path: path.read_bytes() for path in out.iterdir()}
    for path in data.predictions.glob("case3.*"):
        path.unlink()
    with pytest.raises(UsageError, match=r"case3\.nii\.gz: is no result of this run"):
        apply_threshold(data.predictions, out, 0.6, data.dataset.labels, **options)
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    (out / "case3.nii.gz").unlink()
    assert len(apply_threshold(data.predictions, out, 0.6, data.dataset.labels, **options)) == 3
