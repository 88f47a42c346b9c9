"""What a user asks of anatomical priors, and how `dataset.json` records it: no arrays here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from nnunet_softlabel.errors import UsageError
from nnunet_softlabel.formats.soft_labels import IntensityStep, RoiStep
from nnunet_softlabel.priors.intensity import CERTAINTY, MOST_EVIDENCE
from nnunet_softlabel.priors.lesions import AGREED_ABOVE, LesionModel
from nnunet_softlabel.public import public


@public
@dataclass(frozen=True)
class RoiPrior:
    """Where lesions can be: probabilities fall to 0 outside the masks.

    Attributes:
        names: of the ROIs; every case has a mask for each in ``Case.rois``.
        margin_mm: width of the soft border outside.
        weights: ROI name -> how possible the foreground is in it, in [0, 1]; 1 for names that are not here.
    """

    names: tuple[str, ...]
    margin_mm: float = 0.0
    weights: Mapping[str, float] = field(default_factory=dict)

    def in_order(self) -> list[float]:
        """The weights in the order of the names."""
        return [float(self.weights.get(name, 1.0)) for name in self.names]


@public
@dataclass(frozen=True)
class IntensityPrior:
    """How bright lesions are, compared with the tissue of the ROIs.

    Attributes:
        direction: on which side of their tissue lesions lie.
        strength: of the evidence; 1 is Bayes' rule for a voxel by itself.
        channel: of the image, from 0.
        raises_unmarked: voxels that no rater marked may gain, too.
    """

    direction: Literal["brighter", "darker"]
    strength: float = 1.0
    channel: int = 0
    raises_unmarked: bool = False


@public
@dataclass(frozen=True)
class Priors:
    """The priors of a conversion, applied after fusion: first the ROI, then intensity."""

    roi: RoiPrior | None = None
    intensity: IntensityPrior | None = None

    def __bool__(self) -> bool:
        return self.roi is not None or self.intensity is not None

    def check(self, channel_names: Sequence[str]) -> None:
        """Refuse settings that cannot work.

        Raises:
            UsageError: naming the flag.
        """
        if self.intensity is not None:
            self._check_intensity(self.intensity, channel_names)
        if self.roi is None:
            return
        if not self.roi.names:
            raise UsageError("--roi: name at least one ROI.")
        if not 0 <= self.roi.margin_mm < math.inf:
            raise UsageError(f"--roi-margin-mm {self.roi.margin_mm:g}: takes a number from 0.")
        for name, weight in self.roi.weights.items():
            if name not in self.roi.names:
                raise UsageError(
                    f"--roi-weight {name}={weight:g}: no --roi has that name; "
                    f"there is {', '.join(self.roi.names)}."
                )
            if not 0 <= weight <= 1:
                raise UsageError(f"--roi-weight {name}={weight:g}: weights lie in [0, 1].")
        if not any(self.roi.in_order()):
            raise UsageError("--roi-weight: all ROIs weigh 0, so every label would vanish; raise one.")

    def _check_intensity(self, intensity: IntensityPrior, channel_names: Sequence[str]) -> None:
        if self.roi is None:
            raise UsageError(
                f"--intensity-prior {intensity.direction}: needs --roi, "
                f"the tissue that lesions are compared with."
            )
        if intensity.direction not in ("brighter", "darker"):
            raise UsageError(f"--intensity-prior {intensity.direction}: choose brighter or darker.")
        if not 0 <= intensity.strength < math.inf:
            raise UsageError(f"--prior-strength {intensity.strength:g}: takes a number from 0.")
        if not 0 <= intensity.channel < len(channel_names):
            raise UsageError(
                f"--prior-channel {intensity.channel}: there are {len(channel_names)} channels, "
                f"counted from 0."
            )

    def steps(self, lesions: LesionModel | None, label_names: Sequence[str]) -> list[RoiStep | IntensityStep]:
        """Every parameter, in the order in which the priors are applied."""
        steps: list[RoiStep | IntensityStep] = []
        if self.roi is not None:
            weights = dict(zip(self.roi.names, self.roi.in_order(), strict=True))
            steps.append({"name": "roi", "weights": weights, "margin_mm": self.roi.margin_mm})
        if self.intensity is not None:
            assert lesions is not None  # estimated before any case is written
            models = zip(label_names, lesions.mean, lesions.spread, strict=True)
            steps.append(
                {
                    "name": "intensity",
                    "direction": self.intensity.direction,
                    "strength": self.intensity.strength,
                    "channel": self.intensity.channel,
                    "raises_unmarked": self.intensity.raises_unmarked,
                    "certainty": CERTAINTY,
                    "most_evidence": MOST_EVIDENCE,
                    "agreed_above": AGREED_ABOVE,
                    "lesion_model": {n: {"mean": mean, "spread": spread} for n, mean, spread in models},
                }
            )
        return steps
