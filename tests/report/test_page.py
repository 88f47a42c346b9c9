from __future__ import annotations

import base64
import math
import re
from dataclasses import replace

import numpy as np
import pytest

from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.evaluation.run import Scoring, evaluate
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.report import figures
from nnunet_softlabel.report.comparison import compare
from nnunet_softlabel.report.findings import Findings, Provenance
from nnunet_softlabel.report.methods import facts, methods_text
from nnunet_softlabel.report.page import duration, mean_text, number, p_value, range_text, write_report
from nnunet_softlabel.report.pictures import case_picture, pick_cases, slice_through
from nnunet_softlabel.report.plots import curve_plots
from nnunet_softlabel.report.runs import RunResult
from nnunet_softlabel.report.significance import Interval

EVIL = "<script>alert('case')</script> & $x_1$"


def shifted(run: RunResult, name: str, change: float) -> RunResult:
    """The same run with all scores of the model moved."""
    rows = [
        {
            k: v + change * (1 + hash(row["case"]) % 3 / 10) if isinstance(v, float) else v
            for k, v in row.items()
        }
        for row in run.rows
    ]
    return replace(run, name=name, rows=rows)


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    return tmp_path_factory.mktemp("report") / "scores"


@pytest.fixture(scope="module")
def stock(build_at, scores):
    data = build_at(scores.parent, cases=8)
    evaluate(data.dataset, data.predictions, scores, num_processes=1)
    more = {"curves": {"train loss": [1.0, 0.6, 0.4]}, "training_seconds": 3720.0, "peak_memory_gib": 3.2}
    return data, RunResult.from_folders("nnUNetTrainer", [scores], **more)


@pytest.fixture(scope="module")
def page(stock, scores):
    data, run = stock
    runs = [run, shifted(run, "nnUNetTrainerAPL", 0.05), shifted(run, f"nnUNetTrainer{EVIL}", -0.05)]
    tests = [
        t
        for r in runs[1:]
        for t in compare(run.rows, r.rows, names=(run.name, r.name), margins={"dice": 0.02})
    ]
    pictures = [
        case_picture(
            data.dataset, case, {r.name: data.predictions for r in runs}, class_name="lesion", caption=text
        )
        for case, text in pick_cases(run.rows, class_name="lesion").items()
    ]
    pictures[0] = replace(pictures[0], case=EVIL)
    path = write_report(
        scores / "new" / "report.html",
        Findings(runs, tests, notes=["Fold 3 failed."]),
        title="Balls",
        pictures=pictures,
        provenance=Provenance({"patch_size": [8, 16, 16]}, ["nnunet_softlabel benchmark -d 900"]),
    )
    return path.read_text(encoding="utf-8")


def test_page_stands_alone(page):
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sources
    assert all(s.startswith(("data:image/png;base64,", "#")) for s in sources)
    assert "http" not in re.sub(r'src="[^"]*"', "", page)


def test_every_picture_is_a_png(page):
    for text in re.findall(r'src="data:image/png;base64,([^"]*)"', page):
        assert base64.b64decode(text).startswith(b"\x89PNG")


def test_names_are_escaped(page):
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_page_holds_what_a_reader_needs(page):
    needed = [
        "1 h 02 min",
        "3.20 GiB",
        "train loss",
        "patch_size",
        "nnunet_softlabel benchmark -d 900",
        "scipy",
    ]
    needed += ["Fold 3 failed.", "--threshold tuned", "--threshold rater-corrected", "margin 0.02", "Raters"]
    for text in (*needed, "best Dice: ", "median Dice: ", "worst Dice: "):
        assert text in page, text


def test_losses_are_shown_as_gains_are(page):
    assert "▲" in page
    assert "▼" in page


def test_nothing_is_marked_where_nothing_is_significant(stock, tmp_path):
    _, run = stock
    other = replace(run, name="nnUNetTrainerAPL")
    tests = compare(run.rows, other.rows, names=(run.name, other.name))
    page = write_report(tmp_path / "r.html", Findings([run, other], tests), title="x").read_text(
        encoding="utf-8"
    )
    table = page[page.index("<table>") : page.index("</table>")]
    assert "▲" not in table
    assert "▼" not in table


def test_a_page_of_few_cases_has_no_sign_and_no_interval(stock, tmp_path):
    _, run = stock
    few = replace(run, rows=[row for row in run.rows if row["case"] < "case4"])
    runs = [few, shifted(few, "nnUNetTrainerAPL", 0.05)]
    tests = compare(few.rows, runs[1].rows, names=("nnUNetTrainer", "nnUNetTrainerAPL"))
    page = write_report(tmp_path / "r.html", Findings(runs, tests), title="x").read_text(encoding="utf-8")
    table = page[page.index("<table>") : page.index("</table>")]
    assert not set(table) & set("▲▼△▽")
    assert not re.search(r"<small>-?[0-9.]+ to ", page)
    assert "Too few to say which trainer is better: 4 cases, and 6 are the least." in page
    assert "fewer than 6 patients: too few for an interval, or to decide." in page


def test_one_trainer_without_extras_is_a_page(stock, tmp_path):
    _, run = stock
    page = write_report(tmp_path / "r.html", Findings([RunResult(run.name, run.rows)]), title="x").read_text(
        encoding="utf-8"
    )
    assert "Tests" not in page
    assert "Baseline" not in page


def test_many_classes_keep_their_tables(build, tmp_path):
    names = [f"organ{i}" for i in range(1, 7)]
    data = build(Labels({name: (i,) for i, name in enumerate(names, start=1)}), cases=2)
    evaluate(
        data.dataset,
        data.predictions,
        tmp_path / "scores",
        num_processes=1,
        scoring=Scoring(with_ceiling=False),
    )
    run = RunResult.from_folders("nnUNetTrainer", [tmp_path / "scores"])
    page = write_report(tmp_path / "r.html", Findings([run]), title="x", metrics=["dice"]).read_text(
        encoding="utf-8"
    )
    assert "Not plotted: organ5, organ6" in page
    assert page.count("<h3>organ") == 6


def test_folds_are_collected(stock, scores):
    _, run = stock
    both = RunResult.from_folders("nnUNetTrainer", [scores] * 2)
    assert len(both.rows) == 2 * len(run.rows)
    np.testing.assert_allclose(both.reliability["lesion"]["near"], 2 * run.reliability["lesion"]["near"])
    assert both.threshold == "0.5 (lesion 0.5)"
    assert len(both.cases) == 8


def test_pages_are_overwritten_only_when_asked(stock, tmp_path):
    _, run = stock
    path = tmp_path / "r.html"
    path.write_text("mine")
    with pytest.raises(UsageError, match=r"pass overwrite=True\."):
        write_report(path, Findings([run]), title="x")
    assert path.read_text(encoding="utf-8") == "mine"
    write_report(path, Findings([run]), title="x", metrics=["dice"], overwrite=True)


def test_no_trainer_is_refused(tmp_path):
    with pytest.raises(UsageError, match="at least one"):
        write_report(tmp_path / "r.html", Findings([]), title="x")


def test_best_median_and_worst_are_picked(stock):
    _, run = stock
    picked = pick_cases(run.rows, class_name="lesion")
    values = sorted(
        (r["dice"], r["case"])
        for r in run.rows
        if (r["reference"], r["prediction"]) == ("consensus", "model")
    )
    assert list(picked) == [values[-1][1], values[4][1], values[0][1]]
    assert pick_cases(run.rows, class_name="another") == {}


def test_a_network_that_marks_nothing_has_no_best_case(stock):
    _, run = stock
    dead = [{**row, "dice": 0.0} if "dice" in row else row for row in run.rows]
    assert pick_cases(dead, class_name="lesion") == {}


def test_the_head_says_the_budget_and_the_settings(page):
    head = page[: page.index('<h2 id="summary">')]
    assert "<b>cases</b> 8" in head
    assert "<b>threshold</b> 0.5 (lesion 0.5)" in head
    assert "<b>baseline</b> nnUNetTrainer" in head


def test_the_page_goes_from_verdict_to_details(page):
    places = [
        "verdict",
        "summary",
        "reliability",
        "pictures",
        "training",
        "methods",
        "tests",
        "plots",
        "made",
    ]
    found = [page.index(f'id="{place}"') for place in places]
    assert found == sorted(found)


def test_every_picture_has_a_text_and_cases_a_legend(page):
    texts = re.findall(r'<img [^>]*?alt="([^"]*)"', page)
    assert len(texts) == page.count("<img ")
    assert all(len(text) > 5 for text in texts)
    pictures = page[page.index('id="pictures"') : page.index('id="training"')]
    assert "colours of probabilities from 0 to 1" in pictures
    for rater in ("ann", "bob", "eve"):
        assert pictures.count(f"</span>{rater}</span>") == pictures.count("<h3>")
    assert "the soft label as heat" in pictures


def test_a_page_without_raters_has_no_column_of_raters(stock, tmp_path):
    _, run = stock
    own = replace(run, rows=[row for row in run.rows if row["prediction"] == "model"])
    page = write_report(tmp_path / "r.html", Findings([own]), title="x").read_text(encoding="utf-8")
    assert '<th class="ceiling">' not in page
    assert "among themselves" not in page
    assert "Raters were scored" not in page
    assert "Raters are judged" not in page


def test_cases_are_joined_unless_there_are_many(stock, tmp_path, monkeypatch):
    _, run = stock
    told = "; a line joins a case"
    page = write_report(tmp_path / "few.html", Findings([run]), title="x").read_text(encoding="utf-8")
    assert told in page
    assert "in every case, a line joins a case" in page
    monkeypatch.setattr(figures, "MOST_JOINED", 3)
    page = write_report(tmp_path / "many.html", Findings([run]), title="x").read_text(encoding="utf-8")
    assert "a line joins a case" not in page


def test_words_between_backticks_are_code_and_stay_escaped(stock, tmp_path):
    _, run = stock
    note = f"see `tune-threshold` {EVIL}"
    page = write_report(tmp_path / "r.html", Findings([run], notes=[note]), title="x").read_text(
        encoding="utf-8"
    )
    assert "<code>tune-threshold</code>" in page
    assert "<script" not in page


def test_losses_have_a_plot_per_trainer_and_other_curves_one(stock):
    _, run = stock
    curves = {
        "train_losses": [1.0, 0.5],
        "val_losses": [1.1, 0.7],
        "mean_fg_dice": [0.1, 0.2],
        "lrs": [1.0, 0.9],
    }
    runs = [replace(run, curves=curves), replace(run, name="nnUNetTrainerAPL", curves=curves)]
    texts = [text for text, _ in curve_plots(runs)]
    assert [text.split(":")[0] for text in texts] == [
        "Pseudo Dice", "Learning rate", "Loss of nnUNetTrainer", "Loss of APL",
    ]  # fmt: skip
    assert "training and validation" in texts[2]


def test_methods_can_be_pasted(page):
    text = re.search(r"<blockquote>(.*?)</blockquote>", page, re.DOTALL).group(1)
    for needed in (
        "Networks were trained with nnU-Net v2",
        "Wilcoxon",
        "Holm",
        "BCa bootstrap",
        "scipy",
        "thresholds",
    ):
        assert needed in text
    assert "None" not in text


def test_methods_say_what_the_plan_says(stock):
    _, run = stock
    plan = {
        "configuration": "2d", "plans": "nnUNetPlans (abc)", "epochs": 8, "iterations per epoch": 80,
        "device": "cpu", "fusion": '{"method": "mean"}',
    }  # fmt: skip
    text = methods_text([run], [], ["dice", "brier_near", "ged"], plan, versions={"torch": "2.8"})
    assert "Each training had 8 epochs of 80 iterations on cpu." in text
    assert "Dice against the consensus of the raters; Brier near the object against the soft label" in text
    assert text.endswith("Software: torch 2.8.")
    assert "Wilcoxon" not in text
    assert "by this fusion: method mean." in text
    assert ("training", "8 epochs of 80 iterations") in facts(plan, [run])


def test_methods_say_the_budget_of_each_trainer(stock):
    _, run = stock
    plan = {"epochs": {"A": 10, "B": [3, 2], "C": 10}, "iterations per epoch": 250, "device": "cpu"}
    text = methods_text([run], [], ["dice"], plan, versions={})
    assert "Each training of A and C had 10 epochs of 250 iterations on cpu." in text
    assert "Each training of B had 3 or 2 epochs of 250 iterations on cpu." in text
    budgets = "A and C: 10 epochs of 250 iterations; B: 3 or 2 epochs of 250 iterations"
    assert ("training", budgets) in facts(plan, [run])


@pytest.mark.parametrize(
    ("mean", "low", "high", "expected"),
    [
        (0.127, 0.0982, 0.1731, ("0.127", "0.098 to 0.173")),
        (0.0, 0.0, 0.0, ("0.00", "0.00 to 0.00")),
        (0.02134, 0.0201, 0.0226, ("0.0213", "0.0201 to 0.0226")),
        (18.84, 7.6, 35.61, ("18.8", "7.6 to 35.6")),
        (-0.00001, -0.2, 0.2, ("0.000", "-0.200 to 0.200")),
        (math.nan, math.nan, math.nan, ("-", "")),
    ],
)
def test_a_mean_and_its_interval_have_the_same_digits(mean, low, high, expected):
    interval = Interval(mean, low, high, 8, 8, "bca")
    assert (mean_text(interval), range_text(interval)) == expected


def test_a_recalibrated_row_has_the_colour_of_its_network():
    table = np.array([[10.0, 2.0, 3.0], [5.0, 4.0, 3.0]])
    both = {"nnUNetTrainer": table, "nnUNetTrainer, recalibrated": table * [1, 1, 0.9]}
    assert figures.reliability_plot("x", both) != figures.reliability_plot("x", {"a": table, "b": table})


def test_slice_cuts_across_thick_slices_where_the_object_is_largest():
    soft = np.zeros((8, 100, 100))
    soft[2, 50:54, 40:60] = 1
    soft[5, 50:60, 40:60] = 0.5
    cut, aspect = slice_through(soft, spacing_mm=(3.0, 1.0, 0.5))
    assert cut == (5, slice(35, 75), slice(30, 70))  # 40 pixels or twice the object
    assert aspect == 2.0
    assert soft[cut].shape == (40, 40)


def test_slice_of_an_empty_or_flat_case_is_a_slice():
    cut, _ = slice_through(np.zeros((8, 30, 20)), spacing_mm=(3.0, 1.0, 1.0))
    assert cut == (4, slice(0, 30), slice(0, 20))
    cut, _ = slice_through(np.ones((30, 20)), spacing_mm=(1.0, 1.0))
    assert cut == (slice(0, 30), slice(0, 20))


def test_picture_of_a_flat_case(build):
    data = build(ending=".png", cases=1)
    picture = case_picture(data.dataset, "case0", {"a": data.predictions}, class_name="lesion")
    assert picture.image.shape == picture.soft.shape == picture.probabilities["a"].shape
    assert set(picture.raters) == {"ann", "bob", "eve"}


def test_picture_without_image_is_refused(build):
    data = build(cases=1)
    data.dataset.image_files("case0")[0].unlink()
    with pytest.raises(DatasetError, match="has no image"):
        case_picture(data.dataset, "case0", {}, class_name="lesion")


def test_picture_of_an_image_on_another_grid_is_refused(build):
    data = build(cases=1)
    from nnunet_softlabel.formats.grid import Grid
    from nnunet_softlabel.formats.images import write_image

    grid = Grid.upright((4, 4, 4), (1.0, 1.0, 1.0))
    write_image(data.dataset.image_files("case0")[0], np.zeros((4, 4, 4), np.uint8), grid)
    with pytest.raises(DatasetError, match="its image has shape"):
        case_picture(data.dataset, "case0", {}, class_name="lesion")


def test_plots_survive_cases_without_values():
    assert figures.distribution_plot("dice", {"a": [math.nan], "b": []}, math.nan)
    assert figures.scatter_plot("dice", ("a", "b"), [(math.nan, 1.0)])
    assert figures.curve_plot("loss", {"a": [], "b": [1.0]})
    assert figures.loss_plot("loss", {"training": [1.0]}, 0)
    assert figures.paired_plot("dice", {"a": {"x": math.nan}, "b": {}}, math.nan)
    assert figures.reliability_plot("x", {"a": np.zeros((15, 3))})
    assert figures.panel(np.zeros((5, 5)), aspect=1.0, heat=np.zeros((5, 5)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (number(0.12345), "0.123"),
        (number(None), "-"),
        (number(math.nan), "-"),
        (number(120.0), "120"),
        (p_value(0.00001), "< 0.001"),
        (p_value(0.0456), "0.046"),
        (p_value(math.nan), "-"),
        (duration(None), "-"),
        (duration(12), "12 s"),
        (duration(7260), "2 h 01 min"),
    ],
)
def test_numbers_as_they_are_printed(text, expected):
    assert text == expected
