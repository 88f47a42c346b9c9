"""Every cell of the property table in docs/losses.md, by search over predictions and by summation."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from nnunet_softlabel.losses import REGION_TERMS
from tests.losses.conftest import ALL_LOSSES

DOCUMENT = Path(__file__).parents[2] / "docs" / "losses.md"
HEADER = "| name | consistent | proper | symmetric | noise tolerant |"
STARTS, STEPS = 24, 60


def read_table() -> dict[str, list[str]]:
    lines = DOCUMENT.read_text(encoding="utf-8").split(HEADER)[1].split("\n\n")[0].strip().splitlines()[1:]
    rows = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines if line[:1] == "|"]
    return {name: cells for name, *cells in rows}


def claims(column: int) -> list[tuple[str, int, bool]]:
    """Name, number of classes and whether the table claims the property there."""
    return [
        (name, classes, cells[column] == "yes" or cells[column] == f"K = {classes}")
        for name, cells in read_table().items()
        for classes in (2, 3, 5)
    ]


def random_probabilities(*shape: int) -> Tensor:
    return torch.softmax(2 * torch.randn(*shape, dtype=torch.float64), dim=1)


def values_of(name: str, logits: Tensor, targets: Tensor) -> Tensor:
    """The loss of every prediction ``(N, K, V)`` by itself, averaged over the targets ``(R, K, V)``."""
    loss = ALL_LOSSES[name]
    return torch.stack([torch.vmap(lambda z, q=q: loss(z[None], q[None]))(logits) for q in targets]).mean(0)


def candidates(name: str, targets: Tensor) -> Tensor:
    """Logits that come out of an optimisation, beside their starts and predictions on the boundary."""
    shape = (STARTS, *targets.shape[1:])
    starts = 3 * torch.randn(shape, dtype=torch.float64)
    logits = starts.clone().requires_grad_()
    optimiser = torch.optim.Adam([logits], lr=0.3)
    for _ in range(STEPS):
        optimiser.zero_grad()
        # The mean over cases: each case is an optimisation of its own.
        sum(STARTS * ALL_LOSSES[name](logits, target.expand(shape)) for target in targets).backward()
        optimiser.step()
    extreme = torch.where(torch.rand(shape) < 0.4, -1e5, starts)
    return torch.cat([starts, logits.detach(), extreme, 50 * starts])


def questions(name: str, classes: int) -> list[Tensor]:
    """Soft targets ``(1, K, V)``: without a majority, with a zero entry, at random."""
    voxels = 6 if name in REGION_TERMS else 1
    flat = torch.full((classes,), 0.6 / (classes - 1), dtype=torch.float64)
    flat[1] = 0.4
    zero = torch.zeros(classes, dtype=torch.float64)
    zero[:2] = 0.5
    targets = [flat.view(1, -1, 1).repeat(1, 1, voxels), zero.view(1, -1, 1).repeat(1, 1, voxels)]
    if voxels > 1:
        targets[1][:, :, ::2] = random_probabilities(1, classes, 3)
    return [*targets, random_probabilities(1, classes, voxels)]


def logits_of(probabilities: Tensor) -> Tensor:
    return probabilities.log().clamp_min(-1000)


def counterexample_margins(name: str, classes: int) -> list[float]:
    """By how much the loss at the target is below that of any other prediction, for each question."""
    margins = []
    for target in questions(name, classes):
        logits = candidates(name, target)
        first = 1 if name in REGION_TERMS else 0
        far = (torch.softmax(logits, 1) - target)[:, first:].abs().amax((1, 2)) > 0.05
        at_target = values_of(name, logits_of(target), target)
        others = values_of(name, logits[far], target) if far.any() else torch.tensor([torch.inf])
        margins.append((others.min() - at_target).item())
    return margins


@pytest.mark.parametrize(("name", "classes", "claimed"), claims(0))
def test_consistent_losses_are_smallest_at_the_target_only(name, classes, claimed):
    assert (min(counterexample_margins(name, classes)) > 1e-4) == claimed


@pytest.mark.parametrize(("name", "classes", "claimed"), claims(1))
def test_proper_losses_are_smallest_at_the_mean_rater(name, classes, claimed):
    voxels = 4 if name in REGION_TERMS else 1
    # Three raters, of whom two agree: the mean is neither the median nor a vertex.
    votes = torch.eye(classes, dtype=torch.float64)[[0, 0, 1]].unsqueeze(2).repeat(1, 1, voxels)
    votes[:, :, 1::2] = votes[[1, 2, 0]][:, :, 1::2].roll(1, dims=0)
    mean = votes.mean(0, keepdim=True)
    others = values_of(name, candidates(name, votes), votes)
    margin = (others.min() - values_of(name, logits_of(mean), votes)).item()
    assert (margin > -1e-9) == claimed


@pytest.mark.parametrize(("name", "classes", "claimed"), claims(2))
def test_symmetric_losses_sum_to_a_constant(name, classes, claimed):
    logits = 3 * torch.randn(10, classes, 4, dtype=torch.float64)
    labels = torch.eye(classes, dtype=torch.float64).unsqueeze(2).repeat(1, 1, 4)
    sums = classes * values_of(name, logits, labels)
    assert (sums.max() - sums.min() < 1e-12 * sums.mean()) == claimed


@pytest.mark.parametrize(("name", "classes", "claimed"), claims(3))
def test_noise_changes_tolerant_losses_by_a_factor_and_a_constant(name, classes, claimed):
    rate = 0.3 / classes
    logits = 3 * torch.randn(10, classes, 4, dtype=torch.float64)
    target = random_probabilities(1, classes, 4)
    labels = torch.eye(classes, dtype=torch.float64).unsqueeze(2).repeat(1, 1, 4)
    constant = classes * values_of(name, logits[:1], labels)
    noisy = (1 - rate) * target + rate / (classes - 1) * (1 - target)
    factor = 1 - rate * classes / (classes - 1)
    expected = factor * values_of(name, logits, target) + rate / (classes - 1) * constant
    error = (values_of(name, logits, noisy) - expected).abs().max()
    assert (error < 1e-12 * max(1, constant.item())) == claimed


CONSISTENT = [name for name, cells in read_table().items() if cells[0] != "no"]


@pytest.mark.parametrize("name", CONSISTENT)
def test_gradient_of_consistent_losses_is_zero_at_the_target(name):
    logits = torch.randn(2, 3, 8, dtype=torch.float64)
    logits[:, 2, ::2] = -1000  # q has entries that are exactly 0
    # To the last bit as the loss computes p: at the kink of |p - q| a rounding error has a gradient.
    q = torch.softmax(logits, 1) if name in REGION_TERMS else torch.log_softmax(logits, 1).exp()
    logits.requires_grad_()
    ALL_LOSSES[name](logits, q).backward()
    assert logits.grad.abs().max() < 1e-12


@pytest.mark.parametrize("name", CONSISTENT)
def test_no_step_away_from_the_target_lowers_a_consistent_loss_of_regions(name):
    logits = torch.randn(2, 3, 8, dtype=torch.float64)
    logits[:, 2, ::2] = -1000
    q = torch.sigmoid(logits)
    at_target = ALL_LOSSES[name](logits, q, activation="sigmoid")
    for size in (1e-6, 1e-3, 1):
        moved = logits + size * torch.randn_like(logits)
        assert ALL_LOSSES[name](moved, q, activation="sigmoid") >= at_target - 1e-15


def test_the_table_has_every_loss():
    assert set(read_table()) == set(ALL_LOSSES)
