"""From the raters of one case to one soft label. Each fusion is a pure function in ``FUSIONS``.

A fusion takes :class:`RaterVotes` and keyword options, and returns foreground probabilities
``(C, *spatial)`` float32; the background of exclusive channels is 1 minus their sum. Voxels that no rater
answered get 0, which the caller masks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from nnunet_softlabel.fusion.lesions import lesion_wise
from nnunet_softlabel.fusion.rater_rates import RaterCounts, RaterRates, estimate_rater_rates
from nnunet_softlabel.fusion.rater_votes import RaterVotes
from nnunet_softlabel.fusion.shape import shape_based_average
from nnunet_softlabel.fusion.smoothing import spatially_varying_label_smoothing
from nnunet_softlabel.fusion.staple import staple
from nnunet_softlabel.fusion.voting import agreement_weights, majority_vote, mean_vote, weighted_vote

FUSIONS: dict[str, Callable[..., NDArray[Any]]] = {
    "mean": mean_vote,
    "weighted": weighted_vote,
    "majority": majority_vote,
    "staple": staple,
    "sba": shape_based_average,
    "svls": spatially_varying_label_smoothing,
    "lesion-wise": lesion_wise,
}

__all__ = [
    "FUSIONS",
    "RaterCounts",
    "RaterRates",
    "RaterVotes",
    "agreement_weights",
    "estimate_rater_rates",
    "lesion_wise",
    "majority_vote",
    "mean_vote",
    "shape_based_average",
    "spatially_varying_label_smoothing",
    "staple",
    "weighted_vote",
]
