"""The study of seven raters: who is left out, and what a network is compared with."""

from __future__ import annotations

import numpy as np
import pytest

from docs.studies.raters import __main__ as study
from docs.studies.raters import tables
from docs.studies.shared.cases import CaseData
from docs.studies.shared.small_network import NetworkBudget


def make_case(number):
    rng = np.random.default_rng(number)
    votes = np.zeros((7, 1, 1, 16, 16), bool)
    for r in range(7):
        votes[r, 0, 0, 2 : 7 + r, 4:10] = True
    image = (rng.normal(size=(1, 16, 16)) + votes.mean(axis=0)[0]).astype(np.float32)
    return CaseData(f"case{number}", f"case{number}", image, votes, None, (1.0, 1.0, 1.0))


@pytest.fixture(autouse=True)
def ten_cases(monkeypatch):
    cases = tuple(make_case(n) for n in range(10))
    monkeypatch.setattr(study, "brain_growth_cases", lambda: cases)
    monkeypatch.setattr(study, "lidc_cases", lambda: cases)
    for name in ("BUDGET", "FIVEFOLD"):
        monkeypatch.setattr(study, name, NetworkBudget(iterations=2, batch_size=2, features=4, stages=2))


def test_every_experiment_gives_rows_for_its_table(tmp_path, monkeypatch):
    rows = [
        row for cell in study.cells(list(study.EXPERIMENTS)) if cell[2] == "0" for row in study.run_cell(cell)
    ]
    assert {row["experiment"] for row in rows} == set(study.EXPERIMENTS)
    assert all(set(row) <= set(study.COLUMNS) for row in rows)
    texts = [{name: str(row.get(name, "")) for name in study.COLUMNS} for row in rows]
    monkeypatch.setattr(tables, "PAGE", tmp_path / "raters" / "tables.md")
    (tmp_path / "raters").mkdir()
    monkeypatch.setattr(tables, "read_rows", lambda path: texts)
    tables.write(tmp_path / "results.csv")
    assert (tmp_path / "raters" / "tables.md").read_text().count("## ") == 6


def test_no_cell_is_twice_and_folds_come_in_order():
    cells = list(study.cells(list(study.EXPERIMENTS)))
    assert len(cells) == len(set(cells))
    folds = [int(cell[2]) for cell in cells]
    assert folds == sorted(folds)


def test_network_equal_to_another_rater_is_closer_than_those_farther_away():
    case = make_case(0)
    found = study.against_left_out(case, 0, case.votes[1].astype(np.float32))
    assert found["closer_than"] == pytest.approx((5 + 0.5) / 6)  # rater 2 ties, 3 to 7 are farther
    assert found["network"] > found["other_raters"]


def test_consensus_is_that_of_the_others():
    case = make_case(0)
    found = study.against_left_out(case, 6, case.votes[6].astype(np.float32))
    assert found["network"] == 1
    assert found["consensus"] < 1


def test_the_reader_who_is_left_out_trains_nothing(monkeypatch):
    seen = []
    monkeypatch.setattr(
        study,
        "fit_and_predict",
        lambda training, soft, test, loss, **kwargs: seen.append(soft) or [c.votes[0] * 0.9 for c in test],
    )
    study.run_cell(("left out", "rater7", "0", study.SOFT_CE))
    assert all(s[0, 0, 12].max() == 0 for s in seen[0])  # only rater 7 marks row 12
