"""Checkpoints of nnU-Net, read without running code that they may hold."""

from __future__ import annotations

import codecs
import pickle
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.training.records import OfNnunet


def read_checkpoint(path: Path, *, keeps_on_disk: bool = False) -> OfNnunet:
    """Read a checkpoint of nnU-Net without running code that it may hold: weights, numbers and text only.

    Args:
        path: the file.
        keeps_on_disk: weights are read when they are used.

    Raises:
        DatasetError: if it cannot be read, or holds something else.
    """
    try:
        with _trusting(_numbers_of_numpy()):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=keeps_on_disk)
    except pickle.UnpicklingError as error:
        reason = (re.search(r"GLOBAL (\S+)", str(error)) or re.search(r"(\S+)", str(error)) or [""])[0]
        raise DatasetError(
            f"{path}: is damaged, or holds more than weights, numbers and text ({reason}); only checkpoints "
            f"that nnU-Net wrote are read, for others could run code of their own."
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise DatasetError(
            f"{path}: cannot be read as a checkpoint ({reason}); train that fold again, or copy it again."
        ) from error
    if not isinstance(checkpoint, dict):
        raise DatasetError(f"{path}: holds no checkpoint of nnU-Net; train that fold again.")
    return checkpoint


def has_finite_weights(weights: Mapping[str, Tensor]) -> bool:
    """Whether no weight of a network is infinite or not a number.

    >>> has_finite_weights({"bias": torch.tensor([0.0, torch.nan])})
    False
    """
    return all(bool(torch.isfinite(values).all()) for values in weights.values())


@contextmanager
def _trusting(types: list[Any]) -> Iterator[None]:
    """As ``torch.serialization.safe_globals``, which PyTorch 2.4 does not have."""
    before = list(torch.serialization.get_safe_globals())  # PyTorch 2.4 gives the list itself
    torch.serialization.add_safe_globals(types)
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def _numbers_of_numpy() -> list[Any]:
    """Types in which nnU-Net logs scores: numpy's numbers, of this version and of the one before it."""
    kinds = (np.float64, np.float32, np.int64, np.int32, np.bool_)
    scalar = np.float64(0).__reduce__()[0]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    dtypes = [np.dtype, *{type(np.dtype(kind)) for kind in kinds}]
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6):  # knows no names, nor how bytes are stored
        return [*dtypes, *kinds, scalar, codecs.encode]
    return [*dtypes, *kinds, *((scalar, name) for name in names)]
