"""The study of losses: candidates, images, a cell."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from docs.studies.losses.__main__ import FINALISTS, run_cell
from docs.studies.shared import images
from docs.studies.shared.cases import LIDC
from docs.studies.shared.losses import CANDIDATES
from docs.studies.shared.small_network import NetworkBudget

BUDGET = NetworkBudget(iterations=3, batch_size=2, features=4, stages=3)


@pytest.mark.parametrize("name", CANDIDATES)
def test_every_candidate_gives_a_finite_gradient(name):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 2, 8, 8, generator=generator, requires_grad=True)
    foreground = (torch.rand(2, 1, 8, 8, generator=generator) * 4).floor() / 3
    target = torch.cat([1 - foreground, foreground], dim=1).clamp(0, 1)
    for progress in (0.0, 0.9):
        CANDIDATES[name].loss()(logits, target, progress).backward()
        assert torch.isfinite(logits.grad).all()


def test_finalists_are_candidates():
    assert set(FINALISTS) <= set(CANDIDATES)


def test_knees_have_the_share_of_lesion_asked_for():
    found = images.knees(range(20), fraction=0.01, regime="boundary", size=64)
    share = found.truth.mean(axis=(1, 2))
    assert found.image.shape == (20, 64, 64)
    assert share.min() > 0.01 / 1.7
    assert share.max() < 0.01 * 1.7
    np.testing.assert_array_equal(found.majority, found.soft > 0.5)


@pytest.mark.shared_data
@pytest.mark.skipif(not LIDC.is_dir(), reason="needs the LIDC nodules beside the source tree")
@pytest.mark.parametrize("fraction", [0.05, 0.002])
def test_slices_of_lidc_have_the_share_asked_for_in_every_part(fraction):
    for part in images.lidc(0, fraction=fraction, most=20):
        share = part.soft.mean(axis=(1, 2))
        assert share.min() >= fraction / 2
        assert share.max() < fraction * 2


def test_a_cell_of_the_loss_study_scores_its_network(monkeypatch):
    monkeypatch.setattr("docs.studies.losses.__main__.BUDGET", BUDGET)
    parts = tuple(
        images.knees(range(a, a + 3), fraction=0.05, regime="boundary", size=32) for a in (0, 10, 20)
    )
    monkeypatch.setattr("docs.studies.losses.__main__.data_of", lambda *cell: parts)
    (row,) = run_cell(("knee", "boundary", "0.05", "DML+CE", "0"))
    assert row["candidate"] == "DML+CE"
    assert 0 <= row["dice"] <= 1
    assert row["brier_near"] > 0
    assert row["collapsed"] in (0, 1)
