"""Mixed precision and torch.compile, as far as a CPU shows them."""

from functools import partial

import numpy as np
import pytest
import torch
from nnunetv2.run.run_training import maybe_load_checkpoint

from nnunet_softlabel.training import recipes
from nnunet_softlabel.training.recipes import nnUNetTrainerAPL, nnUNetTrainerAPLExpectation
from tests.training.conftest import batches

ALL_TRAINERS = [name for name in vars(recipes) if name.startswith("nnUNetTrainer")]


@pytest.mark.parametrize("name", ALL_TRAINERS)
def test_loss_under_bfloat16_autocast_is_the_float32_loss(trainer_factory, planned_dataset, name):
    trainer = trainer_factory(getattr(recipes, name), planned_dataset)
    (batch,), _ = batches(trainer, 1)
    expected = trainer.loss(trainer.network(batch["data"]), batch["target"])
    with torch.autocast("cpu", torch.bfloat16):
        output = trainer.network(batch["data"])
        loss = trainer.loss(output, batch["target"])
    assert output[0].dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=0.03, atol=0)
    loss.backward()
    gradients = [p.grad for p in trainer.network.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("name", ALL_TRAINERS)
def test_loss_of_huge_half_precision_logits_is_finite(trainer_factory, planned_dataset, name):
    """Under CUDA's float16 autocast logits may reach 65504."""
    trainer = trainer_factory(getattr(recipes, name), planned_dataset)
    (batch,), _ = batches(trainer, 1)
    logits = [(t.sign() * 6e4).half().requires_grad_() for t in trainer.network(batch["data"])]
    loss = trainer.loss(logits, batch["target"])
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(x.grad).all() for x in logits if x.grad is not None)


class _Compiled:
    """nnU-Net compiles on CUDA only; "eager" is the compiler's front without code generation."""

    def _do_i_compile(self):
        return True


@pytest.mark.parametrize("base", [nnUNetTrainerAPL, nnUNetTrainerAPLExpectation])
def test_compiled_network_trains_saves_continues_and_validates(
    trainer_factory, planned_dataset, monkeypatch, base
):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    trainer_class = type(base.__name__, (_Compiled, base), {})
    trainer = trainer_factory(trainer_class, planned_dataset)
    trainer.num_epochs = 1
    trainer.run_training()
    assert type(trainer.network).__name__ == "OptimizedModule"
    assert np.isfinite(trainer.logger.get_checkpoint()["train_losses"]).all()
    plain = trainer_factory(base, planned_dataset)  # a checkpoint does not tell whether it was compiled
    maybe_load_checkpoint(plain, continue_training=False, validation_only=True)
    plain.perform_actual_validation(False)
    for mine, theirs in zip(plain.network.parameters(), trainer.network.parameters(), strict=True):
        assert torch.equal(mine, theirs)
