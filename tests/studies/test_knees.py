"""The study on generated knees: labels, thresholds and scores of a cell."""

from __future__ import annotations

import numpy as np
import pytest

from docs.studies.knees.__main__ import LABELS, LOSSES, Knees, cells, drawn, run_cell, score
from docs.studies.shared.labels import rater_corrected
from docs.studies.shared.small_network import NetworkBudget
from nnunet_softlabel.fusion import RaterVotes
from nnunet_softlabel.simulation.knee_phantom import KneeLesions, make_knee_phantom


@pytest.fixture(scope="module")
def few_knees():
    knees = [
        make_knee_phantom(seed, shape=(8, 32, 32), lesions=KneeLesions(number=n))
        for seed, n in ((1, 1), (2, 2), (3, 1), (4, 0))
    ]
    votes = [
        RaterVotes(drawn(k, "missed", s)[:, None] == 1, ("a", "b", "c"), k.spacing_mm)
        for s, k in enumerate(knees[:2])
    ]
    return Knees(knees[:2], knees[2:3], knees[2:], votes)


def test_unanimous_readers_draw_the_truth():
    knee = make_knee_phantom(7, shape=(8, 32, 32), lesions=KneeLesions(number=2))
    np.testing.assert_array_equal(drawn(knee, "unanimous", 0), np.stack([knee.truth] * 3))


def test_every_label_and_loss_of_a_cell_is_known():
    found = list(cells())
    assert len(set(found)) == len(found)
    assert {cell[2] for cell in found} == set(LABELS)
    assert {cell[3] for cell in found} == set(LOSSES)


def test_rater_corrected_threshold_follows_the_rates():
    # a truth of 50 voxels, three raters who each miss another 10 of them and mark nothing else:
    # sensitivity 0.8, no false positives, so (0.8 + 0) / 2; a little less, since the model of independent
    # raters expects some voxels that all three missed
    votes = np.zeros((3, 1, 1, 20, 20), dtype=bool)
    votes.reshape(3, -1)[:, :50] = True
    for rater in range(3):
        votes.reshape(3, -1)[rater, 10 * rater : 10 * (rater + 1)] = False
    found = rater_corrected([RaterVotes(votes, ("a", "b", "c"), (1.0, 1.0, 1.0))])
    assert found == pytest.approx(0.4, abs=5e-3)


def test_scores_of_a_perfect_and_of_an_empty_prediction():
    sick, healthy = np.zeros((2, 3, 8, 8), dtype=bool)
    sick[1, 2:5, 2:5] = True
    perfect = score([sick, healthy], [sick * 0.9, healthy * 0.0], 0.5)
    assert (perfect["dice"], perfect["precision"], perfect["recall"], perfect["lesion_f1"]) == (1, 1, 1, 1)
    assert (perfect["knee_sensitivity"], perfect["knee_specificity"], perfect["knee_auc"]) == (1, 1, 1)
    empty = score([sick, healthy], [sick * 0.1, healthy * 0.0], 0.5)
    assert (empty["dice"], empty["recall"], empty["knee_sensitivity"]) == (0, 0, 0)
    assert np.isnan(empty["precision"])


def test_a_cell_has_a_row_per_threshold(few_knees, monkeypatch):
    monkeypatch.setattr("docs.studies.knees.__main__.knees_of", lambda *cell: few_knees)
    monkeypatch.setattr(
        "docs.studies.knees.__main__.BUDGET", NetworkBudget(iterations=2, batch_size=2, features=4, stages=3)
    )
    rows = run_cell(("missed", "1", "mean", "APL", "0"))
    assert [row["threshold"] for row in rows] == ["0.5", "tuned", "rater-corrected"]
    rows = run_cell(("missed", "1", "majority", "BCE", "0"))
    assert [row["threshold"] for row in rows] == ["0.5", "tuned"]


def test_a_refused_prior_is_a_row_that_says_so(few_knees, monkeypatch):
    monkeypatch.setattr("docs.studies.knees.__main__.knees_of", lambda *cell: few_knees)

    def refuses(knees, votes):
        raise ValueError("not brighter")

    monkeypatch.setitem(LABELS, "anatomy", refuses)
    (row,) = run_cell(("missed", "0", "anatomy", "APL", "0"))
    assert row["note"] == "refused: not brighter"
