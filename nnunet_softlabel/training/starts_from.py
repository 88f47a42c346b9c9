"""Which trainers begin with a model that another one has trained; no torch here."""

from __future__ import annotations

import re

STARTS_FROM = {"nnUNetTrainerSoftCEFineTune": "nnUNetTrainer"}
SHARE_OF_EPOCHS = 0.3


def starts_from(trainer: str) -> str | None:
    """The trainer whose model this one begins with, None if it begins anew.

    >>> starts_from("nnUNetTrainerSoftCEFineTune_5epochs")
    'nnUNetTrainer'
    >>> starts_from("nnUNetTrainerSoftCE") is None
    True
    """
    return STARTS_FROM.get(re.sub(r"_\d+epochs?$", "", trainer))
