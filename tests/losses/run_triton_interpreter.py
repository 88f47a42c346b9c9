"""Run the Triton kernels in Triton's interpreter and compare them with the eager code.

A script, because the interpreter is chosen by an environment variable before Triton is imported:
``TRITON_INTERPRET=1 python tests/losses/run_triton_interpreter.py``.
"""

import itertools

import torch

from nnunet_softlabel.formats.encoding import SCALE
from nnunet_softlabel.losses.fused import eager as fused_eager
from nnunet_softlabel.losses.fused import triton as fused_triton
from nnunet_softlabel.losses.fused.fused_loss import FusedSoftLoss


def main() -> None:
    """Compare value and gradient for softmax and sigmoid, compact and float targets, masks, batch_dice."""
    generator = torch.Generator().manual_seed(0)
    cases = itertools.product(("softmax", "sigmoid"), (2, 3), (True, False), (True, False))
    for activation, channels, is_compact, has_ignore in cases:
        logits = 3 * torch.randn((2, channels, 300), generator=generator)
        shares = torch.rand((2, channels, 300), generator=generator)
        shares = shares / shares.sum(1, keepdim=True)
        ignored = torch.rand((2, 1, 300), generator=generator) < 0.2
        first = 1 if activation == "softmax" else 0
        target, mask = shares, ~ignored if has_ignore else None
        if is_compact:
            target = (shares[:, first:] * SCALE).to(torch.int16)
            target[:, :1][ignored] = -1 if has_ignore else 0
            mask = None
        loss = FusedSoftLoss(
            weight_nkl=0.5, activation=activation, batch_dice=has_ignore, has_ignore=has_ignore and is_compact
        )
        value, terms = fused_triton.loss_and_terms(logits, target, mask, loss.options)
        gradient = fused_triton.gradient(logits, target, mask, loss.options, terms, torch.tensor(2.0))
        expected, expected_gradient = fused_eager.loss_and_gradient(logits, target, mask, loss.options)
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(gradient, 2 * expected_gradient, rtol=1e-4, atol=1e-7)
    print("agree")


main()
