"""A recalibration folded into a network: affine maps of logits are other weights of the last convolution."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from nnunet_softlabel.errors import UsageError
from nnunet_softlabel.evaluation.calibration_file import read_calibration
from nnunet_softlabel.evaluation.recalibration import AffineMap
from nnunet_softlabel.formats.labels import Labels

HEAD = re.compile(r"(?:.*\.)?seg_layers\.\d+\.(weight|bias)")  # of every deep supervision level


def read_affine_map(file: Path, labels: Labels) -> AffineMap:
    """The map for new images of a calibration file.

    Raises:
        UsageError: if there is no file, or if its map is not affine.
        DatasetError: if it was fitted for other channels.
    """
    found = read_calibration(file, labels).of_all
    if not isinstance(found, AffineMap):
        raise UsageError(
            f"{file}: an {found.method} map is no scaling of the last convolution; fit one with "
            f"`nnunet_softlabel calibrate --method affine` or temperature."
        )
    return found


def folded(
    weights: Mapping[str, Tensor], recalibration: AffineMap, *, has_regions: bool
) -> dict[str, Tensor]:
    """Weights of a network whose logits are the recalibrated ones, at every deep supervision level.

    Classes: ``z_c' = scale_c (z_c - z_0) + shift_c`` and ``z_0' = 0``; softmax sees differences only.
    Regions: ``z_c' = scale_c z_c + shift_c``.

    Args:
        weights: nnU-Net's ``network_weights``; others than those of the last convolutions stay.
        recalibration: of log-odds.
        has_regions: channels may overlap.

    Raises:
        UsageError: if the network has no such convolutions, or another number of outputs.
    """
    heads = {name: match[1] for name in weights if (match := HEAD.fullmatch(name))}
    if not heads:
        raise UsageError("the network has no seg_layers, nnU-Net's last convolutions; it cannot be folded.")
    scale, shift = torch.tensor(recalibration.scale), torch.tensor(recalibration.shift)
    outputs = len(scale) + (not has_regions)
    found = dict(weights)
    for name, kind in heads.items():
        old = weights[name]
        if len(old) != outputs:
            raise UsageError(f"the network has {len(old)} outputs, the calibration is of {outputs}.")
        own = old.double()
        if not has_regions:
            own = own[1:] - own[:1]
        new = own * scale.double().reshape(-1, *[1] * (own.ndim - 1))
        if kind == "bias":
            new = new + shift.double()
        if not has_regions:
            new = torch.cat([torch.zeros_like(new[:1]), new])
        found[name] = new.to(old.dtype)
    return found
