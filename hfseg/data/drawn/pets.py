"""Draws pets in textured scenes and writes them in the official folder layout.

What makes a pet a pet here is its shape and the fur combed along it, never its colour or place: one palette serves
the animal, the ground, the wall and every object of a picture, and objects are lit by the same code as animals. So a
network has to look at context, as with photographs, and a colour lookup fails (`tests/data/test_synthetic.py` measures
that).
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from hfseg.data.drawn.canvas import (
    COLOURS,
    RING_WIDTH,
    TEXTURES,
    Array,
    Coat,
    Frame,
    Part,
    Point,
    Scene,
    develop,
    disc,
    hills,
    room,
    shadow,
    solid,
    surface,
    thing,
)
from hfseg.files import complete_folder

# Callers put this into their cache keys: it must rise whenever a byte of what is written changes.
SYNTHETIC_VERSION = "1.0.0"
PET, BACKGROUND, RING = 1, 2, 3
ASPECTS = ((1.0, 1.0), (1.0, 0.75), (0.75, 1.0), (1.0, 0.85), (0.8, 1.0))
SPLITS = ("trainval", "test")
POSES = ("stand", "sit", "sit", "lie", "lie", "bow", "curl")


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


def _tail(x: float, y: float, angle: float, bend: float, length: float, radii: Point, z: float) -> list[Part]:
    """A tail: four parts, each turned by a quarter of `bend`."""
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
    return parts + _tail(-0.7, legs + 0.3, rng.uniform(1.9, 2.8), bend, length, (radius, 0.8 * radius), -0.1), head


def _resting(pose: str, breed: Breed) -> tuple[list[Part], Point]:
    """Sitting, lying or curled up, in the same units."""
    length, radius, curl = breed.tail
    tail = (length, (radius, 0.8 * radius))
    if pose == "sit":
        parts = [Part(-0.12, 0.36, 0.38, 0.18, 0.85, 0.27), Part(0.2, 0.72, 0.24, 0.24, 1.0, 0.2, 0.02, 0.25)]
        parts += _leg((0.16, 0.7), 0.12, 0.14, -0.1) + _leg((0.28, 0.75), 0.3, 0.15, 0.18)
        parts += [Part(-0.2, 0.3, 0.29, -0.1, 0.26, 0.25, 0.15), Part(-0.1, 0.09, 0.1, 0.14, 0.085, 0.09, 0.3, 0.35)]
        return parts + _tail(-0.4, 0.12, 2.6, -curl, *tail, -0.1), (0.27, 1.28)
    if pose == "lie":
        parts = [Part(-0.5, 0.33, 0.33, 0.3, 0.4, 0.29), Part(0.3, 0.45, 0.25, 0.48, 0.66, 0.2, 0.05, 0.2)]
        parts += [Part(-0.42, 0.24, 0.26, -0.25, 0.2, 0.2, 0.15), Part(-0.3, 0.09, 0.09, 0.02, 0.08, 0.08, 0.3, 0.35)]
        parts += [Part(0.3, 0.2, 0.14, 0.86, 0.1, 0.1, 0.2, 0.2), Part(0.4, 0.22, 0.13, 0.98, 0.14, 0.09, -0.1, 0.2)]
        return parts + _tail(-0.75, 0.16, 2.9, -abs(curl), *tail, 0.1), (0.56, 0.86)
    parts = [Part(-0.3, 0.37, 0.37, 0.2, 0.36, 0.36), Part(-0.35, 0.26, 0.27, -0.2, 0.24, 0.24, 0.2)]
    return parts + _tail(-0.68, 0.2, -0.75, 1.0, 1.1, tail[1], 0.5), (0.52, 0.33)


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
        disc(scene, *frame.point(x, y), (rx * frame.scale, ry * frame.scale), -frame.flip * frame.roll, colour)

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


def _animal(scene: Scene, breed: Breed, palette: Array, x: float, y: float, scale: float, flip: int) -> None:
    """One animal with its feet at (x, y)."""
    rng = scene.rng
    pose, roll, yaw = str(rng.choice(POSES)), rng.uniform(-0.25, 0.25), rng.uniform(-0.2, 0.9)
    parts, neck = _upright(pose, breed, rng) if pose in ("stand", "bow") else _resting(pose, breed)
    y = max(y, rng.uniform(0.96, 1.1) * (neck[1] + 0.35) * scale)  # no animal without a head
    shadow(scene, x, y, 0.75 * scale, 0.45)
    body = Frame(x, y, scale, flip)
    head = Frame(*body.point(*neck), scale, flip, roll)
    placed = body.place(parts) + head.place(_skull(breed, yaw))
    coat = Coat(palette[[0, 3]], breed.coat, 1.6 / scale + 4, fur=0.75, shag=0.010 * breed.shag)
    view, distance = solid(scene, placed, 0.05 * scale, coat)
    _face(scene, breed, yaw, pose == "curl", head)
    view.target[...] = distance


def _stage(scene: Scene, breed: Breed, palette: Array, width: float, height: float, horizon: float) -> None:
    """Things behind the animal, the animal, and sometimes a thing in front of it."""
    rng = scene.rng
    x, y = rng.uniform(0.15, 0.85) * width, rng.uniform(horizon + 0.12, height + 0.05)
    for place in sorted(rng.uniform(horizon + 0.02, y, rng.integers(1, 5)).tolist()):
        thing(scene, palette, rng.uniform(0, width), place, rng.uniform(0.12, 0.3))
    flip = 1 if x / width + rng.uniform(-0.25, 0.25) < 0.5 else -1  # mostly looking into the picture
    _animal(scene, breed, palette, x, y, math.exp(rng.uniform(math.log(0.36), math.log(0.62))), flip)
    if rng.random() < 0.2:
        x += rng.uniform(0.15, 0.35) * (1 if rng.random() < 0.5 else -1)
        view, distance = thing(scene, palette, x, y + rng.uniform(0.03, 0.1), rng.uniform(0.12, 0.22))
        # What stands in front is background, even where the animal goes on behind it.
        np.maximum(view.target, -distance, out=view.target)


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
    surface(scene, str(rng.choice(TEXTURES)) if indoors else "plain", palette[[1, 4]], rng.uniform(8, 18), -y)
    if not indoors:
        hills(scene, palette, width, horizon)
    surface(scene, str(rng.choice(TEXTURES)), palette[[2, 5]], rng.uniform(5, 12), horizon - y, horizon)
    if indoors:
        room(scene, palette, width, horizon)
    _stage(scene, breed, palette, width, height, horizon)
    half = RING_WIDTH / 2
    trimap = np.where(scene.target < -half, PET, np.where(scene.target <= half, RING, BACKGROUND))
    return develop(scene), Image.fromarray(trimap.astype(np.uint8))


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
    with complete_folder(root) as building:
        (building / "images").mkdir(parents=True)
        (building / "annotations" / "trimaps").mkdir(parents=True)
        counts = dict(zip(SPLITS, (num_trainval, num_test), strict=True))
        lines = {split: _write_split(building, split, count, size, seed) for split, count in counts.items()}
        lines["list"] = sorted(lines["trainval"] + lines["test"])
        for name, rows in lines.items():
            text = "".join(line for _, _, line in rows)
            (building / "annotations" / f"{name}.txt").write_text(text, encoding="utf-8")
