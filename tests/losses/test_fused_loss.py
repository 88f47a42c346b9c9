"""The fused loss is the weighted sum of its terms, in value and gradient."""

from functools import partial

import pytest
import torch
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from torch import Tensor, multiprocessing, nn

from nnunet_softlabel.formats.encoding import SCALE
from nnunet_softlabel.losses import (
    FusedSoftLoss,
    RegionSums,
    TermWeights,
    class_balanced,
    cross_entropy,
    dice_semimetric_loss,
    expand_target,
    normalized_kl_divergence,
    total_variation,
)
from nnunet_softlabel.losses.fused import eager as fused_eager
from nnunet_softlabel.losses.fused import plain as plain_module
from nnunet_softlabel.losses.fused.plain import plain_loss
from tests.process_group import joined_by_gloo

WEIGHTS = [(1, 1, 1, 1), (0.3, 0.7, 0, 2), (0, 0, 1, 0), (1, 0, 0, 0), (0, 0, 0, 0)]


def reference(
    logits: Tensor, target: Tensor, mask: Tensor | None, weights=(1, 1, 1, 1), balanced=False, **options
) -> Tensor:
    activation = options.get("activation", "softmax")
    dml, *others = weights
    value = dml * dice_semimetric_loss(logits, target, mask=mask, **options)
    for weight, term in zip(others, (cross_entropy, normalized_kl_divergence, total_variation), strict=True):
        term = partial(class_balanced, loss=term) if balanced else term
        value = value + weight * term(logits, target, mask=mask, activation=activation)
    return value


def fused(weights=(1, 1, 1, 1), **options) -> FusedSoftLoss:
    return FusedSoftLoss(TermWeights(*weights), **options)


def compact_target(channels: int, activation: str, *, has_ignore: bool = False) -> Tensor:
    """A case with hard, soft and, on request, ignored voxels."""
    shares = torch.softmax(3 * torch.randn(2, channels, 13, 7), dim=1)
    shares[..., :4] = shares[..., :4].round()
    first = 1 if activation == "softmax" else 0
    compact = (shares[:, first:] * SCALE).to(torch.int16)
    if has_ignore:
        compact[:, 0][torch.rand(2, 13, 7) < 0.2] = -1
    return compact


def value_and_gradient(loss, logits: Tensor, *arguments) -> tuple[Tensor, Tensor]:
    logits = logits.detach().clone().requires_grad_()
    value = loss(logits, *arguments)
    (2 * value).backward()
    return value.detach(), logits.grad


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("channels", [2, 3, 8])
@pytest.mark.parametrize("batch_dice", [True, False])
@pytest.mark.parametrize("has_ignore", [True, False])
@pytest.mark.parametrize("is_compact", [True, False])
@pytest.mark.parametrize("balanced", [True, False])
def test_fused_loss_is_the_sum_of_its_terms(
    weights, channels, activation, batch_dice, has_ignore, is_compact, balanced, monkeypatch
):
    monkeypatch.setattr(fused_eager, "CHUNK_ELEMENTS", 50)  # several chunks, the last one cut
    compact = compact_target(channels, activation, has_ignore=has_ignore)
    compact[:, :, 4] = 0  # else nothing but the rounded voxels is without foreground
    target, mask = expand_target(compact, activation=activation, has_ignore=has_ignore)
    logits = 3 * torch.randn(2, channels, 13, 7, dtype=torch.float64)
    options = {"activation": activation, "sums": RegionSums(batch_dice=batch_dice), "balanced": balanced}
    expected = value_and_gradient(lambda z: reference(z, target, mask, weights, **options), logits)
    if is_compact:
        result = value_and_gradient(fused(weights, has_ignore=has_ignore, **options), logits, compact)
    else:
        result = value_and_gradient(fused(weights, **options), logits, target, mask)
    torch.testing.assert_close(result, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("channels", [2, 8])
def test_a_part_without_voxels_adds_nothing_in_single_precision(channels):
    """A sum over all minus that over the marked ones would leave its rounding, which no count divides."""
    logits = torch.randn(1, channels, 60, 60, 61)
    compact = torch.randint(1, SCALE // channels, (1, channels - 1, 60, 60, 61)).to(torch.int16)
    loss = fused((0, 0, 0, 1), balanced=True)
    value, gradient = value_and_gradient(loss, logits, compact)
    expected = value_and_gradient(lambda z: plain_loss(z, compact, None, loss.options)[0], logits.double())
    torch.testing.assert_close(value.double(), expected[0], rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient.double(), expected[1], rtol=1e-4, atol=1e-11)


@pytest.mark.parametrize("channels", [2, 3])
@pytest.mark.parametrize("has_ignore", [True, False])
def test_a_balanced_loss_tells_the_volumes_of_prediction_and_target(channels, activation, has_ignore):
    compact = compact_target(channels, activation, has_ignore=has_ignore)
    target, mask = expand_target(compact, activation=activation, has_ignore=has_ignore)
    logits = torch.randn(2, channels, 13, 7)
    p = torch.softmax(logits, 1) if activation == "softmax" else torch.sigmoid(logits)
    first = 1 if activation == "softmax" else 0
    expected = [(x if mask is None else x * mask)[:, first:].sum() for x in (p, target)]
    loss = fused(activation=activation, has_ignore=has_ignore, balanced=True)
    loss(logits, compact)
    torch.testing.assert_close(loss.volumes, torch.stack(expected))
    _, volumes = plain_loss(logits, compact, None, loss.options)
    torch.testing.assert_close(volumes, torch.stack(expected))
    plain = fused(activation=activation, has_ignore=has_ignore)
    plain(logits, compact)
    assert plain.volumes is None


@pytest.mark.parametrize("channels", [2, 3])
@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("has_ignore", [True, False])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_the_plain_sum_for_other_devices_is_the_fused_loss(
    channels, activation, balanced, has_ignore, weights
):
    compact = compact_target(channels, activation, has_ignore=has_ignore)
    loss = fused(
        weights,
        activation=activation,
        has_ignore=has_ignore,
        sums=RegionSums(batch_dice=has_ignore),
        balanced=balanced,
    )
    logits = 3 * torch.randn(2, channels, 13, 7, dtype=torch.float64)
    expected = value_and_gradient(loss, logits, compact)
    result = value_and_gradient(lambda z: plain_loss(z, compact, None, loss.options)[0], logits)
    torch.testing.assert_close(result, expected, rtol=1e-6, atol=1e-8)


def test_the_target_gets_its_gradient(activation):
    logits = torch.randn(2, 3, 13, 7, dtype=torch.float64, requires_grad=True)
    target = torch.softmax(torch.randn(2, 3, 13, 7, dtype=torch.float64), 1).requires_grad_()
    expected = torch.autograd.grad(reference(logits, target, None, activation=activation), (logits, target))
    result = torch.autograd.grad(fused(activation=activation)(logits, target), (logits, target))
    torch.testing.assert_close(result, expected)


def test_a_second_derivative_is_refused_with_a_way_out():
    logits = torch.randn(2, 3, 13, 7, requires_grad=True)
    value = fused()(logits, compact_target(3, "softmax"))
    with pytest.raises(RuntimeError, match=r"no second derivative.*create_graph=True.*single functions"):
        torch.autograd.grad(value, logits, create_graph=True)


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 3, 0, 4), (2, 2, 0)])
@pytest.mark.parametrize("has_mask", [True, False])
def test_a_size_of_zero_gives_what_the_single_functions_give(shape, activation, has_mask):
    logits, target = torch.zeros(shape), torch.zeros(shape)
    mask = torch.zeros((shape[0], 1, *shape[2:]), dtype=torch.bool) if has_mask else None
    expected = value_and_gradient(lambda z: reference(z, target, mask, activation=activation), logits)
    result = value_and_gradient(fused(activation=activation), logits, target, mask)
    torch.testing.assert_close(result, expected, equal_nan=True)


@pytest.mark.parametrize("channels", [2, 3])
def test_fused_gradient_is_the_derivative(channels, activation):
    logits = torch.randn(2, channels, 5, dtype=torch.float64, requires_grad=True)
    target = torch.softmax(torch.randn(2, channels, 5, dtype=torch.float64), dim=1)
    mask = torch.rand(2, 1, 5) < 0.7
    loss = fused((1, 0.5, 2, 0.7), activation=activation)
    assert torch.autograd.gradcheck(lambda z: loss(z, target, mask), logits)


@pytest.mark.parametrize("channels", [2, 3])
def test_fused_gradient_is_zero_at_the_target(channels):
    logits = torch.zeros(1, channels, 6, dtype=torch.float64)
    logits[:, 0, :3] = -1000  # q = 0 there
    target = torch.sigmoid(logits[:, 1:] - logits[:, :1])
    target = torch.cat([1 - target, target], 1) if channels == 2 else torch.softmax(logits, 1)
    value, gradient = value_and_gradient(fused((1, 0, 1, 1)), logits, target)
    assert value.abs() < 1e-12
    assert gradient.abs().max() < 1e-12


@pytest.mark.parametrize("channels", [2, 3])
def test_fused_loss_is_finite_for_confident_logits(channels, activation):
    target = torch.eye(channels)[torch.randint(channels, (2, 30))].movedim(-1, 1)
    logits = 1000.0 * torch.randint(-1, 2, (2, channels, 30))
    expected = value_and_gradient(lambda z: reference(z, target, None, activation=activation), logits)
    result = value_and_gradient(fused(activation=activation), logits, target)
    assert result[1].isfinite().all()
    torch.testing.assert_close(result, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_fused_loss_raises_half_precision_under_autocast(dtype, activation):
    compact = compact_target(3, activation)
    target, _ = expand_target(compact, activation=activation)
    logits = torch.randn(2, 3, 13, 7).to(dtype)
    expected = value_and_gradient(lambda z: reference(z, target, None, activation=activation), logits)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = value_and_gradient(fused(activation=activation), logits, compact)
    assert result[0].dtype == torch.float32
    assert result[1].dtype == dtype
    torch.testing.assert_close(result, expected, rtol=1e-2, atol=1e-6)


def test_fused_loss_of_no_voxel_is_zero(activation):
    compact = torch.full_like(compact_target(3, activation), -1)
    logits = torch.randn(2, 3, 13, 7)
    value, gradient = value_and_gradient(fused(activation=activation, has_ignore=True), logits, compact)
    assert value == 0
    assert gradient.eq(0).all()


def test_a_retained_graph_gives_the_same_gradient_again():
    logits = torch.randn(2, 3, 13, 7, requires_grad=True)
    value = fused()(logits, compact_target(3, "softmax"))
    (first,) = torch.autograd.grad(value, logits, retain_graph=True)
    (second,) = torch.autograd.grad(value, logits)
    torch.testing.assert_close(first, second)


def test_fused_loss_works_on_views_and_leaves_its_arguments_alone():
    logits = torch.randn(2, 13, 7, 3).movedim(-1, 1)
    compact = compact_target(3, "softmax").transpose(2, 3).contiguous().transpose(2, 3)
    before = logits.clone(), compact.clone()
    result = value_and_gradient(fused(), logits, compact)
    torch.testing.assert_close((logits, compact), before)
    expected = value_and_gradient(fused(), logits.contiguous(), compact.contiguous())
    torch.testing.assert_close(result, expected)


def test_fused_loss_works_behind_deep_supervision_and_a_compiled_network():
    network = torch.compile(nn.Conv2d(1, 3, 3, padding=1), backend="eager")
    loss = DeepSupervisionWrapper(fused(), (0.75, 0.25))
    compact = compact_target(3, "softmax")
    output = network(torch.randn(2, 1, 13, 7))
    value = loss([output, output[..., :4, :4]], [compact, compact[..., :4, :4]])
    value.backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


@pytest.mark.parametrize("channels", [2, 3])
def test_fused_loss_does_not_depend_on_the_number_of_threads(channels, monkeypatch):
    monkeypatch.setattr(fused_eager, "CHUNK_ELEMENTS", 50)
    logits, compact = torch.randn(2, channels, 13, 7), compact_target(channels, "softmax")
    expected = value_and_gradient(fused(), logits, compact)
    torch.set_num_threads(3)
    result = value_and_gradient(fused(), logits, compact)
    assert torch.get_num_threads() == 3
    torch.testing.assert_close(result, expected, rtol=0, atol=0)
    with torch.inference_mode():
        torch.testing.assert_close(fused()(logits, compact), expected[0], rtol=0, atol=0)


def _compare_with_the_whole_batch(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    with joined_by_gloo(folder, rank):
        generator = torch.Generator().manual_seed(3)
        logits = torch.randn(2, 3, 40, generator=generator, dtype=torch.float64)
        target = torch.softmax(torch.randn(2, 3, 40, generator=generator, dtype=torch.float64), dim=1)
        mine = slice(rank, rank + 1)
        shared = fused((1, 0, 0, 0), sums=RegionSums(batch_dice=True, ddp=True))
        plain_module.BACKEND = "aot_eager"  # in this process only
        in_one = RegionSums(batch_dice=True)
        whole = value_and_gradient(lambda z: reference(z, target, None, (1, 0, 0, 0), sums=in_one), logits)
        for loss in (
            lambda z: dice_semimetric_loss(z, target[mine], sums=shared.options.sums),
            lambda z: shared(z, target[mine]),
            lambda z: plain_module.plain_loss(z, target[mine], None, shared.options)[0],
            lambda z: plain_module.compiled_loss(z, target[mine], None, shared.options)[0],
        ):
            value, gradient = value_and_gradient(loss, logits[mine])
            torch.testing.assert_close(value, whole[0])
            # Each of two processes has the whole loss; DDP then averages their gradients.
            torch.testing.assert_close(gradient / 2, whole[1][mine])


def test_two_processes_share_the_sums_of_the_batch(tmp_path):
    multiprocessing.spawn(_compare_with_the_whole_batch, (str(tmp_path),), nprocs=2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("channels", [2, 3, 8])
@pytest.mark.parametrize("has_ignore", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_fused_loss_on_the_gpu_is_that_on_the_cpu(channels, activation, has_ignore, dtype):
    compact = compact_target(channels, activation, has_ignore=has_ignore)
    target, mask = expand_target(compact, activation=activation, has_ignore=has_ignore)
    logits = (3 * torch.randn(2, channels, 13, 7)).to(dtype)
    options = {"activation": activation, "sums": RegionSums(batch_dice=has_ignore)}
    expected = value_and_gradient(lambda z: reference(z.double(), target, mask, **options), logits)
    on_gpu = value_and_gradient(fused(has_ignore=has_ignore, **options), logits.cuda(), compact.cuda())
    assert on_gpu[1].dtype == dtype
    tolerance = {torch.float16: 2e-3, torch.bfloat16: 2e-2}.get(dtype, 1e-4)
    torch.testing.assert_close(on_gpu[0].cpu().double(), expected[0].double(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(on_gpu[1].cpu(), expected[1], rtol=tolerance, atol=1e-5)
