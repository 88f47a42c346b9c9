"""The study of the defaults: real slices, the trainers' start, the rule that judges an ending."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from docs.studies.defaults import __main__ as study
from docs.studies.defaults.tables import Setting, complete, write
from docs.studies.shared import images
from docs.studies.shared.cases import CaseData
from docs.studies.shared.small_network import NetworkBudget


def make_case(number):
    rng = np.random.default_rng(number)
    votes = np.zeros((3, 2, 2, 16, 16), bool)  # two classes; nobody marks the second slice
    for r in range(3):
        votes[r, 0, 0, 2 : 6 + r, 4:10] = True
        votes[r, 1, 0, 10:12, 4 : 6 + r] = True
    image = (rng.normal(size=(2, 16, 16)) + 2 * votes.mean(axis=(0, 1))).astype(np.float32)
    return CaseData(f"case{number}", f"patient{number // 2}", image, votes, None, (1.0, 1.0, 1.0))


CASES = tuple(make_case(number) for number in range(20))


def test_parts_of_real_slices_hold_different_patients_and_only_marked_slices():
    parts = images.slices_of(CASES, 3)
    assert [len(part.image) for part in parts] == [12, 2, 6]
    pictures = [image.tobytes() for part in parts for image in part.image]
    assert sorted(pictures) == sorted(case.image[0].tobytes() for case in CASES)
    assert all(part.soft.any(axis=(1, 2)).all() for part in parts)


def test_all_classes_together_are_the_object_of_a_slice():
    part = images.slices_of(CASES, 0)[0]
    either = CASES[0].votes.any(axis=1).mean(axis=0)[0]
    np.testing.assert_allclose(part.soft[0], either)
    np.testing.assert_array_equal(part.truth[0], either > 0.5)


def test_a_known_truth_is_not_replaced_by_the_majority():
    truth = np.zeros((2, 2, 16, 16), bool)
    truth[1, 0, 3, 3] = True
    part = images.slices_of([replace(case, truth=truth) for case in CASES], 0)[0]
    assert part.truth.sum(axis=(1, 2)).tolist() == [1] * len(part.truth)


def test_the_region_term_sees_the_majority_and_cross_entropy_the_mean():
    target = torch.tensor([[[0.6, 0.4], [0.4, 0.6]]])  # one image, two classes, two pixels
    sure = torch.log(torch.tensor([[[0.999, 0.001], [0.001, 0.999]]]))
    soft = torch.log(target)
    dml, ce = (loss(soft, target, 0.0) for loss in (study.region_of_majority, study.stock))
    assert torch.isfinite(dml)
    assert torch.isfinite(ce)
    from nnunet_softlabel.losses import cross_entropy

    region = study.region_of_majority(sure, target, 0.0) - cross_entropy(sure, target)
    assert region == pytest.approx(0, abs=0.01)  # the majority's mask, hit exactly


@pytest.mark.parametrize("is_plenty", [True, False])
def test_an_ending_has_the_trainers_start_unless_foreground_is_plenty(monkeypatch, is_plenty):
    monkeypatch.setattr(study, "REAL", {"bubil": lambda: CASES})
    monkeypatch.setattr(study, "PLENTY", 0.01 if is_plenty else 0.9)
    budget = NetworkBudget
    monkeypatch.setattr(study, "NetworkBudget", lambda iterations: budget(8, 2, features=4, stages=2))
    study.data_of.cache_clear()
    default, head = study.run_cell(("bubil", "", "8", study.DEFAULT, "0"))
    study.data_of.cache_clear()
    assert (default["loss"], head["loss"]) == (study.DEFAULT, study.HEAD)
    assert default["ended_at"] == ("0" if is_plenty else "2")  # a quarter at the latest
    assert set(default) == set(study.COLUMNS)
    assert default["brier_near"] != head["brier_near"]


def row(loss, seed, **scores):
    about = {"data": "lidc", "fraction": "", "iterations": "2000", "loss": loss, "seed": str(seed)}
    zeros = dict.fromkeys(study.COLUMNS, "0.5") | {"collapsed": "0", "ended_at": "", "volume_ratio": "1.0"}
    return {**zeros, **about, **{name: str(value) for name, value in scores.items()}}


SETTING = Setting("lidc", "", "2000", ("stock", "DML+CE", "CE"), range(2), is_judged=True)


def test_seeds_that_lack_a_loss_are_left_out():
    rows = [row(loss, seed) for seed in (0, 1) for loss in SETTING.names if (loss, seed) != ("CE", 1)]
    assert {found["seed"] for found in complete(rows, SETTING)} == {"0"}


def test_the_rule_ranks_the_endings_and_names_where_one_is_below_stock(tmp_path, monkeypatch):
    from docs.studies.defaults import tables

    rows = [
        *(row("stock", seed, dice=0.8 + seed / 1000) for seed in range(3)),
        *(row("DML+CE", seed, dice=0.8, brier_near=0.02, qubiq_dice=0.8) for seed in range(3)),
        *(row("CE", s, dice=0.7, brier_near=0.03, qubiq_dice=0.7, volume_ratio=2) for s in range(3)),
    ]
    monkeypatch.setattr(tables, "PAGE", tmp_path / "defaults" / "tables.md")
    (tmp_path / "defaults").mkdir()
    csv_file = tmp_path / "results.csv"
    lines = [",".join(study.COLUMNS), *(",".join(r[c] for c in study.COLUMNS) for r in rows)]
    csv_file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    write(csv_file, [SETTING], "DML+CE")
    page = (tmp_path / "defaults" / "tables.md").read_text(encoding="utf-8")
    assert "| DML+CE | 1.00 | 1.00 | 1.00 | 1.00 | nowhere |" in page
    assert "| CE | 2.00 | 2.00 | 2.00 | 2.00 | lidc 2000 |" in page
    assert "CE minus DML+CE" in page
