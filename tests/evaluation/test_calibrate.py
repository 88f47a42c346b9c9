from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, logit

from nnunet_softlabel.cli import main
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.evaluation.apply_threshold import ImageFiles, apply_threshold
from nnunet_softlabel.evaluation.average import apply_calibration, average
from nnunet_softlabel.evaluation.calibrate import FitTarget, calibrate
from nnunet_softlabel.evaluation.calibrate import _draw as draw
from nnunet_softlabel.evaluation.calibration_file import read_calibration
from nnunet_softlabel.evaluation.calibration_targets import CalibrationTargets
from nnunet_softlabel.evaluation.consistency import stock_threshold
from nnunet_softlabel.evaluation.ensemble import SEARCHED, Predictions
from nnunet_softlabel.evaluation.recalibration import log_odds_of
from nnunet_softlabel.evaluation.run import Scoring, evaluate
from nnunet_softlabel.evaluation.thresholds import Threshold, decide, read_thresholds
from nnunet_softlabel.evaluation.tuning import tune_threshold
from nnunet_softlabel.evaluation.voxel_sample import sample_voxels
from nnunet_softlabel.formats.images import read_mask, write_image
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.formats.probability_maps import write_probability

REGIONS = Labels({"whole": (1, 2), "core": (2,)})
CLASSES = Labels({"outer": (1,), "inner": (2,)})


def sharpen(predictions, factor: float = 3.0) -> None:
    """Make probabilities overconfident, as stock networks are: log-odds times a factor."""
    for path in predictions.glob("*.npz"):
        p = np.load(path)["probabilities"].astype(np.float64)
        if p.shape[0] == 2 and np.allclose(p.sum(axis=0), 1):
            p[1] = expit(factor * logit(np.clip(p[1], 1e-9, 1 - 1e-9)))
            p[0] = 1 - p[1]
        np.savez_compressed(path, probabilities=p.astype(np.float32))


def into_folds(data, tmp_path, n: int = 2):
    """The predictions as validation folders of several folds below one model."""
    folders = []
    for fold in range(n):
        folder = tmp_path / "model" / f"fold_{fold}" / "validation"
        folder.mkdir(parents=True)
        for path in sorted(data.predictions.iterdir()):
            if int(path.name[4]) % n == fold:
                shutil.copy(path, folder / path.name)
        folders.append(folder)
    return folders


@pytest.fixture
def folds(build, tmp_path):
    """A data set of eight cases, and overconfident predictions in two folds."""
    data = build(cases=8)
    sharpen(data.predictions)
    return data, into_folds(data, tmp_path)


def test_overconfident_probabilities_are_flattened_and_the_file_says_what_it_saw(folds, tmp_path):
    data, folders = folds
    file = tmp_path / "model" / "calibration.json"
    found = calibrate(data.dataset, folders, file, method="affine", num_processes=1)
    assert found["written"]
    assert 0.2 < found["all"]["scale"][0] < 0.8
    scores = found["scores"]["lesion"]
    assert scores["nll_near"]["after"] < scores["nll_near"]["before"]
    assert scores["brier_near"]["after"] < scores["brier_near"]["before"]
    stored = json.loads(file.read_text(encoding="utf-8"))
    assert [part["cases"] for part in stored["parts"].values()] == [
        ["case0", "case2", "case4", "case6"],
        ["case1", "case3", "case5", "case7"],
    ]


def test_the_scores_are_those_of_evaluate(folds, tmp_path):
    data, folders = folds
    file = tmp_path / "model" / "calibration.json"
    scores = calibrate(data.dataset, folders, file, num_processes=1)["scores"]["lesion"]
    for state, calibration in (("before", None), ("after", SEARCHED)):
        summary = evaluate(
            data.dataset, folders, tmp_path / state, scoring=Scoring(calibration=calibration), num_processes=1
        )
        means = summary["mean"]["model"]["soft"]["lesion"]
        for metric, pair in scores.items():
            assert means[metric]["mean"] == pytest.approx(pair[state], abs=1e-6), metric
    assert summary["calibration"]["file"] == str(file)


def test_a_fold_is_recalibrated_by_the_other_folds_alone(folds, tmp_path):
    data, folders = folds
    file = tmp_path / "c.json"
    calibrate(data.dataset, folders, file, method="affine", num_processes=1)
    first = read_calibration(file, data.dataset.labels)
    sharpen(folders[0], 1.5)  # another network in fold 0 must not change fold 0's map
    calibrate(data.dataset, folders, file, method="affine", num_processes=1, overwrite=True)
    second = read_calibration(file, data.dataset.labels)
    assert second.map_for("case0") == first.map_for("case0")
    assert second.map_for("case1") != first.map_for("case1")
    assert second.map_for("new") == second.of_all != first.of_all


def test_a_single_fold_is_cut_by_patient(build, tmp_path):
    groups = {f"case{i}": f"patient{i // 2}" for i in range(8)}
    data = build(cases=8, about={"groups": groups})
    sharpen(data.predictions)
    found = calibrate(data.dataset, data.predictions, tmp_path / "c.json", num_processes=1)
    assert len(found["parts"]) == 4  # patients
    for part in found["parts"].values():
        assert len({groups[case] for case in part["cases"]}) == 1


@pytest.mark.parametrize("labels", [Labels({"lesion": (1,)}), CLASSES, REGIONS])
@pytest.mark.parametrize("most", [300, 10**6])
def test_voxels_are_drawn_channel_by_channel_as_from_whole_arrays(build, labels, most):
    data = build(labels=labels)
    case, names = data.dataset.cases()[1], data.dataset.labels
    found = Predictions.find([data.predictions], file_ending=".nii.gz")
    targets = CalibrationTargets(data.dataset, "Tr", "soft")
    drawn = draw(case, predictions=found, references=targets, most=most)
    soft = data.dataset.read_soft(case)
    p = np.stack(list(found.channels(case, data.dataset, soft.shape[1:])))
    whole = sample_voxels(
        log_odds_of(p, has_regions=names.has_regions),
        soft,
        most=most,
        rng=np.random.default_rng([ord(letter) for letter in case]),
        has_regions=names.has_regions,
    )
    for part in ("log_odds", "target", "weight"):
        np.testing.assert_array_equal(getattr(drawn, part), getattr(whole, part))
    assert drawn.volume == pytest.approx(whole.volume)


def test_a_map_that_does_not_help_is_not_written(build, tmp_path):
    data = build(cases=4)
    for path in data.predictions.glob("*.npz"):  # already as good as can be
        case = path.stem
        soft = data.dataset.read_soft(case)
        np.savez_compressed(path, probabilities=np.concatenate([1 - soft, soft]))
        path.with_name(f"{case}.nii.gz").unlink()  # its segmentation was of the blurred label
    file = tmp_path / "c.json"
    file.write_text("{}")
    found = calibrate(data.dataset, data.predictions, file, num_processes=1, overwrite=True)
    assert not found["written"]
    assert "does not help" in found["why"]
    assert not file.exists()
    assert found["removed"]
    again = calibrate(data.dataset, data.predictions, file, num_processes=1)
    assert not again["removed"]


def test_networks_that_predict_nothing_at_all_are_refused_in_one_line(build, tmp_path):
    data = build(cases=4)
    for path in data.predictions.glob("*.npz"):
        with np.load(path) as stored:
            nothing = np.zeros_like(stored["probabilities"])
        nothing[0] = 1
        np.savez_compressed(path, probabilities=nothing)
        path.with_suffix("").with_suffix(".nii.gz").unlink()
    with pytest.raises(DatasetError, match="no voxel there has a probability other than 0"):
        calibrate(data.dataset, data.predictions, tmp_path / "c.json", num_processes=1)
    assert not (tmp_path / "c.json").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf, 1.2])
def test_values_that_are_no_probabilities_are_refused(folds, tmp_path, value):
    data, folders = folds
    path = sorted(folders[0].glob("*.npz"))[0]
    with np.load(path) as stored:
        probabilities = stored["probabilities"].copy()
    probabilities[0, 0, 0, 0] = value
    np.savez_compressed(path, probabilities=probabilities)
    with pytest.raises(DatasetError, match=path.name):
        calibrate(data.dataset, folders, tmp_path / "c.json", num_processes=1)
    assert not (tmp_path / "c.json").exists()


def test_no_method_reports_and_writes_nothing(folds, tmp_path):
    data, folders = folds
    found = calibrate(data.dataset, folders, tmp_path / "c.json", method="none", num_processes=1)
    assert not found["written"]
    assert not (tmp_path / "c.json").exists()
    for pair in found["scores"]["lesion"].values():
        assert pair["before"] == pytest.approx(pair["after"], abs=1e-6)


@pytest.mark.parametrize("overwrite", [True, False])
def test_no_method_leaves_an_earlier_map_alone(folds, tmp_path, overwrite):
    data, folders = folds
    file = tmp_path / "c.json"
    calibrate(data.dataset, folders, file, num_processes=1)
    before = file.read_bytes()
    found = calibrate(data.dataset, folders, file, method="none", num_processes=1, overwrite=overwrite)
    assert not found["removed"]
    assert file.read_bytes() == before


def test_the_command_says_that_an_earlier_map_is_gone(build, tmp_path, monkeypatch, capsys):
    data = build(cases=4)
    for path in data.predictions.glob("*.npz"):  # already as good as can be
        soft = data.dataset.read_soft(path.stem)
        np.savez_compressed(path, probabilities=np.concatenate([1 - soft, soft]))
        path.with_name(f"{path.stem}.nii.gz").unlink()
    file = tmp_path / "c.json"
    file.write_text(json.dumps({"parts": {}}), encoding="utf-8")
    monkeypatch.setenv("nnUNet_raw", str(data.dataset.folder.parent))
    flags = ["calibrate", "-d", "900", "-i", str(data.predictions), "-o", str(file), "-np", "1"]
    assert main([*flags, "--method", "none"]) == 0
    assert "removed" not in capsys.readouterr().out
    assert main([*flags, "--overwrite"]) == 0
    assert f"The earlier map {file} is removed" in capsys.readouterr().out


@pytest.mark.parametrize("labels", [CLASSES, REGIONS], ids=["classes", "regions"])
@pytest.mark.parametrize("method", ["affine", "temperature", "isotonic"])
@pytest.mark.parametrize("against", ["raters", "consensus", "soft"])
def test_every_method_runs_on_classes_and_regions(build, tmp_path, labels, method, against):
    data = build(labels)
    found = calibrate(
        data.dataset,
        data.predictions,
        tmp_path / "c.json",
        method=method,
        target=FitTarget(against=against),
        num_processes=1,
    )
    assert set(found["scores"]) == set(labels.names)
    for scores in found["scores"].values():
        assert all(np.isfinite(pair[state]) for pair in scores.values() for state in ("before", "after"))


def test_the_mean_of_raters_is_read_where_the_soft_label_is_something_else(build, tmp_path):
    data = build(cases=6)
    options = {"method": "affine", "num_processes": 1}
    given = calibrate(data.dataset, data.predictions, tmp_path / "a.json", **options)
    about = data.dataset.folder / "dataset.json"
    content = json.loads(about.read_text())
    content["soft_labels"]["fusion"] = {"method": "staple"}
    about.write_text(json.dumps(content))
    other = type(data.dataset)(data.dataset.folder)
    from_raters = calibrate(other, data.predictions, tmp_path / "b.json", **options)
    assert from_raters["all"]["scale"] == pytest.approx(given["all"]["scale"], rel=1e-3)
    shutil.rmtree(data.dataset.folder / "raterLabelsTr")
    with pytest.raises(DatasetError, match="calibrate with against soft"):
        calibrate(other, data.predictions, tmp_path / "c.json", num_processes=1)


def test_applied_calibration_is_what_evaluate_scores(folds, tmp_path):
    data, folders = folds
    file = tmp_path / "model" / "calibration.json"
    calibrate(data.dataset, folders, file, num_processes=1)
    out = tmp_path / "out"
    apply_calibration(data.dataset, folders[0], out, num_processes=1)
    shape = data.dataset.read_hard("case0").shape
    asked = Predictions.find(folders[0], file_ending=".nii.gz").with_calibration(file, data.dataset.labels)
    written = np.load(out / "case0.npz")["probabilities"]
    np.testing.assert_array_equal(
        written, np.stack(list(asked.channels("case0", data.dataset.labels, shape)))
    )
    raw = np.load(folders[0] / "case0.npz")["probabilities"]
    assert np.abs(written - raw).max() > 0.01
    hard, grid = read_mask(out / "case0.nii.gz")
    np.testing.assert_array_equal(hard, written.argmax(axis=0))
    assert grid.difference(read_mask(folders[0] / "case0.nii.gz")[1]) is None


def test_recalibrating_twice_is_refused(folds, tmp_path):
    data, folders = folds
    file = tmp_path / "model" / "calibration.json"
    calibrate(data.dataset, folders, file, num_processes=1)
    out = tmp_path / "out"
    apply_calibration(data.dataset, folders, out, num_processes=1)
    with pytest.raises(UsageError, match="recalibrated probabilities already"):
        apply_calibration(data.dataset, out, tmp_path / "o2", file=file, num_processes=1)
    with pytest.raises(UsageError, match="recalibrated probabilities already"):
        calibrate(data.dataset, out, tmp_path / "c2.json", num_processes=1)
    with pytest.raises(UsageError, match="recalibrated probabilities already"):
        evaluate(data.dataset, out, tmp_path / "o3", scoring=Scoring(calibration=file), num_processes=1)
    evaluate(data.dataset, out, tmp_path / "o4", num_processes=1)  # as they are
    assert not (tmp_path / "o2").exists()


def test_a_case_that_every_map_has_seen_is_refused(folds, tmp_path):
    data, folders = folds
    file = tmp_path / "c.json"
    content = calibrate(data.dataset, folders, file, num_processes=1)
    part = next(iter(content["parts"].values()))
    assert "case0" in part["cases"]
    loaded = read_calibration(file, data.dataset.labels)
    without = type(loaded)(file, "x", loaded.of_all, {}, loaded.part_of)
    with pytest.raises(UsageError, match="case case0 was among the cases"):
        without.map_for("case0")


def test_a_threshold_tuned_on_other_probabilities_is_refused(folds, tmp_path):
    data, folders = folds
    file = tmp_path / "model" / "calibration.json"
    calibrate(data.dataset, folders, file, num_processes=1)
    tuned = tmp_path / "t.json"
    tune_threshold(data.dataset, folders[0], tuned, calibration=file, num_processes=1)
    raw = Scoring(threshold="tuned", threshold_file=tuned)
    recalibrated = replace(raw, calibration=file)
    with pytest.raises(UsageError, match="tuned on probabilities recalibrated"):
        evaluate(data.dataset, folders[1], tmp_path / "o", scoring=raw, num_processes=1)
    evaluate(data.dataset, folders[1], tmp_path / "o", scoring=recalibrated, num_processes=1)
    tune_threshold(data.dataset, folders[0], tuned, num_processes=1, overwrite=True)
    with pytest.raises(UsageError, match="tuned on the network's own"):
        evaluate(data.dataset, folders[1], tmp_path / "o2", scoring=recalibrated, num_processes=1)


def test_a_threshold_fits_probabilities_that_were_recalibrated_before(folds, tmp_path):
    data, folders = folds
    dataset, file = data.dataset, tmp_path / "model" / "calibration.json"
    calibrate(dataset, folders, file, num_processes=1)
    written = [tmp_path / "w0", tmp_path / "w1"]
    for folder, output in zip(folders, written, strict=True):
        apply_calibration(dataset, folder, output, file=file, num_processes=1)
    tuned = {name: tmp_path / f"{name}.json" for name in ("raw", "now", "before")}
    tune_threshold(dataset, folders[0], tuned["raw"], num_processes=1)
    tune_threshold(dataset, folders[0], tuned["now"], calibration=file, num_processes=1)
    tune_threshold(dataset, written[0], tuned["before"], num_processes=1)
    now, before = (json.loads(tuned[name].read_text()) for name in ("now", "before"))
    assert {**now, "fitted_on": {}} == {**before, "fitted_on": {}}  # the files are others

    def cut(name, folder, calibration=None):
        threshold = read_thresholds(tuned[name], dataset.labels.names)
        scoring = Scoring(threshold="tuned", threshold_file=tuned[name], calibration=calibration)
        evaluate(dataset, folder, tmp_path / "o", scoring=scoring, num_processes=1, overwrite=True)
        apply_threshold(
            folder, tmp_path / "masks", threshold, dataset.labels,
            files=ImageFiles(".nii.gz"), calibration=calibration, num_processes=1, overwrite=True,
        )  # fmt: skip

    for name in ("now", "before"):
        cut(name, folders[1], file)
        cut(name, written[1])
        with pytest.raises(UsageError, match="tuned on probabilities recalibrated"):
            cut(name, folders[1])
    with pytest.raises(UsageError, match="tuned on the network's own"):
        cut("raw", written[1])
    with pytest.raises(UsageError, match="some folders hold recalibrated"):
        Predictions.find([folders[0], written[1]], file_ending=".nii.gz")
    assert "recalibrated before" in Predictions.find(written, file_ending=".nii.gz").note


def test_a_mean_of_recalibrated_models_is_known_as_recalibrated(build, tmp_path):
    data = build(cases=8)
    sharpen(data.predictions)
    models, written = [data.predictions, second_model(data, tmp_path)], []
    for number, folder in enumerate(models):
        file = tmp_path / f"c{number}.json"
        method = ("affine", "temperature")[number]
        calibrate(data.dataset, folder, file, method=method, num_processes=1)
        written.append(tmp_path / f"w{number}")
        apply_calibration(data.dataset, folder, written[-1], file=file, num_processes=1)
    average(data.dataset, written, tmp_path / "mean", num_processes=1)
    digests = [Predictions.find(f, file_ending=".nii.gz").recalibrated_by for f in written]
    found = Predictions.find(tmp_path / "mean", file_ending=".nii.gz")
    assert found.recalibrated_by == " + ".join(sorted(digests))
    assert Predictions.find(models, file_ending=".nii.gz").recalibrated_by is None


def test_commands_from_fitting_to_scores(folds, tmp_path, monkeypatch, capsys):
    data, _ = folds
    monkeypatch.setenv("nnUNet_raw", str(data.dataset.folder.parent))
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    model = tmp_path / "results" / data.dataset.folder.name / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    model.parent.mkdir(parents=True)
    shutil.move(tmp_path / "model", model)
    assert main(["calibrate", "-d", "900", "-c", "3d_fullres", "-tr", "nnUNetTrainer", "-np", "1"]) == 0
    text = capsys.readouterr().out
    assert "8 cases in 2 parts" in text
    assert str(model / "calibration.html") in text
    page = (model / "calibration.html").read_text(encoding="utf-8")
    assert "How to read it" in page
    assert page.count("<img") == 1
    assert "the raters&#39; mean" in page
    command = ["calibrate", "-d", "900", "-c", "3d_fullres", "-tr", "nnUNetTrainer", "-np", "1"]
    (model / "calibration.json").unlink()
    assert main(command) == 2  # the page is there
    assert "calibration.html" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0
    capsys.readouterr()
    validation = str(model / "fold_0" / "validation")
    out = str(tmp_path / "out")
    assert main(["apply-calibration", "-d", "900", "-i", validation, "-o", out, "-np", "1"]) == 0
    assert "4 cases with the map that has not seen them" in capsys.readouterr().out
    flags = ["evaluate", "-d", "900", "-np", "1", "-i"]
    assert main([*flags, out, "-o", str(tmp_path / "a")]) == 0
    assert main([*flags, validation, "-o", str(tmp_path / "b"), "--calibration"]) == 0
    scores = [json.loads((tmp_path / d / "soft_summary.json").read_text())["mean"] for d in "ab"]
    assert scores[0] == scores[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-i", "x"], "-o"),
        ([], "-c and -tr"),
        (["-c", "2d", "-tr", "T", "-i", "x"], "leave out -c"),
        (["-i", "x", "-o", "c.html"], "end the file in .json"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(arguments, message, capsys):
    assert main(["calibrate", "-d", "900", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_missing_and_foreign_calibrations_are_refused(folds, tmp_path):
    data, folders = folds
    labels = data.dataset.labels
    found = Predictions.find(folders, file_ending=".nii.gz")
    with pytest.raises(UsageError, match=r"no calibration.json lies in"):
        found.with_calibration(SEARCHED, labels)
    with pytest.raises(UsageError, match="does not exist"):
        found.with_calibration(tmp_path / "none.json", labels)
    file = tmp_path / "model" / "calibration.json"
    calibrate(data.dataset, folders, file, num_processes=1)
    with pytest.raises(DatasetError, match="fitted for the channels"):
        found.with_calibration(file, REGIONS)
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"format_version": 9}))
    with pytest.raises(DatasetError, match="format 9"):
        found.with_calibration(file, labels)
    file.write_text(json.dumps(content | {"all": {}}))
    with pytest.raises(DatasetError, match="cannot be read"):
        found.with_calibration(file, labels)
    with pytest.raises(UsageError, match=r"pass overwrite=True\."):
        calibrate(data.dataset, folders, file, num_processes=1)


def test_all_cases_of_one_patient_cannot_be_cross_fitted(build, tmp_path):
    data = build(about={"groups": {f"case{i}": "p" for i in range(4)}})
    with pytest.raises(UsageError, match="one patient"):
        calibrate(data.dataset, data.predictions, tmp_path / "c.json", num_processes=1)


def second_model(data, tmp_path, name="second"):
    """Another model's predictions of the same cases: surer."""
    folder = tmp_path / name
    shutil.copytree(data.predictions, folder)
    sharpen(folder, 2.0)
    return folder


def test_several_models_are_averaged_when_they_are_scored(build, tmp_path):
    data = build()
    folders = [data.predictions, second_model(data, tmp_path)]
    out = tmp_path / "mean"
    cases = average(data.dataset, folders, out, num_processes=1)
    assert cases == [f"case{i}" for i in range(4)]
    both = [np.load(folder / "case1.npz")["probabilities"] for folder in folders]
    written = np.load(out / "case1.npz")["probabilities"]
    np.testing.assert_allclose(written, np.mean(both, axis=0), atol=1e-7)
    np.testing.assert_array_equal(read_mask(out / "case1.nii.gz")[0], written.argmax(axis=0))
    summaries = [
        evaluate(data.dataset, given, tmp_path / str(k), num_processes=1)
        for k, given in enumerate((folders, out))
    ]
    assert summaries[0]["models_averaged"] == 2
    first, second = (s["mean"]["model"]["soft"]["lesion"] for s in summaries)
    for metric in first:
        assert first[metric]["mean"] == pytest.approx(second[metric]["mean"], abs=1e-6), metric


@pytest.mark.parametrize("labels", [None, CLASSES, REGIONS], ids=["one", "classes", "regions"])
def test_the_mean_of_logits_is_what_nnunet_computes(build, tmp_path, labels):
    torch = pytest.importorskip("torch")
    data = build(labels)
    rng, shape = np.random.default_rng(0), data.dataset.read_hard("case0").shape
    has_regions, channels = data.dataset.labels.has_regions, len(data.dataset.labels.names)
    logits = torch.from_numpy(rng.normal(0, 2, (2, channels + (not has_regions), *shape)).astype(np.float32))
    nonlinearity = torch.sigmoid if has_regions else (lambda x: torch.softmax(x, 0))
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder, own in zip(folders, logits, strict=True):
        shutil.copytree(data.predictions, folder)
        p = nonlinearity(own).numpy()
        np.savez_compressed(folder / "case0.npz", probabilities=p)
        decided = decide(p, data.dataset.labels, stock_threshold(data.dataset.labels))
        write_image(folder / "case0.nii.gz", decided, read_mask(folder / "case0.nii.gz")[1])
    average(data.dataset, folders, tmp_path / "o", of="logits", num_processes=1)
    expected = nonlinearity(logits.mean(dim=0)).numpy()
    written = np.load(tmp_path / "o" / "case0.npz")["probabilities"]
    # a file of regions holds p and not 1 - p, which costs digits near 1
    np.testing.assert_allclose(written, expected, atol=1e-5 if has_regions else 2e-6)


def test_flat_images_keep_the_shape_that_nnunet_gave_them(build, tmp_path):
    data = build(ending=".png")
    folders = [data.predictions, second_model(data, tmp_path)]
    average(data.dataset, folders, tmp_path / "o", num_processes=1)
    shape = np.load(data.predictions / "case0.npz")["probabilities"].shape
    assert np.load(tmp_path / "o" / "case0.npz")["probabilities"].shape == shape == (2, 1, 20, 20)


def test_models_that_predicted_other_cases_are_no_ensemble(build, tmp_path):
    data = build()
    second = second_model(data, tmp_path)
    for path in second.glob("case3*"):
        path.unlink()
    with pytest.raises(
        DatasetError, match=r"Case case3 lies in 1 of the folders of predictions, case case0 in 2"
    ):
        evaluate(data.dataset, [data.predictions, second], tmp_path / "o", num_processes=1)
    with pytest.raises(UsageError, match="given twice"):
        evaluate(data.dataset, [data.predictions, data.predictions], tmp_path / "o", num_processes=1)
    with pytest.raises(UsageError, match="at least two"):
        average(data.dataset, [second], tmp_path / "o", num_processes=1)
    assert not (tmp_path / "o").exists()


def test_what_is_there_is_replaced_only_when_asked(build, tmp_path):
    data = build()
    folders = [data.predictions, second_model(data, tmp_path)]
    average(data.dataset, folders, tmp_path / "o", num_processes=1)
    with pytest.raises(UsageError, match=r"pass overwrite=True\."):
        average(data.dataset, folders, tmp_path / "o", num_processes=1)
    average(data.dataset, folders, tmp_path / "o", num_processes=1, overwrite=True)
    with pytest.raises(UsageError, match="predictions themselves"):
        average(data.dataset, folders, folders[1], num_processes=1, overwrite=True)


@pytest.mark.parametrize("place", ["fold_0/validation", "of_a_network"])
def test_predictions_of_a_network_are_never_replaced(build, tmp_path, place):
    data = build()
    other = tmp_path / place
    shutil.copytree(data.predictions, other)
    before = {path.name: path.read_bytes() for path in other.iterdir()}
    models = [data.predictions, second_model(data, tmp_path)]
    for write in (
        lambda: average(data.dataset, models, other, num_processes=1, overwrite=True),
        lambda: apply_threshold(
            data.predictions, other, 0.3, data.dataset.labels,
            files=ImageFiles(".nii.gz"), num_processes=1, overwrite=True,
        ),
    ):  # fmt: skip
        with pytest.raises(UsageError, match="predictions lie there, with segmentations of their own"):
            write()
    assert {path.name: path.read_bytes() for path in other.iterdir()} == before


def test_masks_are_not_written_over_those_of_recalibrated_probabilities(folds, tmp_path):
    data, folders = folds
    file = tmp_path / "model" / "calibration.json"
    calibrate(data.dataset, folders, file, num_processes=1)
    apply_calibration(data.dataset, folders, tmp_path / "w", file=file, num_processes=1)
    with pytest.raises(UsageError, match="predictions lie there"):
        apply_threshold(
            folders, tmp_path / "w", 0.3, data.dataset.labels,
            files=ImageFiles(".nii.gz"), num_processes=1, overwrite=True,
        )  # fmt: skip


def test_folds_are_tuned_and_cut_as_one(folds, tmp_path):
    from nnunet_softlabel.evaluation.apply_threshold import ImageFiles, apply_threshold

    data, folders = folds
    rule = Threshold("0.3", {"lesion": 0.3})
    files = apply_threshold(
        folders,
        tmp_path / "o",
        rule,
        data.dataset.labels,
        files=ImageFiles(ending=".nii.gz"),
        num_processes=1,
    )
    assert [file.name for file in files] == [f"case{i}.nii.gz" for i in range(8)]
    tuned = tune_threshold(data.dataset, folders, tmp_path / "t.json", num_processes=1)
    assert tuned["cases"] == [f"case{i}" for i in range(8)]


def test_ignored_voxels_count_in_no_score_of_a_calibration(build, tmp_path):
    data = build(Labels({"lesion": (1,)}, ignore=2))
    sharpen(data.predictions)
    for case in data.dataset.cases():
        for path in (data.dataset.label_file(case), *data.dataset.rater_files(case).values()):
            label_map, grid = data.dataset.read(path)
            label_map[:, :9] = 2
            write_image(path, label_map, grid)
        (path,) = data.dataset.soft_files(case)
        soft, grid = data.dataset.read_soft(case)[0], read_mask(data.dataset.label_file(case))[1]
        soft[:, :9] = 0
        write_probability(path, soft, grid)
    found = calibrate(data.dataset, data.predictions, tmp_path / "c.json", method="none", num_processes=1)
    summary = evaluate(data.dataset, data.predictions, tmp_path / "out", num_processes=1)
    means = summary["mean"]["model"]["soft"]["lesion"]
    for metric, pair in found["scores"]["lesion"].items():
        assert pair["before"] == pytest.approx(means[metric]["mean"], abs=1e-6), metric
    before = np.array(found["reliability_near"]["lesion"]["before"])
    np.testing.assert_allclose(before, summary["reliability"]["lesion"]["near"], rtol=1e-6)


@pytest.mark.parametrize("against", ["consensus", "soft"])
def test_near_the_object_is_what_any_rater_marked_whatever_the_fusion(build, tmp_path, against):
    data = build(cases=4, about={"fusion": {"method": "majority"}})
    for case in data.dataset.cases():  # the majority marks less than one of the raters
        hard, grid = read_mask(data.dataset.label_file(case))
        write_probability(data.dataset.soft_files(case)[0], (hard > 0).astype(np.float32), grid)
        eve = data.dataset.rater_files(case)["eve"]
        drawn, _ = read_mask(eve)
        drawn[0, 0, :] = 1
        write_image(eve, drawn, grid)
    found = calibrate(
        data.dataset, data.predictions, tmp_path / "c.json",
        method="none", target=FitTarget(against), num_processes=1,
    )  # fmt: skip
    summary = evaluate(data.dataset, data.predictions, tmp_path / "out", num_processes=1)
    means = summary["mean"]["model"][against]["lesion"]
    for metric in ("brier_near", "nll_near", "ece_near"):
        own = found["scores"]["lesion"][metric]["before"]
        assert own == pytest.approx(means[metric]["mean"], abs=1e-6), metric


@pytest.mark.parametrize("fusion", ["mean", "majority"])
def test_cases_that_have_their_hard_label_for_want_of_raters_are_left_out(
    build, tmp_path, monkeypatch, capsys, fusion
):
    about = {"fusion": {"method": fusion}, "cases_from_hard_labels": ["case1", "case2"]}
    data = build(cases=6, about=about)
    sharpen(data.predictions)
    for case in about["cases_from_hard_labels"]:
        for path in data.dataset.rater_files(case).values():
            path.unlink()
    monkeypatch.setenv("nnUNet_raw", str(data.dataset.folder.parent))
    file = tmp_path / "c.json"
    flags = ["-d", "900", "-i", str(data.predictions), "-np", "1", "--method", "temperature"]
    assert main(["calibrate", *flags, "-o", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "4 cases in 4 parts" in printed
    assert "Left out, for they have a hard label and no rater: 2 cases." in printed
    content = json.loads(file.read_text())
    assert content["without_raters"] == ["case1", "case2"]
    assert "case1" not in read_calibration(file, data.dataset.labels).part_of
    assert not any("case1" in name for name in content["fitted_on"])
    everything = calibrate(
        data.dataset, data.predictions, tmp_path / "soft.json", target=FitTarget("soft"), num_processes=1
    )
    assert everything["without_raters"] == []
    for path in data.predictions.glob("case[0345].*"):
        path.unlink()
    with pytest.raises(DatasetError, match="Case case1: has its hard label for want of raters"):
        calibrate(data.dataset, data.predictions, tmp_path / "none.json", num_processes=1)
