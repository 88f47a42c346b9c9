"""Agreement with torch, nnU-Net and MONAI, with an independent numpy version, with numbers worked by hand."""

import math

import numpy as np
import pytest
import torch
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot

from nnunet_softlabel.losses import (
    LOSSES,
    FusedSoftLoss,
    RegionSums,
    WeightedSum,
    active_passive_loss,
    cross_entropy,
    dice_semimetric_loss,
    generalized_cross_entropy,
    mean_absolute_error,
    noise_robust_dice_loss,
    normalized_cross_entropy,
    normalized_focal_loss,
    normalized_kl_divergence,
    soft_dice_loss,
    total_variation,
)

LN2 = math.log(2)
A_RCE, A_NNCE = -math.log(1e-4), -math.log(1e-7)

# What the papers say for a hard label, p_y and the whole p being numpy arrays (N,) and (N, K).
HARD_LABEL_FORMULAS = {
    "nce": lambda p_y, p: np.log(p_y) / np.log(p).sum(1),
    "nfl": lambda p_y, p: np.sqrt(1 - p_y) * np.log(p_y) / (np.sqrt(1 - p) * np.log(p)).sum(1),
    "nfl_detached": lambda p_y, p: np.sqrt(1 - p_y) * np.log(p_y) / (np.sqrt(1 - p) * np.log(p)).sum(1),
    "nkl": lambda p_y, p: np.log(p_y) / np.log(p).sum(1),
    "mae": lambda p_y, p: 1 - p_y,
    "rce": lambda p_y, p: A_RCE * (1 - p_y),
    "tv": lambda p_y, p: 1 - p_y,
    "nnce": lambda p_y, p: 1 - (A_NNCE + np.log(p_y)) / (A_NNCE + np.log(p)).sum(1),
    "ce": lambda p_y, p: -np.log(p_y),
    "sce": lambda p_y, p: -0.1 * np.log(p_y) + A_RCE * (1 - p_y),
    "gce": lambda p_y, p: (1 - p_y**0.7) / 0.7,
    "brier": lambda p_y, p: 1 - 2 * p_y + (p**2).sum(1),
}


@pytest.mark.parametrize("name", HARD_LABEL_FORMULAS)
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_voxel_term_on_hard_labels_is_the_published_formula(name, classes):
    logits = 2 * torch.randn(40, classes, dtype=torch.float64)
    labels = torch.randint(classes, (40,))
    z = logits.numpy()
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    expected = HARD_LABEL_FORMULAS[name](p[np.arange(40), labels.numpy()], p).mean()
    value = LOSSES[name](logits.T[None], one_hot(labels, classes).T[None].double())
    assert value.item() == pytest.approx(expected, rel=1e-12)


def test_detached_focal_loss_has_the_gradient_of_constant_weights():
    z = np.array([0.3, -1.2, 0.9])
    p, y = np.exp(z) / np.exp(z).sum(), 1
    weight = np.sqrt(1 - p)
    above, below = weight[y] * np.log(p[y]), (weight * np.log(p)).sum()
    # d log p_k / d z = e_k - p, with the weights held fast
    slope_above, slope_below = weight[y] * (np.eye(3)[y] - p), weight - p * weight.sum()
    expected = (slope_above * below - above * slope_below) / below**2
    logits = torch.from_numpy(z).view(1, 3, 1).requires_grad_()
    hard = torch.eye(3, dtype=torch.float64)[y].view(1, 3, 1)
    LOSSES["nfl_detached"](logits, hard).backward()
    np.testing.assert_allclose(logits.grad.flatten().numpy(), expected, rtol=1e-10)


def test_sigmoid_is_softmax_over_absent_and_present(logits, target):
    pair = torch.stack([torch.zeros_like(logits[:, 0]), logits[:, 0]], dim=1)
    q = torch.stack([1 - target[:, 0], target[:, 0]], dim=1)
    for loss in LOSSES.values():
        torch.testing.assert_close(
            loss(logits[:, :1], target[:, :1], activation="sigmoid"), loss(pair, q), rtol=1e-5, atol=1e-6
        )


def test_values_worked_by_hand():
    # p = (1/2, 1/4, 1/4), so log p = -ln 2 * (1, 2, 2).
    logits = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64).log().view(1, 3, 1)
    hard = torch.tensor([1.0, 0, 0]).view(1, 3, 1)
    soft = torch.tensor([0.5, 0.5, 0]).view(1, 3, 1)
    assert normalized_cross_entropy(logits, hard).item() == pytest.approx(1 / 5)
    assert normalized_focal_loss(logits, hard, gamma=0).item() == pytest.approx(1 / 5)
    # 1/2 * (1 - 1/2) + 1/2 * (1 - 1/4)
    assert mean_absolute_error(logits, soft).item() == pytest.approx(0.625)
    # 1/2 * (0 + 1/4 + 1/4)
    assert total_variation(logits, soft).item() == pytest.approx(0.25)
    # cross entropy (1/2 + 1) ln 2, entropy ln 2, normaliser 5 ln 2
    assert cross_entropy(logits, soft).item() == pytest.approx(1.5 * LN2)
    assert normalized_kl_divergence(logits, soft).item() == pytest.approx(0.1)


def test_region_terms_worked_by_hand():
    # Foreground: p = (1/2, 1/4), q = (1, 1/4); |p - q| = (1/2, 0), sum p + sum q = 2, sum p q = 9/16.
    p = torch.tensor([0.5, 0.25], dtype=torch.float64)
    logits = torch.stack([1 - p, p]).log()[None]
    q = torch.tensor([1, 0.25], dtype=torch.float64)
    target = torch.stack([1 - q, q])[None]
    sums = RegionSums(smooth=0)
    assert dice_semimetric_loss(logits, target, sums=sums).item() == pytest.approx(1 / 4)
    assert noise_robust_dice_loss(logits, target, sums=sums).item() == pytest.approx(0.5**1.5 / 2)
    assert soft_dice_loss(logits, target, sums=sums).item() == pytest.approx(1 - 9 / 16)


def test_cross_entropy_is_that_of_torch(logits, target):
    torch.testing.assert_close(
        cross_entropy(logits, target), nn.functional.cross_entropy(logits, target), rtol=1e-6, atol=0
    )
    torch.testing.assert_close(
        cross_entropy(logits, target, activation="sigmoid"), binary_cross_entropy_with_logits(logits, target)
    )


@pytest.mark.parametrize("batch_dice", [True, False])
@pytest.mark.parametrize("is_masked", [True, False])
def test_region_terms_are_one_plus_the_dice_loss_of_nnunet(logits, target, mask, batch_dice, is_masked):
    def softmax(x):
        return x.softmax(1)

    dice = MemoryEfficientSoftDiceLoss(softmax, batch_dice=batch_dice, do_bg=False, smooth=1e-5, ddp=False)
    mask = mask if is_masked else None
    hard = one_hot(target.argmax(1), 3).movedim(-1, 1).float()
    options = {"sums": RegionSums(batch_dice=batch_dice), "mask": mask}
    expected = 1 + dice(logits, hard, loss_mask=mask)
    torch.testing.assert_close(dice_semimetric_loss(logits, hard, **options), expected)
    expected = 1 + dice(logits, target, loss_mask=mask)
    torch.testing.assert_close(soft_dice_loss(logits, target, **options), expected)


@pytest.mark.parametrize("batch_dice", [True, False])
@pytest.mark.parametrize("include_background", [True, False])
def test_dml_is_the_soft_label_dice_of_monai(logits, target, batch_dice, include_background):
    monai_losses = pytest.importorskip("monai.losses")
    theirs = monai_losses.DiceLoss(
        softmax=True,
        soft_label=True,
        include_background=include_background,
        batch=batch_dice,
        smooth_nr=1e-5,
        smooth_dr=1e-5,
    )
    sums = RegionSums(batch_dice=batch_dice)
    ours = dice_semimetric_loss(logits, target, sums=sums, include_background=include_background)
    torch.testing.assert_close(ours, theirs(logits, target))


def test_gce_tends_to_cross_entropy_and_ends_at_mae(logits, target):
    logits = logits.double()
    torch.testing.assert_close(
        generalized_cross_entropy(logits, target, q=1e-5), cross_entropy(logits, target), rtol=1e-3, atol=0
    )
    torch.testing.assert_close(
        generalized_cross_entropy(logits, target, q=1), mean_absolute_error(logits, target)
    )


def test_weighted_sum_adds_its_terms(logits, target, mask):
    recipe = WeightedSum((1.0, dice_semimetric_loss), (0.5, cross_entropy), (0.0, soft_dice_loss))
    expected = dice_semimetric_loss(logits, target, mask=mask) + 0.5 * cross_entropy(
        logits, target, mask=mask
    )
    torch.testing.assert_close(recipe(logits, target, mask=mask), expected)


def test_unasked_every_term_has_the_weight_one(logits, target):
    terms = {name: LOSSES[name](logits, target) for name in ("dml", "ce", "nkl", "tv", "nce", "mae")}
    pairs = {"consistent": ("nkl", "tv"), "expectation": ("nce", "mae")}
    for mode, (active, passive) in pairs.items():
        found = active_passive_loss(logits, target, mode=mode)
        torch.testing.assert_close(found, terms[active] + terms[passive])
    torch.testing.assert_close(active_passive_loss(logits, target), terms["nkl"] + terms["tv"])
    whole = terms["dml"] + terms["ce"] + terms["nkl"] + terms["tv"]
    torch.testing.assert_close(FusedSoftLoss()(logits, target), whole)
