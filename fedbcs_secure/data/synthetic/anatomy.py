"""Who lies in the scanner: the organs of one simulated man, in millimetres.

Origin at mid-gland, x to the right, y to the back, z from −1 (base) to 1 (apex of the gland). The
organs around the gland stand in a table in the order of painting; each patient varies their place,
size and form.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from fedbcs_secure.data.synthetic.scanner import Scanner
from fedbcs_secure.data.synthetic.shapes import Field, Outline, draw_outline, random_field

GLAND_MM: Final = (25.5, 19.5)
"""Half axes (across, front to back) of a median gland of site A at its widest."""
_WARP: Final = 0.016
_WARP_WAVE_MM: Final = 90.0


@dataclass(frozen=True)
class Organ:
    """A row of the table. ``mirrored`` organs have a twin at −x with a form of its own.

    ``rim`` millimetres of ``rim_tissue`` surround it. It is seen for z around ``middle``, within
    ``half``, and narrows towards both ends. ``give`` is the share of the gland's extra width by
    which it moves aside, ``follow`` the share of the gland's narrowing which it follows inwards.
    """

    tissue: str
    x: float
    y: float
    a: float
    b: float
    degrees: float = 0.0
    mirrored: bool = True
    rim: float = 0.0
    rim_tissue: str = "cortex"
    roughness: float = 0.10
    middle: float = 0.0
    half: float = 4.0
    give: float = 0.0
    follow: float = 0.0


ORGANS: Final = (
    Organ("muscle", 12, -72, 11, 5, 8, roughness=0.15),  # rectus abdominis
    Organ("muscle", 88, -52, 15, 9, 50),  # sartorius, tensor fasciae latae
    Organ("muscle", 66, -45, 22, 15, 25, roughness=0.15),  # iliopsoas
    Organ("muscle", 38, -52, 16, 9, -20, roughness=0.15, middle=0.9, half=1.9),  # pectineus
    Organ("muscle", 119, 2, 11, 36, 4),  # gluteus medius
    Organ("muscle", 70, 66, 44, 17, -32, roughness=0.12),  # gluteus maximus
    Organ("vessel", 57, -66, 4.5, 4.5),  # femoral artery: flow void
    Organ("vein", 47, -63, 5.5, 4.5),  # femoral vein
    Organ("marrow", 80, 4, 30, 29, rim=2.0, roughness=0.08),  # acetabulum
    Organ("marrow", 67, 34, 13, 15, 20, rim=2.2),  # ischium
    Organ("joint", 84, -2, 25.5, 25.5, roughness=0.02),
    Organ("head", 84, -2, 23, 23, rim=1.6, roughness=0.02),  # femoral head
    Organ("muscle", 50, 8, 7.5, 34, 8, roughness=0.14, give=0.5),  # obturator internus
    Organ("marrow", 20, -45, 19, 9, 24, rim=2.0, middle=1.0, half=1.7),  # pubic bone
    Organ("joint", 0, -46, 2.8, 10, mirrored=False, middle=1.0, half=1.7),  # symphysis
    Organ(  # levator ani
        "muscle", 27, 20, 3.2, 27, 17, middle=0.8, half=1.8, give=0.8, follow=0.45
    ),
    Organ("bone", 0, 82, 9, 6, mirrored=False, rim=1.5, roughness=0.15),  # coccyx
)


@dataclass(frozen=True, eq=False)
class Nodule:
    """A round nodule of the central gland; centre and radius in gland half axes."""

    x: float
    y: float
    z: float
    radius: float
    brightness: float


@dataclass(frozen=True, eq=False)
class Anatomy:
    """One man, drawn once; every slice of his is a cut through this."""

    tilt: float
    shift: tuple[float, float]
    warp: tuple[Field, Field]
    body: Outline
    fat_mm: float
    organs: tuple[tuple[Organ, Outline], ...]
    bladder: Outline
    rectum: Outline
    gas: bool
    gland: Outline
    central: Outline
    nodules: tuple[Nodule, ...]
    vesicles: tuple[Outline, ...]
    plexus: tuple[Outline, ...]


def draw_anatomy(rng: np.random.Generator, device: Scanner, size: int) -> Anatomy:
    """A man of the site's case mix. Uses only :data:`~.scanner.CASE_MIX` fields of ``device``."""
    extent = device.field_of_view_mm
    habitus = 1 + 0.05 * float(np.clip(rng.standard_normal(), -2, 2))
    tilt = math.radians(4) * float(np.clip(rng.standard_normal(), -2, 2))
    across, down = np.clip(rng.standard_normal(2), -2, 2)
    shift = (4.0 * float(across), 4.0 * float(down) + 2.0)
    amount = _WARP * extent / 2
    warp = (
        amount * random_field(rng, extent, size, _WARP_WAVE_MM),
        amount * random_field(rng, extent, size, _WARP_WAVE_MM),
    )
    fat = 15 + 8 * float(rng.uniform())
    body = draw_outline(
        rng, 0, 3, 112 * habitus + fat, 81 * habitus + fat, roughness=0.035, change=0.1
    )

    volume = device.gland_volume * math.exp(0.25 * float(np.clip(rng.standard_normal(), -2, 2)))
    grow = volume ** (1 / 3)
    gland = _gland(rng, grow)
    extra = gland.a - GLAND_MM[0]

    organs: list[tuple[Organ, Outline]] = []
    for organ in ORGANS:
        for side in (1, -1) if organ.mirrored else (1,):
            organs.append((organ, _place(rng, organ, side, habitus, extra)))

    # The central gland grows with the whole: hyperplasia.
    share = min(0.66 + 0.10 * (grow - 1) + 0.04 * float(rng.standard_normal()), 0.8)
    central = draw_outline(
        rng, gland.x, gland.y - 0.17 * gland.b, gland.a * share, gland.b * share, roughness=0.10
    )
    radius = 13.0 * device.rectum * (1 + 0.15 * float(rng.uniform(-1, 1)))
    coil = device.rectum > 1
    gas = bool(rng.uniform() < 0.45) or coil
    rectum = draw_outline(
        rng,
        2 * float(rng.standard_normal()),
        gland.b + radius + 3.5,
        radius * 1.08,
        radius,
        roughness=0.03 if coil else 0.08,
    )
    bladder = draw_outline(
        rng, 0, -0.55 * gland.b - 12, 33 * habitus + extra, 23.0, roughness=0.07, change=0.2
    )
    return Anatomy(
        tilt,
        shift,
        warp,
        body,
        fat,
        tuple(organs),
        bladder,
        rectum,
        gas,
        gland,
        central,
        _nodules(rng, grow),
        tuple(_cluster(rng, 10, (15, gland.b * 0.75 + 3), (11, 3.0), (4.0, 2.4), mirrored=True)),
        tuple(_cluster(rng, 12, (gland.a + 3.5, 0), (1.6, 12.0), (1.9, 1.5), mirrored=True)),
    )


def radius_at(z: float) -> float:
    """The gland's radius at height z relative to its largest: sqrt(1 − (0.86 z + 0.1)²)."""
    return math.sqrt(max(1 - (0.86 * z + 0.1) ** 2, 0.0))


def _gland(rng: np.random.Generator, grow: float) -> Outline:
    wide, deep = 1 + 0.07 * np.clip(rng.standard_normal(2), -2, 2)
    a, b = GLAND_MM[0] * grow * float(wide), GLAND_MM[1] * grow * float(deep)
    gland = draw_outline(rng, 0, 0, a, b, roughness=0.07, change=0.4)
    wobble = gland.wobble.copy()
    wobble[:, 1] += 0.055 * np.exp(-0.5j * np.pi)  # k = 3: chestnut, its flat side at the rectum
    return replace(gland, wobble=wobble)


def _place(
    rng: np.random.Generator, organ: Organ, side: int, habitus: float, extra: float
) -> Outline:
    dx, dy, da, db, turn = np.clip(rng.standard_normal(5), -2, 2)
    return draw_outline(
        rng,
        side * (organ.x * habitus + organ.give * extra) + 0.9 * float(dx),
        organ.y * habitus + 0.9 * float(dy),
        organ.a * habitus * (1 + 0.06 * float(da)),
        organ.b * habitus * (1 + 0.06 * float(db)),
        angle=side * math.radians(organ.degrees + 4 * float(turn)),
        roughness=organ.roughness,
    )


def _nodules(rng: np.random.Generator, grow: float) -> tuple[Nodule, ...]:
    draws = rng.uniform(-1, 1, (26, 5))
    count = min(round(12 * grow), len(draws))
    return tuple(
        Nodule(0.8 * x, 0.8 * y, 0.95 * z, 0.20 + 0.09 * r, 0.6 * b)
        for x, y, z, r, b in draws[:count].tolist()
    )


def _cluster(
    rng: np.random.Generator,
    count: int,
    centre: tuple[float, float],
    spread: tuple[float, float],
    radii: tuple[float, float],
    *,
    mirrored: bool,
) -> list[Outline]:
    """Small tubes seen end on: seminal vesicles, veins."""
    parts = []
    for i in range(count):
        dx, dy = rng.uniform(-1, 1, 2)
        side = -1 if mirrored and i % 2 else 1
        x, y = side * (centre[0] + spread[0] * float(dx)), centre[1] + spread[1] * float(dy)
        grow = 1 + 0.3 * float(rng.uniform(-1, 1))
        angle = float(rng.uniform(0, math.pi))
        parts.append(draw_outline(rng, x, y, radii[0] * grow, radii[1] * grow, angle=angle))
    return parts
