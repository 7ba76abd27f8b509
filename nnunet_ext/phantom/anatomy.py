"""The healthy thorax: which tissue is where.

Positions are fractions of half the field of view: (z, y, x) in [-1, 1], z to the head, y to the back, x to the
patient's left, so that the thorax fills any field of view. Distances are in the same unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Coordinates = tuple[Array, Array, Array]


class Tissue(IntEnum):
    """Labels of the tissue map."""

    AIR = 0
    FAT = 1
    MUSCLE = 2
    LUNG = 3
    AIRWAY = 4
    BLOOD = 5
    ORGAN = 6
    CARTILAGE = 7
    SPONGY_BONE = 8
    CORTICAL_BONE = 9


@dataclass(frozen=True)
class Build:
    """What differs between two healthy patients (fractions of half the field of view, angles in radians)."""

    width: float
    depth: float
    fat: float
    heart: float
    diaphragm_right: float
    diaphragm_left: float
    lean: float
    turn: float
    rib_pitch: float
    rib_phase: float
    gas_bubble: bool


def draw_build(rng: np.random.Generator) -> Build:
    """A random patient."""
    diaphragm = rng.uniform(-0.58, -0.40)
    return Build(
        width=rng.uniform(0.82, 0.95),
        depth=rng.uniform(0.58, 0.72),
        fat=rng.uniform(0.04, 0.12),
        heart=rng.uniform(0.85, 1.15),
        diaphragm_right=diaphragm,
        diaphragm_left=diaphragm - rng.uniform(0.0, 0.12),
        lean=rng.normal(0, 0.03),
        turn=rng.normal(0, 0.06),
        rib_pitch=rng.uniform(0.15, 0.18),
        rib_phase=rng.uniform(0, 1),
        gas_bubble=bool(rng.random() < 0.6),
    )


def coordinates(build: Build, shape: tuple[int, int, int]) -> Coordinates:
    """Where each voxel lies in the patient's own frame: three float32 arrays of `shape`, leaning and turned."""
    axes = (((np.arange(n) + 0.5) * 2 / n - 1).astype(np.float32) for n in shape)
    z, y, x = np.meshgrid(*axes, indexing="ij")
    x = x - np.float32(build.lean) * z
    cos, sin = np.float32(np.cos(build.turn)), np.float32(np.sin(build.turn))
    return z, cos * y - sin * x, cos * x + sin * y


def tissue_map(build: Build, position: Coordinates) -> NDArray[np.uint8]:
    """Label of every voxel (`Tissue`), painted from the skin inwards."""
    body, cage = body_level(build, position), cage_level(build, position)
    tissue = np.full(cage.shape, Tissue.AIR, np.uint8)
    tissue[body < 1] = Tissue.FAT
    tissue[body < 1 - build.fat] = Tissue.MUSCLE
    tissue[(cage < 0.97) & (position[0] < 0)] = Tissue.ORGAN
    _paint_bones(tissue, build, position, cage)
    tissue[heart_depth(build, position) > 0] = Tissue.BLOOD
    tissue[aorta_depth(position) > 0] = Tissue.BLOOD
    if build.gas_bubble:
        stomach = ellipsoid(position, (build.diaphragm_left - 0.17, -0.1, 0.38), (0.09, 0.17, 0.15))
        tissue[(stomach < 1) & (cage < 0.95)] = Tissue.AIRWAY
    tissue[lung_depth(build, position, cage) > 0] = Tissue.LUNG
    tissue[airway_depth(position) > 0] = Tissue.AIRWAY
    tissue[body >= 1] = Tissue.AIR
    return tissue


def _paint_bones(tissue: NDArray[np.uint8], build: Build, position: Coordinates, cage: Array) -> None:
    """Ribs, sternum, collar bones, shoulder blades and spine, in place."""
    z, y, x = position
    side = np.abs(x)
    front = -y / np.float32(build.depth)
    # Ribs are a shell round the lungs, cut into bands that fall towards the front.
    phase = (z + 0.24 * front) / build.rib_pitch + build.rib_phase
    band = np.abs(phase - np.round(phase)) < 0.17
    ribs = (cage > 0.98) & (cage < 1.11) & band & (z + 0.24 * front > -0.85) & (z < 0.86)
    cartilage = (front > 0.5) & (side < 0.42)
    tissue[ribs] = Tissue.CORTICAL_BONE
    tissue[ribs & cartilage] = Tissue.CARTILAGE

    shoulder = np.clip((z - 0.05) / 0.55, 0, 1)
    blade = (cage > 1.13) & (cage < 1.18) & (y > 0.1) & (z > 0.05) & (z < 0.62) & (side > 0.62 - 0.3 * shoulder)
    tissue[blade] = Tissue.CORTICAL_BONE
    for sign in (-1.0, 1.0):
        clavicle = tube_distance(position, (0.66, -0.36, 0.07 * sign), (0.76, -0.08, 0.62 * sign))
        tissue[clavicle < 0.035] = Tissue.CORTICAL_BONE
    sternum = (side < 0.075) & (front > 0.3) & (np.abs(cage - 1.05) < 0.07) & (np.abs(z - 0.22) < 0.4)
    tissue[sternum] = Tissue.SPONGY_BONE

    vertebra, to_centre = np.cos(np.pi * z / build.rib_pitch), np.hypot(x, y - spine_centre(build, z))
    tissue[(to_centre < 0.12) & (np.abs(vertebra) > 0.3)] = Tissue.CORTICAL_BONE
    tissue[(to_centre < 0.105) & (np.abs(vertebra) > 0.4)] = Tissue.SPONGY_BONE
    tissue[(to_centre < 0.115) & (np.abs(vertebra) <= 0.3)] = Tissue.CARTILAGE
    behind = y - spine_centre(build, z)
    tissue[(behind > 0.19) & (behind < 0.30) & (side < 0.025) & (np.abs(vertebra) > 0.3)] = Tissue.CORTICAL_BONE
    arch = np.hypot(x, behind - 0.16)
    tissue[(arch > 0.05) & (arch < 0.085) & (behind > 0.1) & (np.abs(vertebra) > 0.3)] = Tissue.CORTICAL_BONE


def body_level(build: Build, position: Coordinates) -> Array:
    """1 on the skin, less inside: a superellipse that widens to the shoulders and narrows to the neck."""
    z, y, x = position
    shoulders, neck = np.exp(-(((z - 0.62) / 0.25) ** 2)), np.clip((z - 0.60) / 0.45, 0, 1) ** 1.3
    half_width = build.width * (1 + 0.10 * shoulders - 0.75 * neck)
    half_depth = build.depth * (1 - 0.35 * neck)
    return superellipse(x / half_width, y / half_depth, 2.6)


def cage_level(build: Build, position: Coordinates) -> Array:
    """1 on the inner side of the ribs, less inside: a superellipse that closes at the apex of the lungs."""
    z, y, x = position
    rise = np.clip((z + 0.35) / 1.22, 0, 0.999)
    taper = (1 - rise**3) ** 0.45
    lower = 1 + 0.06 * np.clip(-z, 0, 1)
    half_width, half_depth = 0.78 * build.width * taper * lower, 0.76 * build.depth * taper**0.7
    return superellipse(x / half_width, y / half_depth, 2.3)


def lung_depth(build: Build, position: Coordinates, cage: Array) -> Array:
    """Positive in the lungs, about the distance to their surface; negative elsewhere."""
    z, y, x = position
    side = np.abs(x)
    mediastinum = side - 0.06 - 0.12 * np.exp(-(((y - 0.02) / 0.22) ** 2))
    diaphragm = np.where(x < 0, np.float32(build.diaphragm_right), np.float32(build.diaphragm_left))
    lateral = side - 0.36
    dome = diaphragm - np.where(lateral > 0, 3.0, 0.8) * lateral**2 - 1.3 * (y + 0.12) ** 2
    spine = np.hypot(x, y - spine_centre(build, z)) - 0.15
    boundaries = (
        (0.96 - cage) * 0.6,
        mediastinum,
        z - dome,
        spine,
        -heart_depth(build, position) - 0.02,
        -aorta_depth(position) - 0.02,
    )
    return smooth_minimum(boundaries, 0.012)


def heart_depth(build: Build, position: Coordinates) -> Array:
    """Positive in the heart: an ellipsoid whose long axis points to the left, the front and the feet."""
    size = np.float32(build.heart)
    bottom = build.diaphragm_left + 0.03
    centre = (bottom + 0.27 * float(size), -0.33 * build.depth, 0.13)
    z, y, x = (axis - np.float32(c) for axis, c in zip(position, centre, strict=True))
    along, across = 0.83 * x - 0.55 * z, 0.55 * x + 0.83 * z
    level = np.sqrt((along / 0.34) ** 2 + (across / 0.26) ** 2 + (y / (0.42 * build.depth)) ** 2) / size
    depth: Array = (1 - level) * np.float32(0.28)
    return depth


def aorta_depth(position: Coordinates) -> Array:
    """Positive in the aorta (arch and descending part)."""
    z, y, x = position
    descending = np.where(z < 0.36, 0.065 - np.hypot(x - 0.13, y - 0.24), np.float32(-1))
    arch = (1 - ellipsoid(position, (0.34, 0.06, 0.08), (0.10, 0.24, 0.09))) * 0.09
    depth: Array = np.maximum(descending, arch)
    return depth


def airway_depth(position: Coordinates) -> Array:
    """Positive in the windpipe and the two main bronchi."""
    fork = (0.20, 0.10, -0.01)
    parts = [0.045 - tube_distance(position, (1.2, 0.05, -0.01), fork)]
    parts += [0.032 - tube_distance(position, fork, (0.0, 0.08, 0.22 * sign)) for sign in (-1.0, 1.0)]
    depth: Array = np.maximum.reduce(parts)
    return depth


def spine_centre(build: Build, z: Array) -> Array:
    """y of the centre of the vertebral bodies: the back is round."""
    centre: Array = 0.62 * build.depth - 0.16 * np.clip(z - 0.1, 0, 1) ** 2 - 0.05 * np.clip(-z - 0.3, 0, 1)
    return centre


def superellipse(x: Array, y: Array, power: float) -> Array:
    """(|x|^p + |y|^p)^(1/p)."""
    level: Array = (np.abs(x) ** power + np.abs(y) ** power) ** np.float32(1 / power)
    return level


def ellipsoid(position: Coordinates, centre: tuple[float, ...], radii: tuple[float, ...]) -> Array:
    """1 on the surface, 0 in the centre."""
    squares = [((axis - c) / r) ** 2 for axis, c, r in zip(position, centre, radii, strict=True)]
    level: Array = np.sqrt(squares[0] + squares[1] + squares[2])
    return level


def tube_distance(position: Coordinates, start: tuple[float, ...], end: tuple[float, ...]) -> Array:
    """Distance to the segment from `start` to `end`."""
    direction = [e - s for s, e in zip(start, end, strict=True)]
    offsets = [axis - np.float32(s) for axis, s in zip(position, start, strict=True)]
    length = sum(d * d for d in direction)
    along = np.clip(sum(o * np.float32(d / length) for o, d in zip(offsets, direction, strict=True)), 0, 1)
    rest = [o - along * np.float32(d) for o, d in zip(offsets, direction, strict=True)]
    distance: Array = np.sqrt(rest[0] ** 2 + rest[1] ** 2 + rest[2] ** 2)
    return distance


def smooth_minimum(values: tuple[Array, ...], softness: float) -> Array:
    """-s log sum exp(-v / s): the minimum with rounded corners."""
    least = np.minimum.reduce(values)
    total = sum(np.exp((least - value) / softness) for value in values)
    rounded: Array = least - np.float32(softness) * np.log(total)
    return rounded
