"""How bright lesions are, compared with the tissue around them, as a prior.

Three steps: :func:`estimate_tissue` per case; :func:`lesion_statistics` per case, added up over all for one
:class:`LesionModel`; :func:`apply_intensity_prior` per case.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.priors.lesions import LesionModel, check_contrast
from nnunet_softlabel.priors.roi import check_shape
from nnunet_softlabel.priors.tissue import TissueModel

CERTAINTY = 0.99
MOST_EVIDENCE = 3.0


def log_likelihood_ratio(
    intensity: NDArray[Any],
    mean: float,
    spread: float,
    *,
    direction: Literal["brighter", "darker"] = "brighter",
) -> NDArray[Any]:
    """``log N(x; mean, spread) - log N(x; 0, 1)`` of normalised intensities, made monotone.

    Of two normal distributions with unlike spreads, the wider also wins on the far side: very dark voxels
    would count as bright lesions. So beyond its turning point the ratio keeps the value it has there.

    >>> log_likelihood_ratio(np.array([0.0, 3.0]), mean=3.0, spread=1.0).round(1)
    array([-4.5,  4.5])

    Args:
        intensity: any shape, from :meth:`TissueModel.normalise`.
        mean: of the lesions; :func:`check_contrast` refuses one that is not where ``direction`` says.
        spread: of the lesions.
        direction: what lesions are, compared with their tissue.

    Returns:
        The shape of ``intensity``; rises with it for "brighter", falls for "darker".
    """
    check_contrast(mean, direction)
    sign = 1 if direction == "brighter" else -1
    x, mean = sign * intensity, sign * mean
    if spread != 1:
        turn = mean / (1 - spread**2)
        x = np.maximum(x, turn) if spread > 1 else np.minimum(x, turn)
    return 0.5 * x**2 - 0.5 * ((x - mean) / spread) ** 2 - np.log(spread)


@dataclass(frozen=True)
class IntensityRule:
    """How intensity moves a label.

    >>> IntensityRule(direction="darker").strength
    1.0

    Attributes:
        strength: 0 changes nothing inside the ROI; 1 is Bayes' rule for a voxel by itself.
        direction: what lesions are, compared with their tissue.
        raises_unmarked: voxels that no rater marked for a channel may gain, too.
        certainty: how far unanimous raters are to be trusted.
        most_evidence: bound of the evidence.
    """

    strength: float = 1.0
    direction: Literal["brighter", "darker"] = "brighter"
    raises_unmarked: bool = False
    certainty: float = CERTAINTY
    most_evidence: float = MOST_EVIDENCE

    def check(self) -> None:
        """Refuse numbers that make no rule."""
        if not 0.5 < self.certainty < 1:
            raise ValueError(f"certainty must lie in (0.5, 1), got {self.certainty}")
        if not 0 <= self.strength < np.inf or not 0 < self.most_evidence < np.inf:
            raise ValueError(
                f"strength must not be negative and most_evidence positive, got {self.strength} and "
                f"{self.most_evidence}"
            )


def apply_intensity_prior(
    soft: NDArray[Any],
    image: NDArray[Any],
    roi: NDArray[Any],
    *,
    tissue: TissueModel,
    lesions: LesionModel,
    rule: IntensityRule | None = None,
    exclusive: bool = True,
) -> NDArray[Any]:
    """``sigmoid(logit(q) + strength * llr)`` inside the ROI, 0 outside it.

    What no rater marked (``q = 0``) stays 0 unless the rule says ``raises_unmarked``: every bright voxel
    would get a little, which adds up to a lesion's volume in healthy bone.

    Where the raters are certain, the formula would change nothing: such a ``q`` counts as ``1 - certainty``
    or ``certainty`` if the evidence speaks against it, and stays exactly 0 or 1 otherwise, so that normal
    tissue stays zero. The evidence ``strength * llr`` is cut at plus and minus ``most_evidence``. With the
    defaults, what no rater marked gets 0.17 at most, and what all marked keeps 0.83 at least: bright vessels
    are not lesions, so intensity alone does not overrule all raters. A larger ``most_evidence`` lets it.

    >>> soft, image = np.array([[0.0, 0.5, 0.5]], np.float32), np.array([100.0, 100.0, 180.0])
    >>> tissue, lesions = TissueModel(100.0, 20.0), ns.priors.LesionModel((3.0,), (1.0,))
    >>> apply_intensity_prior(soft, image, np.ones(3, bool), tissue=tissue, lesions=lesions).round(2)
    array([[0.  , 0.05, 0.95]], dtype=float32)

    Args:
        soft: ``(C, *spatial)`` foreground probabilities.
        image: ``(*spatial)``, one channel.
        roi: ``(*spatial)``, not 0 where the models hold, say where :func:`roi_weights` are positive.
        tissue: of this case.
        lesions: of all cases.
        rule: strength, direction and bounds of the evidence.
        exclusive: channels are classes that compete (a softmax takes the place of the sigmoid), not regions.

    Returns:
        ``(C, *spatial)`` float32.
    """
    rule = rule or IntensityRule()
    check_shape("image", image, soft.shape[1:])
    check_shape("ROI", roi, soft.shape[1:])
    rule.check()
    if len(lesions.mean) != len(soft):
        raise ValueError(f"the lesion model has {len(lesions.mean)} channels, the soft label {len(soft)}")
    inside = roi != 0
    intensity = tissue.normalise(image[inside])
    evidence = np.stack(
        [
            np.clip(
                rule.strength * log_likelihood_ratio(intensity, m, s, direction=rule.direction),
                -rule.most_evidence,
                rule.most_evidence,
            )
            for m, s in zip(lesions.mean, lesions.spread, strict=True)
        ]
    )
    q = soft[:, inside]
    changed = np.zeros(soft.shape, dtype=np.float32)
    if exclusive:
        changed[:, inside] = _updated(q, evidence, rule)
    else:
        changed[:, inside] = np.concatenate(
            [_updated(q[c : c + 1], evidence[c : c + 1], rule) for c in range(len(q))]
        )
    return changed


def _updated(q: NDArray[Any], evidence: NDArray[Any], rule: IntensityRule) -> NDArray[Any]:
    """Bayes' rule for exclusive classes: ``(C, N)`` probabilities and log-likelihood ratios to background."""
    certainty, background = rule.certainty, np.clip(1 - q.sum(axis=0), 0, 1)
    # A certain voxel is opened only by evidence against it.
    is_possible = (q > 0) | ((evidence > 0) & rule.raises_unmarked)
    is_doubted = (background > 0) | ((q > 0) & (evidence < 0)).any(axis=0)
    odds = np.where(is_possible, np.clip(q, 1 - certainty, certainty) * np.exp(evidence), 0)
    rest = np.where(is_doubted, np.clip(background, 1 - certainty, certainty), 0)
    return odds / (odds.sum(axis=0) + rest)
