"""Class-balanced averages, and the loss that starts a training with them."""

import json

import pytest
import torch

from nnunet_softlabel.formats.encoding import SCALE
from nnunet_softlabel.losses import BalancedStart, active_passive_loss, class_balanced, cross_entropy
from nnunet_softlabel.losses.balanced_start import foreground_volumes
from tests.process_group import joined_by_gloo


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


def made(*, ratios=(), **options) -> tuple[BalancedStart, list[str]]:
    """A start after steps whose predicted volume is that many times the label's, and what it said."""
    loss = BalancedStart(lambda z, q: 1.0 * z.sum(), lambda z, q: 2.0 * z.sum(), **options)
    said = [step(loss, ratio) for ratio in ratios]
    return loss, [text for text in said if text]


def step(loss: BalancedStart, ratio: float) -> str | None:
    """A training step on eight voxels, two of them foreground, all predicted alike."""
    p = torch.tensor(ratio * 2 / 8)
    logits = torch.stack([torch.log1p(-p), torch.log(p)]).view(1, 2, 1).repeat(1, 1, 8).requires_grad_()
    target = torch.tensor([1.0] * 2 + [0.0] * 6).expand(1, 1, 8)
    loss(logits, torch.cat([1 - target, target], 1))
    return loss.advance()


def test_balanced_start_ends_when_the_volume_of_a_window_is_within_the_factor():
    loss, said = made(ratios=[3.9, 3.8, 3.9, 3.6, 1.9, 1.7, 1.0], window=2)
    # windows (3.9, 3.8), (3.9, 3.6), (1.9, 1.7): the third is within a factor of 2
    assert loss.ended_at == 6
    assert not loss.is_starting
    assert said == [
        "after 6 iterations: over the last 2 the predicted foreground volume was 1.80 times the label's"
    ]


def test_balanced_start_goes_on_while_nothing_is_predicted():
    loss, said = made(ratios=[0.3, 0.2, 0.1, 0.05], window=1)
    assert loss.is_starting
    assert said == []


def test_balanced_start_takes_the_loss_of_its_phase():
    loss, _ = made(window=1)
    assert loss(torch.ones(1, 2, 4), torch.ones(1, 2, 4)) == 8
    step(loss, 1.0)
    assert loss(torch.ones(1, 2, 4), torch.ones(1, 2, 4)) == 16


@pytest.mark.parametrize(("iterations", "bound"), [(360, 90), (20_000, 5000), (250_000, 5000), (3, 0)])
def test_balanced_start_never_lasts_longer_than_a_quarter_or_5000_iterations(iterations, bound):
    loss, _ = made()
    loss.set_length(iterations)
    assert loss.most_iterations == bound
    loss.iteration = bound
    loss.set_length(iterations)
    assert not loss.is_starting


def test_balanced_start_says_that_its_bound_ended_it():
    loss, said = made(ratios=[3.0] * 4, window=3, most_iterations=4)
    assert loss.ended_at == 4
    assert said == [
        "after 4 iterations, its bound: over the last 1 the predicted foreground volume was 3.00 times the "
        "label's"
    ]


def test_validation_does_not_count_for_the_balanced_start():
    loss, _ = made(window=2)
    step(loss, 4.0)
    with torch.no_grad():
        loss(torch.zeros(1, 2, 8), torch.full((1, 2, 8), 0.5))
    step(loss, 3.0)
    assert loss.is_starting


@pytest.mark.parametrize("cut", range(6))
def test_balanced_start_resumes_alike(cut):
    ratios = [3.9, 3.8, 3.9, 3.6, 1.9, 1.7, 1.0]
    whole, _ = made(ratios=ratios, window=2)
    first, _ = made(ratios=ratios[:cut], window=2)
    second, _ = made(window=2)
    second.resume(json.loads(json.dumps(first.progress())))
    for ratio in ratios[cut:]:
        step(second, ratio)
    assert second.progress() == whole.progress()
    assert second.ended_at == whole.ended_at == 6


def test_a_skipped_start_never_begins_and_one_that_began_goes_on():
    loss, _ = made()
    loss.skip()
    assert (loss.ended_at, loss.is_starting) == (0, False)
    begun, _ = made(ratios=[3.9])
    begun.skip()
    assert begun.is_starting


@pytest.mark.parametrize("is_compact", [True, False])
def test_foreground_volumes_leave_out_ignored_voxels(is_compact, activation):
    first = 1 if activation == "softmax" else 0
    foreground = torch.tensor([[[0.5, 1.0, 0.0, 0.25]]])
    target = torch.cat([1 - foreground, foreground], 1)[:, 1 - first :]
    logits, mask = torch.zeros_like(target), torch.tensor([[[True, True, False, True]]])
    if is_compact:
        target, mask = (torch.where(mask, foreground, -1 / SCALE) * SCALE).short(), None
    found = foreground_volumes(logits, target, mask=mask, activation=activation)
    torch.testing.assert_close(found, torch.tensor([1.5, 1.75]), rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"window": 0}, "window must be at least 1, got 0"), ({"factor": 1}, "factor must be above 1, got 1")],
)
def test_balanced_start_refuses_numbers_that_mean_nothing(options, message):
    with pytest.raises(ValueError, match=message):
        BalancedStart(cross_entropy, cross_entropy, **options)


def _all_end_at_once(rank: int, folder: str) -> None:
    with joined_by_gloo(folder, rank):
        loss, _ = made(window=1, ddp=True)
        for mine in ([3.9, 3.9], [1.0, 3.9], [1.0, 2.6]):  # together 3.9, 2.45, 1.8
            step(loss, mine[rank])
        assert loss.ended_at == 3


def test_two_processes_end_the_start_at_the_same_iteration(tmp_path):
    torch.multiprocessing.spawn(_all_end_at_once, (str(tmp_path),), nprocs=2)


@pytest.mark.parametrize(("ratio", "ended_at"), [(2.0, 25), (2.02, None), (0.5, 25), (0.49, None)])
def test_unasked_the_window_is_25_batches_and_the_factor_2(ratio, ended_at):
    loss, _ = made(ratios=[ratio] * 24)
    assert loss.is_starting
    step(loss, ratio)
    assert loss.ended_at == ended_at
    assert (loss.most_iterations, loss.iteration) == (5000, 25)


def test_without_foreground_the_start_lasts_until_its_bound():
    loss = BalancedStart(lambda z, q: 1.0 * z.sum(), lambda z, q: 2.0 * z.sum(), window=1, most_iterations=3)
    target = torch.tensor([1.0, 0.0]).view(1, 2, 1).repeat(1, 1, 4)
    said = []
    for _ in range(3):
        loss(torch.zeros(1, 2, 4, requires_grad=True), target)
        said.append(loss.advance())
    assert said[:2] == [None, None]
    assert "volume was inf times" in said[2]
    assert BalancedStart(cross_entropy, cross_entropy, most_iterations=0).ended_at == 0


def test_the_scales_of_deep_supervision_are_summed():
    loss, _ = made(window=1)
    for ratio in (3.0, 1.0, 1.0):  # five thirds together
        p = torch.tensor(ratio * 2 / 8)
        logits = torch.stack([torch.log1p(-p), torch.log(p)]).view(1, 2, 1).repeat(1, 1, 8).requires_grad_()
        target = torch.tensor([1.0] * 2 + [0.0] * 6).expand(1, 1, 8)
        loss(logits, torch.cat([1 - target, target], 1))
    assert "volume was 1.67 times" in loss.advance()
    assert loss.ended_at == 1
