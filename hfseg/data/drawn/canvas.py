"""A canvas that is painted and labelled at once: textures, lit bodies, flat pieces.

Lengths are fractions of the picture's long side, x to the right and y downwards, so a picture is the same at any size.
A body is an array (n, 8) of tapered capsules that melt into each other, a row each: x, y and radius at one end, x, y
and radius at the other, height towards the viewer, share of the second colour. Everything is painted by numpy, not by
`PIL.ImageDraw`, whose outlines differ between versions of Pillow; only the encoded files depend on Pillow.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

Array = NDArray[np.floating]

COLOURS = np.array(  # each is a believable coat, wall and car, which is what lets all of them draw from one list
    [
        (238, 226, 203), (222, 190, 146), (205, 139, 78), (176, 98, 52), (122, 76, 50), (74, 54, 46),
        (60, 62, 70), (104, 112, 124), (150, 160, 170), (206, 208, 208), (168, 152, 136), (196, 166, 158),
    ],
    np.float32,
)  # fmt: skip
TEXTURES = ("checker", "planks", "bricks", "blobs", "stripes", "strokes", "plain")


@dataclass(frozen=True)
class Canvas:
    """The picture being painted, or a window on it."""

    x: Array  # (1, width), of the pixels' centres
    y: Array  # (height, 1)
    pixels: Array  # (height, width, 3), 0..255
    labels: NDArray[np.uint8]  # (height, width)
    size: int  # of the long side in pixels
    light: Array  # (3,), a unit vector towards it
    lattice: Array  # this picture's random numbers for all textures
    rng: np.random.Generator
    label: int = 0  # of what is painted next

    @classmethod
    def blank(cls, size: int, width: float, height: float, rng: np.random.Generator) -> Self:
        shape = (round(size * height), round(size * width))
        y, x = ((np.arange(n, dtype=np.float32) + 0.5) / size for n in shape)
        light = np.array((rng.uniform(-0.7, 0.7), -0.6, 0.55), np.float32)
        pixels, lattice = np.zeros((*shape, 3), np.float32), rng.random((64, 64), np.float32)
        labels = np.zeros(shape, np.uint8)
        return cls(x[None], y[:, None], pixels, labels, size, light / np.linalg.norm(light), lattice, rng)

    def around(self, points: ArrayLike, margin: float) -> Self:
        """The window that holds points (n, 2); what is painted on it is painted on the picture."""
        edges = np.rint((np.array([np.min(points, 0) - margin, np.max(points, 0) + margin])) * self.size)
        (x0, y0), (x1, y1) = np.maximum(edges, 0).astype(int).tolist()
        cut, x, y = np.s_[y0:y1, x0:x1], self.x[:, x0:x1], self.y[y0:y1]
        return replace(self, x=x, y=y, pixels=self.pixels[cut], labels=self.labels[cut])

    def cover(self, colour: Array, distance: Array) -> None:
        """Paints and labels where `distance` (height, width) is negative, with an outline one pixel soft."""
        alpha = np.clip(0.5 - distance * np.float32(self.size), 0, 1)
        self.pixels[...] += alpha[..., None] * (colour - self.pixels)
        np.copyto(self.labels, self.label, where=distance < 0)


def smooth(t: Array) -> Array:
    """From 0 to 1 with no kink."""
    t = np.minimum(np.maximum(t, 0), 1)
    return t * t * (3 - 2 * t)


def mixed(colours: Array, share: Array) -> Array:
    """Colours (..., 3) between the two of (2, 3), by the share (...) of the second."""
    return colours[0] + share[..., None] * (colours[1] - colours[0])


def noise(lattice: Array, u: Array, v: Array) -> Array:
    """Value noise in 0..1 with one lattice cell per unit, repeating."""
    left, top, n = np.floor(u), np.floor(v), len(lattice)
    column, row, across = left.astype(np.int32), top.astype(np.int32), smooth(u - left)
    above, below = (
        lattice[r, column % n] * (1 - across) + lattice[r, (column + 1) % n] * across for r in (row % n, (row + 1) % n)
    )
    return above + smooth(v - top) * (below - above)


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
    return 0.55 * lattice[row.astype(np.int32) % 64, np.floor(u).astype(np.int32) % 64] + 0.6 * (1 - seam)


def place(parts: Array, x: float, y: float, scale: float, flip: float = 1.0) -> Array:
    """A body in units of its own, y upwards, in the picture: its (0, 0) at (x, y); `flip` -1..1 turns it sideways."""
    across = scale * flip
    return parts * (across, -scale, scale, across, -scale, scale, scale, 1) + (x, y, 0, x, y, 0, 0, 0)


def body(
    canvas: Canvas, parts: Array, seam: float, colours: Array, pattern: str = "plain", cells: float = 10,
    fur: float = 0, shag: float = 0, ruffles: float = 60,
) -> None:  # fmt: skip
    """Paints a body, lit from above and one side.

    Args:
        canvas: the picture.
        parts: the body's capsules, placed.
        seam: width over which they melt.
        colours: (2, 3) of the `pattern`, one of `TEXTURES`, with so many `cells` per long side.
        pattern: see `colours`.
        cells: see `colours`.
        fur: contrast of the hair, which is combed along the capsules.
        shag: depth of the outline's ruffles.
        ruffles: their number per long side.
    """
    ends, lattice = parts[:, :6].reshape(-1, 3), canvas.lattice
    view = canvas.around(np.concatenate([ends[:, :2] - ends[:, 2:], ends[:, :2] + ends[:, 2:]]), shag + 0.01)
    distance, nx, ny, tone, u, v = _melt(view, parts.astype(np.float32), seam)
    flat = nx * nx + ny * ny  # above 1 only outside, where the outline is softened
    lit = canvas.light[0] * nx + canvas.light[1] * ny
    lit = lit / np.sqrt(np.maximum(flat, 1)) + canvas.light[2] * np.sqrt(np.maximum(1 - flat, 0.02))
    light = 0.62 + 0.5 * np.maximum(lit, -0.3) + 0.1 * np.maximum(lit, 0) ** 12
    light *= 1 - 0.45 * np.exp(np.minimum(distance, 0) / (0.24 * seam))  # the rim is darker, as if inked
    if fur:
        light *= 1 + fur * (noise(lattice, 13 * u, 58 * v) + 0.4 * noise(lattice, 40 * u, 150 * v) - 0.7)
    if shag:
        distance += shag * (noise(lattice, ruffles * view.x, ruffles * view.y) - 0.5)
    share = np.clip(texture(pattern, lattice, cells * u, cells * v) + tone, 0, 1)
    view.cover(mixed(colours, share) * light[..., None], distance)


def _melt(view: Canvas, parts: Array, seam: float) -> tuple[Array, Array, Array, Array, Array, Array]:
    """Distance, normal x and y, share of the second colour, u along and v across a part: each (height, width)."""
    ax, ay, ra, bx, by, rb, z, tone = parts.T[..., None, None]
    length = np.hypot(bx - ax, by - ay) + np.float32(1e-6)
    ux, uy, px, py = (bx - ax + 1e-6) / length, (by - ay) / length, view.x - ax, view.y - ay
    u, v = px * ux + py * uy, py * ux - px * uy
    along = np.clip(u, 0, length)
    radius = np.maximum(ra + (rb - ra) / length * along, 0.55 / view.size)  # so thin that no pixel is its: never
    away = np.hypot(u - along, v)
    beyond = away - radius
    bulge = z + np.sqrt(np.maximum(radius * radius - away * away, 0)) - 4 * np.maximum(beyond, 0)
    weight = np.exp((bulge - bulge.max(0)) / (0.5 * seam))
    weight /= weight.sum(0)
    nx, ny = ((weight * (p - along * unit) / radius).sum(0) for p, unit in ((px, ux), (py, uy)))
    top = bulge.argmax(0)[None]  # u and v would swirl where they were mixed
    u, v = (np.take_along_axis(field, top, 0)[0] for field in (u, v))
    return beyond.min(0), nx, ny, (weight * tone).sum(0), u, v


def plate(canvas: Canvas, corners: ArrayLike, colour: ArrayLike) -> None:
    """A flat convex piece between corners (n, 2), whichever way round they go, a little brighter towards its top."""
    points = np.asarray(corners, np.float32)
    view, sides = canvas.around(points, 2 / canvas.size), np.roll(points, -1, 0) - points
    normals = sides[:, ::-1] * (1, -1) / (np.hypot(*sides.T)[:, None] + 1e-9)
    normals *= np.sign(np.sum(normals * (points - points.mean(0)), 1).sum())
    nx, ny, offset = normals[:, 0], normals[:, 1], np.sum(normals * points, 1)
    distance = (nx * view.x[..., None] + (ny * view.y[..., None] - offset)).max(-1)
    rise = (view.y - points[:, 1].min()) / (np.ptp(points[:, 1]) + 1e-6)
    view.cover(np.asarray(colour, np.float32) * (1.08 - 0.2 * np.clip(rise, 0, 1))[..., None], distance)


def shadow(canvas: Canvas, x: float, y: float, width: float) -> None:
    """A soft contact shadow on the ground."""
    view = canvas.around([(x, y)], 2 * width)
    view.pixels[...] *= 1 - 0.42 * np.exp(-((view.x - x) ** 2 + 20 * (view.y - y) ** 2) / width**2)[..., None]


def develop(canvas: Canvas) -> Image.Image:
    """The picture with tint, vignette and film grain."""
    tint = canvas.rng.uniform(0.94, 1.06, 3) * canvas.rng.uniform(0.85, 1.1)
    corner = (canvas.x - canvas.x.mean()) ** 2 + (canvas.y - canvas.y.mean()) ** 2
    grain = 3 * canvas.rng.standard_normal(canvas.pixels.shape, np.float32)
    pixels = canvas.pixels * tint.astype(np.float32) * (1.05 - 0.35 * corner)[..., None] + grain
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
