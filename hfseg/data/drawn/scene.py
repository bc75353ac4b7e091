"""Plans a street, fills it with houses, traffic and people, and draws it with its label ids."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from PIL import Image

from hfseg.data.drawn import things, traffic
from hfseg.data.drawn.camera import Pose, Street
from hfseg.data.drawn.canvas import Array, develop, noise, smooth
from hfseg.data.drawn.ground import PAINTS, SEASONS, Plan, paint_ground, paint_sky, paint_skyline
from hfseg.data.drawn.ids import BICYCLE, EGO_VEHICLE, MOTORCYCLE, OUT_OF_ROI, RECTIFICATION_BORDER

# What a picture must hold, by its number, so that no class is missing from a set of usual size.
RARE = ("train", "motorcycle", "bus", "wall", "truck", "bicycle", "fence")

SKIES = np.array(  # overhead, at the horizon
    [
        ((92, 136, 190), (196, 212, 224)), ((168, 172, 178), (206, 208, 208)), ((140, 146, 170), (236, 214, 184)),
        ((204, 212, 220), (228, 228, 224)), ((112, 122, 138), (168, 174, 180)),
    ],
    np.float32,
)  # fmt: skip


def _plan(rng: np.random.Generator, rare: str) -> Plan:
    left, right = -rng.uniform(4.8, 8), rng.uniform(2.4, 5)
    crossing = rng.uniform(16, 34) if rng.random() < 0.55 else math.inf
    bend = rng.uniform(-1, 1) / 500 if rng.random() < 0.6 else 0.0
    leaves = SEASONS[rng.integers(len(SEASONS))]
    return Plan(left, right, left - rng.uniform(2.5, 6), right + rng.uniform(2.5, 6), crossing, bend, leaves, rare)


class Lot(NamedTuple):
    """What stands along the street between two depths."""

    near: float
    far: float
    kind: str
    height: float


def _lots(plan: Plan, rng: np.random.Generator) -> list[Lot]:
    """One side of the street, from the camera on, with a gap where it is crossed."""
    lots: list[Lot] = []
    urban, storeys = rng.choice((0.85, 0.6, 0.25)), rng.uniform(2, 5.5)
    z, rare_at = rng.uniform(3.0, 5.0), int(rng.integers(1, 3))
    while z < 90:
        far = z + rng.uniform(7, 16)
        if z < plan.crossing + 8 and far > plan.crossing - 1.5:
            if plan.crossing - 1.5 - z > 3:
                lots.append(Lot(z, plan.crossing - 1.5, "house", 3.2 * storeys))
            z = plan.crossing + 8.5
            continue
        kind = "house" if rng.random() < urban else str(rng.choice(("park", "park", "wall", "fence", "fence", "gap")))
        if len(lots) == rare_at and plan.rare in ("wall", "fence"):
            kind = plan.rare
        lots.append(Lot(z, far, kind, 3.2 * max(1.6, storeys + rng.uniform(-1, 1))))
        z = far + (rng.uniform(0.2, 1.5) if rng.random() < 0.3 else 0.0)
    return lots


def _paint_row(street: Street, plan: Plan, side: int) -> None:
    """Houses, walls, fences and parks along one side, the far ones first."""
    rng, front = street.rng, plan.front_right if side > 0 else plan.front_left
    lots = _lots(plan, rng)
    for lot, before in reversed(list(zip(lots, [None, *lots], strict=False))):
        near, far = (plan.x(front, lot.near), lot.near), (plan.x(front, lot.far), lot.far)
        paints = PAINTS[rng.permutation(len(PAINTS))[:4]] * np.float32(rng.uniform(0.75, 1.05))
        if lot.kind == "house":
            hidden = before and before.kind == "house" and before.far == lot.near and before.height >= lot.height
            things.house(street, near, far, lot.height, paints, not hidden)
        elif lot.kind != "gap":
            behind = [(x + 3.0 * side, z) for x, z in (near, far)]
            things.hedge(street, behind[0], behind[1], rng.uniform(2, 7), plan.leaves)
        if lot.kind == "wall":
            things.barrier(street, near, far, rng.uniform(1.5, 3.2), paints)
        elif lot.kind == "fence":
            things.fence(street, near, far, rng.uniform(1.2, 2.2), paints[0])


Item = tuple[float, Callable[[], None]]  # its depth, and what paints it
HALF_LENGTHS = {"car": 2.2, "truck": 4.0, "bus": 5.5, "train": 12.0}


def _paints(rng: np.random.Generator) -> Array:
    return PAINTS[rng.permutation(len(PAINTS))[:5]]


def _vehicle(street: Street, kind: str, pose: Pose) -> Item:
    rng = street.rng
    paints = _paints(rng)
    if kind == "train":
        return pose.z, partial(traffic.train, street, pose, paints, 3)
    if kind == "bus":
        return pose.z, partial(traffic.bus, street, pose, paints)
    if kind == "truck":
        return pose.z, partial(traffic.truck, street, pose, paints)
    return pose.z, partial(traffic.car, street, pose, paints[0])


class Lane(NamedTuple):
    """Where vehicles stand one behind the other: across the street, heading, from where on, and how loosely."""

    across: float
    yaw: float
    start: float
    spacing: float
    big: str = ""  # the kind of the first one, where it is not a car


def _lanes(plan: Plan, rng: np.random.Generator) -> list[Lane]:
    """The two lanes, and cars parked along the kerbs."""
    big = plan.rare if plan.rare in ("train", "bus", "truck") else ""
    ahead = rng.random() < 0.5
    lanes = [
        Lane(rng.uniform(-0.2, 0.4), 0.0, rng.uniform(11, 26), 16, big if ahead else ""),
        Lane(-3.3, math.pi, rng.uniform(11, 26), 14, "" if ahead else big),
    ]
    if plan.right > 3.7 and rng.random() < 0.7:
        lanes.append(Lane(plan.right - 1.05, 0.0, rng.uniform(7, 12), 1))
    if plan.left < -6.6 and rng.random() < 0.7:
        lanes.append(Lane(plan.left + 1.05, math.pi, rng.uniform(8, 13), 1))
    return lanes


def _traffic(street: Street, plan: Plan) -> list[Item]:
    """Vehicles along the lanes, and one that crosses."""
    rng = street.rng
    items: list[Item] = []
    for lane in _lanes(plan, rng):
        z, first, parked = lane.start, True, lane.spacing < 5
        while z < 50:
            usual = "car" if parked else str(rng.choice(("car", "bus", "truck"), p=(0.94, 0.02, 0.04)))
            kind = (lane.big if first else "") or usual
            half = HALF_LENGTHS[kind]
            z += half - 2.2
            blocked = parked and abs(z - plan.crossing - 3) < half + 6
            if (first and lane.big) or (not blocked and rng.random() < 0.8):
                yaw = lane.yaw + math.atan(2 * plan.bend * z) + rng.normal(0, 0.02)
                items.append(_vehicle(street, kind, Pose(plan.x(lane.across, z), z, yaw)))
            z += half + 2.6 + rng.uniform(0.2, 1.5) * lane.spacing
            first = False
    if plan.crossing < math.inf and rng.random() < 0.6:
        kind = str(rng.choice(("car", "car", "car", "bus", "truck")))
        lane_at, yaw = ((2.0, -math.pi / 2), (5.0, math.pi / 2))[rng.integers(2)]
        z = plan.crossing + lane_at
        items.append(_vehicle(street, kind, Pose(plan.x(rng.uniform(-8, 8), z), z, yaw)))
    return items


def _people(street: Street, plan: Plan) -> list[Item]:
    """Walkers on the pavements, cycles parked and ridden, and a few things that are void."""
    rng = street.rng
    items: list[Item] = []

    def pavement() -> tuple[float, float]:
        kerb, front = ((plan.left, plan.front_left), (plan.right, plan.front_right))[rng.integers(2)]
        across = kerb + rng.uniform(0.2, 0.85) * (front - kerb)
        z = 2.5 * abs(across) + rng.exponential(8)  # nearer ones would stand beside the picture
        return plan.x(across, z), z

    for _ in range(rng.integers(2, 9)):
        x, z = pavement()
        items.append((z, partial(traffic.person, street, x, z, _paints(rng), rng.uniform(-1, 1))))
    if plan.crossing < math.inf and rng.random() < 0.5:
        z = plan.crossing - rng.uniform(1, 3)
        x = plan.x(rng.uniform(plan.left, plan.right), z)
        items.append((z, partial(traffic.person, street, x, z, _paints(rng), 1.0)))
    for _ in range(rng.integers(0, 4)):
        x, z = pavement()
        turn = float(rng.choice((-1, 1))) * rng.uniform(0.5, 1)
        items.append((z, partial(traffic.cycle, street, x, z, turn, BICYCLE, _paints(rng), False)))
    ridden = [BICYCLE] if rng.random() < 0.15 or plan.rare == "bicycle" else []
    ridden += [MOTORCYCLE] if rng.random() < 0.03 or plan.rare == "motorcycle" else []
    for label in ridden:
        z = rng.uniform(8, 20)
        across = (rng.uniform(1.3, max(1.5, plan.right - 2.6)), -1.7)[rng.integers(2)]
        turn = float(rng.choice((-1, 1))) * rng.uniform(0.2, 0.95)
        items.append((z, partial(traffic.cycle, street, plan.x(across, z), z, turn, label, _paints(rng), True)))
    if plan.rare == "motorcycle":
        x, z = pavement()
        items.append((z, partial(traffic.cycle, street, x, z, 0.9, MOTORCYCLE, _paints(rng), False)))
    for draw in (things.bin_or_pillar, things.pram_or_dog):
        if rng.random() < 0.6:
            x, z = pavement()
            items.append((z, partial(draw, street, x, z, _paints(rng))))
    return items


def _furniture(street: Street, plan: Plan) -> list[Item]:
    """Lamps, signs, lights and trees along the kerbs."""
    rng = street.rng
    items: list[Item] = []
    for side, kerb in ((-1, plan.left), (1, plan.right)):
        edge = kerb + 0.6 * side
        for z in np.arange(rng.uniform(7, 16), 70, rng.uniform(14, 22)).tolist():
            arm = -side * rng.uniform(0.8, 2)
            items.append((z, partial(things.pole, street, plan.x(edge, z), z, rng.uniform(5, 8), arm)))
        signs = (rng.uniform(9, 20), rng.uniform(12, 40))[: rng.integers(0, 3)]
        items += [(z, partial(things.traffic_sign, street, plan.x(edge, z), z)) for z in signs]
        if rng.random() < 0.4:
            for z in np.arange(rng.uniform(8, 14), 75, rng.uniform(7, 13)).tolist():
                if not plan.crossing - 3 < z < plan.crossing + 10:
                    x = plan.x(kerb + 1.2 * side, z)
                    items.append((z, partial(things.tree, street, x, z, rng.uniform(5, 8), plan.leaves)))
        if plan.crossing < math.inf:
            z, arm = plan.crossing - 3.8, -side * rng.uniform(2.5, 4) * (rng.random() < 0.5)
            items.append((z, partial(things.traffic_light, street, plan.x(edge, z), z, arm)))
    return items


def _frame(street: Street) -> None:
    """The own bonnet at the bottom, and the strips at the edges that no camera saw."""
    rng, bottom = street.rng, float(street.y.max())
    paint, rise = PAINTS[rng.integers(len(PAINTS))] * 0.6, rng.uniform(0.025, 0.045)
    view = street.at(EGO_VEHICLE, 0.0).window(0, bottom - rise - 0.01, 1, 1)
    edge = bottom - rise + 0.12 * (view.x - 0.5) ** 2
    shine = smooth((view.y - edge) / 0.03)[..., None]
    streak = 0.75 + 0.4 * noise(street.lattice, 5 * view.x, 60 * (view.y - edge))[..., None]
    view.cover((0.55 * street.air * (1 - shine) + paint * shine) * streak, edge - view.y)
    strip = max(1, round(0.0035 * street.long_side))
    for part, label in (
        (np.s_[:, :strip], OUT_OF_ROI), (np.s_[:, -strip:], OUT_OF_ROI), (np.s_[-strip:], OUT_OF_ROI),
        (np.s_[:strip], RECTIFICATION_BORDER),
    ):  # fmt: skip
        street.target[part], street.pixels[part] = label, 0


def draw(size: int, rare: str, rng: np.random.Generator) -> tuple[Image.Image, Image.Image]:
    """One picture and its label ids."""
    shape = (size // 2, size)
    y, x = ((np.indices(shape)[k] + 0.5).astype(np.float32) / size for k in (0, 1))
    height, turn = rng.uniform(0.35, 0.95), rng.uniform(0, 2 * math.pi)
    flat = math.sqrt(1 - height * height)
    sun = np.array((flat * math.cos(turn), height, flat * math.sin(turn)))
    light = np.array((sun[0], -sun[1], 0.6))
    sky = SKIES[rng.integers(len(SKIES))]
    street = Street(
        x, y, np.zeros((*shape, 3), np.float32), np.zeros(shape, np.uint8), size,
        (light / np.linalg.norm(light)).tolist(), rng.random((64, 64), np.float32), rng,
        eye=rng.uniform(1.2, 1.5), focal=rng.uniform(1.0, 1.2),
        vanishing=(rng.uniform(0.42, 0.58), rng.uniform(0.19, 0.24)), air=sky[1], sun=sun,
    )  # fmt: skip
    plan = _plan(rng, rare)
    paint_sky(street, sky)
    paint_skyline(street, plan)
    paint_ground(street, plan)
    for side in (-1, 1):
        _paint_row(street, plan, side)
    items = _traffic(street, plan) + _people(street, plan) + _furniture(street, plan)
    for _, paint in sorted(items, key=lambda item: -item[0]):
        paint()
    _frame(street)
    street.pixels *= np.float32(rng.uniform(1.0, 1.25))
    return develop(street), Image.fromarray(street.target)
