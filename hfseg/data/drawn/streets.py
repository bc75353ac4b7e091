"""Draws street scenes and writes them in the official Cityscapes folder layout.

As with the drawn pets, a thing shows in its shape and its surroundings, not in its colour: one list of paints serves
houses, walls, vehicles and clothes, the ground shares its greys (`tests/data/drawn/test_streets.py` measures that).
The world is in metres: x to the right of a pinhole camera, y above the ground, z ahead.
"""

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from hfseg.console import track
from hfseg.data.drawn.canvas import (
    COLOURS,
    Array,
    Canvas,
    body,
    develop,
    mixed,
    noise,
    place,
    plate,
    shadow,
    smooth,
    texture,
)  # fmt: skip
from hfseg.files import complete_folder

SYNTHETIC_CITYSCAPES_VERSION = 2  # part of cache keys: it must rise whenever a byte of what is written changes
CITIES = {"train": ("inkburg", "chalkstadt", "paperfeld"), "val": ("pastelheim", "sepiastein"), "test": ("crayonau",)}
# The official label ids, not trainIds.
UNLABELED, EGO_VEHICLE, RECTIFICATION_BORDER, OUT_OF_ROI, STATIC, DYNAMIC, _, ROAD, SIDEWALK, PARKING = range(10)
BUILDING, WALL, FENCE, POLE, TRAFFIC_LIGHT, TRAFFIC_SIGN, VEGETATION, TERRAIN, SKY = 11, 12, 13, 17, 19, 20, 21, 22, 23
PERSON, RIDER, CAR, TRUCK, BUS, TRAIN, MOTORCYCLE, BICYCLE = 24, 25, 26, 27, 28, 31, 32, 33
RARE = (TRAIN, MOTORCYCLE, BUS, WALL, TRUCK, BICYCLE, FENCE)  # each in every seventh picture, so that none is missing

PAINTS = np.array(
    [*COLOURS, (86, 108, 84), (72, 98, 128), (128, 48, 44), (176, 190, 198), (196, 184, 120)], np.float32
)
SKIES = np.array(
    [[(92, 136, 190), (196, 212, 224)], [(160, 166, 174), (206, 208, 208)], [(140, 146, 170), (236, 214, 184)]]
)
LEAVES = np.array([[(58, 80, 44), (118, 134, 70)], [(104, 104, 58), (150, 140, 76)], [(110, 76, 44), (176, 134, 70)]])
FIXED = [
    (36, 36, 40), (58, 68, 80), (128, 130, 132), (236, 234, 222), (190, 40, 34), (236, 176, 50), (60, 190, 100),
    (206, 156, 120),
]  # fmt: skip
A, B, C, DARK, GLASS, STEEL, WHITE, RED, AMBER, GREEN, SKIN = range(11)  # an object's three paints, and FIXED

WHEEL = [(math.cos(turn), math.sin(turn)) for turn in np.linspace(0, 2 * math.pi, 11)]
# What stands on the ground and faces the camera: bodies with their colours, the hind ones first, in metres.
FIGURES: dict[int, list[tuple[int, list[tuple[float, ...]]]]] = {
    PERSON: [
        (A, [(-0.08, 0.9, 0.1, -0.2, 0.08, 0.06), (0.08, 0.9, 0.1, 0.2, 0.08, 0.06)]),
        (B, [(0, 0.95, 0.15, 0, 1.36, 0.17), (-0.2, 1.36, 0.06, -0.3, 0.9, 0.05), (0.2, 1.36, 0.06, 0.3, 0.9, 0.05)]),
        (SKIN, [(0, 1.56, 0.07, 0.02, 1.64, 0.1)]), (DARK, [(0, 1.7, 0.1, 0, 1.72, 0.1)]),
    ],
    RIDER: [
        (A, [(-0.2, 0.98, 0.12, 0.15, 0.75, 0.09), (0.15, 0.75, 0.09, 0.05, 0.3, 0.06)]),
        (B, [(-0.2, 1, 0.15, 0.08, 1.45, 0.16), (0.1, 1.4, 0.06, 0.45, 1.08, 0.05)]),
        (SKIN, [(0.15, 1.62, 0.07, 0.18, 1.7, 0.1)]), (C, [(0.13, 1.77, 0.11, 0.13, 1.78, 0.11)]),
    ],
    BICYCLE: [
        (DARK, [(h + 0.33 * a, 0.35 + 0.33 * b, 0.03, h + 0.33 * c, 0.35 + 0.33 * d, 0.03)
                for h in (-0.53, 0.53) for (a, b), (c, d) in pairwise(WHEEL)]),
        (A, [(-0.53, 0.33, 0.03, -0.18, 0.8, 0.03), (-0.05, 0.3, 0.03, 0.38, 0.85, 0.03),
             (0.53, 0.33, 0.03, 0.38, 1, 0.03), (-0.18, 0.8, 0.03, 0.38, 0.85, 0.03),
             (-0.05, 0.3, 0.03, -0.2, 0.92, 0.04)]),
    ],
    MOTORCYCLE: [
        (DARK, [(h + 0.28 * a, 0.36 + 0.28 * b, 0.08, h + 0.28 * c, 0.36 + 0.28 * d, 0.08)
                for h in (-0.68, 0.68) for (a, b), (c, d) in pairwise(WHEEL)]),
        (STEEL, [(-0.3, 0.45, 0.2, 0.3, 0.45, 0.2), (0.45, 0.95, 0.06, 0.68, 0.31, 0.06)]),
        (A, [(-0.6, 0.75, 0.12, 0, 0.74, 0.12), (0, 0.8, 0.16, 0.34, 0.85, 0.16), (0.4, 0.98, 0.1, 0.52, 1.15, 0.1)]),
    ],
    DYNAMIC: [(A, [(-0.3, 0.45, 0.13, 0.25, 0.48, 0.14), (0.35, 0.65, 0.1, 0.5, 0.62, 0.06),
                   (-0.3, 0.4, 0.06, -0.3, 0, 0.05), (0.25, 0.4, 0.06, 0.25, 0, 0.05)])],
    STATIC: [(A, [(0, 0.4, 0.35, 0, 0.8, 0.4)]), (B, [(-0.1, 1.1, 0.3, 0.1, 1.1, 0.3)])],
    FENCE: [(A, [(0, 0, 0.13, 0, 1.4, 0.1)])],
    POLE: [(STEEL, [(0, 0, 0.1, 0, 5.5, 0.07), (0, 5.5, 0.06, 1.4, 5.8, 0.08)])],
    TRAFFIC_LIGHT: [(DARK, [(0, 2.65, 0.26, 0, 3.35, 0.26)]), (RED, [(0, 3.4, 0.14, 0, 3.41, 0.14)]),
                    (AMBER, [(0, 3, 0.14, 0, 3.01, 0.14)]), (GREEN, [(0, 2.6, 0.14, 0, 2.61, 0.14)])],
    TRAFFIC_SIGN: [(RED, [(0, 2.5, 0.4, 0, 2.51, 0.4)]), (WHITE, [(0, 2.5, 0.27, 0, 2.51, 0.27)]),
                   (B, [(-0.25, 1.75, 0.2, 0.25, 1.75, 0.2)])],
}  # fmt: skip
# Boxes along the street: colour, low, high, near, far, half the width below and above, slant of the ends, rows and
# columns of panes.
BOXES: dict[int, list[tuple[float, ...]]] = {
    CAR: [(DARK, 0, 0.4, 0.5, 3.8, 0.8, 0.8, 0, 0, 0), (A, 0.25, 0.92, 0, 4.2, 0.88, 0.86, 0.08, 0, 1),
          (A, 0.9, 1.5, 0.4, 2.9, 0.84, 0.7, 0.4, 1, 2)],
    TRUCK: [(DARK, 0, 1, 0.3, 7.5, 1, 1, 0, 0, 0), (B, 0.6, 2.7, 5.9, 8, 1.15, 1.1, 0.2, 1, 1),
            (A, 0.8, 3.5, 0, 5.6, 1.25, 1.25, 0, 0, 1)],
    BUS: [(DARK, 0, 1, 0.3, 10, 1, 1, 0, 0, 0), (A, 0.3, 3, 0, 11, 1.25, 1.2, 0.05, 1, 6)],
    TRAIN: [(A, 0.2, 3.3, z, z + 7.6, 1.25, 1.1, 0.5, 1, 4) for z in (16, 8, 0)],
    WALL: [(A, 0, 2, 0, 9, 0.2, 0.2, 0, 0, 0)],
}  # fmt: skip
Item = tuple[float, float, int, float]  # what stands where: z, x, label, how far it is turned (-1..1)


@dataclass(frozen=True)
class Street:
    """A canvas, the camera over it in lengths of the picture, and the street's measures in metres."""

    canvas: Canvas
    eye: float
    focal: float
    vanishing: tuple[float, float]
    air: Array  # (3,), what distance fades to
    leaves: Array  # (2, 3)
    edges: list[float]  # x of the left house fronts and kerb, of the right kerb and house fronts
    bend: float

    def project(self, points: ArrayLike) -> Array:
        """World points (n, 3), all ahead of the camera, as picture points (n, 2)."""
        x, y, z = np.asarray(points, float).T
        (left, top), scale = self.vanishing, self.focal / z
        return np.stack([left + scale * (x + self.bend * z * z), top + scale * (self.eye - y)], 1)

    def hazy(self, colours: ArrayLike, z: float) -> Array:
        """Colours (..., 3) as they look at a distance."""
        return (self.air + math.exp(-z / 200) * (np.asarray(colours) - self.air)).astype(np.float32)


def _box(street: Street, canvas: Canvas, x: float, z: float, colours: Array, box: tuple[float, ...]) -> None:
    """The faces of a box that the camera sees, with their panes, and lamps at the end of a vehicle."""
    colour, low, high, near, far, wide, narrow, slant, rows, columns = box
    sections = ((low, wide, near), (low, wide, far), (high, narrow, near + slant), (high, narrow, far - slant))
    corners = np.array([(x + side * half, y, z + depth) for y, half, depth in sections for side in (-1, 1)])
    faces = [([4, 5, 7, 6], 1.1)] * (high < street.eye)
    faces += [([0, 2, 6, 4], 0.95)] * (x > wide) + [([1, 3, 7, 5], 0.7)] * (x < -wide) + [([0, 1, 5, 4], 0.82)]
    for face, light in faces:
        end, flat = face[:2] == [0, 1], light > 1
        across, up = (1 if end and far > 0 else int(columns)), (0 if flat else int(rows))
        pieces = [((i + 0.14) / across, (i + 0.86) / across, (j + 0.4) / up, (j + 0.86) / up, GLASS)
                  for i in range(across) for j in range(up)]  # fmt: skip
        if end and columns and far > 0:
            lamp, low_edge, high_edge = WHITE if x < -1 else RED, 0.1 + 0.5 / high**2, 0.25 + 0.6 / high**2
            pieces += [(i, i + 0.17, low_edge, high_edge, lamp) for i in (0.04, 0.79)]
        for left, right, bottom, top, paint in [(0, 1, 0, 1, int(colour)), *pieces]:
            u, v = np.array([[left, right, right, left], [bottom, bottom, top, top]])[..., None]
            a, b, c, d = corners[face]
            shown = street.project((1 - v) * ((1 - u) * a + u * b) + v * ((1 - u) * d + u * c))
            plate(canvas, shown, colours[paint] * light)


def _stand(street: Street, z: float, x: float, label: int, turn: float) -> None:
    """Paints one item."""
    canvas, rng, scale = replace(street.canvas, label=label), street.canvas.rng, street.focal / z
    paints = PAINTS[rng.permutation(len(PAINTS))[:3]] * rng.uniform(0.75, 1.05)
    colours, foot = street.hazy([*paints, *FIXED], z), street.project([(x, 0, z)])[0].tolist()
    across, down = foot
    if label == VEGETATION:
        crown = rng.uniform((-1.3, 2, 1), (1.3, 5, 1.5), (7, 3))
        trunk = place(np.array([(0, 0, 0.2, 0, 3, 0.15, 0, 0)]), across, down, scale)
        body(canvas, trunk, 0.1 * scale, colours[[DARK, STEEL]])
        crown = np.hstack([crown, crown, np.zeros((7, 2))])
        leaves = street.hazy(street.leaves, z)
        placed = place(crown, across, down, scale * turn)
        body(canvas, placed, 0.3 * scale, leaves, "blobs", 3 / scale, 0.4, 0.5 * scale, 2 / scale)
    elif label == BUILDING:
        storeys = int(rng.integers(2, 6))
        _box(street, canvas, x, z, colours, (A, 0, 3.2 * storeys, -9, 0, 5, 5, 0, storeys, int(rng.integers(2, 5))))
    elif label in BOXES:
        for box in BOXES[label]:
            _box(street, canvas, x, z, colours, box)
    else:
        shadow(canvas, across, down, 0.4 * scale)
        for colour, rows in FIGURES[label]:
            parts = place(np.pad(np.array(rows), ((0, 0), (0, 2))), across, down, scale, turn)
            body(canvas, parts, 0.04 * scale, colours[[colour, colour]])


def _items(rng: np.random.Generator, edges: list[float], rare: int) -> list[Item]:
    """What stands in a street."""
    items: list[Item] = []
    big = {0: rare} if rare in (TRAIN, BUS, TRUCK) else {}
    for side, front, kerb in ((-1, edges[0], edges[1]), (1, edges[3], edges[2])):
        for i, z in enumerate(np.arange(rng.uniform(12, 14), 95, 9.0).tolist()):  # the far ends of lots
            lot = rng.choice((BUILDING, VEGETATION, WALL, FENCE), p=(0.65, 0.21, 0.07, 0.07))
            lot = rare if i == 1 and rare in (WALL, FENCE) else lot
            items += [(z, front + 5 * side, BUILDING, 1.0)] if lot == BUILDING else []
            trees = (1, 4, 7) if lot != BUILDING else ()
            items += [(z - d, front + 2.5 * side, VEGETATION, rng.uniform(0.6, 1.2)) for d in trees]
            items += [(z - 9, front, WALL, 1.0)] if lot == WALL else []
            items += [(z - d, front, FENCE, 1.0) for d in np.arange(0, 9, 0.5) if lot == FENCE]
        lanes = [(1.7 * side - 1.5, rng.uniform(10, 22), 12.0)]
        lanes += [(kerb - 1.1 * side, rng.uniform(7, 12), 1.5)] * (rng.random() < 0.6)
        for x, z, gap in lanes:
            while z < 60:
                kind = big.pop(0, 0) or (CAR if gap < 5 else int(rng.choice((CAR, BUS, TRUCK), p=(0.94, 0.02, 0.04))))
                items.append((z, x, kind, 1.0))
                z += BOXES[kind][0][4] + 1 + rng.uniform(0.2, 1.5) * gap
        edge = kerb + 0.6 * side
        items += [(z, edge, POLE, -side) for z in np.arange(rng.uniform(7, 16), 70, 17)]
        for label in (TRAFFIC_SIGN, TRAFFIC_LIGHT):
            if rng.random() < 0.7:
                z = rng.uniform(8, 25)
                items += [(z, edge, label, 1.0), (z + 0.01, edge, POLE, -side)]
        if rng.random() < 0.4:
            places = np.arange(rng.uniform(8, 14), 75, 9)
            items += [(z, kerb + 1.4 * side, VEGETATION, rng.uniform(0.6, 1)) for z in places]
        walkers = [PERSON] * int(rng.integers(1, 5)) + [BICYCLE] * int(rng.integers(0, 3)) + [STATIC, DYNAMIC]
        for label in walkers:
            x = kerb + rng.uniform(0.2, 0.85) * (front - kerb)
            items.append((2.5 * abs(x) + rng.exponential(8), x, label, rng.uniform(0.5, 1) * rng.choice((-1, 1))))
    ridden = [BICYCLE] * (rng.random() < 0.15 or rare == BICYCLE) + [MOTORCYCLE] * (rare == MOTORCYCLE)
    for label in ridden:
        z, x, turn = rng.uniform(7, 18), rng.uniform(1.2, 2), rng.uniform(0.4, 1) * rng.choice((-1, 1))
        items += [(z, x, label, turn), (z - 0.01, x, RIDER, turn)]
    return items


def _backdrop(street: Street, sky: Array) -> None:
    """The sky, far trees, and the ground with its marks."""
    canvas, rng, horizon = street.canvas, street.canvas.rng, street.vanishing[1]
    lattice, x, y = canvas.lattice, canvas.x, canvas.y
    rise = np.clip(1 - y / horizon, 0, 1)
    clouds = rng.uniform(0, 0.8) * smooth(2.2 * noise(lattice, 3 * x / (0.25 + rise), 5 / (0.25 + rise) + 0 * x) - 0.8)
    colour = mixed(sky, smooth(1.6 * (1 - rise)))
    replace(canvas, label=SKY).cover(colour + clouds[..., None] * (236 - colour), y + 0 * x - 9)
    far = horizon - 0.01 - 0.06 * noise(lattice, 9 * x, 0 * x)
    replace(canvas, label=VEGETATION).cover(street.hazy(street.leaves[0], 120), far - y)
    view = canvas.around([(0, horizon + 1 / canvas.size), (1, 1)], 0)
    depth = street.focal * street.eye / np.maximum(view.y - horizon, 0.004)
    across = (view.x - street.vanishing[0]) * depth / street.focal - street.bend * depth * depth
    light = 0.76 + 0.24 * noise(lattice, 0.3 * across + 9, 0.12 * depth)
    scale = street.focal / depth  # of a metre across
    flat = street.eye * scale / depth  # of a metre ahead
    left, left_kerb, right_kerb, right = street.edges
    tar = PAINTS[rng.choice((6, 7, 7, 8, 10))] * rng.uniform(0.8, 1.1)
    slabs = PAINTS[rng.choice((1, 7, 8, 9, 10, 11))] * rng.uniform(0.72, 0.95)
    green = sorted((right_kerb + 0.5, right_kerb + 0.5 * (right - right_kerb)))
    dash = (np.abs(depth / 6 - np.floor(depth / 6) - 0.5) * 6 - 1.7) * flat
    paving = str(rng.choice(("checker", "bricks", "plain")))
    strips: list[tuple[int, str, ArrayLike, float, float]] = [  # label, texture, colours, from x to x
        (TERRAIN, "strokes", street.leaves, -999, 999),
        (SIDEWALK, paving, (slabs, 0.78 * slabs), left, right),
        (TERRAIN, "strokes", street.leaves, green[0], green[1]),
        (SIDEWALK, "plain", (1.2 * slabs, slabs), left_kerb - 0.3, right_kerb + 0.3),
        (ROAD, "strokes", (tar, 0.93 * tar), left_kerb, right_kerb),
        (PARKING, "bricks", (1.1 * tar, tar), right_kerb - 2.1, right_kerb),
        (ROAD, "plain", np.full((2, 3), 222), -1.58, -1.42),
    ]
    for label, kind, colours, low, high in strips:
        distance = np.maximum(low - across, across - high) * scale
        if high == -1.42:
            distance = np.maximum(distance, dash)
        share = np.minimum(flat * (0.5 * canvas.size), 1) * texture(kind, lattice, 2 * across, 2 * depth)
        colour = mixed(np.asarray(colours, np.float32), share) * light[..., None]
        colour = street.air + np.exp(-depth / 200)[..., None] * (colour - street.air)
        replace(view, label=label).cover(colour.astype(np.float32), distance)


def _draw(size: int, rare: int, rng: np.random.Generator) -> tuple[Image.Image, Image.Image]:
    """One picture and its label ids."""
    sky = SKIES[rng.integers(len(SKIES))].astype(np.float32)
    leaves = LEAVES[rng.integers(len(LEAVES))].astype(np.float32)
    left, right, *pavements = rng.uniform((-8, 2.4, 2.5, 2.5), (-4.8, 5, 6, 6)).tolist()
    edges = [left - pavements[0], left, right, right + pavements[1]]
    canvas, vanishing = Canvas.blank(size, 1, 0.5, rng), (rng.uniform(0.42, 0.58), rng.uniform(0.19, 0.24))
    eye, focal, bend = rng.uniform(1.2, 1.5), rng.uniform(1, 1.2), rng.uniform(-1, 1) / 500
    street = Street(canvas, eye, focal, vanishing, sky[1], leaves, edges, bend)
    _backdrop(street, sky)
    for item in sorted(_items(rng, edges, rare), reverse=True):
        _stand(street, *item)
    edge = 0.465 + 0.12 * (canvas.x - 0.5) ** 2 - canvas.y
    bonnet = PAINTS[rng.integers(len(PAINTS))] * 0.6 * (1 + 20 * np.abs(edge))[..., None]
    replace(canvas, label=EGO_VEHICLE).cover(bonnet, edge)
    border = max(1, round(0.0035 * size))
    canvas.labels[:border], canvas.pixels[:border] = RECTIFICATION_BORDER, 0
    for part in (np.s_[:, :border], np.s_[:, -border:], np.s_[-border:]):
        canvas.labels[part], canvas.pixels[part] = OUT_OF_ROI, 0
    canvas.pixels[...] *= rng.uniform(1.0, 1.25)
    return develop(canvas), Image.fromarray(canvas.labels)


def _write_split(root: Path, split: str, count: int, size: int, seed: int) -> None:
    for index in track(range(count), f"drawing {split}", count):
        cities = CITIES[split]
        city = cities[index % len(cities)]
        rng = np.random.default_rng((seed, list(CITIES).index(split), index))
        image, labels = _draw(size, RARE[index % len(RARE)], rng)
        if split == "test":  # the official test set publishes only what calibration knows
            labels = labels.point([i if i <= OUT_OF_ROI else UNLABELED for i in range(256)])
        name = f"{city}_{index // len(cities):06d}_000019"
        for folder, picture, suffix in (("leftImg8bit", image, "leftImg8bit"), ("gtFine", labels, "gtFine_labelIds")):
            path = root / folder / split / city / f"{name}_{suffix}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)


def write_synthetic_cityscapes(
    root: Path, *, num_train: int, num_val: int, num_test: int, size: int, seed: int
) -> None:
    """Draws street scenes and writes them as Cityscapes is laid out.

    A picture depends on `seed`, its split, its place in the split and `size` alone, so a larger set contains the
    smaller one. Masks hold the official label ids 0 to 33; those of the test split hold, as the official ones do,
    only the own vehicle and the borders, and 0 elsewhere.

    Args:
        root: Folder to make. It appears only when complete.
        num_train: Pictures in `train`.
        num_val: Pictures in `val`.
        num_test: Pictures in `test`.
        size: Width of every picture in pixels, 16 or more; the height is half of it.
        seed: Any non-negative number.

    Raises:
        FileExistsError: If `root` exists.
    """
    if root.exists():
        raise FileExistsError(f"{root} exists: give a folder that does not, or remove it")
    with complete_folder(root) as building:
        for folder in ("leftImg8bit", "gtFine"):
            for split in CITIES:
                (building / folder / split).mkdir(parents=True)
        for split, count in zip(CITIES, (num_train, num_val, num_test), strict=True):
            _write_split(building, split, count, size, seed)
