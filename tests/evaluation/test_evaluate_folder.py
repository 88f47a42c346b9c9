from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.evaluation.run import Scoring, evaluate
from nnunet_softlabel.evaluation.tables import COLUMNS, format_table, read_rows
from nnunet_softlabel.evaluation.tolerance import inter_rater_distance
from nnunet_softlabel.formats.images import read_mask, write_image
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.formats.probability_maps import write_probability
from nnunet_softlabel.metrics.froc import froc, lesion_average_precision, scored_lesions
from nnunet_softlabel.metrics.overlap import dice, soft_dice
from nnunet_softlabel.metrics.registry import METRICS, Parameters
from tests.scored_dataset import predict_again

CLASSES = Labels({"a": (1,), "b": (2,)})
REGIONS = Labels({"whole": (1, 2), "core": (2,)})
SHARED = Path(os.environ.get("NNUNET_SOFTLABEL_SHARED", Path(__file__).parents[3] / "shared" / "data"))


def row_of(rows, **keys):
    (found,) = [row for row in rows if all(row[k] == v for k, v in keys.items())]
    return found


@pytest.fixture
def scored(build, tmp_path):
    data = build(about={"groups": {"case0": "p0", "case1": "p0", "case2": "p1", "case3": "p2"}})
    summary = evaluate(data.dataset, data.predictions, tmp_path / "out", num_processes=1)
    return data, summary, read_rows(tmp_path / "out" / "soft_metrics.csv"), tmp_path / "out"


def test_rows_are_cases_by_references_and_predictions(scored):
    _, summary, rows, _ = scored
    references = {"soft", "consensus", "raters", "rater:ann", "rater:bob", "rater:eve"}
    assert {(r["reference"], r["prediction"]) for r in rows} == {
        (r, p) for r in references for p in ("model", "rater")
    }
    assert len(rows) == 4 * 6 * 2
    assert summary["number_of_cases"] == 4
    assert [row["group"] for row in rows[::12]] == ["p0", "p0", "p1", "p2"]


def test_numbers_are_those_of_the_metrics(scored):
    data, _, rows, _ = scored
    probability = np.load(data.predictions / "case1.npz")["probabilities"][1]
    hard, soft = data.dataset.read_hard("case1") == 1, data.dataset.read_soft("case1")[0]
    model = row_of(rows, case="case1", reference="consensus", prediction="model")
    assert model["dice"] == pytest.approx(dice(hard, probability > 0.5))
    model = row_of(rows, case="case1", reference="soft", prediction="model")
    assert model["soft_dice"] == pytest.approx(soft_dice(soft, probability), abs=1e-6)
    assert "dice" not in model  # a soft reference has no mask


def test_ceiling_among_raters_is_the_mean_over_ordered_pairs(scored):
    data, _, rows, _ = scored
    masks = [m == 1 for m in data.dataset.read_raters("case2").values()]
    pairs = [(masks[i], masks[j]) for i in range(3) for j in range(3) if i != j]
    ceiling = row_of(rows, case="case2", reference="raters", prediction="rater")
    assert ceiling["dice"] == pytest.approx(np.mean([dice(a, b) for a, b in pairs]))
    assert ceiling["precision"] == pytest.approx(np.mean([(a & b).sum() / b.sum() for a, b in pairs]))
    to_ann = row_of(rows, case="case2", reference="rater:ann", prediction="rater")
    assert to_ann["recall"] == pytest.approx(
        np.mean([(masks[0] & b).sum() / masks[0].sum() for b in masks[1:]])
    )


def test_ceiling_leaves_the_rater_out_of_the_fusion(scored):
    data, _, rows, _ = scored
    masks = [m == 1 for m in data.dataset.read_raters("case2").values()]
    expected = []
    for i, mask in enumerate(masks):
        others = np.mean([m for j, m in enumerate(masks) if j != i], axis=0)
        expected.append((soft_dice(others, mask.astype(float)), dice(others > 0.5, mask)))
    soft, hard = np.mean(expected, axis=0)
    assert row_of(rows, case="case2", reference="soft", prediction="rater")["soft_dice"] == pytest.approx(
        soft
    )
    assert row_of(rows, case="case2", reference="consensus", prediction="rater")["dice"] == pytest.approx(
        hard
    )


def test_summary_counts_and_means(scored):
    _, summary, rows, out = scored
    entry = summary["mean"]["model"]["consensus"]["lesion"]["dice"]
    values = [r["dice"] for r in rows if (r["reference"], r["prediction"]) == ("consensus", "model")]
    assert entry["mean"] == pytest.approx(np.mean(values))
    assert entry["std"] == pytest.approx(np.std(values, ddof=1))
    assert (entry["n"], entry["nan"]) == (4, 0)
    assert json.loads((out / "soft_summary.json").read_text(encoding="utf-8")) == json.loads(
        json.dumps(summary)
    )
    assert summary["reliability"]["lesion"]["image"][0][0] > 0
    assert summary["parameters"]["tolerance_mm"] > 0
    assert set(summary["versions"]) >= {"python", "numpy", "scipy", "surface-distance"}


def test_csv_has_every_metric(scored):
    *_, out = scored
    header = (out / "soft_metrics.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    assert header == list(COLUMNS)
    assert set(METRICS) <= set(header)


def test_table_shows_model_and_raters(scored):
    _, summary, _, _ = scored
    text = format_table(summary)
    entry = summary["mean"]["model"]["consensus"]["lesion"]["dice"]["mean"]
    ceiling = summary["mean"]["rater"]["consensus"]["lesion"]["dice"]["mean"]
    assert f"{entry:.4f} ({ceiling:.4f})" in text


def test_empty_cases_are_nan_counted_and_told(build, tmp_path):
    data = build(empty=(1,))
    summary = evaluate(data.dataset, data.predictions, tmp_path / "out", num_processes=1)
    entry = summary["mean"]["model"]["consensus"]["lesion"]["dice"]
    assert (entry["n"], entry["nan"]) == (3, 1)
    assert "Dice (consensus) 1" in format_table(summary)
    assert summary["per_case"]["case1"]["lesion"]["consensus"]["model"]["dice"] is None
    rows = read_rows(tmp_path / "out" / "soft_metrics.csv")
    assert math.isnan(row_of(rows, case="case1", reference="consensus", prediction="model")["dice"])
    assert summary["detection_auc"]["lesion"]["consensus"] == 1.0


def test_lesions_are_scored_over_all_cases_and_thresholds(scored):
    data, summary, _, _ = scored
    cases = [
        scored_lesions(
            data.dataset.read_hard(case) == 1, np.load(data.predictions / f"{case}.npz")["probabilities"][1]
        )
        for case in data.dataset.cases()
    ]
    found = summary["lesion_detection"]["lesion"]["consensus"]
    assert found["average_precision"] == pytest.approx(lesion_average_precision(cases), abs=1e-6)
    assert list(found["froc"].values()) == pytest.approx(list(froc(cases).values()))
    assert found["lesions"] == sum(case.reference for case in cases) > 0
    text = format_table(summary)
    assert f"lesion average precision (consensus, {found['lesions']} lesions): " in text
    assert "share found at false positives per image: " in text


@pytest.mark.parametrize("labels", [CLASSES, REGIONS], ids=["classes", "regions"])
def test_several_channels(build, tmp_path, labels):
    data = build(labels, cases=2)
    summary = evaluate(data.dataset, data.predictions, tmp_path / "out", num_processes=1)
    assert summary["classes"] == list(labels.names)
    for name in labels.names:
        assert summary["mean"]["model"]["consensus"][name]["dice"]["mean"] > 0.6


def test_flat_images(build, tmp_path):
    data = build(ending=".png", cases=2)
    summary = evaluate(data.dataset, data.predictions, tmp_path / "out", num_processes=1)
    assert summary["mean"]["model"]["raters"]["lesion"]["nsd"]["n"] == 2


def test_a_single_rater_has_no_ceiling(build, tmp_path):
    data = build(raters=("ann",), cases=2)
    summary = evaluate(data.dataset, data.predictions, tmp_path / "out", num_processes=1)
    assert "rater" not in summary["mean"]
    assert summary["parameters"]["tolerance_mm"] == 1.0
    assert "unknown" in summary["parameters"]["tolerance_from"]
    format_table(summary)


def test_raters_may_be_missing_for_a_case(build, tmp_path):
    data = build(cases=2)
    (data.dataset.folder / "raterLabelsTr" / "bob" / "case1.nii.gz").unlink()
    evaluate(data.dataset, data.predictions, tmp_path / "out", num_processes=1)
    rows = read_rows(tmp_path / "out" / "soft_metrics.csv")
    assert [r["case"] for r in rows if r["reference"] == "rater:bob" and r["prediction"] == "model"] == [
        "case0"
    ]


def test_ceiling_can_be_left_out(build, tmp_path):
    data = build(cases=2)
    summary = evaluate(
        data.dataset, data.predictions, tmp_path / "out", num_processes=1, scoring=Scoring(with_ceiling=False)
    )
    assert list(summary["mean"]) == ["model"]


def test_truth_is_one_more_reference(build, tmp_path):
    data = build(cases=2)
    truth = data.dataset.folder / "raterLabelsTr" / "bob"
    summary = evaluate(
        data.dataset, data.predictions, tmp_path / "out", num_processes=1, scoring=Scoring(truth=truth)
    )
    same = summary["mean"]["model"]
    assert same["truth"]["lesion"]["dice"] == same["rater:bob"]["lesion"]["dice"]
    assert summary["mean"]["rater"]["truth"]["lesion"]["dice"]["mean"] < 1


def test_ignored_voxels_change_nothing(build, tmp_path):
    labels = Labels({"lesion": (1,)}, ignore=2)
    data = build(labels, cases=1)
    label_file = data.dataset.label_file("case0")
    hard, grid = read_mask(label_file)
    hard[:, :, 15:] = 2
    write_image(label_file, hard, grid)
    first = evaluate(data.dataset, data.predictions, tmp_path / "a", num_processes=1)
    changed = np.load(data.predictions / "case0.npz")["probabilities"]
    changed[1, :, :, 15:], changed[0, :, :, 15:] = 0.9, 0.1
    predict_again(data, "case0", changed)
    second = evaluate(data.dataset, data.predictions, tmp_path / "b", num_processes=1)
    assert first["mean"] == second["mean"]


def test_voxels_a_rater_did_not_answer_are_left_to_the_others(build, tmp_path):
    labels = Labels({"lesion": (1,)}, ignore=2)
    data = build(labels, cases=1)
    path = data.dataset.rater_files("case0")["eve"]
    drawn, grid = read_mask(path)
    write_image(path, np.where(np.arange(20) < 10, drawn, 2).astype(np.uint8), grid)
    evaluate(data.dataset, data.predictions, tmp_path / "out", num_processes=1)
    rows = read_rows(tmp_path / "out" / "soft_metrics.csv")
    probability = np.load(data.predictions / "case0.npz")["probabilities"][1]
    left = np.s_[:, :, :10]
    expected = dice(drawn[left] == 1, probability[left] > 0.5)
    assert row_of(rows, reference="rater:eve", prediction="model")["dice"] == pytest.approx(expected)


def test_processes_give_the_same_result(build, tmp_path):
    data = build(cases=8)
    one = evaluate(data.dataset, data.predictions, tmp_path / "one", num_processes=1)
    two = evaluate(data.dataset, data.predictions, tmp_path / "two", num_processes=2)
    assert one == two
    assert (tmp_path / "one/soft_metrics.csv").read_bytes() == (
        tmp_path / "two/soft_metrics.csv"
    ).read_bytes()


def test_predicted_cases_outside_the_split_are_listed(build, tmp_path):
    data = build(cases=2)
    for path in list(data.predictions.glob("case0*")):
        shutil.copy(path, path.with_name(path.name.replace("case0", "other")))
    summary = evaluate(data.dataset, data.predictions, tmp_path / "out", num_processes=1)
    assert (summary["number_of_cases"], summary["not_evaluated"]) == (2, ["other"])
    assert "not scored: other" in format_table(summary)


def test_tolerance_can_be_given(build, tmp_path):
    data = build(cases=2)
    given = Parameters(tolerance_mm=3.5)
    summary = evaluate(
        data.dataset, data.predictions, tmp_path / "out", num_processes=1, scoring=Scoring(parameters=given)
    )
    assert (summary["parameters"]["tolerance_mm"], summary["parameters"]["tolerance_from"]) == (3.5, "given")


def test_tolerance_is_the_raters_own_distance(build):
    data = build(about={}, raters=("ann", "bob", "eve"))
    distance, words = inter_rater_distance(data.dataset, num_processes=1)
    assert 1.0 <= distance < 3  # radii differ by .7 and 1.4 voxels; the finest voxel is 1 mm
    assert "raters' distance" in words or "inter-rater" in words


def test_the_edge_of_what_a_rater_did_not_answer_is_no_outline(build):
    data = build(Labels({"lesion": (1,)}, ignore=2), raters=("ann", "bob"))
    for case in data.dataset.cases("Tr"):
        files = data.dataset.rater_files(case)
        drawn, grid = read_mask(files["ann"])
        write_image(files["bob"], np.where(np.arange(20) < 10, drawn, 2).astype(np.uint8), grid)
    finest, words = inter_rater_distance(data.dataset, num_processes=1)
    assert finest == 1.0
    assert words == "finest voxel spacing; the raters' distance is 0 mm"


def test_results_are_overwritten_only_when_asked(build, tmp_path):
    data = build(cases=1)
    out = tmp_path / "out"
    evaluate(data.dataset, data.predictions, out, num_processes=1)
    with pytest.raises(UsageError, match=r"pass overwrite=True\."):
        evaluate(data.dataset, data.predictions, out, num_processes=1)
    evaluate(data.dataset, data.predictions, out, num_processes=1, overwrite=True)
    assert sorted(p.name for p in out.iterdir()) == ["soft_metrics.csv", "soft_summary.json"]


def test_other_tables_are_refused(tmp_path):
    with pytest.raises(DatasetError, match="no such file"):
        read_rows(tmp_path / "soft_metrics.csv")
    (tmp_path / "soft_metrics.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DatasetError, match=r"is no soft_metrics\.csv"):
        read_rows(tmp_path / "soft_metrics.csv")


@pytest.mark.shared_data
@pytest.mark.skipif(not (SHARED / "lidc_nodules").is_dir(), reason="the real data are not here")
def test_real_raters_predicting_their_own_mean(tmp_path):
    source = SHARED / "lidc_nodules"
    folder, predictions = tmp_path / "Dataset501_LIDC", tmp_path / "predictions"
    for name in ("labelsTr", "softLabelsTr", "imagesTr"):
        (folder / name).mkdir(parents=True)
    predictions.mkdir()
    for image in sorted((source / "images").glob("*.nii.gz"))[:3]:
        case = image.name.removesuffix(".nii.gz")
        masks = []
        for path in sorted((source / "raters").glob(f"{case}_rater*.nii.gz")):
            mask, grid = read_mask(path)
            target = folder / "raterLabelsTr" / path.name[-8:-7]
            target.mkdir(parents=True, exist_ok=True)
            write_image(target / f"{case}.nii.gz", mask, grid)
            masks.append(mask > 0)
        soft = np.mean(masks, axis=0).astype(np.float32)
        write_probability(folder / "softLabelsTr" / f"{case}_0001.nii.gz", soft, grid)
        write_image(folder / "labelsTr" / f"{case}.nii.gz", (soft > 0.5).astype(np.uint8), grid)
        np.savez_compressed(predictions / f"{case}.npz", probabilities=np.stack([1 - soft, soft]))
    about = {"format_version": 1, "fusion": {"method": "mean"}, "digest": "x", "made_hard_labels": True}
    content = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "nodule": 1},
        "file_ending": ".nii.gz",
        "soft_labels": about,
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    from nnunet_softlabel.formats.soft_dataset import SoftDataset

    summary = evaluate(SoftDataset(folder), predictions, tmp_path / "out", num_processes=1)
    model, rater = summary["mean"]["model"], summary["mean"]["rater"]
    assert model["soft"]["nodule"]["soft_dice"]["mean"] == pytest.approx(1)
    assert model["consensus"]["nodule"]["dice"]["mean"] == 1
    assert model["soft"]["nodule"]["brier"]["mean"] == 0
    # the mean of the raters agrees with each better than they do with each other
    assert model["raters"]["nodule"]["dice"]["mean"] > rater["raters"]["nodule"]["dice"]["mean"]
    assert model["raters"]["nodule"]["ged"]["mean"] < rater["raters"]["nodule"]["ged"]["mean"]
