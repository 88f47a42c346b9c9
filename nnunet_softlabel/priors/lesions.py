"""How bright lesions are, compared with the tissue around them, over all cases of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.priors.roi import check_shape
from nnunet_softlabel.priors.tissue import FEWEST_VOXELS, TissueModel

SMALLEST_LESION_SPREAD = 0.25
AGREED_ABOVE = 0.5
# Agreed voxels of lesions that look like their tissue are brighter by chance, as often as not: in the label
# study by 0.1 to 0.2 spreads, where the prior only harmed.
LEAST_CONTRAST = 1.0


@dataclass(frozen=True)
class LesionModel:
    """Normal distribution of each channel's lesions, in spreads of the normal tissue above its median."""

    mean: tuple[float, ...]
    spread: tuple[float, ...]


class LesionStatisticsJson(TypedDict):
    """`LesionStatistics` as JSON keeps them."""

    voxels: Sequence[int]
    total: Sequence[float]
    total_of_squares: Sequence[float]


@dataclass(frozen=True)
class LesionStatistics:
    """All that a lesion model needs to know of a case, per channel; add cases up with ``+``."""

    voxels: tuple[int, ...]
    total: tuple[float, ...]
    total_of_squares: tuple[float, ...]

    def __add__(self, other: LesionStatistics) -> LesionStatistics:
        if len(self.voxels) != len(other.voxels):
            raise ValueError(f"cases differ in channels: {len(self.voxels)} and {len(other.voxels)}")
        return LesionStatistics(
            tuple(np.add(self.voxels, other.voxels).tolist()),
            tuple(np.add(self.total, other.total).tolist()),
            tuple(np.add(self.total_of_squares, other.total_of_squares).tolist()),
        )

    def to_json(self) -> LesionStatisticsJson:
        """Plain numbers."""
        return {
            "voxels": self.voxels,
            "total": self.total,
            "total_of_squares": self.total_of_squares,
        }

    @classmethod
    def from_json(cls, content: LesionStatisticsJson) -> LesionStatistics:
        """Inverse of `to_json`."""
        return cls(tuple(content["voxels"]), tuple(content["total"]), tuple(content["total_of_squares"]))

    def model(self) -> LesionModel:
        """Mean and standard deviation of each channel."""
        if min(self.voxels) < FEWEST_VOXELS:
            raise ValueError(
                f"raters agree on {list(self.voxels)} voxels per channel inside the ROI; a lesion model "
                f"needs {FEWEST_VOXELS} of each"
            )
        mean = np.divide(self.total, self.voxels)
        variance = np.divide(self.total_of_squares, self.voxels) - mean**2
        spread = np.maximum(np.sqrt(np.maximum(variance, 0)), SMALLEST_LESION_SPREAD)
        return LesionModel(tuple(mean.tolist()), tuple(spread.tolist()))


def lesion_statistics(
    image: NDArray[Any],
    roi: NDArray[Any],
    soft: NDArray[Any],
    tissue: TissueModel,
    *,
    agreed_above: float = AGREED_ABOVE,
) -> LesionStatistics:
    """Normalised intensity of the voxels inside the ROI that more than a share of the raters marked.

    >>> image, bone = np.array([100.0, 100.0, 160.0]), np.ones(3, bool)
    >>> lesion_statistics(image, bone, np.array([[0, 0, 1.0]]), TissueModel(100.0, 20.0)).total
    (3.0,)

    Args:
        image: ``(*spatial)``, one channel.
        roi: ``(*spatial)``, not 0 inside.
        soft: ``(C, *spatial)`` foreground probabilities.
        tissue: of this case.
        agreed_above: the share.

    Returns:
        Numbers to be added up over cases.
    """
    return statistics_of(agreed_intensities(image, roi, soft, tissue, agreed_above=agreed_above))


def agreed_intensities(
    image: NDArray[Any],
    roi: NDArray[Any],
    soft: NDArray[Any],
    tissue: TissueModel,
    *,
    agreed_above: float = AGREED_ABOVE,
) -> list[NDArray[Any]]:
    """What `lesion_statistics` adds up: per channel ``(N,)`` float64."""
    check_shape("image", image, soft.shape[1:])
    check_shape("ROI", roi, soft.shape[1:])
    return [tissue.normalise(image[(roi != 0) & (q > agreed_above)]).astype(np.float64) for q in soft]


def statistics_of(agreed: Sequence[NDArray[Any]]) -> LesionStatistics:
    """From `agreed_intensities`; of parts of an image, concatenate them."""
    return LesionStatistics(
        tuple(x.size for x in agreed),
        tuple(float(x.sum()) for x in agreed),
        tuple(float((x**2).sum()) for x in agreed),
    )


def check_contrast(mean: float, direction: Literal["brighter", "darker"]) -> None:
    """Refuse lesions that are not at least ``LEAST_CONTRAST`` spreads of the tissue to the stated side of it.

    >>> check_contrast(3.0, "brighter")  # lesions three spreads above their tissue

    Args:
        mean: of the lesions, in spreads of the normal tissue above its median.
        direction: what lesions are, compared with their tissue.
    """
    if direction not in ("brighter", "darker"):
        raise ValueError(f"direction must be 'brighter' or 'darker', got {direction!r}")
    if not (mean if direction == "brighter" else -mean) >= LEAST_CONTRAST:
        raise ValueError(
            f"the lesions that raters agree on are not {direction} than their tissue: they lie {mean:.2f} of "
            f"its spreads above it, and {LEAST_CONTRAST:g} to the {direction} side is the least that tells "
            f"them apart; choose the other direction if they lie there, or no intensity prior"
        )
