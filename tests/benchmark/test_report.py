"""What the report of a benchmark says."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from nnunet_softlabel.benchmark import CellStatus, Outcome, benchmark, format_benchmark, report
from nnunet_softlabel.benchmark.case_pictures import Shown, case_pictures
from nnunet_softlabel.benchmark.refined_rows import Round
from nnunet_softlabel.benchmark.summary import TABLE_METRICS, trainer_summaries
from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.evaluation.tables import read_rows, write_rows
from nnunet_softlabel.formats.files import read_json, write_json
from nnunet_softlabel.metrics.registry import TITLES
from nnunet_softlabel.report.comparison import case_values
from nnunet_softlabel.report.page import class_summary
from nnunet_softlabel.report.runs import RunResult
from tests.benchmark.grids import TRAINERS, differences, silent


def test_benchmark_trains_what_is_missing_and_reports(grid_factory, fake_training):
    grid = grid_factory()
    outcome = benchmark(grid, num_processes=1, log=silent)
    assert set(map(str, outcome.values())) == {"done"}
    page = report(grid, outcome, commands=["nnunet_softlabel benchmark"])
    text = page.read_text(encoding="utf-8")
    assert "nnUNetTrainerAPL" in text
    assert "<script src=" not in text
    summary = read_json(grid.output / "soft_summary.json")
    assert ("dice", *TRAINERS) in differences(grid)
    # the sharper baseline is nearer to the soft label
    soft_dice = {
        name: t["mean"]["model"]["soft"]["lesion"]["soft_dice"]["mean"]
        for name, t in summary["trainers"].items()
    }
    assert soft_dice["nnUNetTrainer"] > soft_dice["nnUNetTrainerAPL"]
    assert "nnUNetTrainerAPL" in format_benchmark(grid.output)
    benchmark(grid_factory(), num_processes=1, log=silent)
    assert len(fake_training) == 2  # nothing was trained again


def test_table_json_and_page_have_the_same_means_of_cases(tmp_path):
    """Seed 1 marks nothing in case a: that case has the precision of seed 0, and counts as much as case b."""
    place = {"class": "lesion", "reference": "consensus", "prediction": "model"}
    scored = (("a", 0.4), ("b", 0.5), ("a", float("nan")), ("b", 0.9), ("c", float("nan")))
    run = RunResult("Soft", [{"case": case, **place, "precision": value} for case, value in scored])
    summary = {"trainers": trainer_summaries([run]), "notes": []}
    entry = summary["trainers"]["Soft"]["mean"]["model"]["consensus"]["lesion"]["precision"]
    # case a: 0.4; case b: (0.5 + 0.9) / 2
    assert (entry["mean"], entry["n"], entry["nan"]) == (pytest.approx(0.55), 2, 1)
    write_json(tmp_path / "soft_summary.json", summary)
    assert " 0.5500 " in format_benchmark(tmp_path)
    (line,) = class_summary("lesion", [run], [], ["precision"])["lines"]
    interval = line["cells"][0]["interval"]
    assert (interval.mean, interval.n) == (pytest.approx(entry["mean"]), entry["n"])


def test_a_seed_that_marks_nothing_is_told_by_name(grid_factory, fake_training):
    grid = grid_factory(trainers=TRAINERS[:1], seeds=[0, 1])
    outcome = benchmark(grid, num_processes=1, log=silent)
    dead = grid.evaluation_folder(grid.cells[1]) / "soft_metrics.csv"
    rows = [
        row | {"dice": 0.0, "recall": 0.0, "precision": float("nan")} if "recall" in row else row
        for row in read_rows(dead)
    ]
    write_rows(dead, rows)
    report(grid, outcome)
    verdict = read_json(grid.output / "soft_summary.json")["verdict"]
    assert verdict[0].startswith(f"nnUNetTrainer: the training {grid.cells[1].name} marks no lesion in ")
    table = read_rows(grid.output / "soft_metrics.csv")
    assert {row["training"] for row in table} == {cell.name for cell in grid.cells}


def test_page_names_the_versions_it_was_made_with(grid_factory, fake_training):
    grid = grid_factory(trainers=TRAINERS[:1])
    text = report(grid, benchmark(grid, num_processes=1, log=silent)).read_text(encoding="utf-8")
    assert all(name in text for name in ("torch", "nnunetv2", "batchgeneratorsv2"))


def test_each_trainer_meets_the_baseline_of_its_configuration(grid_factory, fake_training):
    grid = grid_factory(configurations=["3d_fullres", "2d"], folds=[0, 1])
    page = report(grid, benchmark(grid, num_processes=1, log=silent))
    pairs = {(baseline, trainer) for _, baseline, trainer in differences(grid)}
    assert pairs == {
        ("nnUNetTrainer 3d_fullres", "nnUNetTrainerAPL 3d_fullres"),
        ("nnUNetTrainer 2d", "nnUNetTrainerAPL 2d"),
        ("nnUNetTrainer 3d_fullres", "nnUNetTrainer 2d"),
    }
    text = page.read_text(encoding="utf-8")
    assert "first trainer of its own configuration" in text
    assert "patch size, 2d" in text


def test_margins_reach_the_page(grid_factory, fake_training):
    grid = grid_factory()
    outcome = benchmark(grid, num_processes=1, log=silent)
    page = report(grid, outcome, margins={"dice": 0.9})
    assert "margin 0.9" in page.read_text(encoding="utf-8")
    found = differences(grid)
    assert found[("dice", *TRAINERS)]["margin"] == 0.9
    assert found[("recall", *TRAINERS)]["margin"] is None


def test_raters_who_miss_much_bring_an_advice_to_a_model_that_marks_too_little(
    grid_factory, fake_training, monkeypatch
):
    from nnunet_softlabel.benchmark import caveats as notes

    advice = "--threshold tuned (nothing is trained again"
    grid = grid_factory(trainers=TRAINERS[:1])
    outcome = benchmark(grid, num_processes=1, log=silent)
    assert advice not in report(grid, outcome).read_text(encoding="utf-8")
    monkeypatch.setattr(notes, "rater_sensitivity", lambda runs, class_name: 0.45)
    monkeypatch.setattr(notes, "marks_too_little", lambda run, class_name: False)
    assert advice not in report(grid, outcome).read_text(encoding="utf-8")
    monkeypatch.setattr(notes, "marks_too_little", lambda run, class_name: True)
    text = report(grid, outcome).read_text(encoding="utf-8")
    assert "another marked 45% on average" in text
    assert advice in text


def test_a_model_marks_too_little_where_recall_lies_below_precision():
    from nnunet_softlabel.benchmark.caveats import marks_too_little

    place = {"case": "a", "class": "lesion", "reference": "consensus", "prediction": "model"}
    shy, bold = (
        SimpleNamespace(rows=[{**place, "recall": recall, "precision": precision}])
        for recall, precision in ((0.5, 0.9), (0.9, 0.41))
    )
    assert marks_too_little(shy, "lesion")
    assert not marks_too_little(bold, "lesion")


def test_a_short_training_is_called_a_trial_at_the_top(grid_factory, fake_training):
    grid = grid_factory()
    page = report(grid, benchmark(grid, num_processes=1, log=silent)).read_text(encoding="utf-8")
    assert page.index("This is a trial: each training had") < page.index('<h2 id="summary">')
    summary = json.loads((grid.output / "soft_summary.json").read_text())
    assert any("This is a trial" in text for text in summary["verdict"])


def test_each_trainer_has_its_own_budget_on_the_page(grid_factory, fake_training):
    grid = grid_factory()
    outcome = benchmark(grid, num_processes=1, log=silent)
    for cell, epochs in zip(grid.cells, (25_000, 7_500), strict=True):
        write_json(grid.record_file(cell), read_json(grid.record_file(cell)) | {"epochs": epochs})
    page = " ".join(report(grid, outcome).read_text(encoding="utf-8").split())
    assert "Each training of nnUNetTrainer had 25000 epochs of 1 iterations on cpu." in page
    assert "Each training of nnUNetTrainerAPL had 7500 epochs of 1 iterations on cpu." in page
    summary = read_json(grid.output / "soft_summary.json")
    assert summary["settings"]["epochs"] == dict(zip(TRAINERS, (25_000, 7_500), strict=True))
    trial = next(text for text in summary["verdict"] if "trial" in text)
    assert trial.startswith("This is a trial in part: each training of nnUNetTrainerAPL had 7,500 iterations")


def test_a_picture_shows_one_seed_with_its_own_dice(grid_factory, fake_training, monkeypatch):
    grid = grid_factory(trainers=TRAINERS[:1], seeds=[0, 1], threshold="0.3")
    outcome = benchmark(grid, num_processes=1, only="train", log=silent)
    for path in grid.validation_folder(grid.cells[1]).glob("*.npz"):  # this seed marks nothing
        empty = np.zeros_like(np.load(path)["probabilities"])
        empty[0] = 1
        np.savez(path, probabilities=empty)
    page = report(grid, benchmark(grid, num_processes=1, only="report", log=silent))
    assert outcome.keys() == {cell.name for cell in grid.cells}
    (picture, *_) = case_pictures([Round(grid, {TRAINERS[0]: grid.cells})])
    found = read_rows(grid.evaluation_folder(grid.cells[0]) / "soft_metrics.csv")
    dice = case_values(found, metric="dice", class_name="lesion", reference="consensus")
    text = f"Dice {dice[picture.case][0]:.3f} at 0.3, seed 0"
    assert picture.scores == {TRAINERS[0]: text}
    assert picture.probabilities[TRAINERS[0]].max() > 0.5
    assert f"of {TRAINERS[0]}, seed 0" in picture.caption
    assert text in page.read_text(encoding="utf-8")


def test_a_case_of_several_folds_is_shown_by_one_of_them(grid_factory, fake_training):
    grid = grid_factory(trainers=TRAINERS[:1], folds=[0, 1])
    benchmark(grid, num_processes=1, log=silent)
    first, second = grid.cells
    (case, *_) = grid.validation_cases(first)
    shutil.copy(grid.validation_folder(first) / f"{case}.npz", grid.validation_folder(second))
    shown = Shown.of(grid, grid.cells)
    assert shown.which[case] == ", fold 0"
    assert shown.folders[case] == grid.validation_folder(first)
    assert {which for other, which in shown.which.items() if other != case} == {""}


def test_sensitivity_of_raters_is_their_mean_recall_of_each_other():
    from nnunet_softlabel.benchmark.caveats import rater_sensitivity

    place = {"class": "lesion", "reference": "raters", "prediction": "rater"}
    rows = [{"case": case, "recall": recall, **place} for case, recall in (("a", 0.4), ("b", 0.6))]
    rows.append({"case": "c", "recall": float("nan"), **place})
    run = SimpleNamespace(rows=rows)
    assert rater_sensitivity([run, run], "lesion") == pytest.approx(0.5)
    assert np.isnan(rater_sensitivity([run], "other"))


def test_a_report_without_a_finished_cell_is_refused(grid_factory):
    grid = grid_factory()
    with pytest.raises(DatasetError, match="no training is done"):
        report(grid, {cell.name: Outcome(CellStatus.FAILED) for cell in grid.cells})


def test_headings_on_the_terminal_are_whole_and_stand_above_their_numbers(tmp_path):
    scores = {metric: {"mean": 0.5, "n": 3} for metric in TABLE_METRICS}
    model = {reference: {"a class with a long name": scores} for reference in ("soft", "consensus", "raters")}
    trainers = {"nnUNetTrainer": {"mean": {"model": model}}}
    write_json(tmp_path / "soft_summary.json", {"trainers": trainers, "notes": []})
    heading, row = format_benchmark(tmp_path).splitlines()[1:3]
    assert len(heading) == len(row)
    for metric in TABLE_METRICS:
        end = heading.index(f"  {TITLES[metric]}") + 2 + len(TITLES[metric])
        assert row[:end].endswith("0.5000")
