"""Simulated raters: from one true label map to the maps that raters of stated skill would draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import ndtr

from nnunet_softlabel.boxes import Box
from nnunet_softlabel.fusion.distance import signed_distance_mm


@dataclass(frozen=True)
class RaterSkill:
    """How one rater errs.

    Attributes:
        sensitivity: probability of drawing a lesion (a component of the foreground, of any class) at all.
        false_positives: expected number of things per image that are drawn and are none.
        false_positive_radius_mm: mean radius of these; each is a ball of 0.7 to 1.3 times that.
        boundary_bias_mm: how far outside (positive) or inside the true outline the rater draws it.
        boundary_jitter_mm: standard deviation of the outline about the biased one.
        jitter_length_mm: correlation length of the jitter along the outline (sigma of a Gaussian).
    """

    sensitivity: float = 1.0
    false_positives: float = 0.0
    false_positive_radius_mm: float = 3.0
    boundary_bias_mm: float = 0.0
    boundary_jitter_mm: float = 0.0
    jitter_length_mm: float = 4.0

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing."""
        if not 0 <= self.sensitivity <= 1:
            raise ValueError(f"sensitivity must lie in [0, 1], got {self.sensitivity}")
        if not self.false_positives >= 0 or not self.boundary_jitter_mm >= 0:
            raise ValueError(
                f"false_positives and boundary_jitter_mm must not be negative, "
                f"got {self.false_positives} and {self.boundary_jitter_mm}"
            )
        if not self.false_positive_radius_mm > 0 or not self.jitter_length_mm > 0:
            raise ValueError(
                f"false_positive_radius_mm and jitter_length_mm must be positive, "
                f"got {self.false_positive_radius_mm} and {self.jitter_length_mm}"
            )


_BOUNDARY = [
    {"boundary_bias_mm": -1.0, "boundary_jitter_mm": 1.0},
    {"boundary_bias_mm": 0.0, "boundary_jitter_mm": 1.5},
    {"boundary_bias_mm": 1.5, "boundary_jitter_mm": 2.0},
]
_MISSED = [{"sensitivity": 0.6}, {"sensitivity": 0.45}, {"sensitivity": 0.3}]
_FALSE_POSITIVES = [
    {"false_positives": number, "false_positive_radius_mm": 4.0} for number in (1.0, 2.0, 3.0)
]

# What goes wrong among three raters of unlike skill.
RATER_REGIMES: dict[str, tuple[RaterSkill, ...]] = {
    "boundary": tuple(RaterSkill(**errors) for errors in _BOUNDARY),
    "missed": tuple(RaterSkill(**errors) for errors in _MISSED),
    "false_positives": tuple(RaterSkill(**errors) for errors in _FALSE_POSITIVES),
    "all": tuple(
        RaterSkill(**outline, **missed, **added)
        for outline, missed, added in zip(_BOUNDARY, _MISSED, _FALSE_POSITIVES, strict=True)
    ),
}


def simulate_raters(
    truth: NDArray[Any],
    *,
    spacing_mm: Sequence[float],
    raters: Sequence[RaterSkill],
    seed: int | np.random.Generator,
    correlation: float = 0.0,
    false_positive_roi: NDArray[Any] | None = None,
    labels: Sequence[int] | None = None,
) -> NDArray[Any]:
    """Label maps that raters of the given skills would draw.

    Detection is a Gaussian copula over lesions, the outline a threshold of the signed distance plus a smooth
    Gaussian field, false positives a Poisson number of balls. A lesion that is detected keeps at least its
    innermost voxel, so that ``sensitivity`` means what it says for small lesions, too.

    >>> simulate_raters(np.eye(9, dtype=int), spacing_mm=(1, 1), raters=[RaterSkill()] * 2, seed=0).shape
    (2, 9, 9)

    Args:
        truth: ``(*spatial)`` integers, 0 is background.
        spacing_mm: voxel size in array order.
        raters: one skill per rater.
        seed: the same seed gives the same maps.
        correlation: 0 to 1, how much of every error the raters share: what is hard for one is hard for all.
        false_positive_roi: ``(*spatial)`` bool, for centres of false positives, never in lesions; None: all.
        labels: false positives draw one of these; None: one of those in ``truth``, or 1 if there are none.

    Returns:
        ``(R, *spatial)`` in the type of ``truth``.
    """
    skills = _Skills(raters, correlation, tuple(spacing_mm))
    _check_arguments(truth, skills, false_positive_roi)
    rng = np.random.default_rng(seed)
    found = _draw_detections(truth, skills, rng)
    drawn = _draw_outlines(truth, found, skills, rng)
    candidates = (truth == 0) if false_positive_roi is None else (truth == 0) & (false_positive_roi != 0)
    classes = np.unique(truth[truth != 0]) if labels is None else np.asarray(labels)
    classes = classes if classes.size else np.ones(1)
    _add_false_positives(drawn, truth, candidates, classes, skills=skills, rng=rng)
    return drawn


class _Skills(NamedTuple):
    """Of all raters, and how much of their errors they share, on voxels of this size."""

    raters: Sequence[RaterSkill]
    correlation: float
    spacing_mm: tuple[float, ...]


def _check_arguments(truth: NDArray[Any], skills: _Skills, false_positive_roi: NDArray[Any] | None) -> None:
    raters, correlation, spacing_mm = skills
    if not np.issubdtype(truth.dtype, np.integer) and truth.dtype != np.bool_:
        raise ValueError(f"truth must be a map of integer labels, got {truth.dtype}")
    if len(spacing_mm) != truth.ndim or not all(s > 0 for s in spacing_mm):
        raise ValueError(f"spacing_mm must hold {truth.ndim} positive numbers, got {tuple(spacing_mm)}")
    if not raters:
        raise ValueError("raters must name the skill of at least one rater")
    if not 0 <= correlation <= 1:
        raise ValueError(f"correlation must lie in [0, 1], got {correlation}")
    if false_positive_roi is not None and false_positive_roi.shape != truth.shape:
        raise ValueError(f"false_positive_roi has shape {false_positive_roi.shape}, truth {truth.shape}")


def _draw_detections(truth: NDArray[Any], skills: _Skills, rng: np.random.Generator) -> list[NDArray[Any]]:
    """Per rater the lesions drawn: ``(*spatial)`` component numbers, 0 where nothing is drawn."""
    raters, correlation, _ = skills
    lesions, n_lesions = ndimage.label(truth != 0, structure=np.ones((3,) * truth.ndim))
    shared = rng.standard_normal(n_lesions)
    own = rng.standard_normal((len(raters), n_lesions))
    difficulty = ndtr(_mix(shared, own, correlation))
    numbers = np.arange(1, n_lesions + 1)
    found = []
    for skill, hard in zip(raters, difficulty, strict=True):
        kept = np.concatenate([[0], np.where(hard < skill.sensitivity, numbers, 0)]).astype(lesions.dtype)
        found.append(kept[lesions])
    return found


def _draw_outlines(
    truth: NDArray[Any],
    found: list[NDArray[Any]],
    skills: _Skills,
    rng: np.random.Generator,
) -> NDArray[Any]:
    raters, correlation, spacing_mm = skills
    drawn = np.zeros((len(raters), *truth.shape), dtype=truth.dtype)
    reach_mm = max(abs(s.boundary_bias_mm) + 4 * s.boundary_jitter_mm for s in raters)
    box = _box_around(truth != 0, spacing_mm, reach_mm)
    if box is None:
        return drawn
    classes = np.unique(truth[truth != 0])
    # One field moves the outer outline, one per class the outline between classes.
    n_fields = 1 if classes.size == 1 else 1 + classes.size
    shape = (n_fields, *truth[box].shape)
    shared = rng.standard_normal(shape)
    for rater, skill in enumerate(raters):
        noise = _mix(shared, rng.standard_normal(shape), correlation)
        lesions = found[rater][box]
        if not lesions.any():
            continue
        fields = [smooth_unit_field(n, spacing_mm, skill.jitter_length_mm) for n in noise]
        jitter_mm = skill.boundary_jitter_mm * np.stack(fields)
        outline_mm = signed_distance_mm(lesions != 0, spacing_mm)
        inside = outline_mm < skill.boundary_bias_mm + jitter_mm[0]
        _keep_innermost(inside, lesions, outline_mm)
        chosen = _classes_of(truth[box], lesions, classes, spacing_mm, jitter_mm=jitter_mm[1:])
        drawn[rater][box] = np.where(inside, chosen, 0).astype(truth.dtype)
    return drawn


def _keep_innermost(inside: NDArray[Any], lesions: NDArray[Any], outline_mm: NDArray[Any]) -> None:
    """A lesion that is found keeps a voxel at least; in place."""
    for number, where in enumerate(ndimage.find_objects(lesions), start=1):
        if where is not None and not inside[where][lesions[where] == number].any():
            depth_mm = np.where(lesions[where] == number, outline_mm[where], np.inf)
            inside[where].flat[depth_mm.argmin()] = True


def _classes_of(
    truth: NDArray[Any],
    lesions: NDArray[Any],
    classes: NDArray[Any],
    spacing_mm: tuple[float, ...],
    *,
    jitter_mm: NDArray[Any],
) -> NDArray[Any]:
    """The class that a rater sees at each voxel; ``jitter_mm`` moves the outline of each."""
    if classes.size == 1:
        return np.asarray(classes[0])
    # Moving both classes' distances by sqrt(2) * jitter moves the outline between them, where they are equal
    # and change by 2 mm per mm, by (sqrt(2) * sqrt(2) / 2) * jitter.
    distance_mm = [
        signed_distance_mm((truth == label) & (lesions != 0), spacing_mm) + np.sqrt(2) * moved
        for label, moved in zip(classes, jitter_mm, strict=True)
    ]
    return np.asarray(classes[np.argmin(distance_mm, axis=0)])


def _add_false_positives(
    drawn: NDArray[Any],
    truth: NDArray[Any],
    candidates: NDArray[Any],
    classes: NDArray[Any],
    *,
    skills: _Skills,
    rng: np.random.Generator,
) -> None:
    """Draw balls into ``drawn``, in place.

    A share ``correlation`` of each rater's false positives is thinned from one common Poisson pool, the rest
    is the rater's own, so that the number of each rater is Poisson with the stated mean.
    """
    raters, correlation, spacing_mm = skills
    centres = np.flatnonzero(candidates)
    most = max(skill.false_positives for skill in raters)
    if most == 0 or centres.size == 0:
        return

    def draw(number: int) -> list[tuple[int, int, float]]:
        return list(
            zip(
                rng.choice(centres, number),
                rng.choice(classes, number),
                rng.uniform(0.7, 1.3, number),
                strict=True,
            )
        )

    pool = draw(rng.poisson(most))
    for rater, skill in enumerate(raters):
        taken = rng.random(len(pool)) < correlation * skill.false_positives / most
        common = [ball for ball, take in zip(pool, taken, strict=True) if take]
        for centre, label, size in common + draw(rng.poisson((1 - correlation) * skill.false_positives)):
            radius_mm = size * skill.false_positive_radius_mm
            box, inside = _ball(np.unravel_index(centre, truth.shape), radius_mm, truth.shape, spacing_mm)
            drawn[rater][box][inside & (truth[box] == 0)] = label


def _ball(
    centre: Sequence[np.intp], radius_mm: float, shape: tuple[int, ...], spacing_mm: tuple[float, ...]
) -> tuple[Box, NDArray[Any]]:
    """Box and, within it, the voxels whose centres lie within the radius (the centre's own always)."""
    box: list[slice] = []
    squared: NDArray[Any] = np.zeros(())
    for middle, size, spacing in zip(centre, shape, spacing_mm, strict=True):
        reach = int(radius_mm / spacing)
        box.append(slice(max(0, int(middle) - reach), min(size, int(middle) + reach + 1)))
        offset_mm = (np.arange(box[-1].start, box[-1].stop) - middle) * spacing
        squared = squared[..., None] + offset_mm**2
    return tuple(box), squared <= radius_mm**2


def smooth_unit_field(
    white_noise: NDArray[Any], spacing_mm: Sequence[float], length_mm: float
) -> NDArray[Any]:
    """White noise smoothed with a Gaussian of sigma ``length_mm``, scaled to variance 1 at every voxel.

    Smoothing wraps around, which keeps the variance alike up to the edges.
    """
    field = white_noise
    for axis, (size, spacing) in enumerate(zip(white_noise.shape, spacing_mm, strict=True)):
        impulse = np.zeros(size)
        impulse[0] = 1
        gain = np.linalg.norm(ndimage.gaussian_filter1d(impulse, length_mm / spacing, mode="wrap"))
        field = ndimage.gaussian_filter1d(field, length_mm / spacing, axis=axis, mode="wrap") / gain
    return field


def _mix(shared: NDArray[Any], own: NDArray[Any], correlation: float) -> NDArray[Any]:
    return np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own


def _box_around(mask: NDArray[Any], spacing_mm: tuple[float, ...], margin_mm: float) -> Box | None:
    """Smallest box around the mask, widened by the margin and one voxel; None for an empty mask."""
    boxes = ndimage.find_objects(mask.astype(np.uint8))
    if not boxes:
        return None
    margins = [int(np.ceil(margin_mm / spacing)) + 1 for spacing in spacing_mm]
    return tuple(
        slice(max(0, side.start - margin), min(size, side.stop + margin))
        for side, margin, size in zip(boxes[0], margins, mask.shape, strict=True)
    )
