"""The study on LIDC: counts by votes, tables from one row a case."""

from __future__ import annotations

from inspect import signature

import numpy as np
import pytest

from docs.studies.lidc import __main__ as lidc_study
from docs.studies.lidc import seeds
from docs.studies.lidc import tables as lidc_tables
from docs.studies.lidc.__main__ import COLUMNS, marked_at_thresholds, marked_by_votes
from docs.studies.lidc.fine_tuning import cells
from docs.studies.lidc.tables import (
    BASE,
    CHOICE_FOLDS,
    DEFAULT,
    METRICS,
    SHARES,
    THRESHOLDS,
    as_soft_metrics,
    comparison,
    mean_over_seeds,
    same_volume,
    three_seeds,
    votes,
)
from docs.studies.lidc.trainers.fine_tuning import VARIANTS
from docs.studies.shared.resumable import read_rows


@pytest.mark.parametrize("n_readers", [1, 2, 3, 4])
def test_voxels_are_counted_by_the_share_of_readers_who_marked_them(n_readers):
    n_votes = np.arange(n_readers + 1)
    soft = np.round(n_votes / n_readers * 32760) / 32760  # as stored
    marked = n_votes == n_readers
    found = marked_by_votes(soft, marked)
    assert found["voxels nobody"] == found["voxels all"] == 1
    assert found["voxels half"] == (n_readers % 2 == 0)
    assert found["voxels less than half"] == found["voxels more than half"] == (n_readers - 1) // 2
    assert [found[f"marked {share}"] for share in SHARES] == [0, 0, 0, 0, 1]


def row(trainer, fold, case, score, marked):
    counts = dict(zip((f"marked {s}" for s in SHARES), map(str, marked), strict=True))
    about = {"trainer": trainer, "fold": fold, "case": case, "group": case}
    counts |= {f"voxels {s}": "100" for s in SHARES} | {"expected voxels": "250"}
    counts |= {f"marked at {t}": str(300 - 200 * float(t)) for t in THRESHOLDS}
    counts |= {f"hits at {t}": str(200 - 100 * float(t)) for t in THRESHOLDS}
    return about | {m: str(score) for m in METRICS} | counts


def test_the_surplus_outside_the_consensus_is_counted_against_stock():
    rows = [
        row("nnUNetTrainerSoftCE", "0", "a", 0.5, (1, 13, 36, 60, 90)),
        row(BASE, "0", "a", 0.5, (0, 10, 20, 55, 90)),
    ]
    voxels, stock, soft = votes(rows).splitlines()[-3:]
    assert voxels.startswith("| voxels | 100 |")
    assert stock.startswith(f"| `{BASE}` | 0.00 % | 10.0 % |")
    assert soft.endswith("| +20 | 5 % | 15 % | 80 % |")


def test_trainers_are_compared_where_they_mark_as_much_as_stock():
    stock = row(BASE, "0", "a", 0.5, [0] * 5)
    soft = {
        **row("nnUNetTrainerSoftCE", "0", "a", 0.5, [0] * 5),
        "marked at 0.5": "260",
        "marked at 0.65": "199",
    }
    text = same_volume([stock, soft])
    assert "mean volume is 1.250 of the consensus" in text
    # 200 of 200 consensus voxels marked at 0.5 by stock, by the other at 0.65 most nearly so, with 135 hits
    assert f"| `{BASE}` | 0.5 | 1.000 | 0.750 | 0.750 |" in text
    assert "| `nnUNetTrainerSoftCE` | 0.65 | 0.995 | 0.678 | 0.675 |" in text


def test_voxels_are_counted_at_every_threshold():
    soft, probability = np.array([0.0, 0.5, 0.75, 1.0]), np.array([0.52, 0.58, 0.79, 0.99])
    found = marked_at_thresholds(soft, probability)
    assert [found[f"marked at {t}"] for t in THRESHOLDS] == [4, 3, 2, 2, 2, 2, 1]
    assert [found[f"hits at {t}"] for t in THRESHOLDS] == [2, 2, 2, 2, 2, 2, 1]
    assert found["expected voxels"] == 2.25


def test_every_trainer_is_compared_with_stock_case_by_case():
    rows = [row(BASE, "0", case, 0.25, [0] * 5) for case in "abcdefgh"]
    rows += [row("nnUNetTrainerSoftCE", "0", case, 0.75, [0] * 5) for case in "hgfedcba"]
    text = comparison(as_soft_metrics(rows))
    assert f"| `{BASE}` | 0.250 |" in text
    assert "| `nnUNetTrainerSoftCE` | Dice | +0.500 | +0.500 to +0.500 |" in text


def test_a_row_of_the_table_has_what_the_study_writes():
    assert set(row(BASE, "0", "a", 0.5, [0] * 5)) == set(COLUMNS)


def test_only_what_is_missing_is_prepared(tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(lidc_study.subprocess, "run", lambda command, **_: called.append(command[:2]))
    preprocessed = tmp_path / "preprocessed" / "Dataset501_LIDC"
    lidc_study.prepare(tmp_path)
    assert [command[0] for command in called] == [
        "nnunet_softlabel", "nnUNetv2_plan_and_preprocess", "nnUNetv2_preprocess", "nnunet_softlabel",
    ]  # fmt: skip
    (tmp_path / "raw" / "Dataset501_LIDC").mkdir(parents=True)
    (preprocessed / "nnUNetPlans_2d").mkdir(parents=True)
    (preprocessed / "nnUNetPlans.json").touch()
    called.clear()
    lidc_study.prepare(tmp_path)
    assert [tuple(command) for command in called] == [("nnunet_softlabel", "reduce-plans")]


def test_a_cell_trains_alone_and_is_scored_case_by_case(tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr(lidc_study.subprocess, "run", lambda command, **_: trained.append(command))
    monkeypatch.setattr(lidc_study.SoftDataset, "find", lambda _: None)
    monkeypatch.setattr(lidc_study, "evaluate", lambda *_, **__: None)
    monkeypatch.setattr(lidc_study, "rows_of", lambda _, folder, scores, about: [{**about, "folder": folder}])
    (found,) = lidc_study.run_cell((BASE, "3"), work=tmp_path)
    command = " ".join(map(str, trained[0]))
    assert "-tr nnUNetTrainer -f 3" in command
    assert "--only train" in command
    assert (found["trainer"], found["fold"]) == (BASE, "3")
    assert found["folder"].parts[-3:] == ("nnUNetTrainer__nnUNetPlansReduced12__2d", "fold_3", "validation")


def test_recalibrated_rows_keep_each_metric_beside_its_home_reference(tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(lidc_study.subprocess, "run", lambda command, **_: called.append(command))
    monkeypatch.setattr(lidc_study.tables, "RECALIBRATED", tmp_path / "recalibrated.csv")
    keys = {"case": "a", "group": "p", "class": "nodule", "prediction": "model"}
    scored = [
        {"trainer": trainer, **keys, "reference": reference, "dice": dice, "brier_near": dice / 10}
        for trainer, base in ((BASE, 0.5), (f"{BASE}, recalibrated", 0.7))
        for reference, dice in (("soft", base), ("consensus", base + 0.1))
    ]
    monkeypatch.setattr(lidc_study, "read_rows", lambda path: scored)
    lidc_study.recalibrate(tmp_path)
    train, scores = (" ".join(map(str, command)) for command in called)
    assert "--only train" in train
    assert "--only report" in scores
    assert "--calibrate isotonic" in scores
    rows = read_rows(tmp_path / "recalibrated.csv")
    assert [(row["trainer"], row["dice"], row["brier_near"]) for row in rows] == [
        (BASE, "0.6", "0.05"),
        (f"{BASE}, recalibrated", "0.8", "0.07"),
    ]


def fine_tuned(path, scores):
    """A CSV of every variant on the folds that choose; ``scores``: name -> Dice, other scores."""
    lines = [",".join(("trainer", "fold", "case", "group", *METRICS))]
    for fold in CHOICE_FOLDS:
        for name in (BASE, DEFAULT, *VARIANTS):
            dice, other = scores.get(name, (0.8, 0.5))
            values = [str(dice if m in ("dice", "qubiq_dice") else other) for m in METRICS]
            lines.append(",".join((name, fold, f"case{fold}", f"case{fold}", *values)))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_the_variant_with_the_best_scores_is_chosen_unless_it_loses_dice(tmp_path):
    path = tmp_path / "fine_tuned.csv"
    good, loses_dice = "FineTuneRate3e3Epochs6", "FineTuneRate1e2Epochs18"
    fine_tuned(path, {good: (0.8, 0.3), loses_dice: (0.79, 0.1)})
    assert lidc_tables.chosen_variant(path) == good


def test_nothing_is_chosen_or_tested_while_a_variant_lacks_a_fold(tmp_path):
    path = tmp_path / "fine_tuned.csv"
    fine_tuned(path, {})
    path.write_text("\n".join(path.read_text(encoding="utf-8").splitlines()[:-1]), encoding="utf-8")
    assert lidc_tables.chosen_variant(path) is None
    assert {fold for _, fold in cells(None)} == set(CHOICE_FOLDS)
    assert ("FineTuneRate3e3Epochs6", "2") in set(cells("FineTuneRate3e3Epochs6"))


def test_every_variant_of_the_fine_tuning_is_a_trainer_that_nnunet_finds():
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    from docs.studies.lidc.trainers import fine_tuning

    for name, (base, rate, epochs) in VARIANTS.items():
        trainer = getattr(fine_tuning, name)
        assert issubclass(trainer, base)
        assert (trainer.rate, trainer.number, trainer.__name__) == (rate, epochs, name)
        assert list(signature(trainer).parameters) == list(signature(nnUNetTrainer).parameters)


def rows_of_seeds(trainer, scores):
    about = row(trainer, "0", "a", 0, [0] * 5)
    return [{**about, "seed": str(s), "dice": score} for s, score in enumerate(scores)]


def test_a_case_counts_with_the_mean_of_the_seeds_that_have_a_score():
    (found,) = mean_over_seeds(rows_of_seeds(BASE, ["0.5", "", "0.7"]))
    assert float(found["dice"]) == pytest.approx(0.6)
    (nothing,) = mean_over_seeds(rows_of_seeds(BASE, ["", "", ""]))
    assert nothing["dice"] == ""


def test_every_seed_is_shown_and_the_mean_of_networks_is_tested_as_a_trainer():
    rows = [
        {**r, "case": case}
        for name, scores in {
            BASE: ["0.5", "0.6", "0.7"],
            DEFAULT: ["0.6", "0.7", "0.8"],
            f"{DEFAULT}{seeds.AVERAGED}": ["0.9"],
        }.items()
        for r in rows_of_seeds(name, scores)
        for case in "abcdefgh"
    ]
    unfinished = {**row(BASE, "1", "z", 0, [0] * 5), "seed": "1", "dice": "0.0"}
    text = three_seeds([*rows, unfinished])
    assert f"| `{BASE}` | 1 | 0.6000 |" in text
    assert f"| `{DEFAULT}{seeds.AVERAGED}` | Dice | +0.300 |" in text
    assert f"| `{DEFAULT}` | Dice | +0.100 |" in text


def test_seeds_are_trained_fold_by_fold_and_their_mean_comes_last():
    found = list(seeds.cells((BASE, DEFAULT), ("0", "1")))
    assert found[:3] == [(BASE, "0", "0"), (DEFAULT, "0", "0"), (BASE, "1", "0")]
    assert found[6:8] == [(f"{name}{seeds.AVERAGED}", "0 1 2", "0") for name in (BASE, DEFAULT)]
    assert len(found) == 16


def test_the_mean_is_that_of_the_three_networks_of_the_fold(tmp_path, monkeypatch):
    averaged, trained = [], []
    monkeypatch.setattr(lidc_study, "run_benchmark", lambda report, *flags: trained.append(flags))
    monkeypatch.setattr(lidc_study.SoftDataset, "find", lambda _: None)
    monkeypatch.setattr(lidc_study, "average", lambda _, folders, output, **__: averaged.extend(folders))
    monkeypatch.setattr(lidc_study, "evaluate", lambda *_, **__: None)
    monkeypatch.setattr(lidc_study, "rows_of", lambda _, folder, scores, about: [about])
    (found,) = lidc_study.seed_cell((f"{BASE}{seeds.AVERAGED}", "0 1 2", "4"), work=tmp_path)
    assert [flags[flags.index("--seeds") + 1] for flags in trained] == ["0", "1", "2"]  # if not there yet
    assert [folder.parts[-5] for folder in averaged] == ["seed_0", "seed_1", "seed_2"]
    assert all(folder.parts[-2:] == ("fold_4", "validation") for folder in averaged)
    assert (found["seed"], found["fold"]) == ("0 1 2", "4")
