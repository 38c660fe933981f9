"""Scenes of one coloured shape on a coloured, textured ground, and how they are drawn.

A scene is drawn from a seed and holds everything its picture needs, so equal scenes give equal
pixels. Pictures are 64x64 RGB, rendered at four times the size and averaged down.
"""

import math
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

SIDE_PX = 64
SUPERSAMPLING = 4
MAX_SHIFT_PX = 7.0
RADIUS_PX = (14.0, 24.0)

RGB = tuple[int, int, int]
Point = tuple[float, float]

SHAPES = (
    "circle",
    "square",
    "triangle",
    "star",
    "heart",
    "cross",
    "ring",
    "crescent",
    "arrow",
    "diamond",
)
COLOURS: dict[str, RGB] = {
    "red": (220, 38, 38),
    "orange": (249, 140, 22),
    "yellow": (250, 214, 30),
    "green": (34, 160, 74),
    "blue": (37, 99, 235),
    "purple": (140, 60, 200),
    "white": (245, 245, 245),
    "black": (24, 24, 27),
}
GROUNDS: dict[str, RGB] = {
    "red": (200, 50, 50),
    "orange": (240, 150, 50),
    "yellow": (245, 220, 90),
    "green": (70, 160, 90),
    "blue": (60, 110, 220),
    "purple": (140, 80, 190),
    "white": (245, 245, 245),
    "black": (30, 30, 34),
    "gray": (140, 144, 150),
    "pink": (245, 170, 200),
    "brown": (130, 84, 50),
}
TEXTURES = ("plain", "striped", "gradient")
TEXTURE_WEIGHTS = (4, 2, 2)

# Pairs a viewer could not tell apart once textured; such scenes are never drawn.
CLASHES = frozenset(
    frozenset(pair)
    for pair in (
        ("orange", "yellow"),
        ("red", "orange"),
        ("red", "pink"),
        ("blue", "purple"),
        ("orange", "brown"),
        ("black", "brown"),
        ("purple", "pink"),
        ("red", "brown"),
    )
)

LABELS = tuple(f"{colour} {shape}" for shape in SHAPES for colour in COLOURS)


@dataclass(frozen=True)
class Scene:
    """One picture's content; lengths in pixels of the final picture, angles in radians."""

    shape: str
    colour: str
    ground: str
    texture: str
    radius_px: float
    centre_px: Point
    turn: float
    hole: float
    fill: RGB
    base: RGB
    shade: RGB
    stripe_px: float
    stripe_offset: float
    stripes_across: bool
    gradient_angle: float

    @property
    def label(self) -> int:
        """Index into `LABELS`."""
        return LABELS.index(f"{self.colour} {self.shape}")


def clash(colour: str, ground: str) -> bool:
    """Whether a shape of this colour would be lost on this ground."""
    return colour == ground or frozenset((colour, ground)) in CLASHES


def scene(seed: int) -> Scene:
    """The scene of this seed."""
    rng = random.Random(seed)
    shape = rng.choice(SHAPES)
    colour = rng.choice(list(COLOURS))
    ground = rng.choice([name for name in GROUNDS if not clash(colour, name)])
    base = _jitter(GROUNDS[ground], rng, 12)
    texture = rng.choices(TEXTURES, TEXTURE_WEIGHTS)[0]
    turn = math.radians(MAX_TURN_DEGREES[shape])
    middle = SIDE_PX / 2
    return Scene(
        shape=shape,
        colour=colour,
        ground=ground,
        texture=texture,
        radius_px=rng.uniform(*RADIUS_PX),
        centre_px=(
            middle + rng.uniform(-MAX_SHIFT_PX, MAX_SHIFT_PX),
            middle + rng.uniform(-MAX_SHIFT_PX, MAX_SHIFT_PX),
        ),
        turn=rng.uniform(-turn, turn),
        hole=rng.uniform(0.52, 0.62),
        fill=_jitter(COLOURS[colour], rng, 10),
        base=base,
        shade=_shade(base, texture, rng),
        stripe_px=rng.uniform(10.0, 14.0),
        stripe_offset=rng.uniform(0.0, 2.0),
        stripes_across=rng.random() < 0.5,
        gradient_angle=rng.uniform(0.0, 2 * math.pi),
    )


def draw(content: Scene) -> tuple[Image.Image, Image.Image]:
    """The picture (64x64 RGB) and the shape's coverage (32x32, 0 to 255) of a scene."""
    picture = _ground(content)
    mask = Image.new("L", picture.size, 0)
    _fill_shape(ImageDraw.Draw(mask), content)
    picture.paste(content.fill, (0, 0), mask)
    return picture.reduce(SUPERSAMPLING), mask.reduce(2 * SUPERSAMPLING)


def _jitter(colour: RGB, rng: random.Random, spread: int) -> RGB:
    red, green, blue = (min(255, max(0, c + rng.randint(-spread, spread))) for c in colour)
    return red, green, blue


def _shade(base: RGB, texture: str, rng: random.Random) -> RGB:
    """The ground's second colour: lighter where the base is dark, else mostly darker."""
    dark = sum(base) < 240
    if texture == "gradient":
        return _lighten(base, 0.5) if dark else _darken(base, 0.55)
    if dark or (sum(base) < 600 and rng.random() < 0.5):
        return _lighten(base, 0.35)
    return _darken(base, 0.74)


def _lighten(colour: RGB, amount: float) -> RGB:
    red, green, blue = (int(c + (255 - c) * amount) for c in colour)
    return red, green, blue


def _darken(colour: RGB, factor: float) -> RGB:
    red, green, blue = (int(c * factor) for c in colour)
    return red, green, blue


def _ground(content: Scene) -> Image.Image:
    side = SIDE_PX * SUPERSAMPLING
    if content.texture == "gradient":
        return _gradient(content, side)
    picture = Image.new("RGB", (side, side), content.base)
    if content.texture == "striped":
        _stripes(ImageDraw.Draw(picture), content, side)
    return picture


def _gradient(content: Scene, side: int) -> Image.Image:
    rows, columns = np.mgrid[0:side, 0:side] / side - 0.5
    along = columns * math.cos(content.gradient_angle) + rows * math.sin(content.gradient_angle)
    weight = np.clip(along * 0.9 + 0.5, 0, 1)[..., None]
    blend = np.array(content.base) * (1 - weight) + np.array(content.shade) * weight
    return Image.fromarray(blend.astype(np.uint8))


def _stripes(pen: ImageDraw.ImageDraw, content: Scene, side: int) -> None:
    width = content.stripe_px * SUPERSAMPLING
    start = (content.stripe_offset - 2) * width
    while start < side:
        if content.stripes_across:
            pen.rectangle((0, start, side, start + width), fill=content.shade)
        else:
            pen.rectangle((start, 0, start + width, side), fill=content.shade)
        start += 2 * width


def _fill_shape(pen: ImageDraw.ImageDraw, content: Scene) -> None:
    radius = content.radius_px * SUPERSAMPLING
    x, y = (c * SUPERSAMPLING for c in content.centre_px)
    if content.shape == "circle":
        _disc(pen, x, y, radius * 0.95, 255)
    elif content.shape == "ring":
        _disc(pen, x, y, radius, 255)
        _disc(pen, x, y, radius * content.hole, 0)
    else:
        cos, sin = math.cos(content.turn), math.sin(content.turn)
        pen.polygon(
            [
                (x + radius * (px * cos - py * sin), y + radius * (px * sin + py * cos))
                for px, py in OUTLINES[content.shape]
            ],
            fill=255,
        )


def _disc(pen: ImageDraw.ImageDraw, x: float, y: float, radius: float, value: int) -> None:
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=value)


def _regular(corners: int, radius: float) -> list[Point]:
    angles = (2 * math.pi * i / corners - math.pi / 2 for i in range(corners))
    return [(radius * math.cos(a), radius * math.sin(a)) for a in angles]


def _star() -> list[Point]:
    angles = (math.pi * i / 5 - math.pi / 2 for i in range(10))
    radii = (1.05 if i % 2 == 0 else 0.44 for i in range(10))
    return [(r * math.cos(a), r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]


def _heart() -> list[Point]:
    """The usual parametric heart curve, scaled to about the unit circle."""
    points = []
    for i in range(48):
        t = 2 * math.pi * i / 48
        height = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((16 * math.sin(t) ** 3 / 17, -height / 17))
    return points


def _cross() -> list[Point]:
    near, far = 0.34, 0.98
    arm = [(-near, -far), (near, -far), (near, -near)]
    points = []
    for _ in range(4):
        points += arm
        arm = [(-y, x) for x, y in arm]
    return points


def _crescent() -> list[Point]:
    """The unit circle less a circle of radius 0.82 whose centre is shifted by 0.5."""
    shift, inner = 0.50, 0.82
    x = (shift**2 + 1 - inner**2) / (2 * shift)
    outer_start = math.acos(x)
    inner_start = math.atan2(-math.sin(outer_start), x - shift) + 2 * math.pi
    inner_stop = 2 * math.pi - inner_start
    points = []
    for i in range(33):
        a = outer_start + (2 * math.pi - 2 * outer_start) * i / 32
        points.append((math.cos(a), math.sin(a)))
    for i in range(33):
        a = inner_start + (inner_stop - inner_start) * i / 32
        points.append((shift + inner * math.cos(a), inner * math.sin(a)))
    return points


OUTLINES: dict[str, list[Point]] = {
    "square": [(-0.84, -0.84), (0.84, -0.84), (0.84, 0.84), (-0.84, 0.84)],
    "triangle": _regular(3, 1.08),
    "star": _star(),
    "heart": _heart(),
    "cross": _cross(),
    "crescent": _crescent(),
    "arrow": [
        (-1.02, -0.3),
        (0.08, -0.3),
        (0.08, -0.82),
        (1.02, 0.0),
        (0.08, 0.82),
        (0.08, 0.3),
        (-1.02, 0.3),
    ],
    "diamond": [(0, -1.1), (0.66, 0), (0, 1.1), (-0.66, 0)],
}

# Small enough that a turned square stays a square and not a diamond.
MAX_TURN_DEGREES = {
    "circle": 0.0,
    "square": 10.0,
    "triangle": 10.0,
    "star": 15.0,
    "heart": 12.0,
    "cross": 10.0,
    "ring": 0.0,
    "crescent": 30.0,
    "arrow": 12.0,
    "diamond": 8.0,
}
