"""The small network of the studies: fair and repeatable."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

from docs.studies.shared.losses import CANDIDATES, stock
from docs.studies.shared.small_network import NetworkBudget, predict, train, with_background

BUDGET = NetworkBudget(iterations=3, batch_size=2, features=4, stages=3)


@pytest.fixture
def squares():
    rng = np.random.default_rng(0)
    label = np.zeros((6, 1, 16, 16), dtype=np.float32)
    label[:, :, 4:9, 4:9] = 1
    return rng.normal(size=(6, 16, 16)).astype(np.float32) + label[:, 0], label


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_same_seed_trains_the_same_network(squares, optimizer):
    budget = NetworkBudget(iterations=3, batch_size=2, features=4, stages=3, optimizer=optimizer)
    one, two = (predict(train(*squares, stock, seed=1, budget=budget), squares[0]) for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_all_losses_see_the_same_images(squares):
    seen = {}
    for name in ("stock", "NKL+TV"):
        targets = []

        inner = CANDIDATES[name].loss()

        def loss(logits, target, progress, inner=inner, targets=targets):
            targets.append(target.clone())
            return inner(logits, target, progress)

        noise = np.random.default_rng(3).random(squares[1].shape).astype(np.float32)
        train(squares[0], noise, loss, seed=5, budget=BUDGET)
        seen[name] = torch.stack(targets)
    assert torch.equal(seen["stock"], seen["NKL+TV"])


def test_a_third_of_each_batch_has_foreground(squares):
    image, label = squares
    label[1:] = 0
    shares = []

    def loss(logits, target, progress):
        shares.append(float((target[:, 1].amax(dim=(1, 2)) > 0).float().mean()))
        return stock(logits, target, progress)

    budget = NetworkBudget(iterations=5, batch_size=6, features=4, stages=3)
    train(image, label, loss, seed=0, budget=budget, draw=label.any(axis=(1, 2, 3)))
    assert min(shares) >= 1 / 3


def test_stock_loss_of_the_study_is_that_of_nnunet(squares):
    hard = torch.from_numpy(squares[1])
    logits = torch.randn(6, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    settings = {"batch_dice": True, "smooth": 1e-5, "do_bg": False, "ddp": False}
    theirs = DC_and_CE_loss(settings, {}, dice_class=MemoryEfficientSoftDiceLoss)(logits, hard)
    ours = stock(logits, torch.from_numpy(with_background(squares[1])), 0.0)
    torch.testing.assert_close(ours, theirs + 1)
