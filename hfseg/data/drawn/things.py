"""What stands in a street and stays there: houses, walls, fences, trees, poles, lights and signs.

Every function paints one thing at its place in metres and labels it with the official Cityscapes label id.
"""

import math

import numpy as np

from hfseg.data.drawn.camera import Decal, Pose, Street, block, box, foliage, inside, plate, shade, sheet, wall
from hfseg.data.drawn.canvas import Array, Point, noise, texture
from hfseg.data.drawn.ids import BUILDING, DYNAMIC, FENCE, POLE, STATIC, TRAFFIC_LIGHT, TRAFFIC_SIGN, VEGETATION, WALL

GLASS, DARK, STEEL, WHITE, RED = (58, 68, 80), (36, 36, 40), (128, 130, 132), (232, 232, 226), (190, 40, 40)


def facade(street: Street, a: Point, b: Point, height: float, colours: Array) -> None:
    """A house's front with rows of windows, and shops at the bottom."""
    rng = street.rng
    view, along, up, distance, columns, rows, light = wall(street, a, b, 0, height)
    storey, bay, right = rng.uniform(2.9, 3.6), rng.uniform(1.7, 3.2), rng.uniform(0, 50)
    kind = str(rng.choice(("bricks", "plain", "plain", "blobs", "planks")))
    clear = np.clip(columns / 8, 0, 1) * 0.8
    mix = (clear * texture(kind, street.lattice, 1.2 * along + right, 1.2 * up))[..., None]
    colour = colours[0] * (1 - mix) + colours[1] * mix
    colour *= (0.84 + 0.3 * noise(street.lattice, 0.15 * along + right, 0.2 * up))[..., None]
    ledge = inside(up, storey, 0, 0.07, rows) * (up > 1)
    colour *= (1 + 0.22 * ledge)[..., None]
    lower, upper = rng.choice(((0.2, 0.76), (0.28, 0.82), (0.1, 0.88))).tolist()
    pane = inside(along, bay, 0.5 - lower, 0.5 + lower, columns) * inside(up, storey, 0.28, upper, rows)
    frame = inside(along, bay, 0.42 - lower, 0.58 + lower, columns) * inside(up, storey, 0.22, upper + 0.05, rows)
    if rng.random() < 0.6:  # shop windows
        shop = (up < storey * 0.95) & (up > 0.1)
        pane = np.where(shop, inside(along, 2 * bay, 0.06, 0.94, columns) * (up < 0.72 * storey), pane)
        frame = np.where(shop, pane, frame)
        sign = np.clip((0.12 * storey - np.abs(up - 0.84 * storey)) * rows + 0.5, 0, 1)[..., None] * 0.85
        colour += sign * (colours[2] - colour)
    cell = np.floor(along / bay).astype(np.int32) * 7 + np.floor(up / storey).astype(np.int32) * 13
    shine = street.lattice[cell % 64, (cell // 3) % 64]
    glass = np.array(GLASS, np.float32) + (shine * shine)[..., None] * (0.85 * street.air - GLASS)
    colour += (frame * (up < height - 0.4))[..., None] * (colours[0] * 1.18 - colour)
    colour += (pane * (up < height - 0.4))[..., None] * (glass / light - colour)
    base = 0.8 + 0.2 * np.clip(up / 2, 0, 1)
    view.cover(colour * (light * base)[..., None], distance)


def house(street: Street, near: Point, far: Point, height: float, colours: Array, end: bool) -> None:
    """A house along the street, from its near to its far corner: its end if that is free, its roof, its front."""
    street = street.at(BUILDING, near[1])
    out = math.copysign(11.0, near[0])
    if end:
        facade(street, (near[0] + out, near[1]), near, height, colours)
    if street.rng.random() < 0.6:
        ridge, back = height + street.rng.uniform(1.5, 3.5), math.copysign(4.0, near[0])
        roof = colours[3] * 0.72
        gable = [(near[0], height, near[1]), (near[0] + back, ridge, near[1]), (near[0] + 2 * back, height, near[1])]
        plate(street, street.project(gable).tolist(), colours[0] * 0.8)
        slope = [(near[0], height, near[1]), (far[0], height, far[1])]
        slope += [(far[0] + back, ridge, far[1]), (near[0] + back, ridge, near[1])]
        plate(street.at(BUILDING, 0.5 * (near[1] + far[1])), street.project(slope).tolist(), roof)
    facade(street, near, far, height, colours)


def barrier(street: Street, a: Point, b: Point, height: float, colours: Array) -> None:
    """A free-standing wall of stone or concrete, with a coping."""
    street = street.at(WALL, a[1])
    view, along, up, distance, columns, rows, light = wall(street, a, b, 0, height)
    kind = str(street.rng.choice(("bricks", "planks", "plain", "blobs")))
    mix = (texture(kind, street.lattice, 1.6 * along, 2.4 * up) * np.clip(columns / 6, 0.1, 1))[..., None]
    stain = 0.75 + 0.4 * noise(street.lattice, 0.5 * along, 0.9 * up)
    coping = 1 + 0.25 * np.clip((up - height + 0.18) * rows + 0.5, 0, 1)
    shade = light * stain * coping * (0.82 + 0.18 * np.clip(up, 0, 1))
    view.cover((colours[0] * (1 - mix) + colours[1] * mix) * shade[..., None], distance)


def fence(street: Street, a: Point, b: Point, height: float, colour: Array) -> None:
    """Bars or boards with gaps. What shows between them is labelled fence, as annotators have it."""
    street = street.at(FENCE, a[1])
    view, along, up, distance, columns, rows, light = wall(street, a, b, 0, height)
    pitch, bar = street.rng.choice(((0.5, 0.2), (0.34, 0.55), (0.8, 0.1))).tolist()
    bars = inside(along, pitch, 0.5 - bar / 2, 0.5 + bar / 2, columns)
    rails = inside(up - 0.02, height * 0.47, 0.8, 1.0, rows)
    posts = inside(along, 2.6, 0.0, 0.06, columns)
    solid = np.maximum(np.maximum(bars, rails), posts)
    view.mark(distance)
    alpha = solid * np.clip(0.5 - distance * np.float32(view.long_side), 0, 1)
    view.pixels[...] += alpha[..., None] * (colour * np.float32(light) - view.pixels)


def tree(street: Street, x: float, z: float, height: float, colours: Array) -> None:
    """A trunk and a crown; both are vegetation."""
    street, rng = street.at(VEGETATION, z), street.rng
    thick = rng.uniform(0.1, 0.2)
    sheet(street, x, z).bar((0, 0), (rng.uniform(-0.3, 0.3), 0.6 * height), thick, 0.6 * thick, (92, 80, 68))
    crown = rng.uniform((-0.24, 0.5, 0.17), (0.24, 0.9, 0.27), (6, 3)) * height
    foliage(street, x, z, crown, colours)


def hedge(street: Street, a: Point, b: Point, height: float, colours: Array) -> None:
    """Bushes and trees from a to b, the far ones first."""
    street, rng = street.at(VEGETATION, a[1]), street.rng
    steps = max(2, round(math.hypot(b[0] - a[0], b[1] - a[1]) / 6))
    for share in np.linspace(1, 0.1, steps).tolist():
        x, z = a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1])
        clumps = rng.uniform((-2.2, 0.1, 0.25), (2.2, 0.8, 0.4), (6, 3)) * np.array((1, height, height))
        clumps[:, 2] = np.minimum(clumps[:, 2], 2.2)
        foliage(street.at(VEGETATION, z), x, z, clumps, colours)


def pole(street: Street, x: float, z: float, height: float, arm: float) -> None:
    """A lamp post; `arm` metres of it reach over the road."""
    post, tone = sheet(street.at(POLE, z), x, z), np.array(STEEL) * street.rng.uniform(0.45, 1.1)
    post.bar((0, 0), (0, height), 0.1, 0.06, tone)
    if arm:
        post.bar((0, height), (arm, height + 0.2), 0.05, 0.05, tone)
        post.bar((arm, height + 0.2), (1.15 * arm, height + 0.2), 0.08, 0.08, WHITE)


def traffic_light(street: Street, x: float, z: float, arm: float) -> None:
    """A pole with a box of three lamps, and a second box at the end of an arm."""
    lit = int(street.rng.integers(3))
    pole(street, x, z, 5.4 if arm else 3.4, arm)
    board = sheet(street.at(TRAFFIC_LIGHT, z), x, z)
    for right, up in ((0.0, 3.0), (arm, 5.5))[: 2 if arm else 1]:
        board.rectangle(right, up, 0.2, 0.55, (44, 46, 44))
        for i, colour in enumerate(((228, 40, 30), (240, 180, 40), (60, 200, 110))):
            board.disc(right, up + (1 - i) * 0.34, 0.14, [(1.0 if i == lit else 0.28) * c for c in colour])


def traffic_sign(street: Street, x: float, z: float) -> None:
    """A round, triangular, square or direction sign on its own pole, more or less faded; sometimes its grey back."""
    rng = street.rng
    up, kind = rng.uniform(2.0, 2.7), rng.integers(5)
    tone, grime = rng.uniform(0.5, 1.0), rng.uniform(0, 0.35)
    faded = [
        tone * ((1 - grime) * np.array(c) + grime * 128) for c in (RED, WHITE, DARK, (36, 84, 160), (222, 190, 60))
    ]
    red, white, dark, blue, yellow = faded
    field, mark = ((blue, white), (yellow, dark), (white, dark))[rng.integers(3)]
    pole(street, x, z, up + 0.2, 0)
    board = sheet(street.at(TRAFFIC_SIGN, z), x, z)
    if kind == 0:
        for radius, colour in ((0.4, red), (0.29, white), (0.12, dark)):
            board.disc(0, up, radius, colour)
    elif kind == 1:
        for share, colour in ((1.0, red), (0.62, white)):
            corners = [(0, up + 0.5 * share), (0.45 * share, up - 0.32 * share), (-0.45 * share, up - 0.32 * share)]
            plate(board.street, [board.at(*corner) for corner in corners], colour)
    elif kind == 2:
        board.rectangle(0, up, 0.38, 0.38, field)
        board.rectangle(0, up, 0.1, 0.24, mark)
    elif kind == 3:
        board.rectangle(0, up, 0.95, 0.5, field)
        for row in (-0.15, 0.2):
            board.rectangle(-0.15, up + row, 0.6, 0.07, mark)
    else:
        board.disc(0, up, 0.38, np.array(STEEL) * 1.1 * tone)


def bin_or_pillar(street: Street, x: float, z: float, colours: Array) -> None:
    """Void, static: a bin, a cabinet, or a pillar with posters."""
    street, tall = street.at(STATIC, z), (1.1, 1.4, 3.0)[street.rng.integers(3)]
    decals = [Decal(face, 0.12, 0.88, 0.3, 0.85, colours[1]) for face in ("rear", "left", "right")]
    pose = Pose(x, z, street.rng.uniform(-0.3, 0.3))
    shade(street, pose, 0.9, 0.9)
    block(street, box(0.05, tall, -0.4, 0.4, 0.42, decals), pose, colours[0] * 0.8)


def pram_or_dog(street: Street, x: float, z: float, colours: Array) -> None:
    """Void, dynamic: a pram or a dog."""
    body = sheet(street.at(DYNAMIC, z), x, z)
    body.shadow(0.4)
    if street.rng.random() < 0.5:
        body.bar((-0.2, 0.6), (0.25, 0.65), 0.2, 0.26, colours[0])
        body.bar((-0.25, 0.7), (-0.55, 1.0), 0.03, 0.03, DARK)
        for wheel in (-0.22, 0.26):
            body.disc(wheel, 0.14, 0.13, DARK)
        return
    body.bar((-0.3, 0.45), (0.25, 0.48), 0.13, 0.14, colours[0])
    body.bar((0.35, 0.65), (0.5, 0.62), 0.1, 0.06, colours[0] * 0.9)
    for leg in (-0.32, -0.2, 0.2, 0.3):
        body.bar((leg, 0.4), (leg, 0.04), 0.05, 0.04, colours[0] * 0.8)
