"""Draws animals in textured scenes and writes them in the official folder layouts.

What makes a pet a pet here is its shape and the fur combed along it, never its colour or place: one palette serves
the animal, the ground, the wall and every object of a picture, and objects are lit by the same code as animals. So a
network has to look at context, as with photographs, and a colour lookup fails (`tests/data/test_synthetic.py` measures
that).

Lengths are fractions of the picture's long side, x to the right and y downwards, so a picture is the same at any size.
Animals and round things are tapered capsules (`Part`) melted together: the signed distance (negative inside) gives a
smooth outline and the trimap's ring, the surface's normal gives the light.
"""

import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Callers put this into their cache keys: it must rise whenever a byte of what is written changes.
SYNTHETIC_VERSION = "1.0.0"

PET, BACKGROUND, RING = 1, 2, 3
RING_WIDTH = 0.05  # of the long side, half of it inside; covers about the real set's 13 % of the pixels
ASPECTS = ((1.0, 1.0), (1.0, 0.75), (0.75, 1.0), (1.0, 0.85), (0.8, 1.0))
SPLITS = ("trainval", "test")
# Each is a believable coat and a believable wall, which is what lets both draw from one list.
COLOURS = (
    (238, 226, 203), (222, 190, 146), (205, 139, 78), (176, 98, 52), (122, 76, 50), (74, 54, 46),
    (60, 62, 70), (104, 112, 124), (150, 160, 170), (206, 208, 208), (168, 152, 136), (196, 166, 158),
)  # fmt: skip
TEXTURES = ("checker", "planks", "bricks", "blobs", "stripes", "strokes", "plain")
ROUGH = ("blobs", "strokes", "plain")
THINGS = ("ball", "crate", "plant", "cushion", "tree")
POSES = ("stand", "sit", "sit", "lie", "lie", "bow", "curl")

Array = NDArray[np.floating]
Point = tuple[float, float]


class Breed(NamedTuple):
    """A drawn breed: its official-style name and the traits that tell it from the others."""

    name: str
    species: int  # 1 cat, 2 dog
    ears: str
    muzzle: float
    legs: float
    tail: tuple[float, float, float]  # length, radius, curl
    coat: str
    shag: float


BREEDS = (  # in the order of the official class ids: by name, upper and lower case alike
    Breed("Charcoal_Shorthair", 1, "pointed", 0.10, 0.40, (0.65, 0.13, 1.9), "plain", 0.2),
    Breed("crayon_hound", 2, "long", 0.24, 0.58, (0.5, 0.12, 1.0), "blobs", 0.3),
    Breed("Paper_Tabby", 1, "pointed", 0.10, 0.44, (0.7, 0.14, -1.7), "stripes", 0.5),
    Breed("pencil_terrier", 2, "folded", 0.19, 0.38, (0.36, 0.14, 1.4), "strokes", 1.0),
)


class Part(NamedTuple):
    """A capsule from a to b whose radius tapers; `z` lifts it to the viewer, `tone` moves it to the second colour."""

    ax: float
    ay: float
    ra: float
    bx: float
    by: float
    rb: float
    z: float = 0.0
    tone: float = 0.0


class Coat(NamedTuple):
    """Two colours (2, 3), their pattern and its cells per long side, the hair's contrast, the outline's roughness."""

    colours: Array
    pattern: str
    cells: float
    fur: float
    shag: float = 0.0


@dataclass(frozen=True)
class Frame:
    """Where body units (y upwards, looking to the right) lie in the picture."""

    x: float
    y: float
    scale: float
    flip: int = 1
    roll: float = 0.0

    def point(self, x: float, y: float) -> Point:
        cos, sin = self.scale * math.cos(self.roll), self.scale * math.sin(self.roll)
        return self.x + self.flip * (x * cos - y * sin), self.y - (x * sin + y * cos)

    def place(self, parts: Sequence[Part]) -> list[Part]:
        k = self.scale
        ends = [(self.point(p.ax, p.ay), self.point(p.bx, p.by), p) for p in parts]
        return [Part(*a, p.ra * k, *b, p.rb * k, p.z * k, p.tone) for a, b, p in ends]


@dataclass
class Scene:
    """The picture being painted, or a window on it. Arrays are (height, width), `pixels` (height, width, 3)."""

    x: Array
    y: Array
    pixels: Array
    distance: Array  # to the animal's outline, negative inside: what the trimap is made from
    long_side: int
    light: Sequence[float]  # a unit vector towards it
    lattice: Array  # this picture's random numbers for all textures
    rng: np.random.Generator

    def window(self, left: float, top: float, right: float, bottom: float) -> "Scene":
        """The part of the picture inside the box; painting on it paints on the picture."""
        x0, y0, x1, y1 = (max(0, round(edge * self.long_side)) for edge in (left, top, right, bottom))
        cut = (slice(y0, y1), slice(x0, x1))
        return replace(self, x=self.x[cut], y=self.y[cut], pixels=self.pixels[cut], distance=self.distance[cut])

    def cover(self, colour: Array, distance: Array) -> None:
        """Paints where `distance` is negative, with an outline one pixel soft."""
        alpha = np.minimum(np.maximum(0.5 - distance * np.float32(self.long_side), 0), 1)
        self.pixels += alpha[..., None] * (colour - self.pixels)


def _smooth(t: Array) -> Array:
    t = np.minimum(np.maximum(t, 0), 1)
    return t * t * (3 - 2 * t)


def _noise(lattice: Array, u: Array, v: Array) -> Array:
    """Value noise in 0..1 with one lattice cell per unit, repeating."""
    left, top = np.floor(u), np.floor(v)
    su, sv = u - left, v - top
    size, flat = len(lattice), lattice.ravel()
    column, row = left.astype(np.int32), top.astype(np.int32)
    here, right = column % size, (column + 1) % size
    upper, lower = row % size * size, (row + 1) % size * size
    su, sv = su * su * (3 - 2 * su), sv * sv * (3 - 2 * sv)
    above = flat[upper + here] * (1 - su) + flat[upper + right] * su
    below = flat[lower + here] * (1 - su) + flat[lower + right] * su
    return above * (1 - sv) + below * sv


def _texture(kind: str, lattice: Array, u: Array, v: Array) -> Array:
    """How much of the second colour shows at (u, v), 0..1. Coats, walls, grounds and objects all use it."""
    if kind == "checker":
        return np.float32(0.85) * ((np.floor(u) + np.floor(v)) % 2)
    if kind == "stripes":
        return _smooth(0.5 + 1.4 * np.sin(np.pi * (1.2 * u + 0.8 * _noise(lattice, u, v))))
    if kind == "blobs":
        return _smooth(4 * (_noise(lattice, u, v) - 0.42))
    if kind == "strokes":
        return 0.15 + 0.75 * _noise(lattice, 0.7 * u, 2.2 * v)
    if kind == "plain":
        return 0.3 * _noise(lattice, 0.5 * u, 0.5 * v)
    row = np.floor(v)
    u = (u if kind == "bricks" else u / 4) + 0.5 * (row % 2)
    seam = np.minimum(_smooth(12 * np.abs(v - np.round(v))), _smooth(12 * np.abs(u - np.round(u))))
    tile = lattice[row.astype(np.int32) % len(lattice), np.floor(u).astype(np.int32) % len(lattice)]
    return 0.55 * tile + 0.6 * (1 - seam) + 0.12 * _noise(lattice, 4 * u, 5 * v)


def _melt(scene: Scene, parts: Sequence[Part], blend: float) -> tuple[Array, list[Array]]:
    """Joins parts into one surface whose seams are `blend` wide: its distance, and normal x, y, tone and coat u, v."""
    distance, height = np.full_like(scene.x, 9), np.full_like(scene.x, -9)
    surface = [np.zeros_like(scene.x) for _ in range(5)]
    for part in parts:
        dx, dy = part.bx - part.ax, part.by - part.ay
        length = math.hypot(dx, dy) + 1e-6
        ux, uy = dx / length, dy / length
        px, py = scene.x - part.ax, scene.y - part.ay
        u, v = px * ux + py * uy, py * ux - px * uy
        along = np.minimum(np.maximum(u, 0), length)
        radius = part.ra + (part.rb - part.ra) / length * along
        away = np.sqrt((u - along) ** 2 + v * v)
        beyond = away - radius
        bulge = part.z + np.sqrt(np.maximum(radius * radius - away * away, 0)) - 4 * np.maximum(beyond, 0)
        # The polynomial smooth maximum; its weight also mixes what the surface carries, save for the coat's
        # coordinates, which would swirl where they are mixed.
        weight = np.minimum(np.maximum(0.5 + (bulge - height) / (2 * blend), 0), 1)
        height += weight * (bulge - height) + blend * weight * (1 - weight)
        surface[0] += weight * ((px - along * ux) / radius - surface[0])
        surface[1] += weight * ((py - along * uy) / radius - surface[1])
        surface[2] += weight * (part.tone - surface[2])
        for kept, new in zip(surface[3:], (u, v), strict=True):
            np.copyto(kept, new, where=weight > 0.5)
        np.minimum(distance, beyond, out=distance)
    return distance, surface


def _light(scene: Scene, nx: Array, ny: Array, distance: Array) -> Array:
    """Light from above and one side, a little gloss, and a rim that is darker, as if inked."""
    lx, ly, lz = scene.light
    tilt = np.maximum(np.sqrt(nx * nx + ny * ny), 1)  # above 1 only outside, where the outline is softened
    lit = (nx * lx + ny * ly) / tilt + lz * np.sqrt(np.maximum(1 - nx * nx - ny * ny, 0.02))
    rim = 1 - 0.45 * np.exp(np.minimum(distance, 0) / 0.006)
    return (0.62 + 0.5 * np.maximum(lit, -0.3) + 0.1 * np.maximum(lit, 0) ** 12) * rim


def _solid(scene: Scene, parts: Sequence[Part], seam: float, coat: Coat) -> tuple[Scene, Array]:
    """Paints melted parts in their coat; gives the window it painted in and the distance there."""
    left, top = (min(min(p[k] - p.ra, p[k + 3] - p.rb) for p in parts) - RING_WIDTH for k in (0, 1))
    right, bottom = (max(max(p[k] + p.ra, p[k + 3] + p.rb) for p in parts) + RING_WIDTH for k in (0, 1))
    view, lattice = scene.window(left, top, right, bottom), scene.lattice
    distance, (nx, ny, tone, u, v) = _melt(view, parts, seam)
    light = _light(scene, nx, ny, distance)
    light *= 1 + coat.fur * (_noise(lattice, 13 * u, 58 * v) + 0.4 * _noise(lattice, 40 * u, 150 * v) - 0.7)
    distance += coat.shag * (_noise(lattice, 60 * view.x, 60 * view.y) - 0.5)
    mix = np.minimum(np.maximum(_texture(coat.pattern, lattice, coat.cells * u, coat.cells * v) + tone, 0), 1)[
        ..., None
    ]
    view.cover((coat.colours[0] * (1 - mix) + coat.colours[1] * mix) * light[..., None], distance)
    return view, distance


def _shadow(scene: Scene, x: float, y: float, width: float, strength: float) -> None:
    """A soft contact shadow on the ground."""
    view = scene.window(x - 2 * width, y - 0.5 * width, x + 2 * width, y + 0.5 * width)
    away = (view.x - x) ** 2 + 20 * (view.y - y) ** 2
    view.pixels *= (1 - strength * np.exp(-away / width**2))[..., None]


def _disc(scene: Scene, x: float, y: float, radii: Point, roll: float, colour: Sequence[float]) -> None:
    """An ellipse of one colour."""
    reach = max(radii) + 0.01
    view = scene.window(x - reach, y - reach, x + reach, y + reach)
    px, py, cos, sin = view.x - x, view.y - y, math.cos(roll), math.sin(roll)
    away = np.sqrt(((px * cos + py * sin) / radii[0]) ** 2 + ((py * cos - px * sin) / radii[1]) ** 2)
    view.cover(np.array(colour, np.float32), (away - 1) * min(radii))


def _chain(x: float, y: float, angle: float, bend: float, length: float, radii: Point, z: float) -> list[Part]:
    """A tail or a leaf: four parts, each turned by a quarter of `bend`."""
    parts, step = [], length / 4
    for i in range(4):
        near, far = (radii[0] + (radii[1] - radii[0]) * k / 4 for k in (i, i + 1))
        end = (x + step * math.cos(angle), y + step * math.sin(angle))
        parts.append(Part(x, y, near, *end, far, z, 0.1 * i))
        (x, y), angle = end, angle + bend / 4
    return parts


def _leg(hip: Point, foot: float, thick: float, z: float, bend: float = 0.0) -> list[Part]:
    """Thigh, shin and paw, down to the ground at x = `foot`."""
    knee = ((hip[0] + foot) / 2 + bend, hip[1] / 2)
    paw = Part(foot, 0.09, 0.11, foot + 0.09, 0.085, 0.09, z + 0.03, 0.35)
    return [Part(*hip, thick, *knee, 0.13, z), Part(*knee, 0.13, foot, 0.1, 0.105, z), paw]


def _upright(pose: str, breed: Breed, rng: np.random.Generator) -> tuple[list[Part], Point]:
    """Standing, or bowing to play. Feet on y = 0, y upwards, looking to the right, a body about 1.5 long."""
    legs, swing = breed.legs, rng.uniform(-0.2, 0.3)
    chest, head, fore = (0.42, legs + 0.24), (0.72, legs + 0.70), 0.38
    if pose == "bow":
        chest, head, fore = (0.35, 0.42), (0.72, 0.68), 0.78
    parts = [Part(-0.5, legs + 0.22, 0.27, *chest, 0.29)]
    parts += [Part(chest[0] + 0.04, chest[1] + 0.1, 0.23, head[0] - 0.06, head[1] - 0.1, 0.21, 0.04, 0.2)]
    parts += _leg((-0.38, legs + 0.1), -0.34 - swing, 0.16, -0.25, -0.05)
    parts += _leg((chest[0] - 0.05, chest[1] - 0.1), fore - 0.06 + swing, 0.14, -0.25)
    parts += _leg((-0.52, legs + 0.12), -0.55 + swing, 0.21, 0.12, -0.06)
    parts += _leg((chest[0], chest[1] - 0.1), fore + 0.06 - swing / 2, 0.16, 0.15)
    length, radius, curl = breed.tail
    bend = curl * rng.uniform(0.5, 1)
    return parts + _chain(-0.7, legs + 0.3, rng.uniform(1.9, 2.8), bend, length, (radius, 0.8 * radius), -0.1), head


def _resting(pose: str, breed: Breed) -> tuple[list[Part], Point]:
    """Sitting, lying or curled up, in the same units."""
    length, radius, curl = breed.tail
    tail = (length, (radius, 0.8 * radius))
    if pose == "sit":
        parts = [Part(-0.12, 0.36, 0.38, 0.18, 0.85, 0.27), Part(0.2, 0.72, 0.24, 0.24, 1.0, 0.2, 0.02, 0.25)]
        parts += _leg((0.16, 0.7), 0.12, 0.14, -0.1) + _leg((0.28, 0.75), 0.3, 0.15, 0.18)
        parts += [Part(-0.2, 0.3, 0.29, -0.1, 0.26, 0.25, 0.15), Part(-0.1, 0.09, 0.1, 0.14, 0.085, 0.09, 0.3, 0.35)]
        return parts + _chain(-0.4, 0.12, 2.6, -curl, *tail, -0.1), (0.27, 1.28)
    if pose == "lie":
        parts = [Part(-0.5, 0.33, 0.33, 0.3, 0.4, 0.29), Part(0.3, 0.45, 0.25, 0.48, 0.66, 0.2, 0.05, 0.2)]
        parts += [Part(-0.42, 0.24, 0.26, -0.25, 0.2, 0.2, 0.15), Part(-0.3, 0.09, 0.09, 0.02, 0.08, 0.08, 0.3, 0.35)]
        parts += [Part(0.3, 0.2, 0.14, 0.86, 0.1, 0.1, 0.2, 0.2), Part(0.4, 0.22, 0.13, 0.98, 0.14, 0.09, -0.1, 0.2)]
        return parts + _chain(-0.75, 0.16, 2.9, -abs(curl), *tail, 0.1), (0.56, 0.86)
    parts = [Part(-0.3, 0.37, 0.37, 0.2, 0.36, 0.36), Part(-0.35, 0.26, 0.27, -0.2, 0.24, 0.24, 0.2)]
    return parts + _chain(-0.68, 0.2, -0.75, 1.0, 1.1, tail[1], 0.5), (0.52, 0.33)


def _skull(breed: Breed, yaw: float) -> list[Part]:
    """Head and ears around (0, 0), looking `yaw` to the right."""
    turn, parts = 0.1 * yaw, []
    for side in (-1, 1):
        root = 0.19 * side - turn
        if breed.ears == "pointed":
            tip = root + 0.07 * side - turn
            parts += [Part(root, 0.16, 0.15, tip, 0.44, 0.02, 0.35), Part(root, 0.18, 0.08, tip, 0.38, 0.01, 0.5, 0.6)]
        elif breed.ears == "long":
            parts += [Part(1.3 * root, 0.12, 0.1, 1.65 * root, -0.27, 0.13, 0.6, 0.5)]
        else:
            parts += [Part(1.2 * root, 0.2, 0.11, 1.6 * root, 0.28, 0.09, 0.4, 0.3)]
            parts += [Part(1.6 * root, 0.28, 0.1, 1.75 * root, 0.1, 0.05, 0.7, 0.6)]
    parts += [Part(-0.06, 0, 0.3, 0.06, 0, 0.3, 0.45), Part(turn - 0.13, -0.1, 0.2, turn + 0.13, -0.1, 0.2, 0.42, 0.1)]
    return [*parts, Part(turn, -0.1, 0.15, turn + breed.muzzle * (0.35 + yaw), -0.14, 0.12, 0.62, 0.45)]


def _face(scene: Scene, breed: Breed, yaw: float, asleep: bool, frame: Frame) -> None:
    """Eyes, nose and mouth, where `_skull` put the muzzle."""
    iris = ((176, 140, 62), (112, 134, 86), (98, 126, 148), (124, 84, 50))[scene.rng.integers(4)]
    turn, dark, cat = 0.1 * yaw, (34, 28, 30), breed.species == 1
    tip, nose = turn + breed.muzzle * (0.35 + yaw), 0.045 if cat else 0.068

    def spot(x: float, y: float, rx: float, ry: float, colour: Sequence[float]) -> None:
        _disc(scene, *frame.point(x, y), (rx * frame.scale, ry * frame.scale), -frame.flip * frame.roll, colour)

    for side in (-1, 1):
        x = turn + 0.14 * side
        if asleep:
            spot(x, 0.03, 0.075, 0.016, dark)
        else:
            spot(x, 0.05, 0.07, 0.076, dark)
            spot(x, 0.046, 0.056, 0.06, iris)
            spot(x + 0.008 * yaw, 0.05, 0.03 if cat else 0.043, 0.055 if cat else 0.045, dark)
            spot(x + 0.02, 0.075, 0.018, 0.018, (250, 250, 245))
        spot(tip + 0.035 * side, -0.195, 0.04, 0.011, dark)
    spot(tip, -0.09, nose, 0.75 * nose, (150, 92, 88) if cat else dark)


def _surface(
    scene: Scene, kind: str, colours: Array, cells: float, distance: Array, horizon: float | None = None
) -> None:
    """A textured wall where `distance` is negative; with `horizon`, a ground that runs towards it in perspective."""
    right, down = scene.rng.uniform(0, 60, 2).tolist()
    large = _noise(scene.lattice, 2.5 * scene.x + right, 2.5 * scene.y + down)
    light = 0.86 + 0.22 * large + 0.12 * scene.light[0] * (scene.x - 0.5)
    if horizon is None:
        mix = _texture(kind, scene.lattice, cells * scene.x + right, cells * scene.y + down)[..., None]
    else:
        depth = 0.35 / np.maximum(scene.y - horizon + 0.12, 0.05)
        fade = np.minimum(np.maximum(1.3 - 0.35 * depth, 0.3), 1)
        u, v = cells * (scene.x - 0.5) * depth + right, 1.6 * cells * depth + down
        mix = (fade * _texture(kind, scene.lattice, u, v))[..., None]
        light -= 0.1 * (1 - fade)
    scene.cover((colours[0] * (1 - mix) + colours[1] * mix) * light[..., None], distance)


def _hills(scene: Scene, palette: Array, width: float, horizon: float) -> None:
    """A sun or moon, and two lines of hills."""
    rng, sun = scene.rng, 0.4 * palette[0] + 0.6 * np.array((255, 246, 225))
    _disc(scene, rng.uniform(0, width), rng.uniform(0.05, max(horizon - 0.1, 0.06)), (0.07, 0.07), 0, sun.tolist())
    for i in range(2):
        edge = horizon - 0.16 + 0.07 * i + 0.09 * _noise(scene.lattice, 3 * scene.x + 20 * i, np.zeros_like(scene.x))
        _surface(scene, str(rng.choice(ROUGH)), palette[[3 + i, 5]], 14, edge - scene.y)


def _room(scene: Scene, palette: Array, width: float, horizon: float) -> None:
    """A skirting board and, where there is room, a picture on the wall."""
    rng = scene.rng
    scene.cover(palette[rng.integers(6)] * 0.9, np.abs(scene.y - horizon + 0.015) - 0.015)
    if horizon > 0.3:
        w, h, x, y = rng.uniform((0.08, 0.07, 0.1, 0.1), (0.14, 0.12, width - 0.1, horizon - 0.16)).tolist()
        frame = np.maximum(np.abs(scene.x - x) - w, np.abs(scene.y - y) - h)
        scene.cover(palette[4] * 0.75, frame)
        _surface(scene, str(rng.choice(TEXTURES)), palette[[3, 5]], 22, frame + 0.018)


def _thing(scene: Scene, palette: Array, x: float, y: float, size: float) -> tuple[Scene, Array]:
    """A ball, a crate, a plant, a cushion or a tree; the window it was painted in and its distance there."""
    rng = scene.rng
    kind, colours = rng.choice(THINGS), palette[rng.permutation(6)[:2]]
    _shadow(scene, x, y, 0.6 * size, 0.4)
    if kind == "crate":
        return _crate(scene, colours, x, y, size)
    coats = {"ball": ("stripes", "checker", "plain"), "cushion": TEXTURES}.get(kind, ROUGH)
    if kind == "ball":
        parts = [Part(-0.01, 0.42, 0.42, 0.01, 0.44, 0.42)]
    elif kind == "cushion":
        parts = [Part(-0.6, 0.22, 0.22, 0.6, 0.22, 0.24), Part(-0.45, 0.36, 0.2, 0.45, 0.36, 0.2, 0.05)]
    elif kind == "tree":
        crown = rng.uniform((-0.4, 0.9), (0.4, 1.5), (5, 2)).tolist()
        parts = [Part(0, 0.05, 0.16, 0.05, 0.9, 0.12, 0, 0.5)]
        parts += [Part(a, b, 0.3, a + 0.05, b, 0.3, 0.2) for a, b in crown]
    else:
        parts = [Part(0, 0.16, 0.24, 0, 0.42, 0.32, 0.5, 0.9)]
        for i, (reach, z) in enumerate(rng.uniform((0.8, 0), (1.2, 0.3), (7, 2)).tolist()):
            a, b = reach * math.cos(0.35 + 0.4 * i), reach * math.sin(0.35 + 0.4 * i)
            middle = (0.5 * a, 0.5 + 0.6 * b, 0.16)
            parts += [Part(0, 0.5, 0.05, *middle, z), Part(*middle, 0.9 * a, 0.38 + b, 0.02, z)]
    placed = Frame(x, y, size, 1 if rng.random() < 0.5 else -1).place(parts)
    fur = 0.2 if rng.random() < 0.2 else 0.0  # hair alone does not make a pet
    return _solid(scene, placed, 0.05 * size, Coat(colours, str(rng.choice(coats)), rng.uniform(8, 25), fur))


def _crate(scene: Scene, colours: Array, x: float, y: float, size: float) -> tuple[Scene, Array]:
    """Its front, a darker side and a lighter lid, seen from the upper right."""
    w, h, skew = 0.45 * size, scene.rng.uniform(0.5, 1.0) * size, 0.3 * size
    kind, cells = str(scene.rng.choice(TEXTURES)), scene.rng.uniform(12, 30)
    view = scene.window(x - w - RING_WIDTH, y - h - skew - RING_WIDTH, x + w + skew + RING_WIDTH, y + RING_WIDTH)
    px, py = view.x - x, view.y - y
    along, rise = px - w, -h - py
    front = np.maximum(np.abs(px) - w, np.abs(py + h / 2) - h / 2)
    side = np.maximum(np.maximum(-along, along - skew), np.abs(py + h / 2 + 0.5 * along) - h / 2)
    lid = np.maximum(np.maximum(-rise, rise - 0.5 * skew), np.abs(px - 2 * rise) - w)
    for face, bright in ((side, 0.68), (lid, 1.12), (front, 0.92)):
        _surface(view, kind, colours * np.float32(bright), cells, face)
    return view, np.minimum(np.minimum(front, side), lid)


def _animal(scene: Scene, breed: Breed, palette: Array, x: float, y: float, scale: float, flip: int) -> None:
    """One animal with its feet at (x, y)."""
    rng = scene.rng
    pose, roll, yaw = str(rng.choice(POSES)), rng.uniform(-0.25, 0.25), rng.uniform(-0.2, 0.9)
    parts, neck = _upright(pose, breed, rng) if pose in ("stand", "bow") else _resting(pose, breed)
    y = max(y, rng.uniform(0.8, 1.05) * (neck[1] + 0.3) * scale)  # no animal without a head
    _shadow(scene, x, y, 0.75 * scale, 0.45)
    body = Frame(x, y, scale, flip)
    head = Frame(*body.point(*neck), scale, flip, roll)
    placed = body.place(parts) + head.place(_skull(breed, yaw))
    coat = Coat(palette[[0, 3]], breed.coat, 1.6 / scale + 4, fur=0.8, shag=0.010 * breed.shag)
    view, distance = _solid(scene, placed, 0.05 * scale, coat)
    _face(scene, breed, yaw, pose == "curl", head)
    view.distance[...] = distance


def _stage(scene: Scene, breed: Breed, palette: Array, width: float, height: float, horizon: float) -> None:
    """Things behind the animal, the animal, and sometimes a thing in front of it."""
    rng = scene.rng
    x, y = rng.uniform(0.15, 0.85) * width, rng.uniform(horizon + 0.12, height + 0.05)
    for place in sorted(rng.uniform(horizon + 0.02, y, rng.integers(1, 5)).tolist()):
        _thing(scene, palette, rng.uniform(0, width), place, rng.uniform(0.12, 0.3))
    flip = 1 if x / width + rng.uniform(-0.25, 0.25) < 0.5 else -1  # mostly looking into the picture
    _animal(scene, breed, palette, x, y, math.exp(rng.uniform(math.log(0.36), math.log(0.62))), flip)
    if rng.random() < 0.2:
        x += rng.uniform(0.15, 0.35) * (1 if rng.random() < 0.5 else -1)
        view, distance = _thing(scene, palette, x, y + rng.uniform(0.03, 0.1), rng.uniform(0.12, 0.22))
        # What stands in front is background, even where the animal goes on behind it.
        np.maximum(view.distance, -distance, out=view.distance)


def _draw(breed: Breed, size: int, rng: np.random.Generator) -> tuple[Image.Image, Image.Image]:
    """One picture and its trimap."""
    width, height = ASPECTS[rng.integers(len(ASPECTS))]
    shape = (round(size * height), round(size * width))
    y, x = ((np.indices(shape)[k] + 0.5).astype(np.float32) / size for k in (0, 1))
    palette = np.array(COLOURS, np.float32)[rng.permutation(len(COLOURS))[:6]]
    tilt = rng.uniform(-0.7, 0.7)
    light = np.array((tilt, -0.6, 0.55)) / math.hypot(tilt, 0.6, 0.55)
    canvas, lattice = np.zeros((*shape, 3), np.float32), rng.random((64, 64), np.float32)
    scene = Scene(x, y, canvas, np.full(shape, 9, np.float32), size, light.tolist(), lattice, rng)
    horizon, indoors = rng.uniform(0.15, 0.65) * height, rng.random() < 0.5
    _surface(scene, str(rng.choice(TEXTURES)) if indoors else "plain", palette[[1, 4]], rng.uniform(8, 18), -y)
    if not indoors:
        _hills(scene, palette, width, horizon)
    _surface(scene, str(rng.choice(TEXTURES)), palette[[2, 5]], rng.uniform(6, 16), horizon - y, horizon)
    if indoors:
        _room(scene, palette, width, horizon)
    _stage(scene, breed, palette, width, height, horizon)
    half = RING_WIDTH / 2
    trimap = np.where(scene.distance < -half, PET, np.where(scene.distance <= half, RING, BACKGROUND))
    return _develop(scene), Image.fromarray(trimap.astype(np.uint8))


def _develop(scene: Scene) -> Image.Image:
    """Tint, vignette and film grain, over animal and scene alike."""
    tint = scene.rng.uniform(0.94, 1.06, 3) * scene.rng.uniform(0.85, 1.1)
    corner = (scene.x - scene.x.mean()) ** 2 + (scene.y - scene.y.mean()) ** 2
    grain = 3 * scene.rng.standard_normal(scene.pixels.shape, np.float32)
    pixels = scene.pixels * tint.astype(np.float32) * (1.05 - 0.35 * corner)[..., None] + grain
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _write_split(root: Path, split: str, count: int, size: int, seed: int) -> list[tuple[int, int, str]]:
    """Draws one split; returns its lines as (class id, number, line), which is the order of the official lists."""
    lines = []
    for index in range(count):
        class_id = index % len(BREEDS) + 1
        breed = BREEDS[class_id - 1]
        # Odd numbers for training, even ones for the test: no name depends on how many others there are.
        number = 2 * (index // len(BREEDS)) + (1 if split == "trainval" else 2)
        name = f"{breed.name}_{number}"
        image, trimap = _draw(breed, size, np.random.default_rng((seed, SPLITS.index(split), index)))
        image.save(root / "images" / f"{name}.jpg", quality=92, subsampling=0)
        trimap.save(root / "annotations" / "trimaps" / f"{name}.png")
        breed_id = [b.name for b in BREEDS if b.species == breed.species].index(breed.name) + 1
        lines.append((class_id, number, f"{name} {class_id} {breed.species} {breed_id}\n"))
    return sorted(lines)


def write_synthetic_pet(root: Path, *, num_trainval: int, num_test: int, size: int, seed: int) -> None:
    """Draws pets and writes them as Oxford-IIIT Pet is laid out.

    An image depends on `seed`, its split, its place in the split and `size` alone, so a larger set contains the
    smaller one.

    Args:
        root: Folder to make. It appears only when complete.
        num_trainval: Images in the official trainval list, spread evenly over the breeds.
        num_test: Images in the official test list.
        size: Long side of every image in pixels; the aspect ratios vary.
        seed: Any non-negative number.

    Raises:
        FileExistsError: If `root` exists.
    """
    if root.exists():
        raise FileExistsError(f"{root} exists: give a folder that does not, or remove it")
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as scratch:
        building = Path(scratch) / root.name
        (building / "images").mkdir(parents=True)
        (building / "annotations" / "trimaps").mkdir(parents=True)
        counts = dict(zip(SPLITS, (num_trainval, num_test), strict=True))
        lines = {split: _write_split(building, split, count, size, seed) for split, count in counts.items()}
        lines["list"] = sorted(lines["trainval"] + lines["test"])
        for name, rows in lines.items():
            text = "".join(line for _, _, line in rows)
            (building / "annotations" / f"{name}.txt").write_text(text, encoding="utf-8")
        os.replace(building, root)
