"""What of nnU-Net's plan the preprocessing of a case needs, as plain values.

nnU-Net's managers import PyTorch and scikit-image: a worker that got them would start for seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.preprocessing.box_resampling import is_linear, resampled_in_box

if TYPE_CHECKING:
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager


@dataclass(frozen=True)
class LinearResampling:
    """nnU-Net's default for probabilities, which `resampled_in_box` does.

    Attributes:
        force_separate_z: nnU-Net's.
    """

    force_separate_z: bool | None


@dataclass(frozen=True)
class CasePlan:
    """Of one configuration of a plan.

    Attributes:
        transpose_forward: order of the axes.
        spacing: of the preprocessed images; without the distance of slices in a 2d configuration.
        patch_size: in voxels.
        reader_class: nnU-Net's, which reads the images.
        resampling: nnU-Net's default, or the function that the plan names.
    """

    transpose_forward: Sequence[int]
    spacing: Sequence[float]
    patch_size: tuple[int, ...]
    reader_class: type[Any]
    resampling: LinearResampling | Callable[..., Any]

    @classmethod
    def of(cls, plans_manager: PlansManager, configuration_manager: ConfigurationManager) -> CasePlan:
        """Taken from nnU-Net's managers."""
        theirs = configuration_manager.resampling_fn_probabilities
        return cls(
            transpose_forward=list(plans_manager.transpose_forward),
            spacing=list(configuration_manager.spacing),
            patch_size=tuple(configuration_manager.patch_size),
            reader_class=plans_manager.image_reader_writer_class,
            resampling=resampling_of(theirs),
        )

    def resample(
        self,
        channel: NDArray[Any],
        shape: Sequence[int],
        spacing: Sequence[float],
        new_spacing: Sequence[float],
    ) -> Any:
        """A channel on another number of voxels, as the plan has it."""
        if isinstance(self.resampling, LinearResampling):
            separate = self.resampling.force_separate_z
            return resampled_in_box(channel, shape, spacing, new_spacing, force_separate_z=separate)
        return self.resampling(np.ascontiguousarray(channel)[None], list(shape), spacing, new_spacing)[0]


def resampling_of(theirs: Callable[..., Any]) -> LinearResampling | Callable[..., Any]:
    """The function of a plan, or what stands for nnU-Net's default."""
    if not is_linear(theirs):
        return theirs
    return LinearResampling(theirs.keywords.get("force_separate_z", False))  # nnU-Net's own default
