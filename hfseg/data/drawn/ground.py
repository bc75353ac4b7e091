"""What lies behind and below everything in a street: the sky, the far skyline and the ground with its marks."""

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from hfseg.data.drawn.camera import Street
from hfseg.data.drawn.canvas import COLOURS, Array, noise, smooth, texture
from hfseg.data.drawn.ids import BUILDING, PARKING, ROAD, SIDEWALK, SKY, TERRAIN, VEGETATION

PAINTS = np.array(
    [*COLOURS, (86, 108, 84), (72, 98, 128), (128, 48, 44), (176, 190, 198), (196, 184, 120), (232, 232, 228)],
    np.float32,
)
SEASONS = np.array(
    [
        ((70, 94, 50), (118, 134, 70)), ((58, 80, 58), (96, 116, 84)), ((104, 110, 58), (150, 140, 76)),
        ((128, 92, 48), (176, 134, 70)), ((88, 80, 66), (132, 120, 96)), ((62, 70, 54), (104, 100, 82)),
    ],
    np.float32,
)  # fmt: skip


class Plan(NamedTuple):
    """The street in metres: its kerbs, where houses begin, and where another street crosses it, if one does."""

    left: float
    right: float
    front_left: float
    front_right: float
    crossing: float
    bend: float
    leaves: Array  # (2, 3)
    rare: str

    def x(self, across: float, z: float) -> float:
        """World X of a place in a street that bends."""
        return across + self.bend * z * z


def paint_sky(street: Street, sky: Array) -> None:
    """Brighter towards the horizon, with clouds."""
    view = street.at(SKY, 0.0)
    rise = np.clip(1 - view.y / street.vanishing[1], 0, 1)
    stretch = 1 / (0.25 + rise)
    clouds = noise(street.lattice, 3 * view.x * stretch, 5 * stretch) + 0.5 * noise(
        street.lattice, 8 * view.x * stretch, 14 * stretch
    )
    mix = smooth(1.6 * (1 - rise))[..., None]
    colour = sky[0] * (1 - mix) + sky[1] * mix
    white = street.rng.uniform(0, 0.8) * smooth(2.2 * clouds - 1.2)[..., None]
    view.cover(colour + white * (np.float32(236) - colour), np.full_like(view.x, -9))


def paint_skyline(street: Street, plan: Plan) -> None:
    """What closes the street: far roofs or far trees."""
    rng = street.rng
    horizon = street.vanishing[1]
    view = street.window(0, horizon - 0.12, 1, horizon + 0.015)
    shift = rng.uniform(0, 60)
    for label in rng.permutation((BUILDING, VEGETATION)).tolist():
        far = view.at(label, 130.0)
        if label == BUILDING:
            step = np.floor(view.x * rng.uniform(14, 30))
            top = 0.02 + 0.05 * noise(street.lattice, 3.7 * step + shift, 0 * step)
            colour = PAINTS[rng.integers(len(PAINTS))] * 0.8
        else:
            top = 0.01 + 0.05 * noise(street.lattice, 9 * view.x + shift, 0 * view.x)
            top += 0.012 * noise(street.lattice, 60 * view.x, 60 * view.y)
            colour = plan.leaves[0]
        far.cover(colour * np.ones_like(view.pixels), horizon - top - view.y)


class Ground(NamedTuple):
    """The picture below the horizon, with the street's own coordinates of every pixel in metres."""

    view: Street
    across: Array
    depth: Array
    light: Array

    def paint(
        self, label: int, kind: str, colours: Array, cell: float,
        left: float, right: float, near: float = 0.0, far: float = math.inf,
    ) -> None:  # fmt: skip
        """A textured strip along the street."""
        view, depth = self.view, self.depth
        scale = view.focal / depth  # of a metre across; one of depth is foreshortened
        flat = view.eye * scale / depth
        distance = np.maximum(left - self.across, self.across - right) * scale
        if far < math.inf:
            distance = np.maximum(distance, np.maximum(near - depth, depth - far) * flat)
        clear = np.minimum(flat * (view.long_side * cell), 1)
        mix = (clear * texture(kind, view.lattice, self.across / cell, depth / cell))[..., None]
        colour = (colours[0] * (1 - mix) + colours[1] * mix) * self.light[..., None]
        replace(view, label=label).cover(colour, distance)


def _survey(street: Street, plan: Plan) -> Ground:
    """Finds the ground, and how light it is: worn patches, and the shadow of one row of houses when the sun is low."""
    horizon = street.vanishing[1]
    view = street.window(0, horizon + 1 / street.long_side, 1, 1)
    depth = street.focal * street.eye / np.maximum(view.y - horizon, 0.004)
    across = (view.x - street.vanishing[0]) * depth / street.focal - plan.bend * depth * depth
    light = 0.76 + 0.24 * noise(street.lattice, 0.3 * across + 9, 0.12 * depth)
    light += 0.1 * noise(street.lattice, 5 * across, 1.2 * depth) * np.minimum(6 / depth, 1)
    if street.sun[1] < 0.75:
        edge = street.rng.uniform(plan.left, plan.right) + 0.7 * np.sin(np.floor(depth / 9) * np.float32(2.1))
        light *= 1 - 0.38 * smooth((across - edge) * math.copysign(1.5, street.sun[0]) + 0.5)
    return Ground(view.among(depth), across, depth, light)


def paint_ground(street: Street, plan: Plan) -> None:
    """Grass, pavements, kerbs and the road with its marks."""
    rng, ground = street.rng, _survey(street, plan)
    tar = PAINTS[rng.choice((6, 7, 7, 8, 10))] * rng.uniform(0.8, 1.1) + rng.uniform(-8, 8, 3).astype(np.float32)
    slabs = PAINTS[rng.choice((1, 7, 8, 8, 9, 10, 11))] * rng.uniform(0.72, 0.95)
    road, pave = np.stack([tar, tar * 0.93]), np.stack([slabs, slabs * 0.78])
    ground.paint(TERRAIN, "strokes", plan.leaves * 0.95, 0.5, -999, 999)
    kind = str(rng.choice(("checker", "bricks", "planks", "plain")))
    ground.paint(SIDEWALK, kind, pave, 0.7, plan.front_left, plan.front_right)
    for side, kerb, front in ((-1, plan.left, plan.front_left), (1, plan.right, plan.front_right)):
        if rng.random() < 0.25:  # a strip of grass
            inner, outer = sorted((kerb + 0.3 * side, kerb + 0.45 * (front - kerb)))
            ground.paint(TERRAIN, "strokes", plan.leaves, 0.4, inner, outer)
    ground.paint(SIDEWALK, "plain", np.stack([slabs * 1.2, slabs]), 0.5, plan.left - 0.25, plan.right + 0.25)
    ground.paint(ROAD, "strokes", road, 0.3, plan.left, plan.right)
    if plan.crossing < math.inf:
        ground.paint(ROAD, "strokes", road, 0.3, -999, 999, plan.crossing, plan.crossing + 7)
    if plan.right > 4.6 and rng.random() < 0.5:
        ground.paint(PARKING, "bricks", road * 1.12, 0.6, plan.right - 2.1, plan.right, 0, plan.crossing - 2)
    _marks(ground, plan, rng.uniform(4, 7))


def _marks(ground: Ground, plan: Plan, gap: float) -> None:
    """Dashes between the lanes, and stripes for walkers."""
    view, across, depth = ground.view, ground.across, ground.depth
    scale = view.focal / depth
    flat = view.eye * scale / depth
    dash = np.abs(depth / gap - np.floor(depth / gap) - 0.5) * gap - 0.28 * gap
    distance = np.maximum(dash * flat, (np.abs(across + 1.68) - 0.075) * scale)
    if plan.crossing < math.inf:
        stripe = (np.abs(across - np.floor(across) - 0.5) - 0.25) * scale
        middle = np.abs(depth - plan.crossing + 2.2) - 1.4
        road = np.maximum(plan.left + 0.2 - across, across - plan.right + 0.2) * scale
        distance = np.minimum(distance, np.maximum(np.maximum(stripe, middle * flat), road))
    chalk = np.array((222, 222, 214), np.float32) * ground.light[..., None]
    replace(view, label=ROAD).cover(chalk, distance)
