"""The knee as distance fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.simulation.simulated_raters import smooth_unit_field

# Signal of fat-suppressed, fluid-sensitive MRI; fluid is 100.
AIR, FAT, MUSCLE, TENDON, CORTEX, MARROW, CARTILAGE, FLUID, VESSEL = 0, 24, 40, 8, 5, 15, 68, 100, 90
# The anatomy is drawn in mm of a standard knee: left-right, head-foot, back-front around the joint's centre.
STANDARD_FOV_MM = (96.0, 128.0, 128.0)
CORTEX_MM = 1.3
Fields = dict[str, NDArray[Any]]


def voxel_positions(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[Any]:
    """``(3, *shape)``: where in the standard knee each voxel lies; turned, shifted, scaled and bent."""
    axes = [(np.arange(size) + 0.5) / size - 0.5 for size in shape]
    position = np.stack(np.meshgrid(*axes, indexing="ij")) * np.reshape(STANDARD_FOV_MM, (3, 1, 1, 1))
    condyle_mm = rng.uniform(14, 24) * rng.choice([-1, 1])
    if shape[0] == 1:
        position[0] = condyle_mm
    bend = rng.normal(0, 1, (3, 3))
    phase = rng.uniform(0, 2 * np.pi, (3, 3))
    bent = position.copy()
    for axis in range(3):
        for along in range(3):
            bent[axis] += bend[axis, along] * np.sin(position[along] * (2 * np.pi / 70) + phase[axis, along])
    angle = np.deg2rad(rng.uniform(-8, 8))
    z, y, x = bent / rng.uniform(0.9, 1.1, (3, 1, 1, 1)) + rng.uniform(-4, 4, (3, 1, 1, 1))
    turned = np.stack([z, y * np.cos(angle) - x * np.sin(angle), y * np.sin(angle) + x * np.cos(angle)])
    return turned.astype(np.float32)


def _ellipsoid(
    position: NDArray[Any], centre: Sequence[float] | NDArray[Any], radii: Sequence[float] | NDArray[Any]
) -> NDArray[Any]:
    """Approximate signed distance to an ellipsoid, or to a cylinder where a radius is infinite."""
    middle = np.reshape(centre, (3, 1, 1, 1)).astype(np.float32)
    radius = np.reshape(radii, (3, 1, 1, 1)).astype(np.float32)
    scaled = (position - middle) / radius
    length = np.linalg.norm(scaled, axis=0)
    slope = np.linalg.norm(scaled / radius, axis=0)
    return length * (length - 1) / (slope + np.float32(1e-6))


def _blend(*fields: NDArray[Any], width_mm: float = 4.0) -> NDArray[Any]:
    """Union of shapes with rounded joints."""
    union = fields[0]
    for field in fields[1:]:
        share = np.clip(0.5 + (field - union) / (2 * width_mm), 0, 1)
        union = field + share * (union - field) - width_mm * share * (1 - share)
    return union


def draw_anatomy(position: NDArray[Any], rng: np.random.Generator) -> Fields:
    """Signed distances to the tissues, in mm of the standard knee."""
    _, y, x = position
    size = rng.uniform(0.9, 1.1, 6)
    femur = _blend(
        _ellipsoid(position, (-19, -17, -6), (17 * size[0], 19, 25 * size[1])),
        _ellipsoid(position, (19, -17, -6), (17 * size[1], 19, 25 * size[0])),
        _ellipsoid(position, (0, -25, 2), (24, 17, 20)),
        np.maximum(_ellipsoid(position, (0, 0, 0), (17 * size[2], np.inf, 15 * size[2])), y + 24),
    )
    tibia = _blend(
        np.maximum(_ellipsoid(position, (0, 23, -3), (37 * size[3], 17, 25 * size[3])), 8 - y),
        np.maximum(_ellipsoid(position, (0, 0, -5), (14 * size[4], np.inf, 14 * size[4])), 24 - y),
    )
    patella = _ellipsoid(position, (0, -22, 37), (18, 17, 8 * size[5]))
    bone = np.minimum(femur, tibia)
    fluid = rng.uniform(0.7, 1.3, 4)
    effusion = np.minimum(
        _ellipsoid(position, (0, -44, 27), (16, 15 * fluid[0], 4.5 * fluid[1])),
        _ellipsoid(position, (0, -6, -37), (13, 8 * fluid[2], 4 * fluid[3])),
    )
    return {
        "leg": _ellipsoid(position, (0, 0, 0), (47, np.inf, 59)),
        "muscle": np.maximum(_ellipsoid(position, (0, 0, 0), (40, np.inf, 52)), x + 14 - 0.3 * np.abs(y)),
        "femur": femur,
        "tibia": tibia,
        "bone": bone,
        "patella": patella,
        "tendon": np.maximum(np.abs(x - 39 + 0.25 * np.maximum(y + 10, 0)) - 2.5, -y - 6),
        "cartilage": np.minimum(
            np.minimum(np.maximum(femur - 2.8, -22 - y), np.maximum(tibia - 2.4, y - 11)),
            np.maximum(patella - 2.6, x - 37),
        ),
        "meniscus": np.maximum(np.maximum(femur, tibia) - 7, 12 - np.abs(x + 6)),
        "effusion": np.maximum(effusion, 3 - np.minimum(bone, patella)),
        "joint": np.maximum(femur, tibia) - 3.4,
    }


def draw_vessels(position: NDArray[Any], fields: Fields, rng: np.random.Generator) -> NDArray[Any]:
    """Signed distance to the vessels: two long ones behind the knee, small ones elsewhere and in bone."""
    vessels = np.full(position.shape[1:], np.inf, dtype=np.float32)
    side = rng.uniform(-16, 16)
    for shift, radius in ((0, 3.2), (7, 2.4)):
        vessels = np.minimum(
            vessels, _ellipsoid(position, (side, 0, -38 - shift), (radius * 3, np.inf, radius))
        )
    in_soft_tissue = (fields["leg"] < -4) & (np.minimum(fields["bone"], fields["patella"]) > 5)
    in_bone = fields["bone"] < -4
    for where, number, radii in (
        (in_soft_tissue, rng.integers(5, 10), (1.6, 2.8)),
        (in_bone, rng.integers(2, 5), (1.2, 2.0)),
    ):
        voxels = np.flatnonzero(where)
        for voxel in rng.choice(voxels, min(int(number), voxels.size)):
            centre = position.reshape(3, -1)[:, voxel]
            lengths = rng.uniform(*radii) * np.array([1.5, rng.uniform(1, 3), 1.0])
            vessels = np.minimum(vessels, _ellipsoid(position, centre, lengths))
    return vessels


def coverage(field: NDArray[Any], pixel_mm: float) -> NDArray[Any]:
    """Share of each pixel that lies inside the shape."""
    return np.clip(0.5 - field / pixel_mm, 0, 1)


def paint(fields: Fields, pixel_mm: float, rng: np.random.Generator) -> NDArray[Any]:
    """Signal without lesions, bias and noise. Later tissues cover earlier ones."""
    shape = fields["leg"].shape
    texture = smooth_unit_field(rng.standard_normal(shape), (1.0,) * 3, 1.5)
    image = np.full(shape, float(AIR), dtype=np.float32)
    any_bone = np.minimum(fields["bone"], fields["patella"])
    for field, signal in (
        (fields["leg"], FAT),
        (fields["muscle"], MUSCLE),
        (fields["tendon"], TENDON),
        (fields["effusion"], FLUID),
        (fields["joint"], FLUID),
        (fields["meniscus"], TENDON),
        (fields["cartilage"], CARTILAGE),
        (any_bone, CORTEX),
        (any_bone + CORTEX_MM, MARROW),
        (fields["vessel"], VESSEL),
    ):
        covered = coverage(field, pixel_mm)
        image += covered * (signal * (1 + 0.1 * texture) - image)
    return image
