"""Laws that hold for every loss of the registry."""

import math

import pytest
import torch
from torch.nn.functional import one_hot

from nnunet_softlabel.losses import ACTIVE, LOSSES, PASSIVE, REGION_TERMS, VOXEL_TERMS, active_passive_loss

UPPER_BOUNDS = {
    "nce": 1,
    "nfl": 1,
    "nfl_detached": 1,
    "nkl": 1,
    "mae": 1,
    "rce": -math.log(1e-4),
    "tv": 1,
    "nnce": 1,
    "ce": math.inf,
    "sce": math.inf,
    "gce": 1 / 0.7,
    "brier": 2,
    "dml": 1,
    "nr_dice": 1,
    "soft_dice": 1,
}


def hard_target(shape: tuple[int, ...], activation: str) -> torch.Tensor:
    if activation == "sigmoid":
        return (torch.rand(shape) < 0.3).float()
    return one_hot(torch.randint(shape[1], (shape[0], *shape[2:])), shape[1]).movedim(-1, 1).float()


def test_loss_ignores_masked_voxels(loss, activation, logits, target, mask):
    changed = torch.where(mask, logits, 9.0)
    torch.testing.assert_close(
        loss(logits, target, mask=mask, activation=activation),
        loss(changed, target, mask=mask, activation=activation),
    )


def test_masked_loss_is_the_loss_of_the_other_voxels(loss, activation, logits, target, mask):
    counts = mask[0, 0]
    torch.testing.assert_close(
        loss(logits, target, mask=mask, activation=activation),
        loss(logits[..., counts], target[..., counts], activation=activation),
    )


def test_empty_mask_gives_zero_loss_and_gradient(loss, activation, logits, target, mask):
    logits.requires_grad_()
    value = loss(logits, target, mask=torch.zeros_like(mask), activation=activation)
    value.backward()
    assert value.item() == 0
    assert logits.grad.eq(0).all()


@pytest.mark.parametrize("name", VOXEL_TERMS)
def test_voxel_term_does_not_know_the_order_of_classes(name, logits, target):
    order = [2, 0, 1]
    torch.testing.assert_close(
        VOXEL_TERMS[name](logits, target), VOXEL_TERMS[name](logits[:, order], target[:, order])
    )


@pytest.mark.parametrize("name", REGION_TERMS)
def test_region_term_with_background_does_not_know_the_order_of_classes(name, logits, target):
    order = [2, 0, 1]
    changed = REGION_TERMS[name](logits[:, order], target[:, order], include_background=True)
    torch.testing.assert_close(REGION_TERMS[name](logits, target, include_background=True), changed)


@pytest.mark.parametrize("name", UPPER_BOUNDS)
@pytest.mark.parametrize("scale", [0.1, 3, 50])
def test_loss_stays_within_its_bounds(name, scale, activation, logits, target):
    loss = {**VOXEL_TERMS, **REGION_TERMS}[name]
    for q in (target, hard_target(target.shape, activation)):
        value = loss(scale * logits, q, activation=activation).item()
        assert -1e-6 <= value <= UPPER_BOUNDS[name] + 1e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_gradient_is_finite_for_confident_logits_and_hard_targets(loss, activation, dtype):
    target = hard_target((2, 3, 40), activation)
    logits = (1000 * torch.randint(-1, 2, (2, 3, 40))).to(dtype).requires_grad_()
    value = loss(logits, target, activation=activation)
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()


def test_loss_raises_half_precision_and_keeps_float64(loss, activation, logits, target):
    for dtype, expected in [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ]:
        assert loss(logits.to(dtype), target, activation=activation).dtype == expected


def test_gradient_is_the_derivative(loss, activation, logits, target, mask):
    logits = logits[..., :3, :2].double().requires_grad_()
    target, mask = target[..., :3, :2].double(), mask[..., :3, :2]
    is_derivative = torch.autograd.gradcheck(
        lambda z: loss(z, target, mask=mask, activation=activation), logits, raise_exception=False
    )
    assert is_derivative == (loss is not LOSSES["nfl_detached"])


def test_both_modes_agree_on_hard_targets(activation, logits):
    target = hard_target(logits.shape, activation)
    torch.testing.assert_close(
        active_passive_loss(logits, target, mode="consistent", activation=activation),
        active_passive_loss(logits, target, mode="expectation", activation=activation),
        rtol=1e-6,
        atol=0,
    )


def test_active_passive_loss_is_the_weighted_sum_of_its_terms(logits, target):
    loss = active_passive_loss(logits, target, mode="expectation", pair=("nfl", "nnce"), alpha=2, beta=0.5)
    expected = 2 * ACTIVE["nfl"](logits, target) + 0.5 * PASSIVE["nnce"](logits, target)
    torch.testing.assert_close(loss, expected)
