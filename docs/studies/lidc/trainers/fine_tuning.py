"""Fine-tuning at other rates and lengths, and its control: stock nnU-Net that goes on.

A name says the initial rate, and the number of epochs of 25 iterations: ``FineTuneRate1e3Epochs6``.
"""

from itertools import product
from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_softlabel.training.recipes import nnUNetTrainerSoftCEFineTune
from nnunet_softlabel.training.run import set_seed

ITERATIONS = 25
RATES = {"3e4": 3e-4, "1e3": 1e-3, "3e3": 3e-3, "1e2": 1e-2}
EPOCHS = (2, 6, 18)
CONTROL = "StockGoesOnRate1e3Epochs6"


class _Seeded(nnUNetTrainer):
    """Short epochs, and the same random numbers in every run."""

    rate: float
    number: int

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cpu"),  # noqa: B008
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = ITERATIONS, 5
        self.initial_lr, self.num_epochs = self.rate, self.number
        set_seed(0)


def _variant(name: str, base: type[nnUNetTrainer], rate: float, epochs: int) -> type[nnUNetTrainer]:
    about = f"`{base.__name__}` from a rate of {rate:g}, {epochs * ITERATIONS} iterations."
    attributes = {"__module__": __name__, "__doc__": about, "rate": rate, "number": epochs}
    return type(name, (_Seeded, base), attributes)


VARIANTS = {
    f"FineTuneRate{short}Epochs{epochs}": (nnUNetTrainerSoftCEFineTune, rate, epochs)
    for (short, rate), epochs in product(RATES.items(), EPOCHS)
} | {CONTROL: (nnUNetTrainer, 1e-3, 6)}
globals().update({name: _variant(name, *settings) for name, settings in VARIANTS.items()})
