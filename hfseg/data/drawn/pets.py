"""Draws pets in textured scenes and writes them in the official folder layout.

What makes a pet a pet here is its shape and the fur combed along it, never its colour or place: one palette serves
the animal, the ground, the wall and every object of a picture, and objects are lit by the same code as animals. So a
network has to look at context, and a colour lookup fails (`tests/data/drawn/test_pets.py` measures that).
"""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from hfseg.console import track
from hfseg.data.drawn.canvas import (
    COLOURS,
    TEXTURES,
    Array,
    Canvas,
    body,
    develop,
    mixed,
    noise,
    place,
    shadow,
    texture,
)  # fmt: skip
from hfseg.files import complete_folder

SYNTHETIC_VERSION = "2.0.0"  # part of cache keys: it must rise whenever a byte of what is written changes
PET, BACKGROUND, RING = 1, 2, 3
RING_WIDTH = 0.047  # of the long side, half of it inside; covers about the real set's 13 % of the pixels
ASPECTS = ((1.0, 1.0), (1.0, 0.75), (0.75, 1.0), (1.0, 0.85), (0.8, 1.0))
Marks = list[tuple[tuple[float, ...], tuple[int, int, int]]]  # parts of a body with their colours
SPLITS = ("trainval", "test")


class Breed(NamedTuple):
    """A drawn breed: its official-style name and the traits that tell it from the others."""

    name: str
    species: int  # 1 cat, 2 dog
    ear: tuple[float, ...]  # the right one, a part from root to tip
    muzzle: float
    tail: float  # its length
    coat: str
    shag: float


POINTED, LONG = (0.2, 0.16, 0.15, 0.27, 0.45, 0.02, 0.35, 0), (0.24, 0.12, 0.1, 0.31, -0.27, 0.13, 0.6, 0.5)
BREEDS = (  # in the order of the official class ids: by name, upper and lower case alike
    Breed("Charcoal_Shorthair", 1, POINTED, 0.10, 0.65, "plain", 0.002),
    Breed("crayon_hound", 2, LONG, 0.24, 0.5, "blobs", 0.003),
    Breed("Paper_Tabby", 1, POINTED, 0.10, 0.7, "stripes", 0.005),
    Breed("pencil_terrier", 2, (0.22, 0.24, 0.12, 0.33, 0.1, 0.06, 0.6, 0.5), 0.19, 0.36, "strokes", 0.01),
)
# Bodies about 1.5 long, feet on y = 0, looking to the right; where the head is; the tail's root, angle and bend.
POSES = (
    ([(-0.5, 0.7, 0.27, 0.42, 0.7, 0.29, 0, 0), (0.46, 0.8, 0.23, 0.66, 1.06, 0.21, 0.04, 0.2),
      (-0.38, 0.5, 0.17, -0.22, 0.09, 0.1, -0.25, 0.2), (0.37, 0.5, 0.15, 0.5, 0.09, 0.1, -0.25, 0.2),
      (-0.55, 0.56, 0.2, -0.62, 0.3, 0.13, 0.12, 0), (-0.62, 0.3, 0.13, -0.5, 0.09, 0.11, 0.12, 0.35),
      (0.4, 0.56, 0.17, 0.36, 0.09, 0.11, 0.15, 0.35)], (0.72, 1.16), (-0.7, 0.76, 2.4, 1.3)),
    ([(-0.12, 0.36, 0.38, 0.18, 0.85, 0.27, 0, 0), (0.2, 0.72, 0.24, 0.24, 1, 0.2, 0.02, 0.25),
      (0.16, 0.7, 0.14, 0.14, 0.09, 0.11, -0.1, 0.2), (0.28, 0.75, 0.15, 0.33, 0.09, 0.11, 0.18, 0.35),
      (-0.2, 0.3, 0.29, -0.1, 0.26, 0.25, 0.15, 0), (-0.1, 0.09, 0.1, 0.14, 0.09, 0.09, 0.3, 0.35)],
     (0.27, 1.28), (-0.4, 0.12, 2.6, -1.4)),
    ([(-0.5, 0.33, 0.33, 0.3, 0.4, 0.29, 0, 0), (0.3, 0.45, 0.25, 0.48, 0.66, 0.2, 0.05, 0.2),
      (-0.42, 0.24, 0.26, -0.25, 0.2, 0.2, 0.15, 0), (-0.3, 0.09, 0.09, 0.02, 0.08, 0.08, 0.3, 0.35),
      (0.3, 0.2, 0.14, 0.86, 0.1, 0.1, 0.2, 0.2), (0.4, 0.22, 0.13, 0.98, 0.14, 0.09, -0.1, 0.2)],
     (0.56, 0.86), (-0.75, 0.16, 2.9, -1.4)),
    ([(-0.3, 0.37, 0.37, 0.2, 0.36, 0.36, 0, 0), (-0.35, 0.26, 0.27, -0.2, 0.24, 0.24, 0.2, 0),
      (0.1, 0.1, 0.1, 0.6, 0.09, 0.1, 0.3, 0.35)], (0.52, 0.5), (-0.68, 0.2, -0.75, 1)),
)  # fmt: skip
THINGS = (  # ball, cushion, plant, tree, bottle; about 1 high
    [(-0.01, 0.42, 0.42, 0.01, 0.44, 0.42, 0, 0)],
    [(-0.6, 0.22, 0.22, 0.6, 0.22, 0.24, 0, 0), (-0.45, 0.36, 0.2, 0.45, 0.36, 0.2, 0.05, 0)],
    [(0, 0.16, 0.24, 0, 0.42, 0.32, 0.5, 0.9), (0, 0.5, 0.1, 1, 0.75, 0.03, 0.2, 0),
     (0, 0.5, 0.15, 0.7, 1.2, 0.03, 0, 0), (0, 0.5, 0.15, 0.1, 1.5, 0.03, 0, 0),
     (0, 0.5, 0.1, -1, 0.7, 0.03, 0.2, 0), (0, 0.5, 0.15, -0.5, 1.3, 0.03, 0, 0)],
    [(0, 0.05, 0.16, 0.05, 0.9, 0.12, 0, 0.5), (-0.35, 1, 0.3, -0.3, 1, 0.3, 0.2, 0),
     (0.4, 1.1, 0.3, 0.3, 1.2, 0.3, 0, 0), (0, 1.45, 0.3, 0.1, 1.4, 0.3, 0.2, 0)],
    [(0, 0.2, 0.2, 0, 0.6, 0.22, 0, 0), (0, 0.7, 0.16, 0, 1.1, 0.07, 0, 0.4)],
)  # fmt: skip


def _tail(root: tuple[float, ...], length: float, bend: float) -> Array:
    """Four parts, each turned by a quarter of the bend."""
    x, y, angle, curl = root
    turns = angle + bend * curl * np.arange(4) / 4
    ends = np.cumsum([(x, y), *zip(length / 4 * np.cos(turns), length / 4 * np.sin(turns), strict=True)], 0)
    thick = np.full((4, 1), 0.13)
    return np.hstack([ends[:-1], thick, ends[1:], thick, 0 * thick, np.arange(4)[:, None] / 10])


def _head(breed: Breed, yaw: float) -> tuple[Array, Marks]:
    """Ears, skull and muzzle around (0, 0), looking `yaw` to the right; and nose and eyes with their colours."""
    turn, dark, cat, ear = 0.1 * yaw, (34, 28, 30), breed.species == 1, np.array(breed.ear)
    tip = turn + breed.muzzle * (0.35 + yaw)
    ears = [ear * (side, 1, 1, side, 1, 1, 1, 1) - (turn, 0, 0, 1.5 * turn, 0, 0, 0, 0) for side in (-1, 1)]
    skull = [(-0.06, 0, 0.3, 0.06, 0, 0.3, 0.45, 0), (turn - 0.13, -0.1, 0.2, turn + 0.13, -0.1, 0.2, 0.42, 0.1)]
    muzzle = (turn, -0.1, 0.15, tip, -0.14, 0.12, 0.62, 0.45)
    spots = [(tip, -0.09, 0.05 if cat else 0.065, 0.0, (150, 92, 88) if cat else dark)]
    for x in (turn - 0.14, turn + 0.14):
        spots += [(x, 0.05, 0.075, 0, dark), (x, 0.05, 0.06, 0, (158, 140, 70))]
        spots += [(x, 0.05, 0.03, 0.025 if cat else 0, dark), (x + 0.02, 0.075, 0.02, 0, (250, 250, 245))]
    marks: Marks = [((x, y - tall, r, x, y + tall, r, 0, 0), colour) for x, y, r, tall, colour in spots]
    return np.array([*ears, *skull, muzzle]), marks


def _animal(canvas: Canvas, breed: Breed, colours: Array, x: float, y: float, flip: float) -> None:
    """One animal with its feet at (x, y)."""
    rng, scale = canvas.rng, 0.36 * 1.72 ** canvas.rng.random()
    parts, (right, up), root = POSES[rng.integers(len(POSES))]
    skull, marks = _head(breed, rng.uniform(-0.2, 0.9))
    y = max(y, rng.uniform(0.96, 1.1) * (up + 0.35) * scale)  # no animal without a head
    shadow(canvas, x, y, 0.75 * scale)
    neck, cells = (right, up, 0, right, up, 0, 0, 0), 1.6 / scale + 4
    whole = np.concatenate([parts, _tail(root, breed.tail, rng.uniform(0.6, 1.3)), skull + neck])
    body(canvas, place(whole, x, y, scale, flip), 0.05 * scale, colours, breed.coat, cells, 0.75, breed.shag)
    for part, colour in marks:
        spot = place(np.array([part]) + neck, x, y, scale, flip)
        body(canvas, spot, 0.02 * scale, np.array((colour, colour), np.float32))


def _thing(canvas: Canvas, palette: Array, x: float, y: float, size: float) -> None:
    """Something that stands at (x, y)."""
    rng, parts = canvas.rng, np.array(THINGS[canvas.rng.integers(len(THINGS))])
    parts[:, [0, 1, 3, 4]] += rng.uniform(-0.06, 0.06, (len(parts), 4))
    shadow(canvas, x, y, 0.6 * size)
    colours, kind, fur = palette[rng.permutation(6)[:2]], str(rng.choice(TEXTURES)), 0.2 * (rng.random() < 0.2)
    placed = place(parts, x, y, size, float(rng.choice((-1, 1))))
    body(canvas, placed, 0.05 * size, colours, kind, rng.uniform(8, 25), fur)  # hair alone does not make a pet


def _backdrop(canvas: Canvas, palette: Array, horizon: float) -> None:
    """A wall with a skirting board or a sky with hills, and a ground that runs towards it in perspective."""
    rng, lattice, x, y = canvas.rng, canvas.lattice, canvas.x, canvas.y
    right, down, cells = rng.uniform((0, 0, 6), (60, 60, 16)).tolist()
    light = 0.86 + 0.22 * noise(lattice, 2.5 * x + right, 2.5 * y + down) + 0.12 * canvas.light[0] * (x - 0.5)
    indoors, (wall, ground) = rng.random() < 0.5, rng.choice(TEXTURES, 2).tolist()
    layers: list[tuple[Array | float, str, list[int], Array, Array]] = [  # each from its top on
        (0.0, wall if indoors else "plain", [1, 4], cells * x + right, cells * y + down)
    ]
    if indoors:
        layers.append((horizon - 0.03, "plain", [5, 5], x, y))
    else:
        hills = [horizon - 0.16 + 0.07 * i + 0.09 * noise(lattice, 3 * x + 20 * i, 0 * x) for i in range(2)]
        layers += [(top, "strokes", [3 + i, 5], 14 * x, 14 * y) for i, top in enumerate(hills)]
    depth = 0.35 / np.maximum(y - horizon + 0.12, 0.05)
    layers.append((horizon, ground, [2, 5], cells * (x - 0.5) * depth + right, 1.6 * cells * depth + down))
    for top, kind, pair, u, v in layers:
        canvas.cover(mixed(palette[pair], texture(kind, lattice, u, v)) * light[..., None], top - y + 0 * x)


def _draw(breed: Breed, size: int, rng: np.random.Generator) -> tuple[Image.Image, Image.Image]:
    """One picture and its trimap."""
    width, height = ASPECTS[rng.integers(len(ASPECTS))]
    canvas = replace(Canvas.blank(size, width, height, rng), label=BACKGROUND)
    palette, horizon = COLOURS[rng.permutation(len(COLOURS))[:6]], rng.uniform(0.15, 0.65) * height
    _backdrop(canvas, palette, horizon)
    x, y = rng.uniform(0.15, 0.85) * width, rng.uniform(horizon + 0.12, height + 0.05)
    for place_y in sorted(rng.uniform(horizon + 0.02, y, rng.integers(1, 5)).tolist()):
        _thing(canvas, palette, rng.uniform(0, width), place_y, rng.uniform(0.12, 0.3))
    flip = 1 if x / width + rng.uniform(-0.25, 0.25) < 0.5 else -1  # mostly looking into the picture
    _animal(replace(canvas, label=PET), breed, palette[[0, 3]], x, y, flip * rng.uniform(0.8, 1))
    if rng.random() < 0.2:  # what stands in front is background
        _thing(canvas, palette, x + rng.choice((-0.25, 0.25)), y + rng.uniform(0.03, 0.1), rng.uniform(0.12, 0.22))
    pet = Image.fromarray(np.where(canvas.labels == PET, 255, 0).astype(np.uint8))
    near = np.asarray(pet.filter(ImageFilter.GaussianBlur(RING_WIDTH / 2 / 1.64 * size)))  # 5 % at half the width
    trimap = np.where(near > 242, PET, np.where(near >= 13, RING, BACKGROUND)).astype(np.uint8)
    return develop(canvas), Image.fromarray(trimap)


def _write_split(root: Path, split: str, count: int, size: int, seed: int) -> list[tuple[int, int, str]]:
    """Draws one split; returns its lines as (class id, number, line), which is the order of the official lists."""
    lines = []
    for index in track(range(count), f"drawing {split}", count):
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
    with complete_folder(root) as building:
        (building / "images").mkdir(parents=True)
        (building / "annotations" / "trimaps").mkdir(parents=True)
        counts = dict(zip(SPLITS, (num_trainval, num_test), strict=True))
        lines = {split: _write_split(building, split, count, size, seed) for split, count in counts.items()}
        lines["list"] = sorted(lines["trainval"] + lines["test"])
        for name, rows in lines.items():
            text = "".join(line for _, _, line in rows)
            (building / "annotations" / f"{name}.txt").write_text(text, encoding="utf-8")
