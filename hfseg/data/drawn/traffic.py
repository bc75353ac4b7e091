"""Vehicles, cycles and people, at their places in metres, labelled with the official Cityscapes label ids."""

import math
from collections.abc import Sequence

import numpy as np

from hfseg.data.drawn.camera import Decal, Hull, Pose, Sheet, Street, block, box, plate, polygon, shade, sheet
from hfseg.data.drawn.canvas import Array, Point
from hfseg.data.drawn.ids import BUS, CAR, MOTORCYCLE, PERSON, RIDER, TRAIN, TRUCK

GLASS, DARK, STEEL, WHITE = (58, 68, 80), (36, 36, 40), (128, 130, 132), (232, 232, 226)
LAMP, TAIL, AMBER = (246, 242, 222), (176, 34, 30), (226, 178, 64)
SKINS = ((232, 190, 160), (206, 156, 120), (150, 104, 76), (98, 68, 52))


def _wheels(street: Street, pose: Pose, alongs: Sequence[float], half: float, radius: float) -> None:
    """Dark discs on the visible side, and the tread seen from behind or from the front."""
    turn = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    facing = half if pose.x * math.cos(pose.yaw) - pose.z * math.sin(pose.yaw) < 0 else -half
    ring = np.stack([np.cos(turn), np.sin(turn)], 1) * radius
    for along in alongs:
        tread = [
            (along, up * radius, side) for up, side in ((0, half - 0.22), (0, half), (1.2, half), (1.2, half - 0.22))
        ]
        rims = [(along + share * u, radius + share * v, facing) for share in (1.0, 0.55) for u, v in ring.tolist()]
        points = street.project(pose.place([*tread, *((a, up, -side) for a, up, side in tread), *rims])).tolist()
        for piece, colour in ((points[:4], DARK), (points[4:8], DARK), (points[8:16], DARK), (points[16:], STEEL)):
            plate(street, piece, colour)


def car(street: Street, pose: Pose, colour: Array) -> None:
    """A saloon, an estate or a small van."""
    street, rng = street.at(CAR, pose.z), street.rng
    half, long, tall = rng.uniform(0.84, 0.93), rng.uniform(1.9, 2.3), rng.uniform(1.4, 1.62)
    tail, nose = ((-0.9, 0.62), (-0.68, 0.5), (-0.95, 0.75))[rng.integers(3)]  # where the roof begins and ends
    shade(street, pose, 2 * long, 2 * half)
    block(
        street,
        Hull(((-long + 0.2, 0.1), (-long + 0.2, 0.4), (long - 0.2, 0.4), (long - 0.2, 0.1)), 0.8, 0.8),
        pose,
        DARK,
    )
    _wheels(street, pose, [-0.62 * long, 0.62 * long], half, 0.33)
    lights = [Decal("rear", *span, 0.55, 0.82, TAIL) for span in ((0.03, 0.2), (0.8, 0.97))]
    lights += [Decal("front", *span, 0.45, 0.78, LAMP) for span in ((0.04, 0.24), (0.76, 0.96))]
    plates = [Decal("rear", 0.37, 0.63, 0.3, 0.5, WHITE), Decal("front", 0.37, 0.63, 0.08, 0.26, WHITE)]
    trim = [Decal("front", 0.3, 0.7, 0.42, 0.7, DARK), Decal("rear", 0.0, 1.0, 0.0, 0.14, DARK)]
    trim += [Decal("side", 0.0, 1.0, 0.0, 0.1, DARK), Decal("side", 0.42, 0.425, 0.12, 0.95, DARK)]
    body = ((-long, 0.24), (-long + 0.06, 0.93), (long - 0.1, 0.76), (long, 0.24))
    block(street, Hull(body, half, half * 0.97, [*trim, *lights, *plates]), pose, colour)
    panes = [Decal(f, 0.07, 0.93, 0.1, 0.9, GLASS) for f in ("rear", "front")]
    panes += [Decal("side", 0.12, 0.48, 0.1, 0.86, GLASS), Decal("side", 0.53, 0.9, 0.1, 0.86, GLASS)]
    cabin = ((-long + 0.1, 0.9), (tail * long, tall), (nose * long * 0.5, tall), (nose * long, 0.82))
    block(street, Hull(cabin, half * 0.95, half * 0.72, panes), pose, colour)


def bus(street: Street, pose: Pose, colours: Array) -> None:
    """A city bus: one long row of panes, doors, and where it goes above the windscreen."""
    street = street.at(BUS, pose.z)
    shade(street, pose, 11, 2.5)
    _wheels(street, pose, [-3.0, 3.2], 1.25, 0.5)
    decals = [Decal("side", 0.0, 1.0, 0.0, 0.16, colours[1])]
    decals += [Decal("side", 0.02 + 0.16 * i, 0.165 + 0.16 * i, 0.42, 0.82, GLASS) for i in range(6)]
    decals += [Decal("side", left, left + 0.1, 0.08, 0.82, GLASS) for left in (0.34, 0.86)]
    decals += [Decal("rear", 0.1, 0.9, 0.5, 0.82, GLASS), Decal("front", 0.06, 0.94, 0.32, 0.8, GLASS)]
    decals += [Decal("front", 0.2, 0.8, 0.85, 0.96, AMBER), Decal("rear", 0.0, 1.0, 0.0, 0.14, DARK)]
    decals += [Decal("rear", a, a + 0.1, 0.18, 0.32, TAIL) for a in (0.04, 0.86)]
    decals += [Decal("front", a, a + 0.16, 0.1, 0.2, LAMP) for a in (0.06, 0.78)]
    block(street, box(0.3, 3.0, -5.5, 5.5, 1.25, decals), pose, colours[0])


def truck(street: Street, pose: Pose, colours: Array) -> None:
    """A cab, a gap, and a closed or an open load."""
    street = street.at(TRUCK, pose.z)
    shade(street, pose, 8, 2.4)
    _wheels(street, pose, [-2.6, -1.5, 2.7], 1.2, 0.5)
    high = (3.6, 3.3, 1.9)[street.rng.integers(3)]
    back = [Decal("rear", 0.49, 0.51, 0.0, 1.0, DARK), Decal("side", 0.0, 1.0, 0.0, 0.06, DARK)]
    back += [Decal("side", 0.15, 0.85, 0.45, 0.7, colours[2]), Decal("rear", 0.04, 0.16, 0.02, 0.07, TAIL)]
    back += [Decal("rear", 0.84, 0.96, 0.02, 0.07, TAIL), Decal("rear", 0.0, 1.0, 0.0, 0.02, DARK)]
    load = box(0.9, high, -4.0, 1.7, 1.25, back)
    cab = [Decal("front", 0.07, 0.93, 0.5, 0.88, GLASS), Decal("side", 0.3, 0.85, 0.52, 0.86, GLASS)]
    cab += [Decal("front", 0.05, 0.22, 0.08, 0.2, LAMP), Decal("front", 0.78, 0.95, 0.08, 0.2, LAMP)]
    cab += [Decal("front", 0.28, 0.72, 0.14, 0.42, DARK)]
    parts = [(load, colours[0]), (box(0.45, 2.7, 2.0, 4.0, 1.15, cab, 0.25), colours[1])]
    if math.cos(pose.yaw) > 0:
        parts.reverse()
    block(street, box(0.4, 0.95, -3.9, 3.8, 0.95, []), pose, DARK)
    for hull, colour in parts:
        block(street, hull, pose, colour)


def train(street: Street, pose: Pose, colours: Array, sections: int) -> None:
    """A tram: low sections joined by dark bellows, a sloping nose at both ends, skirts over its wheels."""
    street, length, away = street.at(TRAIN, pose.z), 8.0, math.cos(pose.yaw) > 0
    shade(street, pose, length * sections, 2.4)
    sides = [Decal("side", 0.0, 1.0, 0.0, 0.24, colours[1]), Decal("side", 0.0, 1.0, 0.9, 1.0, colours[1])]
    sides += [Decal("side", 0.04, 0.96, 0.45, 0.84, GLASS), Decal("side", 0.44, 0.56, 0.04, 0.84, DARK)]
    for face, lamp in (("front", LAMP), ("rear", TAIL)):
        sides += [Decal(face, 0.08, 0.92, 0.42, 0.82, GLASS), Decal(face, 0.25, 0.75, 0.86, 0.96, AMBER)]
        sides += [Decal(face, 0.0, 1.0, 0.0, 0.18, colours[1])]
        sides += [Decal(face, left, left + 0.14, 0.22, 0.32, lamp) for left in (0.08, 0.78)]
    for i in range(sections)[:: -1 if away else 1]:  # the far ones first
        rear, front = (i - sections / 2) * length + 0.3, (i + 1 - sections / 2) * length - 0.3
        tail, nose = rear + (0.7 if i == 0 else 0.0), front - (0.7 if i == sections - 1 else 0.0)
        joint = rear - 0.6 if not away else front
        if (i > 0) if not away else (i + 1 < sections):
            block(street, box(0.3, 3.1, joint, joint + 0.6, 1.05, []), pose, DARK)
        block(
            street, Hull(((rear, 0.22), (tail, 3.3), (nose, 3.3), (front, 0.22)), 1.22, 1.12, sides), pose, colours[0]
        )


def person(street: Street, x: float, z: float, colours: Array, turn: float) -> None:
    """Someone walking or standing; `turn` -1..1 is where they face."""
    rng = street.rng
    body = sheet(street.at(PERSON, z), x, z, size=rng.uniform(0.92, 1.06))
    body.shadow(0.3)
    swing, wide = rng.uniform(-0.3, 0.3), 0.17 * (1 - 0.4 * abs(turn))
    for side in (-1, 1):
        knee, ankle = (0.07 * side + 0.5 * swing * side, 0.48), (0.08 * side + swing * side, 0.07)
        _leg(body, (0.08 * side, 0.9), knee, ankle, turn, colours[0])
    _trunk(body, (0, 0.9), (0, 1.4), wide, [(-wide - swing, 0.92), (wide + swing, 0.92)], turn, colours[1])
    if rng.random() < 0.25:  # a carried bag is part of who carries it
        body.bar((wide + 0.08, 0.8), (wide + 0.08, 0.65), 0.09, 0.13, colours[2])


def _rider(street: Street, x: float, z: float, seat: float, turn: float, colours: Array) -> None:
    """Someone on a saddle `seat` metres above the ground, leaning to the bars."""
    body, lean = sheet(street.at(RIDER, z), x, z), 0.35 * turn
    for side in (-1, 1):
        knee = (0.42 * turn + 0.1 * side, seat - 0.25 + 0.12 * side)
        _leg(body, (0.08 * side, seat), knee, (0.2 * turn + 0.1 * side, 0.28 + 0.08 * side), turn, colours[0])
    hands = [(0.55 * turn + side * (0.08 + 0.2 * (1 - abs(turn))), seat + 0.18) for side in (-1, 1)]
    _trunk(body, (0, seat), (lean, seat + 0.5), 0.17 * (1 - 0.4 * abs(turn)), hands, turn, colours[1])


def _leg(body: Sheet, hip: Point, knee: Point, ankle: Point, turn: float, colour: Array) -> None:
    body.bar(hip, knee, 0.095, 0.07, colour * 0.7)
    body.bar(knee, ankle, 0.07, 0.05, colour * 0.65)
    body.bar(ankle, (ankle[0] + 0.1 * turn, ankle[1] - 0.03), 0.05, 0.045, DARK)


def _trunk(
    body: Sheet, hip: Point, shoulder: Point, wide: float, hands: list[Point], turn: float, colour: Array
) -> None:
    """Arms, coat and head, the far arm behind the coat."""
    rng = body.street.rng
    skin, hair = SKINS[rng.integers(4)], np.array(DARK) * rng.uniform(0.8, 3.5)
    x, y = shoulder
    body.bar((x - wide, y - 0.04), hands[0], 0.06, 0.045, colour * 0.85)
    body.bar(hip, shoulder, 0.15, wide, colour)
    body.bar((x + wide, y - 0.04), hands[1], 0.06, 0.045, colour * 0.85)
    head = 1.15 * x
    body.bar((x, y + 0.06), (1.1 * x, y + 0.16), 0.055, 0.055, skin)
    body.bar((head, y + 0.25), (head, y + 0.28), 0.1, 0.11, hair)
    body.bar((head + 0.03 * turn, y + 0.21), (head + 0.03 * turn, y + 0.23), 0.075, 0.085, skin)


def cycle(street: Street, x: float, z: float, turn: float, label: int, colours: Array, ridden: bool) -> None:
    """A bicycle or a motorcycle, ridden or parked; `turn` -1..1 is how much of its side is seen, and which."""
    body, motor = sheet(street.at(label, z), x, z, turn), label == MOTORCYCLE
    body.shadow(0.6)
    (_motorcycle if motor else _bicycle)(body, colours)
    bars = sheet(body.street, x, z, 1 - abs(turn))
    bars.bar((-0.3, 1.02), (0.3, 1.02), 0.025, 0.025, DARK)
    if ridden:
        _rider(street, x - 0.2 * turn, z, 0.88 if motor else 0.98, turn, colours[2:])


def _cycle_wheel(body: Sheet, hub: float, radius: float, tyre: float, width: float) -> None:
    """A tyre; the whole disc is the cycle's, as annotators have it."""
    street, (x, y) = body.street, body.at(hub, radius)
    wide, high = body.scale * max(abs(body.turn) * radius, width), body.scale * radius
    view = street.around(np.array(((x - wide, y - high), (x + wide, y + high))), tyre * body.scale)
    away = np.sqrt(((view.x - x) / wide) ** 2 + ((view.y - y) / high) ** 2) - 1
    view.cover(np.array(DARK, np.float32), np.abs(away) * wide - max(tyre * body.scale, 0.5 / street.long_side))
    view.mark(away)


def _motorcycle(body: Sheet, colours: Array) -> None:
    for hub in (-0.68, 0.68):
        _cycle_wheel(body, hub, 0.31, 0.085, 0.1)
        body.disc(hub, 0.31, 0.1, STEEL)
    body.bar((-0.5, 0.72), (0.05, 0.7), 0.1, 0.1, DARK)
    body.bar((0.0, 0.78), (0.34, 0.82), 0.15, 0.15, colours[0])
    body.bar((-0.25, 0.42), (0.25, 0.42), 0.17, 0.17, STEEL)
    body.bar((-0.6, 0.62), (-0.35, 0.6), 0.12, 0.12, colours[0])
    body.bar((0.45, 0.95), (0.68, 0.31), 0.05, 0.05, STEEL)
    body.bar((0.4, 0.98), (0.52, 1.15), 0.1, 0.1, colours[1])
    body.disc(0.58, 0.86, 0.09, LAMP)


def _bicycle(body: Sheet, colours: Array) -> None:
    rear, front, pedals, saddle = (-0.53, 0.34), (0.53, 0.34), (-0.05, 0.3), (-0.2, 0.92)
    for hub in (rear, front):
        _cycle_wheel(body, hub[0], 0.34, 0.035, 0.03)
    outline = [body.at(*point) for point in (rear, (-0.15, 0.9), (0.4, 0.95), front, (0, 0.2))]
    view = body.street.around(np.array(outline))
    view.mark(polygon(view, outline))
    tubes = ((rear, pedals), (pedals, (0.36, 0.82)), ((-0.18, 0.8), (0.36, 0.82)), (pedals, saddle))
    for a, b in (*tubes, (rear, (-0.18, 0.8)), (front, (0.36, 1.0))):
        body.bar(a, b, 0.027, 0.027, colours[0])
    body.bar((-0.3, 0.93), (-0.1, 0.95), 0.045, 0.045, DARK)
