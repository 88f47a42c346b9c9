"""What a training may spend."""

from __future__ import annotations

from dataclasses import dataclass

from nnunet_softlabel.public import public


@public
@dataclass(frozen=True)
class Budget:
    """How long a training trains, and on what.

    >>> Budget(epochs=100).device
    'cuda'

    Attributes:
        epochs: instead of nnU-Net's, or the trainer's, own number; a trainer that goes on from a trained
            model takes three tenths. None leaves that number.
        iterations: per epoch; None leaves nnU-Net's own number.
        device: ``cuda``, ``cpu`` or ``mps``.
    """

    epochs: int | None = None
    iterations: int | None = None
    device: str = "cuda"
