"""How bright lesions are, compared with the tissue around them, as a prior.

Three steps: :func:`estimate_tissue` per case; :func:`lesion_statistics` per case, added up over all for one
:class:`LesionModel`; :func:`apply_intensity_prior` per case.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from nnunet_softlabel.fusion.roi import check_shape

# A normal distribution's standard deviation over its median absolute deviation.
SPREAD_PER_MAD = 1.4826
FEWEST_VOXELS = 20
SMALLEST_LESION_SPREAD = 0.25
AGREED_ABOVE = 0.5
CERTAINTY = 0.99
MOST_EVIDENCE = 3.0
# Agreed voxels of lesions that look like their tissue are brighter by chance, as often as not: in the label
# study by 0.1 to 0.2 spreads, where the prior only harmed.
LEAST_CONTRAST = 1.0


@dataclass(frozen=True)
class TissueModel:
    """Intensity of normal tissue in one case: its median, and 1.4826 times its median absolute deviation."""

    median: float
    spread: float

    def normalise(self, intensity: np.ndarray) -> np.ndarray:
        """Intensity in spreads above the median, comparable between cases: float32."""
        return ((intensity - self.median) / self.spread).astype(np.float32)


def estimate_tissue(
    image: np.ndarray, roi: np.ndarray, soft: np.ndarray, *, exclude_above: float = 0.0, cut: float = 3.0
) -> TissueModel:
    """Median and spread (1.4826 MAD) of the ROI's voxels that nobody marked.

    Lesions that raters missed must not spoil it, either: voxels farther than ``cut`` spreads from the median
    are left out, and the model is estimated again until none is.

    Args:
        image: ``(*spatial)``, one channel.
        roi: ``(*spatial)``, not 0 inside.
        soft: ``(C, *spatial)`` foreground probabilities.
        exclude_above: voxels with more foreground than this are taken for lesion.
        cut: in spreads.

    Returns:
        The model.
    """
    check_shape("image", image, soft.shape[1:])
    check_shape("ROI", roi, soft.shape[1:])
    intensity = image[(roi != 0) & (soft.max(axis=0) <= exclude_above)].astype(np.float64)
    while True:
        if intensity.size < FEWEST_VOXELS:
            raise ValueError(
                f"only {intensity.size} voxels of the ROI are normal tissue; {FEWEST_VOXELS} are needed"
            )
        median = float(np.median(intensity))
        # Quantised images may have more than half of their voxels at the median.
        spread = SPREAD_PER_MAD * float(np.median(np.abs(intensity - median))) or float(intensity.std())
        if not spread > 0 or not np.isfinite(spread):
            raise ValueError(f"the normal tissue in the ROI has no spread, or is not finite: median {median}")
        kept = intensity[np.abs(intensity - median) <= cut * spread]
        if kept.size == intensity.size:
            return TissueModel(median, spread)
        intensity = kept


@dataclass(frozen=True)
class LesionModel:
    """Normal distribution of each channel's lesions, in spreads of the normal tissue above its median."""

    mean: tuple[float, ...]
    spread: tuple[float, ...]


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
    image: np.ndarray,
    roi: np.ndarray,
    soft: np.ndarray,
    tissue: TissueModel,
    *,
    agreed_above: float = AGREED_ABOVE,
) -> LesionStatistics:
    """Normalised intensity of the voxels inside the ROI that more than a share of the raters marked.

    Args:
        image: ``(*spatial)``, one channel.
        roi: ``(*spatial)``, not 0 inside.
        soft: ``(C, *spatial)`` foreground probabilities.
        tissue: of this case.
        agreed_above: the share.

    Returns:
        Numbers to be added up over cases.
    """
    check_shape("image", image, soft.shape[1:])
    check_shape("ROI", roi, soft.shape[1:])
    agreed = [tissue.normalise(image[(roi != 0) & (q > agreed_above)]).astype(np.float64) for q in soft]
    return LesionStatistics(
        tuple(x.size for x in agreed),
        tuple(float(x.sum()) for x in agreed),
        tuple(float((x**2).sum()) for x in agreed),
    )


def check_contrast(mean: float, direction: Literal["brighter", "darker"]) -> None:
    """Refuse lesions that are not at least ``LEAST_CONTRAST`` spreads of the tissue to the stated side of it.

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


def log_likelihood_ratio(
    intensity: np.ndarray,
    mean: float,
    spread: float,
    *,
    direction: Literal["brighter", "darker"] = "brighter",
) -> np.ndarray:
    """``log N(x; mean, spread) - log N(x; 0, 1)`` of normalised intensities, made monotone.

    Of two normal distributions with unlike spreads, the wider also wins on the far side: very dark voxels
    would count as bright lesions. So beyond its turning point the ratio keeps the value it has there.

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


def apply_intensity_prior(
    soft: np.ndarray,
    image: np.ndarray,
    roi: np.ndarray,
    tissue: TissueModel,
    lesions: LesionModel,
    *,
    strength: float = 1.0,
    direction: Literal["brighter", "darker"] = "brighter",
    exclusive: bool = True,
    raises_unmarked: bool = False,
    certainty: float = CERTAINTY,
    most_evidence: float = MOST_EVIDENCE,
) -> np.ndarray:
    """``sigmoid(logit(q) + strength * llr)`` inside the ROI, 0 outside it.

    What no rater marked (``q = 0``) stays 0 unless ``raises_unmarked``: every bright voxel would get a
    little, which adds up to a lesion's volume in healthy bone.

    Where the raters are certain, the formula would change nothing: such a ``q`` counts as ``1 - certainty``
    or ``certainty`` if the evidence speaks against it, and stays exactly 0 or 1 otherwise, so that normal
    tissue stays zero. The evidence ``strength * llr`` is cut at plus and minus ``most_evidence``. With the
    defaults, what no rater marked gets 0.17 at most, and what all marked keeps 0.83 at least: bright vessels
    are not lesions, so intensity alone does not overrule all raters. A larger ``most_evidence`` lets it.

    Args:
        soft: ``(C, *spatial)`` foreground probabilities.
        image: ``(*spatial)``, one channel.
        roi: ``(*spatial)``, not 0 where the models hold, say where :func:`roi_weights` are positive.
        tissue: of this case.
        lesions: of all cases.
        strength: 0 changes nothing inside the ROI; 1 is Bayes' rule for a voxel by itself.
        direction: what lesions are, compared with their tissue.
        exclusive: channels are classes that compete (a softmax takes the place of the sigmoid), not regions.
        raises_unmarked: voxels that no rater marked for a channel may gain, too.
        certainty: how far unanimous raters are to be trusted.
        most_evidence: bound of the evidence.

    Returns:
        ``(C, *spatial)`` float32.
    """
    check_shape("image", image, soft.shape[1:])
    check_shape("ROI", roi, soft.shape[1:])
    if not 0.5 < certainty < 1:
        raise ValueError(f"certainty must lie in (0.5, 1), got {certainty}")
    if not 0 <= strength < np.inf or not 0 < most_evidence < np.inf:
        raise ValueError(
            f"strength must not be negative and most_evidence positive, got {strength} and {most_evidence}"
        )
    if len(lesions.mean) != len(soft):
        raise ValueError(f"the lesion model has {len(lesions.mean)} channels, the soft label {len(soft)}")
    inside = roi != 0
    intensity = tissue.normalise(image[inside])
    evidence = np.stack(
        [
            np.clip(
                strength * log_likelihood_ratio(intensity, m, s, direction=direction),
                -most_evidence,
                most_evidence,
            )
            for m, s in zip(lesions.mean, lesions.spread, strict=True)
        ]
    )
    q = soft[:, inside]
    changed = np.zeros(soft.shape, dtype=np.float32)
    if exclusive:
        changed[:, inside] = _updated(q, evidence, certainty, raises_unmarked)
    else:
        changed[:, inside] = np.concatenate(
            [_updated(q[c : c + 1], evidence[c : c + 1], certainty, raises_unmarked) for c in range(len(q))]
        )
    return changed


def _updated(q: np.ndarray, evidence: np.ndarray, certainty: float, raises_unmarked: bool) -> np.ndarray:
    """Bayes' rule for exclusive classes: ``(C, N)`` probabilities and log-likelihood ratios to background."""
    background = np.clip(1 - q.sum(axis=0), 0, 1)
    # A certain voxel is opened only by evidence against it.
    is_possible = (q > 0) | ((evidence > 0) & raises_unmarked)
    is_doubted = (background > 0) | ((q > 0) & (evidence < 0)).any(axis=0)
    odds = np.where(is_possible, np.clip(q, 1 - certainty, certainty) * np.exp(evidence), 0)
    rest = np.where(is_doubted, np.clip(background, 1 - certainty, certainty), 0)
    return odds / (odds.sum(axis=0) + rest)
