"""Soft labels as preparations of a planned data set leave them."""

from __future__ import annotations

from pathlib import Path

import blosc2
import numpy as np
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_softlabel.formats.encoding import dequantise
from nnunet_softlabel.formats.files import read_json
from nnunet_softlabel.preprocessing.preparation import Preparation
from tests.conversion.conversion_helpers import tree


def soft_files(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in tree(folder).items() if name.endswith((".b2nd", ".npy"))}


def read_soft(folder: Path, case: str) -> np.ndarray:
    return dequantise(np.asarray(blosc2.open(str(folder / f"{case}.b2nd"), mode="r")[:]))


def preparation(dataset, configuration: str = "3d_fullres") -> Preparation:
    manager = PlansManager(read_json(dataset.preprocessed / "nnUNetPlans.json"))
    return Preparation(dataset.preprocessed, manager, manager.get_configuration(configuration))


def remade(dataset) -> str:
    """The reason for which soft labels are made again, or an empty text."""
    lines: list[str] = []
    preparation(dataset).ensure(log=lines.append)
    return lines[0].rsplit("(", 1)[1].rstrip(")") if lines else ""
