"""The fused loss of a GPU, the plain sum under torch.compile, tried on the CPU."""

import warnings

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from nnunet_softlabel.formats.encoding import SCALE
from nnunet_softlabel.losses import FusedSoftLoss, RegionSums, TermWeights
from nnunet_softlabel.losses.fused import fused_loss as fused_loss_module
from nnunet_softlabel.losses.fused import plain

# nnU-Net's deep supervision of a 3D patch, six scales
SHAPES = [(32, 24, 16), (16, 12, 8), (8, 6, 8), (8, 6, 4), (4, 3, 4), (2, 2, 2)]


@pytest.fixture
def backend(monkeypatch):
    """Sets a backend of torch.compile for the loss, and forgets what was compiled before and after."""

    def use(chosen):
        monkeypatch.setattr(plain, "BACKEND", chosen)
        forget()
        return chosen

    def forget():
        torch._dynamo.reset()
        plain._compiled.cache_clear()
        plain._can_compile.cache_clear()

    yield use
    forget()


def make_inputs(shape, channels=3, dtype=torch.float32):
    logits = torch.randn((2, channels, *shape), dtype=dtype, requires_grad=True)
    foreground = torch.rand((2, channels - 1, *shape)) / (channels - 1)
    foreground[torch.rand(foreground.shape) < 0.5] = 0
    return logits, (foreground * SCALE).to(torch.int16)


def train_and_validate(loss, shapes=SHAPES, channels=3, dtype=torch.float32):
    """Each scale with its gradient, then as validation calls it, against the CPU's form."""
    torch.manual_seed(0)
    for shape in shapes:
        logits, target = make_inputs(shape, channels, dtype)
        value, _ = plain.compiled_loss(logits, target, None, loss.options)
        (gradient,) = torch.autograd.grad(value, logits)
        expected = loss(logits, target)
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
        tolerance = {} if dtype == torch.float32 else {"rtol": 1e-2, "atol": 1e-6}
        torch.testing.assert_close(gradient, torch.autograd.grad(expected, logits)[0], **tolerance)
        with torch.no_grad():
            value, _ = plain.compiled_loss(logits, target, None, loss.options)
        torch.testing.assert_close(value, expected.detach(), rtol=1e-5, atol=1e-6)


def test_all_scales_of_deep_supervision_share_their_graphs(backend, activation):
    counter = backend(CompileCounterWithBackend("aot_eager"))
    sums = RegionSums(batch_dice=True)
    settings = {"activation": activation, "sums": sums, "has_ignore": activation == "sigmoid"}
    for loss in (FusedSoftLoss(balanced=True, **settings), FusedSoftLoss(**settings)):
        for shape in SHAPES:
            logits, target = make_inputs(shape)
            if activation == "sigmoid":
                target = torch.cat([target, target[:, :1]], 1)
            for is_training in (True, False):
                with torch.set_grad_enabled(is_training):
                    value, _ = plain.compiled_loss(logits, target, None, loss.options)
                if is_training:
                    value.backward()
    # the small loss of the question whether anything compiles, and training and validation of two losses
    assert counter.frame_count <= 5
    assert counter.frame_count < torch._dynamo.config.cache_size_limit  # as PyTorch 2.4 calls it, too


def test_a_compiled_loss_gives_what_the_cpu_gives(backend):
    backend("aot_eager")
    for options in ({}, {"balanced": True}, {"weights": TermWeights(nkl=0.0, tv=0.0), "has_ignore": True}):
        train_and_validate(FusedSoftLoss(**options))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_compiled_loss_raises_half_precision(backend, dtype):
    backend("aot_eager")
    train_and_validate(FusedSoftLoss(), SHAPES[:2], dtype=dtype)


def test_where_compiling_fails_the_plain_sum_is_taken_and_said_once(backend):
    def fails(graph, inputs):
        raise RuntimeError("no compiler here")

    backend(fails)
    loss = FusedSoftLoss()
    with pytest.warns(UserWarning, match="torch.compile fails on cpu.*uncompiled.*nnUNet_compile=F"):
        plain.compiled_loss(*make_inputs(SHAPES[0]), None, loss.options)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "torch.compile fails")
        train_and_validate(loss)


@pytest.mark.parametrize("compiles", [True, False])
def test_a_gpu_takes_the_compiled_loss_unless_told_not_to(compiles):
    class Elsewhere:
        requires_grad = False
        device = torch.device("cuda")

        def numel(self):
            return 8

    way = FusedSoftLoss(compiles=compiles)._way(Elsewhere(), Elsewhere())
    assert way is (fused_loss_module.compiled_loss if compiles else fused_loss_module.plain_loss)


def test_the_module_does_not_keep_its_own_loss_from_compiling(backend, monkeypatch):
    """`FusedSoftLoss` keeps the compiler of the network out, but not its own."""
    counter = backend(CompileCounterWithBackend("aot_eager"))
    monkeypatch.setattr(FusedSoftLoss, "_way", lambda self, logits, target: plain.compiled_loss)
    logits, target = make_inputs(SHAPES[1])
    FusedSoftLoss()(logits, target).backward()
    assert counter.frame_count >= 2  # the small loss, and this one


@pytest.mark.slow
def test_inductor_compiles_the_loss(backend):
    backend("inductor")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "torch.compile fails")
        train_and_validate(FusedSoftLoss(), SHAPES[:3])
