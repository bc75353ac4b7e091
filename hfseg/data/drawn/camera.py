"""A street seen through a pinhole camera: blocks, walls, limbs and leaves, each labelled by the stroke that paints it.

The world is in metres: X to the right of the camera, Y above the ground, Z ahead. A label is never blended: a pixel is
an object's as soon as its centre lies inside the object's outline.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike

from hfseg.data.drawn.canvas import Array, Point, Scene, disc, noise, shadow, smooth

Colour = Sequence[float] | Array
VISIBILITY = 280.0  # metres until two thirds of the light is the air's


@dataclass
class Street(Scene):
    """A scene with a camera; `target` holds label ids (height, width), and whatever is painted is labelled `label`."""

    eye: float  # the camera above the ground
    focal: float  # in picture widths
    vanishing: Point
    air: Array  # (3,) what distance fades to
    sun: Array  # (3,) a unit vector in the world, towards it
    label: int = 0
    veil: float | Array = 0.0  # how much of the light is the air's, 0..1

    def at(self, label: int, depth: float) -> Self:
        """The same canvas, for something else to be painted on it, `depth` metres away."""
        return replace(self, label=label, veil=1 - math.exp(-depth / VISIBILITY))

    def among(self, depth: Array) -> Self:
        """The same window, for something whose depth (height or 1, width or 1) varies."""
        return replace(self, veil=1 - np.exp(-depth / VISIBILITY)[..., None])

    def cover(self, colour: Array, distance: Array) -> None:
        """Paints and labels where `distance` is negative."""
        super().cover(colour + self.veil * (self.air - colour), distance)
        self.mark(distance)

    def mark(self, distance: Array) -> None:
        """Labels and paints nothing: what shows through spokes belongs to the wheel, as annotators have it."""
        np.copyto(self.target, self.label, where=distance < 0)

    def project(self, points: ArrayLike) -> Array:
        """World points (n, 3), all ahead of the camera, as picture points (n, 2)."""
        x, y, z = np.asarray(points, float).T
        return np.stack(
            [self.vanishing[0] + self.focal * x / z, self.vanishing[1] + self.focal * (self.eye - y) / z], axis=1
        )

    def around(self, corners: Array, margin: float = 0.0) -> Self:
        """The window that holds these picture points."""
        margin += 2 / self.long_side
        (left, top), (right, bottom) = (corners.min(0) - margin).tolist(), (corners.max(0) + margin).tolist()
        return self.window(left, top, right, bottom)


def polygon(view: Scene, corners: Sequence[Sequence[float]]) -> Array:
    """The distance to a convex outline of (x, y), negative inside, whichever way round it goes."""
    sides = list(zip(corners, [*corners[1:], corners[0]], strict=True))
    sign = 1.0 if sum(ax * by - bx * ay for (ax, ay), (bx, by) in sides) > 0 else -1.0
    distance = np.full_like(view.x, -9)
    x, y = view.x[:1], view.y[:, :1]
    for (ax, ay), (bx, by) in sides:
        length = sign * (math.hypot(bx - ax, by - ay) + 1e-9)
        nx, ny = (by - ay) / length, (ax - bx) / length
        np.maximum(distance, nx * x + (ny * y - (nx * ax + ny * ay)), out=distance)
    return distance


def plate(street: Street, corners: Sequence[Sequence[float]], colour: Colour) -> None:
    """A flat convex piece between picture points, a little brighter towards its top."""
    across, down = zip(*corners, strict=True)
    (left, right), (top, bottom) = (min(across), max(across)), (min(down), max(down))
    pixel = 1 / street.long_side
    if min(right - left, bottom - top) < pixel or right < 0 or left > 1 or bottom < 0:
        return  # finer than the picture, or outside of it
    view = street.window(left - 2 * pixel, top - 2 * pixel, right + 2 * pixel, bottom + 2 * pixel)
    light = 1.08 - np.float32(0.2) * np.minimum(np.maximum((view.y[:, :1] - top) / (bottom - top), 0), 1)
    view.cover(np.asarray(colour, np.float32) * light[..., None], polygon(view, corners))


def limb(street: Street, a: Point, b: Point, radii: Point, colour: Colour) -> None:
    """A round bar between picture points, its radii at both ends; never so thin that no pixel could be its."""
    thinnest = 0.55 / street.long_side
    ra, rb = max(radii[0], thinnest), max(radii[1], thinnest)
    view = street.around(np.array((a, b)), max(ra, rb))
    dx, dy = b[0] - a[0], b[1] - a[1]
    square = dx * dx + dy * dy + 1e-12
    px, py = view.x - a[0], view.y - a[1]
    along = np.clip((px * dx + py * dy) / square, 0, 1)
    px -= along * dx
    py -= along * dy
    radius = ra + (rb - ra) * along
    lx, ly, _ = street.light
    light = 0.86 + 0.3 * np.clip((lx * px + ly * py) / radius, -1, 1)
    view.cover(np.asarray(colour, np.float32) * light[..., None], np.sqrt(px * px + py * py) - radius)


@dataclass(frozen=True)
class Sheet:
    """An upright sheet that faces the camera, with metres of its own: right and up from its foot."""

    street: Street
    x: float
    y: float
    scale: float
    turn: float = 1.0  # how much of it is seen from the side, -1..1: what lies along it shrinks

    def at(self, right: float, up: float) -> Point:
        return self.x + self.scale * self.turn * right, self.y - self.scale * up

    def bar(self, a: Point, b: Point, ra: float, rb: float, colour: Colour) -> None:
        limb(self.street, self.at(*a), self.at(*b), (ra * self.scale, rb * self.scale), colour)

    def disc(self, right: float, up: float, radius: float, colour: Colour) -> None:
        disc(
            self.street,
            *self.at(right, up),
            (radius * self.scale, radius * self.scale),
            0,
            np.asarray(colour).tolist(),
        )

    def rectangle(self, right: float, up: float, wide: float, high: float, colour: Colour) -> None:
        """Around a centre, given half its width and half its height."""
        corners = [self.at(right + s * wide, up + t * high) for s, t in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
        plate(self.street, corners, colour)

    def shadow(self, width: float) -> None:
        shadow(self.street, self.x, self.y, width * self.scale, 0.4)


def sheet(street: Street, x: float, z: float, turn: float = 1.0, size: float = 1.0) -> Sheet:
    """The sheet that stands at (x, z)."""
    foot_x, foot_y = street.project([(x, 0, z)])[0].tolist()
    return Sheet(street, foot_x, foot_y, size * street.focal / z, turn)


class Decal(NamedTuple):
    """A flat piece on a block's face, in shares of the face's width and height."""

    face: str  # rear, top, front, or side for both
    left: float
    right: float
    low: float
    high: float
    colour: Colour


class Hull(NamedTuple):
    """A block: its side view as four corners (along, up), and its half width at the bottom and the top."""

    profile: Sequence[Point]  # rear low, rear high, front high, front low
    low: float
    high: float
    decals: Sequence[Decal] = ()


class Pose(NamedTuple):
    """Where an object stands and where it heads: yaw 0 is away from the camera, a quarter turn to the right."""

    x: float
    z: float
    yaw: float = 0.0

    def place(self, points: ArrayLike) -> Array:
        """World points of points (n, 3) given as along, up, to the right."""
        along, up, side = np.asarray(points, float).T
        cos, sin = math.cos(self.yaw), math.sin(self.yaw)
        return np.stack([self.x + along * sin + side * cos, up, self.z + along * cos - side * sin], axis=1)


FACES = ("rear", "top", "front", "left", "right")
FACE_CORNERS = np.array(((0, 1, 3, 2), (2, 3, 5, 4), (7, 6, 4, 5), (0, 6, 4, 2), (1, 7, 5, 3)))


def block(street: Street, hull: Hull, pose: Pose, colour: Colour) -> None:
    """Paints the faces of a block that the camera sees, lit by the sun."""
    widths = (hull.low, hull.high, hull.high, hull.low)
    corners = [(a, up, s * w) for (a, up), w in zip(hull.profile, widths, strict=True) for s in (-1, 1)]
    placed = pose.place(corners)
    faces = placed[FACE_CORNERS]
    middles = faces.mean(1)
    normals = np.cross(faces[:, 1] - faces[:, 0], faces[:, 3] - faces[:, 0])
    normals *= np.sign(np.sum(normals * (middles - placed.mean(0)), 1, keepdims=True))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    seen = np.sum(normals * (middles - (0, street.eye, 0)), 1) < 0
    lights = 0.62 + 0.42 * np.maximum(normals @ street.sun, 0) + 0.12 * normals[:, 1]
    for i in np.flatnonzero(seen).tolist():
        side, light = FACES[i] in ("left", "right"), float(lights[i])
        decals = [d for d in hull.decals if d.face == FACES[i] or (side and d.face == "side")]
        shares = np.array([(0, 1, 0, 1), *(d[1:5] for d in decals)])
        u, v = shares[:, [0, 1, 1, 0], None], shares[:, [2, 2, 3, 3], None]
        a, b, c, d = faces[i]
        pieces = street.project(((1 - v) * (a + u * (b - a)) + v * (d + u * (c - d))).reshape(-1, 3))
        tones = [np.asarray(colour) * light, *(np.asarray(decal.colour) * (0.35 + 0.65 * light) for decal in decals)]
        for piece, tone in zip(pieces.reshape(-1, 4, 2).tolist(), tones, strict=True):
            plate(street, piece, tone)


def box(
    low: float, high: float, rear: float, front: float, half: float, decals: list[Decal], rake: float = 0.0
) -> Hull:
    return Hull(((rear, low), (rear, high), (front - rake, high), (front, low)), half, half, decals)


def shade(street: Street, pose: Pose, length: float, width: float) -> None:
    """The dark ground under a vehicle."""
    corners = [(s * length / 2, 0, t * (width / 2 + 0.1)) for s, t in ((-1, -1), (-1, 1), (1, 1), (1, -1))]
    points = street.project(pose.place(corners))
    view = street.around(points, 0.02)
    soft = 0.35 * street.focal / pose.z
    view.pixels[...] *= (1 - 0.6 * np.clip(0.5 - polygon(view, points.tolist()) / soft, 0, 1))[..., None]


class Wall(NamedTuple):
    """An upright rectangle as seen: its window, metres along and up (height, width), pixels per metre, the light."""

    view: Street
    along: Array  # (1, width)
    up: Array
    distance: Array
    columns: Array  # pixels per metre along, (1, width)
    rows: Array  # and up
    light: float


def wall(street: Street, a: Point, b: Point, low: float, high: float) -> Wall:
    """Finds the pixels of an upright rectangle that stands over the ground from a to b, each as (X, Z)."""
    (ax, az), (bx, bz) = a, b
    corners = street.project([(ax, low, az), (bx, low, bz), (bx, high, bz), (ax, high, az)])
    view = street.around(corners)
    ray = (view.x[:1] - street.vanishing[0]) / street.focal
    dx, dz = bx - ax, bz - az
    across = dx - ray * dz
    share = np.clip((ray * az - ax) / np.where(np.abs(across) < 1e-4, 1e-4, across), -0.5, 1.5)
    depth = np.maximum(az + share * dz, 0.5)
    view = view.among(depth)
    length = math.hypot(dx, dz)
    up = street.eye - (view.y - street.vanishing[1]) * depth / street.focal
    columns = np.abs(across) * street.focal * street.long_side / (depth * length)
    normal = np.array((-dz, 0, dx)) / length
    normal *= -1 if normal @ np.array(((ax + bx) / 2, 0, (az + bz) / 2)) > 0 else 1
    light = 0.7 + 0.38 * max(0.0, float(normal @ street.sun))
    distance = polygon(view, corners.tolist())
    return Wall(view, share * length, up, distance, columns, street.focal * street.long_side / depth, light)


def inside(position: Array, cell: float, low: float, high: float, pixels: Array) -> Array:
    """How much of a pixel lies between the shares `low` and `high` of its cell, 0..1: a grid that does not flicker."""
    share = position / cell - np.floor(position / cell)
    reach = (high - low) / 2 - np.abs(share - (high + low) / 2)
    return np.clip(reach * cell * pixels + 0.5, 0, 1)


def foliage(street: Street, x: float, z: float, clumps: Array, colours: Array) -> None:
    """Leaves in round clumps (n, 3) of metres to the right, metres up and radius, with a ragged outline."""
    scale = street.focal / z
    centres = street.project([(x + right, up, z) for right, up, _ in clumps.tolist()])
    view = street.around(centres, 1.1 * scale * float(clumps[:, 2].max()))
    distance, lit, crown = np.full_like(view.x, 9), np.zeros_like(view.x), np.full_like(view.x, -9)
    for (cx, cy), radius in zip(centres.tolist(), (scale * clumps[:, 2]).tolist(), strict=True):
        px, py = (view.x - cx) / radius, (view.y - cy) / radius
        away = px * px + py * py
        np.copyto(lit, street.light[0] * px + street.light[1] * py, where=crown < -away)
        np.maximum(crown, -away, out=crown)
        np.minimum(distance, (np.sqrt(away) - 1) * radius, out=distance)
    shift = 7.3 * x + z
    leaf = noise(street.lattice, 2.2 / scale * view.x + shift, 2.2 / scale * view.y)
    fine = noise(street.lattice, 7 / scale * view.x, 7 / scale * view.y + shift)
    distance += scale * (0.5 * leaf + 0.25 * fine - 0.35)
    light = 0.66 + 0.4 * np.clip(lit, -0.8, 1) + 0.7 * (0.6 * leaf + 0.4 * fine - 0.5)
    mix = smooth(2 * leaf - 0.5)[..., None]
    view.cover((colours[0] * (1 - mix) + colours[1] * mix) * np.maximum(light, 0.15)[..., None], distance)
