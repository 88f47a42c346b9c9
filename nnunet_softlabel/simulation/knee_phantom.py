"""A knee to try everything on: generated MRI with known bone marrow lesions, and raters who draw them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nnunet_softlabel.simulation.knee_anatomy import (
    CORTEX_MM,
    STANDARD_FOV_MM,
    coverage,
    draw_anatomy,
    draw_vessels,
    paint,
    voxel_positions,
)
from nnunet_softlabel.simulation.simulated_raters import RATER_REGIMES, simulate_raters, smooth_unit_field

LESION_ABOVE_MARROW = 55.0


@dataclass(frozen=True)
class KneePhantom:
    """One generated knee, all arrays ``(*spatial)``.

    Attributes:
        image: float32; slices from side to side, rows from head to foot, columns from back to front.
        truth: uint8, 1 where a lesion's own signal is at least half of its full signal.
        bone_mask: uint8, 1 in the femur, 2 in the tibia, cortex included.
        distractors: bool, bright things that a rater may take for lesions: vessels and effusion.
        spacing_mm: voxel size in array order.
    """

    image: NDArray[Any]
    truth: NDArray[Any]
    bone_mask: NDArray[Any]
    distractors: NDArray[Any]
    spacing_mm: tuple[float, ...]


@dataclass(frozen=True)
class KneeLesions:
    """The bone marrow lesions of a generated knee.

    >>> KneeLesions(number=2).contrast
    1.0

    Attributes:
        number: None: 0 to 3 at random, or 1 to 3 if ``fraction`` is given.
        radius_mm: smallest and largest mean radius.
        fraction: share of the image's voxels that is lesion; scales all radii to reach it.
        contrast: 1 as usual, 0 as dark as the marrow, negative darker.
        edge_mm: width in which a lesion's signal fades from 3/4 to 1/4.
    """

    number: int | None = None
    radius_mm: tuple[float, float] = (5.0, 11.0)
    fraction: float | None = None
    contrast: float = 1.0
    edge_mm: float = 3.0

    def check(self) -> None:
        """Refuse what cannot be drawn."""
        if self.number is not None and self.number < 0:
            raise ValueError(f"lesions: number must not be negative, got {self.number}")
        if not 0 < self.radius_mm[0] <= self.radius_mm[1]:
            raise ValueError(
                f"lesions: radius_mm must be two positive numbers in order, got {self.radius_mm}"
            )
        if self.fraction is not None and (not 0 < self.fraction < 1 or self.number == 0):
            raise ValueError(
                f"lesions: fraction must lie in (0, 1) and needs a lesion, got {self.fraction} and "
                f"number={self.number}"
            )
        if not self.edge_mm > 0:
            raise ValueError(f"lesions: edge_mm must be positive, got {self.edge_mm}")


def make_knee_phantom(
    seed: int,
    *,
    shape: Sequence[int] = (24, 64, 64),
    spacing_mm: Sequence[float] | None = None,
    lesions: KneeLesions | None = None,
    noise: float = 4.0,
) -> KneePhantom:
    """A knee as fat-suppressed MRI shows it: dark marrow, bright fluid and cartilage, fuzzy bright lesions.

    The anatomy fills the field of view, whatever its size; lesions have their size in mm. Anatomy, vessels,
    lesions and noise are drawn independently of each other: knees that differ only in the contrast of
    the lesions, or in ``noise``, have the same truth.

    >>> knee = make_knee_phantom(0, shape=(8, 24, 24), lesions=ns.simulation.KneeLesions(number=1))
    >>> knee.image.shape, bool(knee.truth.any())
    ((8, 24, 24), True)

    Args:
        seed: the same seed gives the same knee, bit by bit.
        shape: three numbers, or two for one slice through a condyle.
        spacing_mm: voxel size in array order. None: a field of view of 96 x 128 x 128 mm.
        lesions: how many, how large and how bright.
        noise: standard deviation of the noise (Rician, so the image is never negative).

    Returns:
        The knee.
    """
    grid = (1, *shape) if len(shape) == 2 else tuple(shape)
    spacing = _checked_spacing(shape, spacing_mm)
    drawn = lesions or KneeLesions()
    drawn.check()
    anatomy_rng, vessel_rng, lesion_rng, noise_rng = (
        np.random.default_rng([seed, part]) for part in range(4)
    )
    pixel_mm = STANDARD_FOV_MM[1] / grid[1]
    position = voxel_positions(grid, anatomy_rng)
    fields = draw_anatomy(position, anatomy_rng)
    fields["vessel"] = draw_vessels(position, fields, vessel_rng)
    bone = fields["bone"] < 0

    if drawn.number is None:
        drawn = replace(drawn, number=int(lesion_rng.integers(0 if drawn.fraction is None else 1, 4)))
    spacing_3d = spacing if len(shape) == 3 else (1.0, *spacing)
    # Bone marrow lesions lie near the joint, often just below the cartilage.
    places = np.flatnonzero((fields["bone"] < -2.5) & (np.abs(position[1]) < 34))
    profile, signal = _draw_lesions(drawn, fields["bone"], places, spacing_3d, rng=lesion_rng)
    truth = (profile >= 0.5) & bone
    image = paint(fields, pixel_mm, noise_rng)
    marrow = coverage(fields["bone"] + CORTEX_MM, pixel_mm)
    image += drawn.contrast * LESION_ABOVE_MARROW * signal * marrow
    image = _acquire(np.maximum(image, 0), noise, noise_rng)
    bright = np.minimum(fields["vessel"], fields["effusion"]) < 0
    return KneePhantom(
        image=image.reshape(shape),
        truth=truth.reshape(shape).astype(np.uint8),
        bone_mask=np.where(bone, 1 + (fields["tibia"] < fields["femur"]), 0).reshape(shape).astype(np.uint8),
        distractors=(bright & ~truth).reshape(shape),
        spacing_mm=spacing,
    )


def _checked_spacing(shape: Sequence[int], spacing_mm: Sequence[float] | None) -> tuple[float, ...]:
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise ValueError(f"shape must hold two or three positive numbers, got {tuple(shape)}")
    if spacing_mm is None:
        return tuple(fov / size for fov, size in zip(STANDARD_FOV_MM[-len(shape) :], shape, strict=True))
    if len(spacing_mm) != len(shape) or not min(spacing_mm) > 0:
        raise ValueError(f"spacing_mm must hold {len(shape)} positive numbers, got {tuple(spacing_mm)}")
    return tuple(float(s) for s in spacing_mm)


def _draw_lesions(
    lesions: KneeLesions,
    bone: NDArray[Any],
    places: NDArray[Any],
    spacing_mm: tuple[float, ...],
    *,
    rng: np.random.Generator,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Profile of the lesions, 1/2 on the outline, and the same times each lesion's brightness."""
    assert lesions.number is not None, "drawn before"
    shape = bone.shape
    places = places if places.size else np.flatnonzero(bone == bone.min())
    radii = rng.uniform(*lesions.radius_mm, size=lesions.number)
    reach = [
        _relative_reach(np.unravel_index(rng.choice(places), shape), r, shape, spacing_mm, rng=rng)
        for r in radii
    ]
    brightness = rng.uniform(0.85, 1.15, lesions.number)
    scale = 1.0
    if lesions.fraction is not None:
        wanted = max(1, round(lesions.fraction * bone.size))
        in_bone = np.min(reach, axis=0)[bone < 0]
        if wanted > in_bone.size:
            share = in_bone.size / bone.size
            raise ValueError(f"lesions: fraction {lesions.fraction} is more than bone, {share:.3f}")
        scale = np.partition(in_bone, wanted - 1)[wanted - 1]
    profile, signal = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.float32)
    for rho, radius, bright in zip(reach, radii, brightness, strict=True):
        steepness = 2 * np.log(3) / lesions.edge_mm * radius
        one = 1 / (1 + np.exp(np.clip(steepness * (rho - scale), -30, 30)))
        profile, signal = np.maximum(profile, one), np.maximum(signal, bright * one)
    return profile, signal


def _relative_reach(
    centre: Sequence[np.intp],
    radius_mm: float,
    shape: tuple[int, ...],
    spacing_mm: tuple[float, ...],
    *,
    rng: np.random.Generator,
) -> NDArray[Any]:
    """Distance from the centre over the radius in that direction: 1 on the outline of an irregular blob."""
    stretch = rng.uniform(0.75, 1.33, 3)
    squared: NDArray[Any] = np.zeros(())
    for middle, size, spacing, factor in zip(centre, shape, spacing_mm, stretch, strict=True):
        squared = squared[..., None] + ((np.arange(size) - middle) * spacing / (radius_mm * factor)) ** 2
    ripple = smooth_unit_field(rng.standard_normal(shape), spacing_mm, 0.5 * radius_mm)
    return np.sqrt(squared) * (1 + 0.2 * np.clip(ripple, -2.5, 2.5))


def _acquire(image: NDArray[Any], noise: float, rng: np.random.Generator) -> NDArray[Any]:
    """Blur by the point spread function, shade by the coil, add noise in both parts of the complex signal."""
    image = ndimage.gaussian_filter(image, (0, 0.5, 0.5))
    shading: NDArray[Any] = np.zeros(())
    for size in image.shape:
        along = np.linspace(-1, 1, size) if size > 1 else np.zeros(1)
        shading = shading[..., None] + rng.normal(0, 0.08) * along + rng.normal(0, 0.08) * along**2
    real = image * np.exp(shading) + noise * rng.standard_normal(image.shape)
    imaginary = noise * rng.standard_normal(image.shape)
    return np.hypot(real, imaginary).astype(np.float32)


def phantom_raters(
    phantom: KneePhantom, regime: str = "all", *, seed: int, correlation: float = 0.3
) -> NDArray[Any]:
    """What three raters of unlike skill draw on a phantom; false positives are bright spots, not lesions.

    >>> knee = make_knee_phantom(0, shape=(8, 24, 24))
    >>> phantom_raters(knee, seed=0).shape  # three raters
    (3, 8, 24, 24)

    Args:
        phantom: the knee.
        regime: which errors they make, a key of `RATER_REGIMES`.
        seed: the same seed gives the same maps.
        correlation: as in `simulate_raters`.

    Returns:
        ``(3, *spatial)`` uint8.
    """
    if regime not in RATER_REGIMES:
        raise ValueError(f"regime must be one of {', '.join(RATER_REGIMES)}, got {regime!r}")
    return simulate_raters(
        phantom.truth,
        spacing_mm=phantom.spacing_mm,
        raters=RATER_REGIMES[regime],
        seed=seed,
        correlation=correlation,
        false_positive_roi=phantom.distractors,
    )
