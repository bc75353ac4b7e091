"""Drawing: lit, textured scenes, objects and bodies, for the synthetic data sets.

Lengths are fractions of the picture's long side, x to the right and y downwards, so a picture is the same at any size.
Bodies and round things are tapered capsules (`Part`) melted together: the signed distance (negative inside) gives a
smooth outline and the trimap's ring, the surface's normal gives the light.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

RING_WIDTH = 0.047  # of the long side, half of it inside; covers about the real set's 13 % of the pixels
# Each is a believable coat and a believable wall, which is what lets both draw from one list.
COLOURS = (
    (238, 226, 203), (222, 190, 146), (205, 139, 78), (176, 98, 52), (122, 76, 50), (74, 54, 46),
    (60, 62, 70), (104, 112, 124), (150, 160, 170), (206, 208, 208), (168, 152, 136), (196, 166, 158),
)  # fmt: skip

TEXTURES = ("checker", "planks", "bricks", "blobs", "stripes", "strokes", "plain")

ROUGH = ("blobs", "strokes", "plain")

THINGS = ("ball", "crate", "plant", "cushion", "tree")

Array = NDArray[np.floating]

Point = tuple[float, float]


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
    target: NDArray[Any]  # what the label is made from: distances to the pet's outline, or label ids
    long_side: int
    light: Sequence[float]  # a unit vector towards it
    lattice: Array  # this picture's random numbers for all textures
    rng: np.random.Generator

    def window(self, left: float, top: float, right: float, bottom: float) -> Self:
        """The part of the picture inside the box; painting on it paints on the picture."""
        x0, y0, x1, y1 = (max(0, round(edge * self.long_side)) for edge in (left, top, right, bottom))
        cut = (slice(y0, y1), slice(x0, x1))
        return replace(self, x=self.x[cut], y=self.y[cut], pixels=self.pixels[cut], target=self.target[cut])

    def cover(self, colour: Array, distance: Array) -> None:
        """Paints where `distance` is negative, with an outline one pixel soft."""
        alpha = np.minimum(np.maximum(0.5 - distance * np.float32(self.long_side), 0), 1)
        self.pixels += alpha[..., None] * (colour - self.pixels)


def smooth(t: Array) -> Array:
    """From 0 to 1 with no kink."""
    t = np.minimum(np.maximum(t, 0), 1)
    return t * t * (3 - 2 * t)


def noise(lattice: Array, u: Array, v: Array) -> Array:
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


def texture(kind: str, lattice: Array, u: Array, v: Array) -> Array:
    """How much of the second colour shows at (u, v), 0..1. Coats, walls, grounds and objects all use it."""
    if kind == "checker":
        return np.float32(0.85) * ((np.floor(u) + np.floor(v)) % 2)
    if kind == "stripes":
        return smooth(0.5 + 1.4 * np.sin(np.pi * (1.2 * u + 0.8 * noise(lattice, u, v))))
    if kind == "blobs":
        return smooth(4 * (noise(lattice, u, v) - 0.42))
    if kind == "strokes":
        return 0.15 + 0.75 * noise(lattice, 0.6 * u, 1.4 * v)
    if kind == "plain":
        return 0.3 * noise(lattice, 0.5 * u, 0.5 * v)
    row = np.floor(v)
    u = (u if kind == "bricks" else u / 4) + 0.5 * (row % 2)
    seam = np.minimum(smooth(12 * np.abs(v - np.round(v))), smooth(12 * np.abs(u - np.round(u))))
    tile = lattice[row.astype(np.int32) % len(lattice), np.floor(u).astype(np.int32) % len(lattice)]
    return 0.55 * tile + 0.6 * (1 - seam) + 0.12 * noise(lattice, 4 * u, 5 * v)


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


def solid(scene: Scene, parts: Sequence[Part], seam: float, coat: Coat) -> tuple[Scene, Array]:
    """Paints melted parts in their coat; gives the window it painted in and the distance there."""
    left, top = (min(min(p[k] - p.ra, p[k + 3] - p.rb) for p in parts) - RING_WIDTH for k in (0, 1))
    right, bottom = (max(max(p[k] + p.ra, p[k + 3] + p.rb) for p in parts) + RING_WIDTH for k in (0, 1))
    view, lattice = scene.window(left, top, right, bottom), scene.lattice
    distance, (nx, ny, tone, u, v) = _melt(view, parts, seam)
    light = _light(scene, nx, ny, distance)
    light *= 1 + coat.fur * (noise(lattice, 13 * u, 58 * v) + 0.4 * noise(lattice, 40 * u, 150 * v) - 0.7)
    # Long hair ruffles the outline, and so the ring.
    distance += coat.shag * (noise(lattice, 60 * view.x, 60 * view.y) - 0.5)
    pattern = texture(coat.pattern, lattice, coat.cells * u, coat.cells * v)
    mix = np.minimum(np.maximum(pattern + tone, 0), 1)[..., None]
    view.cover((coat.colours[0] * (1 - mix) + coat.colours[1] * mix) * light[..., None], distance)
    return view, distance


def shadow(scene: Scene, x: float, y: float, width: float, strength: float) -> None:
    """A soft contact shadow on the ground."""
    view = scene.window(x - 2 * width, y - 0.5 * width, x + 2 * width, y + 0.5 * width)
    away = (view.x - x) ** 2 + 20 * (view.y - y) ** 2
    view.pixels *= (1 - strength * np.exp(-away / width**2))[..., None]


def disc(scene: Scene, x: float, y: float, radii: Point, roll: float, colour: Sequence[float]) -> None:
    """An ellipse of one colour."""
    reach = max(radii) + 0.01
    view = scene.window(x - reach, y - reach, x + reach, y + reach)
    px, py, cos, sin = view.x - x, view.y - y, math.cos(roll), math.sin(roll)
    away = np.sqrt(((px * cos + py * sin) / radii[0]) ** 2 + ((py * cos - px * sin) / radii[1]) ** 2)
    view.cover(np.array(colour, np.float32), (away - 1) * min(radii))


def surface(
    scene: Scene, kind: str, colours: Array, cells: float, distance: Array, horizon: float | None = None
) -> None:
    """A textured wall where `distance` is negative; with `horizon`, a ground that runs towards it in perspective."""
    right, down = scene.rng.uniform(0, 60, 2).tolist()
    large = noise(scene.lattice, 2.5 * scene.x + right, 2.5 * scene.y + down)
    light = 0.86 + 0.22 * large + 0.12 * scene.light[0] * (scene.x - 0.5)
    if horizon is None:
        mix = texture(kind, scene.lattice, cells * scene.x + right, cells * scene.y + down)[..., None]
    else:
        depth = 0.35 / np.maximum(scene.y - horizon + 0.12, 0.05)
        fade = np.minimum(np.maximum(1.3 - 0.45 * depth, 0.15), 1)
        u, v = cells * (scene.x - 0.5) * depth + right, 1.6 * cells * depth + down
        mix = (fade * texture(kind, scene.lattice, u, v))[..., None]
        light -= 0.1 * (1 - fade)
    scene.cover((colours[0] * (1 - mix) + colours[1] * mix) * light[..., None], distance)


def hills(scene: Scene, palette: Array, width: float, horizon: float) -> None:
    """A sun or moon, and two lines of hills."""
    rng, sun = scene.rng, 0.4 * palette[0] + 0.6 * np.array((255, 246, 225))
    disc(scene, rng.uniform(0, width), rng.uniform(0.05, max(horizon - 0.1, 0.06)), (0.07, 0.07), 0, sun.tolist())
    for i in range(2):
        edge = horizon - 0.16 + 0.07 * i + 0.09 * noise(scene.lattice, 3 * scene.x + 20 * i, np.zeros_like(scene.x))
        surface(scene, str(rng.choice(ROUGH)), palette[[3 + i, 5]], 14, edge - scene.y)


def room(scene: Scene, palette: Array, width: float, horizon: float) -> None:
    """A skirting board and, where there is room, a picture on the wall."""
    rng = scene.rng
    scene.cover(palette[rng.integers(6)] * 0.9, np.abs(scene.y - horizon + 0.015) - 0.015)
    if horizon > 0.3:
        w, h, x, y = rng.uniform((0.08, 0.07, 0.1, 0.1), (0.14, 0.12, width - 0.1, horizon - 0.16)).tolist()
        frame = np.maximum(np.abs(scene.x - x) - w, np.abs(scene.y - y) - h)
        scene.cover(palette[4] * 0.75, frame)
        surface(scene, str(rng.choice(TEXTURES)), palette[[3, 5]], 22, frame + 0.018)


def thing(scene: Scene, palette: Array, x: float, y: float, size: float) -> tuple[Scene, Array]:
    """A ball, a crate, a plant, a cushion or a tree; the window it was painted in and its distance there."""
    rng = scene.rng
    kind, colours = rng.choice(THINGS), palette[rng.permutation(6)[:2]]
    shadow(scene, x, y, 0.6 * size, 0.4)
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
    return solid(scene, placed, 0.05 * size, Coat(colours, str(rng.choice(coats)), rng.uniform(8, 25), fur))


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
        surface(view, kind, colours * np.float32(bright), cells, face)
    return view, np.minimum(np.minimum(front, side), lid)


def develop(scene: Scene) -> Image.Image:
    """Tint, vignette and film grain, over animal and scene alike."""
    tint = scene.rng.uniform(0.94, 1.06, 3) * scene.rng.uniform(0.85, 1.1)
    corner = (scene.x - scene.x.mean()) ** 2 + (scene.y - scene.y.mean()) ** 2
    grain = 3 * scene.rng.standard_normal(scene.pixels.shape, np.float32)
    pixels = scene.pixels * tint.astype(np.float32) * (1.05 - 0.35 * corner)[..., None] + grain
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
