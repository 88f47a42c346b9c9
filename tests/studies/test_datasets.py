"""The study on the real data sets: labels of few readers, folds, scores by class."""

from __future__ import annotations

import numpy as np
import pytest

from docs.studies.datasets.__main__ import (
    BY_LOT,
    EXPERIMENTS,
    N_FOLDS,
    SAME,
    SOFT_CE,
    Experiment,
    cells,
    consensus,
    labels_of,
    run_cell,
    scores_of_readers,
    split,
    votes_used,
)
from docs.studies.shared.cases import BUBIL, CaseData, bubil_cases
from docs.studies.shared.small_network import NetworkBudget


def make_case(name, group, n_readers=4, n_classes=1):
    rng = np.random.default_rng([ord(letter) for letter in name])
    votes = np.zeros((n_readers, n_classes, 2, 16, 16), dtype=bool)
    for reader in range(n_readers):
        for c in range(n_classes):
            votes[reader, c, :, 8 * c + 1 : 8 * c + 4 + reader, 4:10] = True
    image = rng.normal(size=(2, 16, 16)).astype(np.float32) + votes.mean(axis=(0, 1))
    return CaseData(name, group, image.astype(np.float32), votes, None, (1.0, 1.0, 1.0))


@pytest.fixture
def twenty():
    return tuple(make_case(f"case{i}", f"patient{i // 2}") for i in range(20))


def test_no_patient_is_on_both_sides(twenty):
    tested = []
    for fold in range(N_FOLDS):
        training, test = split(twenty, fold)
        assert not {case.group for case in training} & {case.group for case in test}
        tested += [case.name for case in test]
    assert sorted(tested) == sorted(case.name for case in twenty)


@pytest.mark.parametrize("variant", [SAME, BY_LOT, "1"])
def test_label_of_one_reader_is_hard(variant):
    soft, majority = labels_of(votes_used(make_case("a", "p"), variant, 0))
    assert set(np.unique(soft)) <= {0.0, 1.0}
    np.testing.assert_array_equal(soft, majority)


def test_readers_are_drawn_anew_for_each_case_or_stay_the_same():
    cases = [make_case(name, "p") for name in "abcdefgh"]  # reader r marks 3 + r rows
    rows = {v: {int(votes_used(case, v, 2).sum()) for case in cases} for v in (SAME, BY_LOT)}
    assert len(rows[SAME]) == 1
    assert len(rows[BY_LOT]) > 1
    assert votes_used(cases[0], SAME, 2).sum() > votes_used(cases[0], SAME, 1).sum()
    assert len(votes_used(cases[0], "3", 0)) == 3


def test_a_tie_of_two_readers_is_background():
    case = make_case("a", "p", n_readers=2)
    soft, majority = labels_of(case.votes)
    assert (soft == 0.5).any()
    assert not majority[soft == 0.5].any()


def test_consensus_of_classes_is_the_most_probable():
    # one voxel each: background .2 .5 .3; a third each, where the background wins; .1 .3 .6
    soft = np.array([[0.5, 1 / 3, 0.3], [0.3, 1 / 3, 0.6]]).reshape(2, 1, 1, 3)
    np.testing.assert_array_equal(consensus(soft).reshape(2, 3), [[1, 0, 0], [0, 0, 1]])


@pytest.mark.parametrize("n_classes", [1, 2])
def test_a_cell_has_a_row_per_test_case_and_class(monkeypatch, n_classes):
    cases = tuple(make_case(f"c{i}", f"c{i}", n_classes=n_classes) for i in range(10))
    budget = NetworkBudget(iterations=2, batch_size=2, features=4, stages=3)
    monkeypatch.setitem(EXPERIMENTS, "bubil", Experiment(lambda: cases, 3, budget))
    rows = run_cell(("bubil", "all", "0", SOFT_CE))
    assert len(rows) == 2 * n_classes
    assert {row["class"] for row in rows} == {str(c + 1) for c in range(n_classes)}
    assert all(row["brier_near"] >= 0 for row in rows)


def test_a_reader_is_scored_against_the_others_only():
    votes = np.zeros((3, 1, 1, 4, 4), bool)
    votes[:2, 0, 0, :2] = True  # two readers mark 8 pixels
    votes[2, 0, 0, :1] = True  # the third 4 of them
    case = CaseData("a", "a", np.zeros((1, 4, 4), np.float32), votes, None, (1.0, 1.0, 1.0))
    (row,) = scores_of_readers(case, 10.0)
    # the consensus of the others: of 1 and 3 and of 2 and 3 the 4 pixels both marked (a tie is background)
    assert row["dice"] == pytest.approx((2 * 2 * 4 / (8 + 4) + 2 * 4 / (4 + 8)) / 3)
    assert row["class"] == "1"


def test_cells_are_those_of_the_experiments_named():
    found = list(cells(["raters"]))
    assert len(found) == 3 * 3 * 3
    assert {cell[0] for cell in found} == {"raters"}


@pytest.mark.shared_data
@pytest.mark.skipif(not BUBIL.is_dir(), reason="needs the BU-BIL cells beside the source tree")
def test_cells_of_bubil_are_the_dark_part_of_the_masks():
    cases = bubil_cases()
    assert len(cases) == 35
    assert {case.votes.shape[0] for case in cases} == {4}
    assert 0.02 < np.mean([case.votes.mean() for case in cases]) < 0.08  # 4.4 % according to its README
