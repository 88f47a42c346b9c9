"""Compact targets, and every error of the losses."""

import pickle
from functools import partial
from pathlib import Path

import pytest
import torch

from nnunet_softlabel.formats.encoding import SCALE
from nnunet_softlabel.losses import (
    CompactTargetLoss,
    FusedSoftLoss,
    TermWeights,
    WeightedSum,
    active_passive_loss,
    check_target,
    cross_entropy,
    dice_semimetric_loss,
    expand_target,
    generalized_cross_entropy,
    get_loss,
    noise_robust_dice_loss,
    normalized_focal_loss,
    normalized_negative_cross_entropy,
    reverse_cross_entropy,
    symmetric_cross_entropy,
)
from nnunet_softlabel.losses.targets import HardTargetLoss


@pytest.fixture
def compact():
    """Two foreground channels, two voxels: (1/4, 1/2) and (0, 1)."""
    return torch.tensor([[SCALE // 4, 0], [SCALE // 2, SCALE]], dtype=torch.int16)[None]


def test_expanded_softmax_target_has_the_background_first(compact):
    target, mask = expand_target(compact, activation="softmax")
    assert mask is None
    assert target.dtype == torch.float32
    torch.testing.assert_close(target, torch.tensor([[[0.25, 0], [0.25, 0], [0.5, 1]]]))


def test_expanded_sigmoid_target_keeps_its_channels(compact):
    target, _ = expand_target(compact, activation="sigmoid")
    torch.testing.assert_close(target, torch.tensor([[[0.25, 0], [0.5, 1]]]))


def test_ignored_voxels_become_background_outside_the_mask(compact):
    compact[0, 0, 1] = -1
    target, mask = expand_target(compact, activation="softmax", has_ignore=True)
    assert mask.tolist() == [[[True, False]]]
    torch.testing.assert_close(target, torch.tensor([[[0.25, 1], [0.25, 0], [0.5, 0]]]))


def test_rounding_never_gives_a_negative_background():
    compact = torch.full((1, 2, 1), SCALE // 2, dtype=torch.int16)
    compact[0, 0] += 1
    assert expand_target(compact, activation="softmax")[0].min() >= 0


def test_compact_target_loss_is_the_loss_of_the_expanded_target(compact):
    logits = torch.randn(1, 3, 2)
    compact[0, 0, 1] = -1
    loss = CompactTargetLoss(active_passive_loss, has_ignore=True)
    target, mask = expand_target(compact, activation="softmax", has_ignore=True)
    torch.testing.assert_close(loss(logits, compact), active_passive_loss(logits, target, mask=mask))


def test_compact_target_loss_runs_outside_autocast(compact):
    loss = CompactTargetLoss(WeightedSum((1.0, cross_entropy)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert loss(torch.randn(1, 3, 2, dtype=torch.bfloat16), compact).dtype == torch.float32


def test_losses_can_be_pickled(compact):
    logits = torch.randn(1, 3, 2)
    recipe = WeightedSum((1.0, cross_entropy), (1.0, partial(generalized_cross_entropy, q=0.5)))
    for loss in (CompactTargetLoss(recipe), FusedSoftLoss()):
        torch.testing.assert_close(pickle.loads(pickle.dumps(loss))(logits, compact), loss(logits, compact))


def test_check_target_accepts_what_the_pipeline_makes(compact):
    check_target(compact, activation="softmax")
    check_target(expand_target(compact, activation="softmax")[0], activation="softmax")
    compact[0, 0] = -1
    check_target(compact, activation="sigmoid", has_ignore=True)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (torch.full((1, 2, 3), 0.6), "must sum to 1; they are off by up to 0.2000"),
        (torch.tensor([1.5, -0.5]).view(1, 2, 1), r"must lie in \[0, 1\], got values from -0.5"),
        (torch.full((1, 2, 3), torch.nan), "must lie in"),
        (torch.full((1, 2, 3), SCALE // 10 * 6, dtype=torch.int16), "sum to 1.2000, above 1"),
        (torch.full((1, 2, 3), -500, dtype=torch.int16), "must lie in"),
    ],
)
def test_check_target_refuses_what_is_no_probability(target, message):
    with pytest.raises(ValueError, match=message):
        check_target(target, activation="softmax")


def test_wrong_shapes_are_refused(loss):
    with pytest.raises(ValueError, match="same shape"):
        loss(torch.zeros(1, 3, 4), torch.zeros(1, 2, 4))
    with pytest.raises(ValueError, match="mask must be a bool tensor of shape"):
        loss(torch.zeros(1, 3, 4), torch.zeros(1, 3, 4), mask=torch.ones(1, 3, 4))
    with pytest.raises(ValueError, match="at least two channels"):
        loss(torch.zeros(1, 1, 4), torch.zeros(1, 1, 4))
    with pytest.raises(ValueError, match="activation must be one of"):
        loss(torch.zeros(1, 3, 4), torch.zeros(1, 3, 4), activation="tanh")


LOGITS, SOFT = torch.zeros(1, 2, 3), torch.full((1, 2, 3), 0.5)
COMPACT = torch.zeros(1, 2, 3, dtype=torch.int16)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: get_loss("dice++"), "Unknown loss 'dice\\+\\+'; choose from"),
        (lambda: active_passive_loss(LOGITS, SOFT, mode="mean"), "mode must be one of"),
        (
            lambda: active_passive_loss(LOGITS, SOFT, pair=("nce", "tv")),
            "active must be one of .* in consistent mode",
        ),
        (lambda: active_passive_loss(LOGITS, SOFT, pair=("nkl", "mae")), "passive must be one of"),
        (lambda: active_passive_loss(LOGITS, SOFT, alpha=-1), "alpha must not be negative, got -1"),
        (lambda: symmetric_cross_entropy(LOGITS, SOFT, beta=-1), "beta must not be negative"),
        (lambda: WeightedSum((-1.0, cross_entropy), (1.0, cross_entropy)), "weight must not be negative"),
        (lambda: WeightedSum(), "at least one term"),
        (lambda: generalized_cross_entropy(LOGITS, SOFT, q=0), r"q must lie in \(0, 1\]"),
        (lambda: normalized_focal_loss(LOGITS, SOFT, gamma=-1), "gamma must not be negative"),
        (lambda: noise_robust_dice_loss(LOGITS, SOFT, gamma=3), r"gamma must lie in \[1, 2\]"),
        (lambda: reverse_cross_entropy(LOGITS, SOFT, clamp=0), "clamp must lie in"),
        (lambda: normalized_negative_cross_entropy(LOGITS, SOFT, clamp=0.5), "clamp must lie in"),
        (lambda: dice_semimetric_loss(LOGITS[0], SOFT[0]), "same shape"),
        (lambda: expand_target(SOFT, activation="softmax"), "is int16, got torch.float32"),
        (lambda: CompactTargetLoss(cross_entropy, activation="relu"), "activation must be one of"),
        (lambda: FusedSoftLoss(TermWeights(tv=-1)), "weights: tv must not be negative"),
        (lambda: FusedSoftLoss(activation="relu"), "activation must be one of"),
        (lambda: FusedSoftLoss()(LOGITS, COMPACT), r"a compact target has shape \(1, 1, 3\)"),
        (lambda: FusedSoftLoss()(LOGITS, SOFT[:, :1]), "same shape"),
        (
            lambda: FusedSoftLoss(has_ignore=True)(LOGITS, COMPACT[:, :1], torch.ones(1, 1, 3).bool()),
            "not both",
        ),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_snippet_of_the_documentation_runs(capsys):
    document = (Path(__file__).parents[2] / "docs" / "losses.md").read_text(encoding="utf-8")
    snippet = document.split("```python\n")[1].split("```")[0]
    exec(compile(snippet, "docs/losses.md", "exec"), {})
    assert capsys.readouterr().out.count("tensor(") == 2


def of_channels(logits: torch.Tensor, compact: torch.Tensor) -> torch.Tensor:
    """Shows a compact target as it came."""
    assert compact.dtype == torch.int16
    return compact


def test_hard_classes_become_certain_compact_targets():
    labels = torch.tensor([[[[0, 1, 2], [2, 3, 1]]]])
    found = HardTargetLoss(of_channels, 2, ignore_label=3)(LOGITS, labels)
    ones = torch.tensor([[[[0, 1, 0], [0, 0, 1]], [[0, 0, 1], [1, 0, 0]]]]) * SCALE
    ones[0, :, 1, 1] = -1  # ignored
    assert found.tolist() == ones.tolist()
    kept = HardTargetLoss(of_channels, 3, ignore_label=None)(LOGITS, labels)
    assert kept[0, 2].tolist() == [[0, 0, 0], [0, SCALE, 0]]


def test_hard_regions_become_certain_compact_targets():
    regions = torch.tensor([[[1, 1, 0, 1], [0, 1, 0, 0], [0, 0, 0, 1]]], dtype=torch.bool)
    found = HardTargetLoss(of_channels, 2, ignore_label=3)(LOGITS, regions)
    assert found.tolist() == [[[SCALE, SCALE, 0, -1], [0, SCALE, 0, -1]]]
    found = HardTargetLoss(of_channels, 3, ignore_label=None)(LOGITS, regions.float())
    assert found.tolist() == (regions * SCALE).tolist()
    one = torch.tensor([[[True, False]]])
    assert HardTargetLoss(of_channels, 1, ignore_label=None)(LOGITS, one).tolist() == [[[SCALE, 0]]]


def test_a_loss_on_hard_labels_is_the_cross_entropy_of_torch():
    logits, labels = torch.randn(2, 3, 5, 4), torch.randint(0, 4, (2, 1, 5, 4))
    loss = HardTargetLoss(CompactTargetLoss(cross_entropy, has_ignore=True), 2, ignore_label=3)
    expected = torch.nn.functional.cross_entropy(logits, labels[:, 0], ignore_index=3)
    torch.testing.assert_close(loss(logits, labels), expected)


def test_limits_of_arguments_are_allowed():
    assert normalized_focal_loss(LOGITS, SOFT, gamma=0) == pytest.approx(0.5)
    for gamma in (1, 2):
        noise_robust_dice_loss(LOGITS, SOFT, gamma=gamma)
    generalized_cross_entropy(LOGITS, SOFT, q=1)
    symmetric_cross_entropy(LOGITS, SOFT, alpha=0, beta=0)
    check_target(torch.tensor([1.0009, -0.0009]).view(1, 2, 1), activation="softmax")
    check_target(torch.full((1, 2, 3), 0.6), activation="sigmoid")
    with pytest.raises(ValueError, match="must lie in"):
        check_target(torch.tensor([1.002, 0.0]).view(1, 2, 1), activation="sigmoid")
    with pytest.raises(ValueError, match="must lie in"):
        check_target(torch.tensor([0.5, -0.002]).view(1, 2, 1), activation="sigmoid")
    with pytest.raises(ValueError, match="clamp must lie in"):
        reverse_cross_entropy(LOGITS, SOFT, clamp=1)
