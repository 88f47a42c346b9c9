"""Class-balanced averages, and the loss that starts a training with them."""

import pytest
import torch

from nnunet_softlabel.losses import BalancedStart, active_passive_loss, class_balanced, cross_entropy


def test_class_balanced_averages_marked_voxels_and_the_rest():
    # -log p of the label is ce: 1 in the one marked voxel, 0.2, 0.4, 0.6 in the others, so (1 + 0.4) / 2
    ce = torch.tensor([1.0, 0.2, 0.4, 0.6])
    logits = torch.stack([torch.log(torch.exp(ce) - 1), torch.zeros(4)])[None]
    logits[0, :, 1:] = logits[0, :, 1:].flip(0)
    target = torch.tensor([[[0.0, 1, 1, 1], [1, 0, 0, 0]]])
    found = class_balanced(logits, target, loss=cross_entropy)
    torch.testing.assert_close(found, torch.tensor(0.7))
    plain = cross_entropy(logits, target)
    torch.testing.assert_close(plain, torch.tensor(0.55))


def test_class_balanced_counts_only_what_the_mask_keeps(activation):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 20, generator=generator)
    target = torch.zeros(2, 3, 20)
    target[:, 0] = 1.0 if activation == "softmax" else 0.0
    target[:, 2, :5], target[:, 0, :5] = 0.6, 0.4
    mask = torch.rand(2, 1, 20, generator=generator) > 0.5
    changed = torch.where(mask, logits, 9.0)
    options = {"loss": cross_entropy, "mask": mask, "activation": activation}
    torch.testing.assert_close(
        class_balanced(logits, target, **options), class_balanced(changed, target, **options)
    )


def test_class_balanced_without_foreground_is_half_the_loss():
    logits = torch.randn(1, 2, 10, generator=torch.Generator().manual_seed(0))
    target = torch.stack([torch.ones(1, 10), torch.zeros(1, 10)], dim=1)
    torch.testing.assert_close(
        class_balanced(logits, target, loss=cross_entropy), 0.5 * cross_entropy(logits, target)
    )


@pytest.mark.parametrize("term", [cross_entropy, active_passive_loss])
def test_class_balanced_keeps_the_minimiser(term):
    target = torch.tensor([[[0.7, 1.0, 0.2], [0.3, 0.0, 0.8]]], dtype=torch.float64)
    exact = torch.log(target.clamp_min(1e-12)).requires_grad_()
    value = class_balanced(exact, target, loss=term)
    other = exact.detach() + 0.1 * torch.randn(exact.shape, generator=torch.Generator().manual_seed(1))
    assert value < class_balanced(other, target, loss=term)
    (gradient,) = torch.autograd.grad(class_balanced(exact, target, loss=cross_entropy), exact)
    assert gradient.abs().max() < 1e-6


@pytest.mark.parametrize(
    ("epochs", "starting"), [(8, [0, 1]), (1000, list(range(20))), (3, []), (1, [])], ids=str
)
def test_balanced_start_lasts_a_quarter_and_at_most_twenty_epochs(epochs, starting):
    loss = BalancedStart(lambda z, q: torch.tensor(1.0), lambda z, q: torch.tensor(2.0))
    found = []
    for epoch in range(min(epochs, 40)):
        loss.set_epoch(epoch, epochs)
        if loss(None, None) == 1:
            found.append(epoch)
    assert found == starting


def test_balanced_start_is_settled_until_told():
    loss = BalancedStart(lambda z, q: torch.tensor(1.0), lambda z, q: torch.tensor(2.0))
    assert loss(None, None) == 2


def test_balanced_start_refuses_a_share_beyond_the_training():
    with pytest.raises(ValueError, match=r"share must lie in \[0, 1\], got 1.5"):
        BalancedStart(cross_entropy, cross_entropy, share=1.5)
