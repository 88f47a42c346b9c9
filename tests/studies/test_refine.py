"""The study of lesion-wise fusion: its data are what the design says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from docs.studies.refine import labels, real, scenes
from docs.studies.refine.__main__ import DATA, PAPER, cells, rate_error, run_cell
from docs.studies.shared.small_network import NetworkBudget


def test_knees_to_train_on_have_readers_who_miss_and_those_to_test_on_have_none():
    training, test = scenes.knees("missed", 1.0, 0.3, 0)
    assert training.votes.shape == (scenes.N_TRAINING, 3, *scenes.KNEE_SHAPE)
    assert test.votes.shape[1] == 0
    assert (training.rates < 0.8).all()
    assert not (training.votes & ~training.truth[:, None]).any()


def test_without_a_network_no_label_is_below_the_mean():
    training, _ = scenes.knees("all", 1.0, 0.3, 0)
    votes = labels.votes_of(training)
    label, model = labels.lesions(votes, None)
    assert (label >= labels.mean(votes) - 1e-6).all()
    assert np.isfinite(rate_error(model, training.rates)["worst_rate_error"])


def test_every_mark_is_the_outline_of_those_who_made_it():
    training, _ = scenes.knees("missed", 1.0, 0.3, 0)
    votes = labels.votes_of(training)
    np.testing.assert_array_equal(labels.every_mark(votes) > 0, labels.mean(votes) > 0)
    assert set(np.unique(labels.every_mark(votes))) <= {
        0,
        np.float32(1 / 3),
        np.float32(0.5),
        np.float32(2 / 3),
        1,
    }


def test_no_cell_is_twice():
    found = list(cells(DATA, range(5)))
    assert len(found) == len(set(found)) == 5 * 19


def test_a_cell_has_every_label_and_the_mean_every_threshold(monkeypatch):
    budget = NetworkBudget(iterations=2, batch_size=2, features=4, stages=3)
    monkeypatch.setattr("docs.studies.refine.__main__.BUDGET", budget)
    rows = run_cell(("knees", "missed", "1", "0.3", "0"))
    assert [row["threshold"] for row in rows if row["label"] == "mean"] == [
        "0.5",
        "tuned",
        "voxel rates",
        "rates",
    ]
    untrained = {row["label"] for row in rows if "threshold" not in row}
    assert untrained == {"lesion-wise without network"}
    assert {"staple", "every mark", "anatomy", "lesion-wise", PAPER} < {row["label"] for row in rows}


@pytest.mark.shared_data
def test_scenes_leave_out_whole_nodules_and_invent_some(shared_data: Path):
    missed, test = scenes.lidc_scenes("missed", 0)
    np.testing.assert_allclose(missed.rates, (0.7, 0.5, 0.3), atol=0.1)
    assert test.votes.shape[1] == 0
    invented, _ = scenes.lidc_scenes("invented", 0)
    assert (invented.rates > 0.98).all()  # not 1: an outline may have a piece that one reader drew
    assert (invented.votes & (invented.clean == 0)[:, None]).any()


@pytest.mark.shared_data
def test_real_readers_of_lidc_miss_a_few_nodules_and_share_their_rates(shared_data: Path):
    training, test = real.real_readers("lidc", "real", 0)
    marked = training.votes.any(axis=(2, 3))
    assert training.is_anonymous
    assert set(marked.sum(axis=1)) == {0, 3, 4}  # empty slices, and nodules of three or four readers
    assert np.mean(marked.any(axis=1)) == 0.5
    assert test.votes.shape[1] == 0
    assert np.mean(test.truth.any(axis=(1, 2))) == 0.5


@pytest.mark.shared_data
def test_of_brain_growth_and_hippocampus_nobody_misses_anything(shared_data: Path):
    training, test = real.real_readers("brain growth", "real", 0)
    assert training.votes.shape[1] == 7
    assert not training.is_anonymous
    assert len(training.image) == 2 * len(test.image) == 26
    label, model = labels.lesions(labels.votes_of(training), None)
    assert model.is_mean
    np.testing.assert_array_equal(label, labels.mean(labels.votes_of(training)))
